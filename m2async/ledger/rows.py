"""What a ledger tells: runs, rows, their history, and the attempts that are open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, overload

import msgspec

from m2async.ledger.destinations import Destination
from m2async.ledger.states import RowEvent, RowState
from m2async.service import Job, Judgement, Result, StartBatchJob, judge

Counts = Mapping[RowState, int]
"""How many rows are in each state; every state is there."""


class RunInfo(msgspec.Struct, frozen=True):
    """One run: its rows are complete once it is `planned`; `created_at` is in seconds of the epoch.

    `rows` is the greatest number that a row has, and `gone` how many of these numbers are no row any more: the manifest
    was given again without them. `manifest` and `digest` are what the caller named when the run was planned; `sent_to`
    is where it belongs, None before it was first used to send.
    """

    id: int
    name: str
    manifest: str | None
    digest: str | None
    planned: bool
    rows: int
    created_at: float
    sent_to: Destination | None = None
    gone: int = 0

    @property
    def has_rows(self) -> bool:
        """Whether it was planned, or rows were added to it: others that are given are compared with these."""
        return self.planned or self.rows > 0

    @property
    def jobs(self) -> int:
        """How many rows it has."""
        return self.rows - self.gone


class RunSummary(msgspec.Struct, frozen=True):
    """A run and how far it is."""

    info: RunInfo
    counts: Counts


class Orders(msgspec.Struct, frozen=True):
    """What a run was told from another terminal.

    `rate` is in calls a second and goes with `burst`; both are None where no pace was told, and forgotten when the run
    is opened for writing. To be paused or stopped stays, until it is taken back; `at` is when that was told last, in
    seconds of the epoch.
    """

    rate: float | None = None
    burst: float | None = None
    paused: bool = False
    stopped: bool = False
    at: float | None = None


class LedgerRow(msgspec.Struct, frozen=True, gc=False):
    """One job of a run.

    `number` is its place in the manifest that the run was planned with, counted from 1; rows that were added later
    follow. `attempts` counts what was sent or about to be; times are those of the last attempt, in seconds of the epoch
    with a resolution of 1 µs. `doubts` counts the attempts of which it is not known whether they started the job;
    `candidates` are the executions that may be theirs. A row that is STARTED and has no execution id is one of a group:
    its execution is one of the `candidates`, and each of the others is that of another of its rows. `adopted` says that
    the execution id was inferred, not answered; `note` who decided something about the row, and why.
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


class Uptimes(NamedTuple):
    """When an attempt was sent and ended, in seconds since a boot of its machine; None while it is under way."""

    boot: str
    sent: float
    ended: float | None


