"""How the submission of one job ended."""

from __future__ import annotations

from typing import Any, Literal, Protocol

import msgspec

from m2async.errors import CallError, M2AsyncError
from m2async.service import StartBatchJob

OutcomeState = Literal["started", "rejected", "unknown", "skipped"]
"""An outcome in one word; what was rejected without an attempt was skipped."""


class _Ended(msgspec.Struct, frozen=True, kw_only=True):
    """What every outcome has; `attempts` counts the calls that were sent.

    `before` says that it is what an earlier submission came to: nothing was sent for the job now.
    """

    key: str
    request: StartBatchJob
    attempts: int
    before: bool = False

    @property
    def state(self) -> OutcomeState:
        """The outcome in one word, as output lines have it."""
        raise NotImplementedError

    def to_line(self) -> dict[str, Any]:
        """The fields of one line of `--output jsonl`."""
        error: M2AsyncError | None = getattr(self, "error", None)
        candidates = self.candidates if isinstance(self, Started) else ()
        return {
            "key": self.key,
            "application_id": self.request.application_id,
            "job": self.request.job.name,
            "state": self.state,
            "execution_id": getattr(self, "execution_id", None),
            "attempts": self.attempts,
            "adopted": getattr(self, "adopted", False),
            "error": None if error is None else {"code": error.code, "message": error.message},
            **({"candidates": list(candidates)} if candidates else {}),
        }


class Started(_Ended, frozen=True, kw_only=True, gc=False):
    """The service answered with an execution id; `adopted` says that it was found among the service's executions.

    It is None where the job and others were surely started, and only which execution is whose cannot be told: theirs
    are the `candidates`.
    """

    execution_id: str | None
    request_id: str | None = None
    adopted: bool = False
    candidates: tuple[str, ...] = ()

    @property
    def state(self) -> OutcomeState:
        return "started"


class Rejected(_Ended, frozen=True, kw_only=True):
    """The job was surely not started: the service refused it, or with no attempt it was not sent."""

    error: M2AsyncError

    @property
    def state(self) -> OutcomeState:
        return "rejected" if self.attempts else "skipped"


class Unknown(_Ended, frozen=True, kw_only=True):
    """The whole request may have reached the service, and no readable answer says what became of it.

    `candidates` are the executions that may be the job's, where they were looked for.
    """

    error: CallError
    candidates: tuple[str, ...] = ()

    @property
    def state(self) -> OutcomeState:
        return "unknown"


Outcome = Started | Rejected | Unknown
"""How a job ended; each has its `key` and `request`, `state`, in `attempts` how many calls were sent, and `before`."""


class Attempted(Protocol):
    """What an outcome is of: a job on its way, or a row of a ledger."""

    @property
    def key(self) -> str: ...
    @property
    def request(self) -> StartBatchJob: ...
    @property
    def attempts(self) -> int: ...


def started(
    job: Attempted,
    execution_id: str | None,
    request_id: str | None = None,
    *,
    adopted: bool = False,
    before: bool = False,
    candidates: tuple[str, ...] = (),
) -> Started:
    """Make the outcome of a job that was started."""
    return Started(
        key=job.key,
        request=job.request,
        attempts=job.attempts,
        execution_id=execution_id,
        request_id=request_id,
        adopted=adopted,
        before=before,
        candidates=candidates,
    )


def rejected(job: Attempted, error: M2AsyncError) -> Rejected:
    """Make the outcome of a job that was surely not started."""
    return Rejected(key=job.key, request=job.request, attempts=job.attempts, error=error)


def unknown(job: Attempted, error: CallError, candidates: tuple[str, ...] = (), *, before: bool = False) -> Unknown:
    """Make the outcome of a job of which it is not known whether it was started."""
    return Unknown(
        key=job.key, request=job.request, attempts=job.attempts, before=before, error=error, candidates=candidates
    )
