"""What a ledger does, whatever keeps it: read this to use one."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Self

from m2async.ledger.activity import STRETCHES, Activity, LatencyCount
from m2async.ledger.changes import Differences
from m2async.ledger.destinations import Destination
from m2async.ledger.rows import (
    AnsweredAttempt,
    Counts,
    ExecutionCount,
    ForeignExecution,
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
from m2async.service import Job, RestartJob, StartBatchJob

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

    @abstractmethod
    async def answered_near(self, application_id: str, number: int, rows: int) -> list[AnsweredAttempt]:
        """Give attempts of an application that were answered with an execution, the 50 nearest to a row.

        They are those of the row itself and of so many rows before and behind it; none of rows that were restarted.
        """

    @abstractmethod
    async def foreign(self) -> list[ForeignExecution]:
        """Give the executions of the run's jobs that somebody else was seen to start, in the order of their start."""

    @abstractmethod
    async def note_foreign(self, executions: Sequence[ForeignExecution]) -> list[ForeignExecution]:
        """Write that somebody else started these executions, and give those of which that was not known."""

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
        """Give the executions of the STARTED rows numbered `first` to `last`, or of them those not ended, or gone."""

    @abstractmethod
    async def together(self, group: int) -> list[TrackedExecution]:
        """Give the executions that the rows of a group share, but for those that are being restarted."""

    @abstractmethod
    async def execution_counts(self) -> list[ExecutionCount]:
        """Count the executions of the STARTED rows that have the same status, return code and rule."""

    @abstractmethod
    async def observe(self, observations: Sequence[Observation]) -> None:
        """Write what the service says of executions, durably, once this ends.

        What has ended stays as it is, unless it is just gone. What is said of an execution that is no longer its row's
        is left out: so any number of processes may write, in whatever order.
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
        """Give what whoever sends the run was told."""

    @abstractmethod
    async def set_pace(self, rate: float, burst: float) -> None:
        """Tell whoever has the run open for writing to keep another pace."""

    @abstractmethod
    async def set_paused(self, paused: bool) -> None:
        """Tell whoever sends the run, now or later, to send nothing for now; or take that back, and a stop as well."""

    @abstractmethod
    async def stop(self) -> None:
        """Tell whoever has the run open for writing to send nothing more, and to end; nobody else may send it then."""

    @abstractmethod
    async def ask(self, what: str) -> int:
        """Ask whoever has the run open for writing for something, and give the number of the entry."""

    @abstractmethod
    async def answer_to(self, entry: int) -> str | None:
        """Give the answer, empty while there is none; None once the entry is forgotten."""

    @abstractmethod
    async def withdraw(self, entry: int) -> bool:
        """Remove an entry, and tell whether nobody had taken it on."""

    # Where it is sent, and what others may have started there

    @abstractmethod
    async def belong_to(self, destination: Destination, *, moved: bool = False) -> str | None:
        """See that the run belongs to a destination; from now on it does, durably, if it belongs to none so far.

        It may be `moved` on purpose, and by itself where nothing was started before; a rehearsal never. Gives what a
        user should know of a change, None where there is none.

        Raises SentElsewhereError where it belongs elsewhere.
        """

    @abstractmethod
    async def applications(self, *states: RowState) -> list[str]:
        """Give the applications that the rows name, those in one of these states or in any."""

    @abstractmethod
    async def named_jobs(self, application_id: str, jobs: Collection[Job], *states: RowState) -> set[Job]:
        """Give those of the jobs that a row of the application names which is in one of these states, or in any.

        A restart is named by any row that restarts the same execution, from whatever step. Without a manifest any row
        counts, as there may be further ones.
        """

    @abstractmethod
    async def last_sent(self) -> float | None:
        """Give when an attempt was last sent, or about to be; None if none ever was.

        It is the earliest time by the service's clock that this can have been, in seconds of the epoch.
        """

    @abstractmethod
    async def accept(self, until: float) -> None:
        """Write that somebody knows of the executions that no row explains and that began before then.

        That is a time of the service's, in seconds of the epoch.
        """

    @abstractmethod
    async def accepted(self) -> float | None:
        """Give until when `accept` said so last; None if it never did."""

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

        Rows are the same as in `Differences`; their order in the manifest does not matter.

        Raises DuplicateKeyError, ManifestChangedError if the run was planned with other rows or dependencies,
        RowNotFoundError for a key in `after` that no row has, and whatever reading `rows` and `check` raise.
        """

    @abstractmethod
    async def give(
        self, rows: Iterable[tuple[str, StartBatchJob]], *, after: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        """Read a manifest's rows into the ledger, as `plan` does, where none of them counts before `amend`.

        They are in place of those that were given before, and gone when the run is closed, unless it is planned.
        """

    @abstractmethod
    async def kin(self, *, rehearsal: bool) -> list[tuple[RunInfo, int]]:
        """Give the runs that the given rows were in last, with how many; the one with the most first, or the latest.

        Only rehearsals count where the run is one, and only others where it is not.
        """

    @abstractmethod
    async def differences(self, given: Run, *, rehearsal: bool | None = None) -> Differences:
        """Compare the run's rows with those given to it, or to another.

        With `rehearsal`, as in `kin`, it is also said which were started by other runs than these two.
        """

    @abstractmethod
    async def amend(self, given: Run) -> bool:
        """Make the run's rows those that `differences` has just compared with it, or plan a new run with its own.

        All at once: what is added, or changed and surely not started, is PENDING. What may have been started stays as
        it is, and what another run started is left out. What is removed, or changed although it may have been started,
        is sent no more, whatever is found out about it; where it surely was not started, it is no row any more. The run
        has the manifest and digest then that it was opened with. Gives False, and writes nothing, where other runs were
        planned since it was asked which had these rows: that has to be asked again.
        """

    @abstractmethod
    async def given_as(self, numbers: Collection[int]) -> Mapping[int, int]:
        """Give the numbers in the run that rows of the manifest have, by those that they have in it, after `amend`.

        A row that is left to another run is not there.
        """

    @abstractmethod
    async def add(self, key: str, request: StartBatchJob) -> LedgerRow:
        """Put one more row into a run that has no manifest, or give the row that it has under this key.

        Raises ManifestChangedError if that row's request is another, or if the run is planned and has no such row.
        """

    @abstractmethod
    async def add_unnamed(self, key: str, request: StartBatchJob, among: object) -> LedgerRow:
        """Give the row of a job without a key, or put one more into a run that has no manifest.

        The jobs `among` which it is given are a pass: an object that lives as long, of this run alone. Equal requests
        are counted in it: the nth of a pass is the nth row of this request that was given no key. `key` is the
        job's number in the pass, for the error. A new row's key is its number in the run; where that is the key of
        another, `3-2` or the like.

        Raises ManifestChangedError if the run is planned and has no further such row.
        """

    @abstractmethod
    def intend(
        self, number: int, attempt: int, at: float, *, not_after: float | None = None, resend: bool = False
    ) -> asyncio.Future[None]:
        """Write that an attempt will be sent, not before `at`; with `resend`, although the row is UNKNOWN.

        `not_after` is the latest date that it will be signed with, as in OpenAttempt.
        """

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
    def withdrawn(self, number: int, attempt: int, code: str, message: str) -> asyncio.Future[None]:
        """Write that an attempt was not sent after all: it does not count, and the row stands as it did before it."""

    @abstractmethod
    def rejected(
        self, number: int, attempt: int, code: str, message: str, request_id: str | None = None
    ) -> asyncio.Future[None]:
        """Write that an attempt surely started nothing and the row is not tried again.

        The row is REJECTED then, or UNKNOWN if an earlier attempt is in doubt.
        """

    @abstractmethod
    def unknown(
        self,
        number: int,
        attempt: int,
        code: str,
        message: str,
        request_id: str | None = None,
        *,
        ended_by_service: bool = False,
    ) -> asyncio.Future[None]:
        """Write that an attempt may have started the job; `ended_by_service` as in OpenAttempt."""

    @abstractmethod
    def note_clock(self, offset: float | None) -> asyncio.Future[None]:
        """Write how far the service's clock is ahead of the one that the attempts' times are read off.

        It holds for what is written from now on; a ClockOffset says how exactly it is known, and None that it is not.
        What was noted before is not written again.
        """

    @abstractmethod
    def claim(
        self, number: int, attempt: int, execution_id: str, note: str, *, inferred: bool = True
    ) -> asyncio.Future[None]:
        """Write that an UNKNOWN row's attempt in doubt, the last or an earlier one, started this execution.

        `inferred` is False where an operator says so. Raises ExecutionClaimedError if another row has the execution.
        """

    @abstractmethod
    def claim_together(
        self, number: int, rows: Sequence[tuple[int, int]], execution_ids: Sequence[str], note: str
    ) -> asyncio.Future[None]:
        """Write that UNKNOWN rows were started as these executions, one each, and which is whose cannot be told.

        Each row comes with its attempt in doubt, which is its only one; there are as many of them as executions. All of
        it is written, or nothing. Where it stands already for row `number`, that is no error. Raises
        ExecutionClaimedError if another row has one of the executions.
        """

    @abstractmethod
    def not_started(self, number: int, attempt: int, note: str) -> asyncio.Future[None]:
        """Write that none of an UNKNOWN row's attempts, `attempt` being the last, started anything: it is PENDING."""

    @abstractmethod
    def confirm(self, number: int, attempt: int, note: str) -> asyncio.Future[None]:
        """Write that a STARTED row's attempts in doubt, `attempt` being its last, started nothing besides."""

    @abstractmethod
    def resolve(self, number: int, attempt: int, execution_id: str | None, note: str) -> asyncio.Future[None]:
        """Write an operator's word: the row was started as this execution alone, or with None, not at all.

        `attempt` is the row's last. The row is UNKNOWN; or it is what an earlier word or finding made of it, and
        nothing was sent since: that is taken back. To say what stands is no error, and for a STARTED row settles its
        attempts in doubt. Raises ExecutionClaimedError if another row has the execution.

        A row of a group leaves it with one of the group's executions, and the last one left has the last of them. With
        another, or none, the group was an error: its other rows are UNKNOWN then. No row of it has been restarted.
        """

    @abstractmethod
    def resolve_all(self, words: Sequence[tuple[int, int, str | None]], note: str) -> asyncio.Future[None]:
        """Write an operator's words, of as many rows: their numbers, last attempts and executions, as `resolve` does.

        All of them are written, or none.
        """

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
    async def asked(self) -> list[tuple[int, str]]:
        """Give what other processes ask for and nobody has taken on: the number of each entry, and what."""

    @abstractmethod
    async def take_on(self, entry: int) -> bool:
        """Note that an entry is being carried out; gives False if it was withdrawn."""

    @abstractmethod
    async def answer(self, entry: int, text: str) -> None:
        """Answer an entry."""

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
        self,
        name: str,
        *,
        manifest: str | None = None,
        digest: str | None = None,
        by_hand: bool = False,
        to_send: bool = True,
    ) -> Run:
        """Open a run for writing, and make it if there is none of this name.

        `manifest` names where its rows come from; an equal `digest` of it says that the rows are the same.
        Rows that were in INTENT when the run was left become UNKNOWN, with the error code `Crash`. `by_hand` says
        that somebody decides what became of rows who does not go by their times; `to_send` is False where nothing is
        going to be sent.

        Raises RunInUseError while the run is open for writing, in this process or another; RunStoppedError if it is to
        be sent and was told to stop; and, unless `by_hand`, ClockSetBackError where attempts are in doubt and the clock
        is more than two seconds behind the latest time in the run: it was set back, and the times of those attempts are
        not this clock's.
        """

    @abstractmethod
    async def run(self, name: str) -> RunView:
        """Give a run for reading; raises RunNotFoundError."""

    @abstractmethod
    async def last_of(self, digest: str) -> RunInfo | None:
        """Give the latest run that has the rows of a digest; None if there is none."""

    @abstractmethod
    async def runs(self) -> list[RunSummary]:
        """Give all runs, oldest first."""

    @abstractmethod
    async def open_attempts(self, application_id: str) -> list[OpenAttempt]:
        """Give the attempts of an application, in all runs, that are under way or in doubt, in the order of the runs.

        Every attempt in doubt is there, also of rows that a later attempt started.
        """

    @abstractmethod
    async def is_new(self) -> bool:
        """Tell whether there are no runs yet."""

    @abstractmethod
    async def claimed(self, application_id: str, execution_ids: Collection[str], *, often: bool = True) -> set[str]:
        """Give those of the executions of an application that belong to a row of any run.

        Asked `often`, it keeps an index, with which every further answer costs more to write.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Finish the writes, and close the ledger and its runs."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()
