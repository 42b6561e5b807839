"""What a ledger does, whatever keeps it: read this to use one."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Collection, Iterable, Sequence
from types import TracebackType
from typing import Self

from m2async.jobs import StartBatchJob
from m2async.ledger.rows import Counts, HistoryEntry, LedgerRow, OpenAttempt, RunInfo, RunSummary
from m2async.ledger.states import RowState

PAGE = 500
"""Rows of a page, unless told."""


class RunView(ABC):
    """A run, for reading: possible while another process writes it."""

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
    async def plan(self, rows: Iterable[tuple[str, StartBatchJob]]) -> None:
        """Put the manifest's rows into the run, or see that they are there.

        `rows` is read in a thread, and not at all if the run is planned and was opened with the digest that
        it was planned with. If this does not end, the run stays unplanned and can be planned anew.

        Raises DuplicateKeyError, ManifestChangedError if the run was planned with other rows (their
        order does not matter), and whatever reading `rows` raises.
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
        ClockSetBackError where attempts are in doubt and the clock is more than `Margins.uncertainty` behind the
        latest time in the run: it was set back, and the times of those attempts are not this clock's.
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
