"""The ledger in SQLite: a thread of its own writes, another reads a file, and the event loop waits for neither."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any, Self, TypeVar, cast

import msgspec
from msgspec.structs import replace

from m2async.clock import steady_time
from m2async.ledger.activity import STRETCHES, Activity, LatencyCount
from m2async.ledger.changes import check_clock
from m2async.ledger.errors import (
    LedgerClosedError,
    LedgerDamagedError,
    LedgerError,
    ManifestChangedError,
    RowNotFoundError,
    RunInUseError,
    RunNotFoundError,
    RunNotPlannedError,
    RunStoppedError,
)
from m2async.ledger.interface import PAGE, Ledger, Run, RunView
from m2async.ledger.requests import canonical_identifier, to_columns
from m2async.ledger.rows import (
    Counts,
    ExecutionCount,
    HistoryEntry,
    LedgerRow,
    Observation,
    OpenAttempt,
    RunInfo,
    RunSummary,
    TrackedExecution,
    to_micros,
    to_seconds,
)
from m2async.ledger.sqlite import activity, belonging, decisions, dependencies, evidence, given, reads, told, tracking
from m2async.ledger.sqlite.again import place_beside
from m2async.ledger.sqlite.clocks import RunClock
from m2async.ledger.sqlite.file import translated
from m2async.ledger.sqlite.group_commit import Writer, uninterrupted
from m2async.ledger.sqlite.run_lock import LockHeldError
from m2async.ledger.sqlite.statements import migrations, named_statements
from m2async.ledger.sqlite.storage import Storage
from m2async.ledger.sqlite.unnamed_rows import Passes
from m2async.ledger.sqlite.writes import Batches, Place, Write, addition, clear, decision, ended, intent
from m2async.ledger.states import RowEvent, RowState
from m2async.ledger.texts import CRASH_CODE, CRASH_MESSAGE, check_key, clean
from m2async.service import RestartJob, StartBatchJob

_SQL = named_statements("runs", "decisions", "orders")
_T = TypeVar("_T")


class SqliteLedger(Ledger):
    """A ledger in an SQLite database; make it with `open`."""

    def __init__(self, storage: Storage, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.storage: Storage = storage
        self.writer: Writer[Write] = Writer(
            f"ledger writer {storage.address}", lambda writes: self.batches.commit(writes)
        )
        self._reader = ThreadPoolExecutor(1, f"ledger reader {storage.address}")
        self._batches: Batches | None = None
        self._runs: set[SqliteRun] = set()
        self.ended_passes: deque[int] = deque()  # over jobs without keys
        self._closed = False
        self._executions_indexed = False

    @classmethod
    async def open(
        cls, storage: Storage, *, clock: Callable[[], float] = steady_time, scripts: Sequence[str] | None = None
    ) -> Self:
        """Open the ledger of a storage; see `open_ledger`.

        `scripts` are the migrations that lead to the schema, by default the package's.
        """
        ledger = cls(storage, clock)
        try:
            await ledger.writer.call(lambda: storage.open(scripts or migrations()))
        except BaseException:
            await ledger.aclose()
            raise
        return ledger

    @property
    def address(self) -> str:
        return self.storage.address

    async def open_run(
        self,
        name: str,
        *,
        manifest: str | None = None,
        digest: str | None = None,
        by_hand: bool = False,
        to_send: bool = True,
    ) -> Run:
        self._check_open()
        run = SqliteRun(self, name, manifest, digest)
        self._runs.add(run)
        try:
            await self.writer.call(lambda: run.take(by_hand=by_hand, to_send=to_send))
        except BaseException:
            await run.aclose()
            raise
        return run

    async def run(self, name: str) -> RunView:
        view = SqliteRunView(self, name)
        await view.read(_nothing)
        return view

    async def last_of(self, digest: str) -> RunInfo | None:
        return await self.read(lambda connection: reads.last_of(connection, digest))

    async def runs(self) -> list[RunSummary]:
        return await self.read(reads.run_summaries)

    async def open_attempts(self, application_id: str) -> list[OpenAttempt]:
        return await self.read(lambda connection: reads.open_attempts(connection, application_id))

    async def is_new(self) -> bool:
        return await self.read(belonging.is_new)

    async def claimed(self, application_id: str, execution_ids: Collection[str], *, often: bool = True) -> set[str]:
        self._check_open()
        if not often:
            return await self.read(lambda connection: belonging.claimed_once(connection, application_id, execution_ids))
        if not self._executions_indexed:
            await self.writer.call(self._index_executions)
            self._executions_indexed = True
        return await self.read(lambda connection: reads.claimed(connection, application_id, execution_ids))

    async def aclose(self) -> None:
        if self._closed or self.writer.home.is_forked:  # which leaves it to the process that opened it
            return
        self.writer.home.check()
        self._closed = True
        try:
            for run in list(self._runs):
                await run.aclose()
        finally:
            try:
                await self.writer.call(self._disconnect)
            finally:
                await self.writer.aclose()

    async def read(self, function: Callable[[sqlite3.Connection], _T]) -> _T:
        """Ask in the reader's thread; where there cannot be one, in the writer's, between two commits."""
        return await self.compare(partial(self._decode, function))

    async def compare(self, function: Callable[[sqlite3.Connection], _T]) -> _T:
        """Ask likewise, by a function that reads something else besides, whose errors are not the ledger's."""
        self._check_open()
        if not self.storage.has_reader:
            return await self.writer.call(lambda: self._ask(function))
        return await uninterrupted(asyncio.get_running_loop().run_in_executor(self._reader, self._ask, function))

    async def write(self, function: Callable[[], _T]) -> _T:
        """Run a function in the writer's thread."""
        self._check_open()
        return await self.writer.call(function)

    def forget(self, run: SqliteRun) -> None:
        """Take note that a run was closed."""
        self._runs.discard(run)

    def _check_open(self) -> None:
        self.writer.home.check()
        if self._closed:
            raise LedgerClosedError(self.address, "is closed")

    # In the threads

    @property
    def batches(self) -> Batches:
        """What makes writes durable; whoever asks first opens the ledger for writing."""
        if self._batches is None:
            self._batches = Batches(self.storage.writing(), self.storage)
        return self._batches

    def _disconnect(self) -> None:
        self._reader.shutdown()
        self.storage.close()

    def _index_executions(self) -> None:
        with self.batches.transaction() as connection:
            connection.execute(_SQL["index_executions"])

    def _decode(self, function: Callable[[sqlite3.Connection], _T], connection: sqlite3.Connection) -> _T:
        try:
            return function(connection)
        except (ValueError, TypeError, msgspec.MsgspecError) as exc:
            raise LedgerDamagedError(self.address, f"holds what m2async did not write ({exc})") from exc

    def _ask(self, function: Callable[[sqlite3.Connection], _T]) -> _T:
        try:
            return self.storage.read(function)
        except sqlite3.Error as exc:
            raise translated(exc, self.address) from exc