class OpenAttempt(msgspec.Struct, frozen=True):
    """An attempt that may have started an execution which no row has claimed.

    It was sent not before `sent_at`, and no longer than to `ended_at`, None while it is under way; by the service's
    clock surely not before `sent_after` and no longer than to `ended_before`, and by the clock of whoever has the run
    open now, or had it last, no longer than to `ended_by`. `not_after` is the latest date that any request of it bears,
    by the clock that requests are dated with, in seconds of the epoch; None where nothing was said of it. `state` is
    the row's: a row can be started and have an earlier attempt open. `identifier` is the job in the service's shape, as
    canonical JSON. `is_former` says that the run was opened again since; `sent_to` is where it belongs, as in RunInfo.
    `uptimes` are None where both times are not of one boot of a machine. `ended_by_service` says that the service
    itself ended it, by an error of its own or by closing the connection: then it starts nothing later than that.
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
    sent_after: float
    ended_before: float | None
    ended_by: float | None
    is_former: bool
    not_after: float | None = None
    sent_to: Destination | None = None
    uptimes: Uptimes | None = None
    ended_by_service: bool = False


class AnsweredAttempt(msgspec.Struct, frozen=True):
    """An attempt that the service answered with an execution; times as in OpenAttempt."""

    execution_id: str
    application_id: str
    job: Job
    sent_after: float
    ended_before: float
    uptimes: Uptimes | None = None


class ForeignExecution(msgspec.Struct, frozen=True):
    """An execution of one of a run's jobs that no attempt explains; it started at a time of the service's."""

    execution_id: str
    application_id: str
    job: Job
    start_time: float


class ExecutionEnd(NamedTuple):
    """How an execution stands; as in TrackedExecution."""

    status: str | None
    return_code: str | None
    ended: bool
    gone: bool

    def judgement(self, max_rc: int | None) -> Judgement:
        """What it came to, by a rule."""
        return judge(self.status, self.return_code, max_rc, ended=self.ended, gone=self.gone)


class TrackedExecution(msgspec.Struct, frozen=True, gc=False):
    """The execution that a row was started as, and what the service said of it last.

    `job` and `sent_at` are the last attempt's. `status`, `return_code` and the times are the service's own, None
    where it gave none or was not asked yet. `ended` says that the execution can no longer change, `gone` that the
    service did not know it when it was last asked, and both together that it is looked for no longer unless somebody
    looks again; `max_rc` is the greatest return code of a success, None for no rule.

    Where rows were started together, and which execution is whose cannot be told, each stands for one of them, which
    need not be its own: `group` is a number that those rows share, `candidates` are all their executions, and `ends`
    how these stand, each way once.
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
    group: int | None = None
    candidates: tuple[str, ...] = ()
    ends: tuple[ExecutionEnd, ...] = ()

    @property
    def judgement(self) -> Judgement:
        """What the job came to, by the rule; that is open where its execution is one of several that differ in it."""
        return _judged_together(self.ends, self.max_rc) if self.ends else self.own_judgement

    @property
    def own_judgement(self) -> Judgement:
        """What the execution came to, by the rule, whosever it is."""
        return judge(self.status, self.return_code, self.max_rc, ended=self.ended, gone=self.gone)

    @property
    def is_over(self) -> bool:
        """Whether what the job came to can no longer change: it has ended, and all that may be its own."""
        return self.ended and all(end.ended for end in self.ends)

    @property
    def known_status(self) -> str | None:
        """The status, if it is known to be that of the row's own."""
        return self.status if len({end.status for end in self.ends}) < 2 else None

    @property
    def known_return_code(self) -> str | None:
        """The return code, if it is known to be that of the row's own."""
        return self.return_code if len({end[:2] for end in self.ends}) < 2 else None

    @property
    def is_untold(self) -> bool:
        """Whether all has ended that may be its own, and it cannot be told what it came to."""
        return bool(self.ends) and self.is_over and self.judgement.result is Result.OPEN

    @property
    def known_id(self) -> str | None:
        """The execution id, if this is known to be the row's own."""
        return None if self.ends else self.execution_id


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
    ends: tuple[ExecutionEnd, ...] = ()

    @property
    def judgement(self) -> Judgement:
        """What each of them came to, by the rule."""
        if self.ends:
            return _judged_together(self.ends, self.max_rc)
        return judge(self.status, self.return_code, self.max_rc, ended=bool(self.ended), gone=bool(self.gone))

    @property
    def is_untold(self) -> bool:
        """Whether all has ended that may be theirs, and it cannot be told what they came to."""
        return all(end.ended for end in self.ends) and bool(self.ends) and self.judgement.result is Result.OPEN


def _judged_together(ends: Sequence[ExecutionEnd], max_rc: int | None) -> Judgement:
    """Judge a job of which only is known that its execution is one of several: known once all came to the same."""
    judgements = dict.fromkeys(end.judgement(max_rc) for end in ends)
    reasons = " or ".join(sorted({judgement.reason for judgement in judgements}))
    results = {judgement.result for judgement in judgements}
    if len(results) == 1:
        return Judgement(results.pop(), reasons)
    return Judgement(Result.OPEN, f"which execution is its own cannot be told: {reasons}")


@overload
def to_micros(seconds: float) -> int: ...
@overload
def to_micros(seconds: float | None) -> int | None: ...
def to_micros(seconds: float | None) -> int | None:
    """Turn a time into whole microseconds, as ledgers store it; None stays as it is."""
    return None if seconds is None else round(seconds * 1e6)


@overload
def to_seconds(micros: int) -> float: ...
@overload
def to_seconds(micros: int | None) -> float | None: ...
def to_seconds(micros: int | None) -> float | None:
    """Turn stored microseconds back; None stays as it is."""
    return None if micros is None else micros / 1e6


def as_stored(seconds: float) -> float:
    """Give a time as it is read back from a ledger."""
    return to_seconds(to_micros(seconds))
