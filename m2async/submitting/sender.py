"""How an attempt is sent: once, and signed with no later date than its intent states."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from inspect import signature
from typing import Protocol, cast

from m2async.errors import CallError, MiddlewareError
from m2async.loops import times_cancelled
from m2async.service import Sending, StartBatchJob, StartBatchJobResponse, is_execution_id
from m2async.texts import brief

SIGNED_WITHIN = 60.0
"""Seconds within which an attempt is signed, from its intent on.

More than credentials, a connection and a turn on it take in good order, where the bound for a connection is 5 s and
that for another's answer 60 s; and far less than the 5 minutes for which services take a signature. So a machine that
was suspended, or a process that was stopped, sends no intent of before: the job gets a new one.
"""

_FAR = 1e11
"""Seconds of the epoch, of the year 5138: what is further away is no time."""


class StartsBatchJobs(Protocol):
    """What a submitter needs of a client; M2Client is one.

    Where `start_batch_job` takes a `not_after` as M2Client's does, there is a `signing_time` too, and a start is signed
    with no later date than its intent in the ledger states. Where it has an `endpoint_url` and a `region_name`, it is
    seen whether it goes where a run was sent before; else what a process that ended left in doubt stays unknown.
    """

    def start_batch_job(self, request: StartBatchJob, /) -> Awaitable[StartBatchJobResponse]:
        """Send the request once, or raise the CallError that says what became of it."""


class _StartsUntil(Protocol):
    """A client that knows with which date it signs, as M2Client does."""

    def signing_time(self) -> float: ...

    def start_batch_job(
        self, request: StartBatchJob, /, *, not_after: float | None
    ) -> Awaitable[StartBatchJobResponse]: ...


class Sender:
    """Sends attempts by a client, whether or not it knows until when it may sign."""

    def __init__(self, client: StartsBatchJobs) -> None:
        self._client = client
        self._dated = cast("_StartsUntil", client) if _takes_not_after(client) else None

    def latest_date(self) -> float | None:
        """The latest date for an attempt that is intended now, by the client's clock; None where it knows none."""
        if self._dated is None:
            return None
        try:
            latest = float(self._dated.signing_time() + SIGNED_WITHIN)
        except Exception:  # noqa: BLE001 - of another's client; the call meets it too
            return None
        return latest if abs(latest) < _FAR else None

    def clock_offset(self) -> float | None:
        """How far the service's clock is ahead, in seconds, where the client knows that."""
        try:
            offset = getattr(self._client, "clock_offset", None)
        except Exception:  # noqa: BLE001 - of another's client
            return None
        return offset if isinstance(offset, float | int) and abs(offset) < _FAR else None

    async def send(
        self, request: StartBatchJob, not_after: float | None, sending: Sending
    ) -> StartBatchJobResponse | CallError:
        """Send the request once, and give what that brought: whatever else is raised is a MiddlewareError."""
        before = times_cancelled()
        try:
            if self._dated is None:
                response = await self._client.start_batch_job(request)
            else:
                response = await self._dated.start_batch_job(request, not_after=not_after)
        except CallError as error:
            return error
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and times_cancelled() > before:
                raise
            failure = _failed(f"raised {brief(error)}", sending)
            failure.__cause__ = error
            return failure
        if isinstance(response, StartBatchJobResponse) and is_execution_id(response.execution_id):
            has_text = response.request_id is None or isinstance(response.request_id, str)
            return response if has_text else StartBatchJobResponse(response.execution_id)
        return _failed(f"gave no execution id, but {type(response).__name__}", sending)


def _failed(how: str, sending: Sending) -> MiddlewareError:
    """Say what somebody else's code around a call did, and whether that may have started the job."""
    return MiddlewareError(f"the client or a middleware {how}", may_have_started=sending.has_begun is not False)


def _takes_not_after(client: StartsBatchJobs) -> bool:
    """Whether the client's own method takes it: one that wraps another client's may pass on everything but that."""
    try:
        takes = "not_after" in signature(client.start_batch_job).parameters
    except (TypeError, ValueError):  # it does not tell
        return False
    return takes and hasattr(client, "signing_time")