class SqliteRunView(belonging.Belonging, evidence.Evidence, told.Told):
    """A run in SQLite, for reading."""

    def __init__(self, ledger: SqliteLedger, name: str) -> None:
        self._ledger = ledger
        self._address = ledger.address
        self._clock = ledger.clock
        self._name = name
        self._info: RunInfo

    @property
    def info(self) -> RunInfo:
        return self._info

    async def counts(self) -> Counts:
        return await self.read(reads.counts)

    async def page(self, *states: RowState, after: int = 0, limit: int = PAGE) -> list[LedgerRow]:
        return await self.read(lambda connection, info: reads.page(connection, info, states, after, limit))

    async def row(self, key: str) -> LedgerRow:
        def ask(connection: sqlite3.Connection, info: RunInfo) -> LedgerRow | None:
            return reads.row_of_key(connection, info.id, key, (info.id << 32) + info.rows)

        row = await self.read(ask)
        if row is None:
            raise RowNotFoundError(self._ledger.address, self._name, key)
        return row

    async def rows_of(self, keys: Collection[str]) -> list[LedgerRow]:
        address = self._ledger.address
        return await self.read(lambda connection, info: dependencies.rows_of(connection, address, info, keys))

    async def dependencies(self) -> Mapping[str, Sequence[str]]:
        return await self.read(dependencies.read)

    async def history(self, number: int) -> list[HistoryEntry]:
        return await self.read(lambda connection, info: reads.history(connection, (info.id << 32) + number))

    # Executions

    async def in_use(self) -> bool:
        return self._ledger.storage.is_locked(self.info.id)

    async def executions(self, first: int, last: int, *, open_only: bool = False) -> list[TrackedExecution]:
        return await self.read(
            lambda connection, info: tracking.executions(connection, info, first, last, open_only=open_only)
        )

    async def together(self, group: int) -> list[TrackedExecution]:
        return await self.read(lambda connection, info: tracking.together(connection, info, group))

    async def execution_counts(self) -> list[ExecutionCount]:
        return await self.read(tracking.counts)

    async def observe(self, observations: Sequence[Observation]) -> None:
        base, at = self.info.id << 32, to_micros(self._ledger.clock())
        cleaned = [
            seen._replace(
                execution_id=clean(seen.execution_id),
                status=seen.status and clean(seen.status),
                return_code=seen.return_code and clean(seen.return_code),
            )
            for seen in observations
        ]
        await self.write_now(lambda connection: tracking.observe(connection, base, cleaned, at))

    async def set_rule(self, max_rc: int, key: str | None = None) -> None:
        row = (self.info.id << 32) + (0 if key is None else (await self.row(key)).number)
        await self.write_now(lambda connection: tracking.set_rule(connection, row, max_rc))

    # How it goes, and what it is told

    async def activity(self, stretches: int = STRETCHES) -> Activity:
        return await self.read(lambda connection, info: activity.activity(connection, info, stretches))

    async def latencies(self) -> list[LatencyCount]:
        return await self.read(activity.latencies)

    async def write_now(self, write: Callable[[sqlite3.Connection], _T]) -> _T:
        """Write in a transaction of its own, which needs no lock of the run."""

        def commit() -> _T:
            with self._ledger.batches.transaction() as connection:
                return write(connection)

        return await self._ledger.write(commit)

    async def read(self, function: Callable[[sqlite3.Connection, RunInfo], _T]) -> _T:
        def ask(connection: sqlite3.Connection) -> tuple[RunInfo | None, _T | None]:
            info = reads.run_info(connection, self._name)
            return info, None if info is None else function(connection, info)

        info, answer = await self._ledger.read(ask)
        if info is None:
            raise RunNotFoundError(self._ledger.address, self._name)
        self._info = info
        return answer  # type: ignore[return-value] # there is one where there is a run


