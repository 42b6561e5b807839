"""What a ledger tells: runs, rows, their history, and the attempts that are open."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from m2async.ledger.states import RowEvent, RowState
from m2async.service import Job, Judgement, StartBatchJob, judge

Counts = Mapping[RowState, int]
"""How many rows are in each state; every state is there."""


class RunInfo(msgspec.Struct, frozen=True):
    """One run: its rows are complete once it is `planned`; `created_at` is in seconds of the epoch.

    `manifest` and `digest` are what the caller named when the run was planned.
    """

    id: int
    name: str
    manifest: str | None
    digest: str | None
    planned: bool
    rows: int
    created_at: float


class RunSummary(msgspec.Struct, frozen=True):
    """A run and how far it is."""

    info: RunInfo
    counts: Counts


class Orders(msgspec.Struct, frozen=True):
    """What a run in progress was told from another terminal.

    `rate` is in calls a second and goes with `burst`; both are None where no pace was told.
    """

    rate: float | None = None
    burst: float | None = None
    paused: bool = False
    stopped: bool = False


class LedgerRow(msgspec.Struct, frozen=True, gc=False):
    """One job of a run.

    `number` is its place in the manifest, counted from 1. `attempts` counts what was sent or about to be;
    times are those of the last attempt, in seconds of the epoch with a resolution of 1 µs. `doubts` counts
    the attempts of which it is not known whether they started the job; `candidates` are the executions
    that may be theirs. `adopted` says that the execution id was inferred, not answered; `note` who
    decided something about the row, and why.
    """

    number: int
    key: str
    request: StartBatchJob
    state: RowState = RowState.PENDING
    attempts: int = 0
    doubts: int = 0
    sent_at: float | None = None
    ended_at: float | None = None
    execution_id: str | None = None
    request_id: str | None = None
    adopted: bool = False
    error_code: str | None = None
    error_message: str | None = None
    candidates: tuple[str, ...] = ()
    note: str | None = None


class HistoryEntry(msgspec.Struct, frozen=True):
    """Something that happened to a row besides an attempt that is under way or started the job.

    `sent_at` is the attempt's, `ended_at` when the entry was made. `open` says that the attempt is still in doubt.
    """

    attempt: int
    event: RowEvent
    sent_at: float | None
    ended_at: float
    error_code: str | None = None
    error_message: str | None = None
    request_id: str | None = None
    execution_id: str | None = None
    note: str | None = None
    open: bool = False


class OpenAttempt(msgspec.Struct, frozen=True):
    """An attempt that may have started an execution which no row has claimed.

    It was sent not before `sent_at`, and no longer than to `ended_at`, None while it is under way. `state` is
    the row's: a row can be started and have an earlier attempt open. `identifier` is the job in the
    service's shape, as canonical JSON.
    """

    run_id: int
    run: str
    number: int
    key: str
    attempt: int
    state: RowState
    application_id: str
    job: Job
    identifier: str
    sent_at: float
    ended_at: float | None


class TrackedExecution(msgspec.Struct, frozen=True, gc=False):
    """The execution that a row was started as, and what the service said of it last.

    `job` and `sent_at` are the last attempt's. `status`, `return_code` and the times are the service's own, None
    where it gave none or was not asked yet. `ended` says that the execution can no longer change, `gone` that the
    service does not know it any more; `max_rc` is the greatest return code of a success, None for no rule.
    """

    number: int
    key: str
    application_id: str
    job: Job
    execution_id: str
    attempts: int
    adopted: bool
    sent_at: float
    status: str | None = None
    return_code: str | None = None
    start_time: float | None = None
    end_time: float | None = None
    ended: bool = False
    gone: bool = False
    max_rc: int | None = None

    @property
    def judgement(self) -> Judgement:
        """What the job came to, by the rule."""
        return judge(self.status, self.return_code, self.max_rc, ended=self.ended, gone=self.gone)


class Observation(NamedTuple):
    """What the service said of a row's execution; as in TrackedExecution."""

    number: int
    execution_id: str
    status: str | None
    return_code: str | None
    start_time: float | None
    end_time: float | None
    ended: bool
    gone: bool = False


class ExecutionCount(NamedTuple):
    """How many executions of a run look the same; as in TrackedExecution."""

    status: str | None
    return_code: str | None
    ended: bool
    gone: bool
    max_rc: int | None
    rows: int

    @property
    def judgement(self) -> Judgement:
        """What each of them came to, by the rule."""
        return judge(self.status, self.return_code, self.max_rc, ended=bool(self.ended), gone=bool(self.gone))


def to_micros(seconds: float) -> int:
    """Turn a time into whole microseconds, as ledgers store it."""
    return round(seconds * 1e6)


def to_seconds(micros: int) -> float:
    """Turn stored microseconds back."""
    return micros / 1e6


def as_stored(seconds: float) -> float:
    """Give a time as it is read back from a ledger."""
    return to_seconds(to_micros(seconds))
