"""What a ledger does, whatever keeps it: read this to use one."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Self

from m2async.ledger.activity import STRETCHES, Activity, LatencyCount
from m2async.ledger.rows import (
    Counts,
    ExecutionCount,
    HistoryEntry,
    LedgerRow,
    Observation,
    OpenAttempt,
    Orders,
    RunInfo,
    RunSummary,
    TrackedExecution,
)
from m2async.ledger.states import RowState
from m2async.service import RestartJob, StartBatchJob

PAGE = 500
"""Rows of a page, unless told."""

SPAN = 5_000
"""Rows whose executions are read at a time: few enough that others get to read in between."""


class RunView(ABC):
    """A run, for reading, and for following its executions: possible while another process writes it."""

    @property
    @abstractmethod
    def info(self) -> RunInfo:
        """The run as it was when it was last read; for a run that is open for writing, as it is."""

    @abstractmethod
    async def counts(self) -> Counts:
        """Count the rows by state."""

    @abstractmethod
    async def page(self, *states: RowState, after: int = 0, limit: int = PAGE) -> list[LedgerRow]:
        """Give the first `limit` rows behind number `after` that are in one of `states` (any, if none is given).

        Rows come in the order of the manifest; fewer than `limit` mean that there are no more.
        """

    @abstractmethod
    async def row(self, key: str) -> LedgerRow:
        """Give the row of a key; raises RowNotFoundError."""

    @abstractmethod
    async def rows_of(self, keys: Collection[str]) -> list[LedgerRow]:
        """Give the rows of these keys in the order of the manifest; raises RowNotFoundError."""

    @abstractmethod
    async def dependencies(self) -> Mapping[str, Sequence[str]]:
        """Give the keys of the rows that each row comes after; rows that come after none are not there."""

    @abstractmethod
    async def history(self, number: int) -> list[HistoryEntry]:
        """Give what happened to a row, oldest first, but for an attempt that is under way or started the job."""

    async def rows(self, *states: RowState, after: int = 0) -> AsyncGenerator[LedgerRow, None]:
        """Iterate over all rows behind number `after` that are in one of `states` when their page is read."""
        while True:
            page = await self.page(*states, after=after)
            for row in page:
                yield row
            if len(page) < PAGE:
                return
            after = page[-1].number

    @abstractmethod
    async def in_use(self) -> bool:
        """Tell whether the run is open for writing, here or in another process: more rows may be started then."""

    @abstractmethod
    async def executions(self, first: int, last: int, *, open_only: bool = False) -> list[TrackedExecution]:
        """Give the executions of the STARTED rows numbered `first` to `last`, or of them those that have not ended."""

    @abstractmethod
    async def execution_counts(self) -> list[ExecutionCount]:
        """Count the executions of the STARTED rows that have the same status, return code and rule."""

    @abstractmethod
    async def observe(self, observations: Sequence[Observation]) -> None:
        """Write what the service says of executions, durably, once this ends.

        What has ended stays as it is, and what is said of an execution that is no longer its row's is left out: so any
        number of processes may write, in whatever order.
        """

    @abstractmethod
    async def set_rule(self, max_rc: int, key: str | None = None) -> None:
        """Write the greatest return code of a success, for a row or for all that have none of their own.

        Raises RowNotFoundError.
        """

    @abstractmethod
    async def activity(self, stretches: int = STRETCHES) -> Activity:
        """Count what was answered when, in so many stretches of time at most, or one more.

        Starts of before a restart are not counted.
        """

    @abstractmethod
    async def latencies(self) -> list[LatencyCount]:
        """Count the attempts that were answered by the time that this took, the shortest first."""

    @abstractmethod
    async def orders(self) -> Orders:
        """Give what whoever has the run open for writing was told; nothing of what others before were told."""

    @abstractmethod
    async def set_pace(self, rate: float, burst: float) -> None:
        """Tell whoever has the run open for writing to keep another pace."""

    @abstractmethod
    async def set_paused(self, paused: bool) -> None:
        """Tell whoever has the run open for writing to send nothing more for now, or to go on."""

    @abstractmethod
    async def stop(self) -> None:
        """Tell whoever has the run open for writing to send nothing more, and to end."""

    async def jobs(self) -> AsyncGenerator[tuple[LedgerRow, TrackedExecution | None], None]:
        """Iterate over all rows with their executions, as they are when their page is read."""
        after = 0
        while rows := await self.page(after=after):
            found = {each.number: each for each in await self.executions(rows[0].number, rows[-1].number)}
            for row in rows:
                yield row, found.get(row.number)
            after = rows[-1].number

    async def all_executions(self, *, open_only: bool = False) -> AsyncGenerator[TrackedExecution, None]:
        """Iterate over the executions of the run, as they are when their span is read."""
        for first in range(1, self.info.rows + 1, SPAN):
            for execution in await self.executions(first, first + SPAN - 1, open_only=open_only):
                yield execution


class Run(RunView):
    """A run that is open for writing, here and nowhere else; an async context manager.

    Each write is made when its method is called, whether or not the caller then waits: cancelling the
    future does not take the write back. It ends once the write is durable, or raises

        IllegalTransitionError: the row's state or number of attempts does not allow the write;
        LedgerFullError, LedgerLockedError, LedgerIOError: it was not written;
        LedgerDamagedError: it is not known to be durable, and nothing can be written any more.

    Methods raise RowNotFoundError, RunNotPlannedError and LedgerClosedError at once. Writes of a row take
    effect in the order of the calls. `attempt` counts from 1 and must be the row's current attempt, for
    `intend` the next; times are in seconds of the epoch.
    """

    @abstractmethod
    async def plan(
        self,
        rows: Iterable[tuple[str, StartBatchJob]],
        *,
        after: Mapping[str, Sequence[str]] | None = None,
        check: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Put the manifest's rows into the run, or see that they are there.

        `rows` is read in a thread, and not at all if the run is planned and was opened with the digest that
        it was planned with. Behind the last of them `after` is read, the keys of the rows that a row comes after by
        its own key, and then `check` is awaited. If this does not end, the run stays unplanned and can be planned anew.

        Raises DuplicateKeyError, ManifestChangedError if the run was planned with other rows or dependencies (the
        rows' order does not matter), RowNotFoundError for a key in `after` that no row has, and whatever reading
        `rows` and `check` raise.
        """

    @abstractmethod
    async def add(self, key: str, request: StartBatchJob) -> LedgerRow:
        """Put one more row into a run that has no manifest, or give the row that it has under this key.

        Raises ManifestChangedError if that row's request is another, or if the run is planned and has no such row.
        """

    @abstractmethod
    def intend(self, number: int, attempt: int, at: float, *, resend: bool = False) -> asyncio.Future[None]:
        """Write that an attempt will be sent, not before `at`; with `resend`, although the row is UNKNOWN."""

    @abstractmethod
    def started(
        self, number: int, attempt: int, execution_id: str, request_id: str | None = None
    ) -> asyncio.Future[None]:
        """Write the service's answer."""

    @abstractmethod
    def refused(
        self, number: int, attempt: int, code: str, message: str, request_id: str | None = None
    ) -> asyncio.Future[None]:
        """Write that an attempt surely started nothing and the row may be tried again.

        The row is PENDING then, or UNKNOWN if an earlier attempt is in doubt.
        """

    @abstractmethod
    def rejected(
        self, number: int, attempt: int, code: str, message: str, request_id: str | None = None
    ) -> asyncio.Future[None]:
        """Write that an attempt surely started nothing and the row is not tried again.

        The row is REJECTED then, or UNKNOWN if an earlier attempt is in doubt.
        """

    @abstractmethod
    def unknown(
        self, number: int, attempt: int, code: str, message: str, request_id: str | None = None
    ) -> asyncio.Future[None]:
        """Write that an attempt may have started the job."""

    @abstractmethod
    def claim(
        self, number: int, attempt: int, execution_id: str, note: str, *, inferred: bool = True
    ) -> asyncio.Future[None]:
        """Write that an UNKNOWN row's attempt in doubt, the last or an earlier one, started this execution.

        `inferred` is False where an operator says so. Raises ExecutionClaimedError if another row has the execution.
        """

    @abstractmethod
    def not_started(self, number: int, attempt: int, note: str) -> asyncio.Future[None]:
        """Write that none of an UNKNOWN row's attempts, `attempt` being the last, started anything: it is PENDING."""

    @abstractmethod
    def retry(self, number: int, attempt: int, note: str) -> asyncio.Future[None]:
        """Make a REJECTED row PENDING again, on an operator's word."""

    @abstractmethod
    def give_up(self, number: int, attempt: int, note: str) -> asyncio.Future[None]:
        """Make a PENDING row REJECTED, after `attempt`, its last: it was tried often enough."""

    @abstractmethod
    def restart(self, number: int, attempt: int, job: RestartJob, note: str) -> asyncio.Future[None]:
        """Make a STARTED row without doubts PENDING, `attempt` being its last, and let `job` stand in its job's place.

        The execution that it had stays its own.
        """

    @abstractmethod
    def candidates(self, number: int, execution_ids: Sequence[str]) -> asyncio.Future[None]:
        """Write which executions may be those of a row's attempts in doubt, in place of what was written before."""

    @abstractmethod
    async def aclose(self) -> None:
        """Finish the writes and let others open the run; one that is not planned and has no rows is removed."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


class Ledger(ABC):
    """Runs and what became of their rows; an async context manager, used in the event loop that it was opened in."""

    @property
    @abstractmethod
    def address(self) -> str:
        """What errors call the ledger."""

    @abstractmethod
    async def open_run(
        self, name: str, *, manifest: str | None = None, digest: str | None = None, by_hand: bool = False
    ) -> Run:
        """Open a run for writing, and make it if there is none of this name.

        `manifest` names where its rows come from; an equal `digest` of it says that the rows are the same.
        Rows that were in INTENT when the run was left become UNKNOWN, with the error code `Crash`. `by_hand` says
        that somebody decides what became of rows who does not go by their times.

        Raises RunInUseError while the run is open for writing, in this process or another, and, unless `by_hand`,
        ClockSetBackError where attempts are in doubt and the clock is more than two seconds behind the latest time in
        the run: it was set back, and the times of those attempts are not this clock's.
        """

    @abstractmethod
    async def run(self, name: str) -> RunView:
        """Give a run for reading; raises RunNotFoundError."""

    @abstractmethod
    async def runs(self) -> list[RunSummary]:
        """Give all runs, oldest first."""

    @abstractmethod
    async def open_attempts(self, application_id: str) -> list[OpenAttempt]:
        """Give the attempts of an application, in all runs, that are under way or in doubt, in the order of the runs.

        Every attempt in doubt is there, also of rows that a later attempt started.
        """

    @abstractmethod
    async def claimed(self, application_id: str, execution_ids: Collection[str]) -> set[str]:
        """Give those of the executions of an application that belong to a row of any run."""

    @abstractmethod
    async def aclose(self) -> None:
        """Finish the writes, and close the ledger and its runs."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()