class SqliteRun(SqliteRunView, given.GivenRows):
    """A run in SQLite, for writing; the ledger makes it, and `take` opens it."""

    def __init__(self, ledger: SqliteLedger, name: str, manifest: str | None, digest: str | None) -> None:
        super().__init__(ledger, name)
        self._manifest = manifest
        self._digest = digest
        self._unlock: Callable[[], object] | None = None
        self._closed = False
        self._write: Callable[[Write], asyncio.Future[Any]] = ledger.writer.write
        self._place = Place(0, name, 0)
        self._passes = Passes(ledger.ended_passes)
        self._run_clock = RunClock(ledger.clock)
        self._clock_noted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._clock_noted.set_result(None)

    @property
    def info(self) -> RunInfo:
        return self._info if self._closed else replace(self._info, rows=self._place.rows)

    # Rows

    async def in_turn(self, function: Callable[[Batches], _T]) -> _T:
        return await self._ledger.write(lambda: function(self._ledger.batches))

    async def add(self, key: str, request: StartBatchJob) -> LedgerRow:
        self.check_open()
        check_key(key)
        if not self._info.planned:
            return cast("LedgerRow", await self._write(addition(self._place, key, request)))
        try:
            row = await self.row(key)
        except RowNotFoundError:
            raise ManifestChangedError(self._ledger.address, self._name, added=[key]) from None
        run_id, columns = self._place.id, to_columns(request)
        if not await self._ledger.read(lambda connection: reads.is_planned_as(connection, run_id, key, columns)):
            raise ManifestChangedError(self._ledger.address, self._name, changed=[key])
        return row

    # Attempts

    def intend(
        self, number: int, attempt: int, at: float, *, not_after: float | None = None, resend: bool = False
    ) -> asyncio.Future[None]:
        if not 0 < number <= self._place.rows:
            raise self._not_writable(number)
        latest = None if not_after is None else to_micros(not_after)
        return self._write(intent(self._place, number, attempt, to_micros(at), latest, resend=resend))

    def started(
        self, number: int, attempt: int, execution_id: str, request_id: str | None = None
    ) -> asyncio.Future[None]:
        return self._end(number, attempt, RowEvent.STARTED, execution_id, request_id, None, None)

    def refused(
        self, number: int, attempt: int, code: str, message: str, request_id: str | None = None
    ) -> asyncio.Future[None]:
        return self._end(number, attempt, RowEvent.REFUSED, None, request_id, code, message)

    def withdrawn(self, number: int, attempt: int, code: str, message: str) -> asyncio.Future[None]:
        return self._end(number, attempt, RowEvent.WITHDRAWN, None, None, code, message)

    def rejected(
        self, number: int, attempt: int, code: str, message: str, request_id: str | None = None
    ) -> asyncio.Future[None]:
        return self._end(number, attempt, RowEvent.REJECTED, None, request_id, code, message)

    def unknown(
        self, number: int, attempt: int, code: str, message: str, request_id: str | None = None,
        *, ended_by_service: bool = False,
    ) -> asyncio.Future[None]:  # fmt: skip
        by_service = ended_by_service
        return self._end(number, attempt, RowEvent.UNKNOWN, None, request_id, code, message, by_service=by_service)

    def _end(
        self,
        number: int,
        attempt: int,
        event: RowEvent,
        execution_id: str | None,
        request_id: str | None,
        code: str | None,
        message: str | None,
        *,
        by_service: bool = False,
    ) -> asyncio.Future[None]:
        if not 0 < number <= self._place.rows:
            raise self._not_writable(number)
        return self._write(
            ended(
                self._place,
                number,
                attempt,
                event,
                to_micros(self._clock()),
                execution_id and clean(execution_id),
                request_id and clean(request_id),
                code and clean(code),
                message and clean(message),
                by_service=by_service,
            )
        )

    def note_clock(self, offset: float | None) -> asyncio.Future[None]:
        if self._closed:
            raise LedgerClosedError(self._ledger.address, f"run {self._name!r} is closed")
        write = self._run_clock.note(self._place, offset)
        if write is not None:
            self._clock_noted = self._write(write)
        return self._clock_noted

    # Decisions

    def claim(
        self, number: int, attempt: int, execution_id: str, note: str, *, inferred: bool = True
    ) -> asyncio.Future[None]:
        return self._decide(
            number,
            f"to claim an execution for attempt {attempt}",
            partial(
                decisions.claim,
                address=self._ledger.address,
                attempt=attempt,
                at=to_micros(self._clock()),
                execution_id=clean(execution_id),
                inferred=inferred,
                note=clean(note),
            ),
        )

    def not_started(self, number: int, attempt: int, note: str) -> asyncio.Future[None]:
        at = to_micros(self._clock())
        make = partial(decisions.not_started, attempt=attempt, at=at, note=clean(note))
        return self._decide(number, f"to call attempt {attempt} not started", make)

    def confirm(self, number: int, attempt: int, note: str) -> asyncio.Future[None]:
        at = to_micros(self._clock())
        make = partial(decisions.confirm, attempt=attempt, at=at, note=clean(note))
        return self._decide(number, f"to confirm the execution after attempt {attempt}", make)

    def claim_together(
        self, number: int, rows: Sequence[tuple[int, int]], execution_ids: Sequence[str], note: str
    ) -> asyncio.Future[None]:
        make = partial(
            decisions.claim_together,
            address=self._ledger.address,
            rows=[(self._place.base + row, attempt) for row, attempt in rows],
            at=to_micros(self._clock()),
            execution_ids=[clean(execution_id) for execution_id in execution_ids],
            note=clean(note),
        )
        return self._decide(number, f"to claim {len(execution_ids):,} executions for {len(rows):,} rows", make)

    def resolve(self, number: int, attempt: int, execution_id: str | None, note: str) -> asyncio.Future[None]:
        return self.resolve_all([(number, attempt, execution_id)], note)

    def resolve_all(self, words: Sequence[tuple[int, int, str | None]], note: str) -> asyncio.Future[None]:
        if unknown := [number for number, *_ in words if not 0 < number <= self._place.rows]:
            raise self._not_writable(unknown[0])
        make = partial(
            decisions.resolve_all,
            address=self._ledger.address,
            run=self._name,
            words=[
                (self._place.base + number, attempt, execution_id if execution_id is None else clean(execution_id))
                for number, attempt, execution_id in words
            ],
            at=to_micros(self._clock()),
            note=clean(note),
        )
        return self._decide(words[0][0], "to resolve", make)

    def retry(self, number: int, attempt: int, note: str) -> asyncio.Future[None]:
        at = to_micros(self._clock())
        make = partial(decisions.retry, attempt=attempt, at=at, note=clean(note))
        return self._decide(number, f"to try again after attempt {attempt}", make)

    def give_up(self, number: int, attempt: int, note: str) -> asyncio.Future[None]:
        at = to_micros(self._clock())
        make = partial(decisions.give_up, attempt=attempt, at=at, note=clean(note))
        return self._decide(number, f"to give up after attempt {attempt}", make)

    def restart(self, number: int, attempt: int, job: RestartJob, note: str) -> asyncio.Future[None]:
        at = to_micros(self._clock())
        make = partial(tracking.restart, attempt=attempt, at=at, job=canonical_identifier(job), note=clean(note))
        return self._decide(number, f"to restart after attempt {attempt}", make)

    def candidates(self, number: int, execution_ids: Sequence[str]) -> asyncio.Future[None]:
        make = partial(decisions.candidates, execution_ids=[clean(execution_id) for execution_id in execution_ids])
        return self._decide(number, "to note candidates", make)

    def _decide(self, number: int, what: str, make: Callable[..., bool]) -> asyncio.Future[None]:
        if not 0 < number <= self._place.rows:
            raise self._not_writable(number)
        return self._write(decision(self._place, number, what, partial(make, row=self._place.base + number)))

    # What is asked of whoever has it open

    async def asked(self) -> list[tuple[int, str]]:
        return await self.read(reads.asked)

    async def take_on(self, entry: int) -> bool:
        return await self.write_now(lambda connection: connection.execute(_SQL["take_on"], (entry,)).rowcount == 1)

    async def answer(self, entry: int, text: str) -> None:
        given = {"entry": entry, "text": text}
        await self.write_now(lambda connection: connection.execute(_SQL["answer"], given))

    # Opening and closing

    def take(self, *, by_hand: bool, to_send: bool) -> None:
        """Make the run if there is none, lock it, and put what a crash left into doubt; in the writer's thread.

        All in one transaction: so nobody makes or removes the run meanwhile.
        """
        ledger, now = self._ledger, self._clock()
        with ledger.batches.transaction() as connection:
            connection.execute(_SQL["make_run"], (self._name, to_micros(now)))
            info = reads.run_info(connection, self._name)
            assert info is not None  # noqa: S101 - it was just made
            self._take_lock(info.id, now)
            place = Place(info.id, self._name, info.rows)
            orders = reads.orders(connection, info)
            if orders.stopped and to_send:
                raise RunStoppedError(ledger.address, self._name, orders.at or now)
            run = {"first": place.base, "last": place.last}
            self._run_clock.open(connection, place, now)
            [latest] = connection.execute(_SQL["latest_time"], run).fetchone()
            if latest is not None and not by_hand:
                check_clock(ledger.address, self._name, to_seconds(latest), now)
            for forget in ("forget_pace", "forget_asked"):
                connection.execute(_SQL[forget], (info.id,))
            crash = {"event": RowEvent.CRASH.value, "at": to_micros(now), "code": CRASH_CODE, "message": CRASH_MESSAGE}
            crash |= {"clock": place.clock}
            connection.execute(_SQL["crashed_attempts"], run | crash)
            connection.execute(_SQL["crashed_rows"], run | crash)
        self._info, self._place = info, place

    def _take_lock(self, run_id: int, now: float) -> None:
        ledger = self._ledger
        try:
            self._unlock = ledger.storage.take_lock(run_id, now)
        except LockHeldError as exc:
            raise RunInUseError(ledger.address, self._name, **exc.holder._asdict()) from None

    async def aclose(self) -> None:
        if self._closed or self._ledger.writer.home.is_forked:
            return
        self._ledger.writer.home.check()
        place, self._place = self._place, Place(0, self._name, 0)  # which has no rows to write
        self._closed = True
        self._ledger.forget(self)
        if self._unlock is not None:
            release = partial(self._release, self._unlock, place)
            await self._ledger.writer.call(release)

    def _release(self, unlock: Callable[[], object], place: Place) -> None:
        with ExitStack() as stack:
            stack.callback(unlock)
            if place.id and self._given and (place.rows or self._info.planned):
                with suppress(LedgerError), self._ledger.batches.transaction() as connection:
                    clear(connection, place_beside(place))
            if not place.id or place.rows:
                return
            with suppress(LedgerError), self._ledger.batches.transaction() as connection:
                if connection.execute(_SQL["remove_run"], (place.id,)).rowcount:
                    clear(connection, place)
                    belonging.forget(connection, place.id)
                    connection.execute(_SQL["forget_orders"], (place.id,))
                stack.close()  # before others can make a run in its place

    def check_open(self) -> None:
        if self._closed:
            raise LedgerClosedError(self._ledger.address, f"run {self._name!r} is closed")

    def _not_writable(self, number: int) -> LedgerError:
        if self._closed:
            return LedgerClosedError(self._ledger.address, f"run {self._name!r} is closed")
        if not self._place.rows and not self._info.planned:
            return RunNotPlannedError(self._ledger.address, self._name)
        return RowNotFoundError(self._ledger.address, self._name, number)


def _nothing(connection: sqlite3.Connection, info: RunInfo) -> None:
    """Ask nothing but what is known of the run."""
