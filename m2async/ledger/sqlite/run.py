"""A run of an SQLite ledger, for writing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any, TypeVar, cast

from msgspec.structs import replace

from m2async.ledger.changes import check_clock
from m2async.ledger.errors import (
    LedgerClosedError,
    LedgerError,
    ManifestChangedError,
    RowNotFoundError,
    RunInUseError,
    RunNotPlannedError,
    RunStoppedError,
)
from m2async.ledger.requests import canonical_identifier, to_columns
from m2async.ledger.rows import LedgerRow, RunInfo, to_micros, to_seconds
from m2async.ledger.sqlite import belonging, decisions, given, reads, tracking
from m2async.ledger.sqlite.again import place_beside
from m2async.ledger.sqlite.clocks import RunClock
from m2async.ledger.sqlite.desk import Desk
from m2async.ledger.sqlite.run_lock import LockHeldError
from m2async.ledger.sqlite.run_view import SqliteRunView
from m2async.ledger.sqlite.statements import named_statements
from m2async.ledger.sqlite.unnamed_rows import Passes
from m2async.ledger.sqlite.writes import Batches, Place, Write, addition, clear, decision, ended, intent
from m2async.ledger.states import RowEvent
from m2async.ledger.texts import CRASH_CODE, CRASH_MESSAGE, check_key, clean
from m2async.service import RestartJob, StartBatchJob

_SQL = named_statements("runs", "orders")
_T = TypeVar("_T")


class SqliteRun(SqliteRunView, given.GivenRows):
    """A run in SQLite, for writing; the ledger makes it, and `take` opens it."""

    def __init__(
        self,
        desk: Desk,
        name: str,
        manifest: str | None,
        digest: str | None,
        tell_closed: Callable[[SqliteRun], object],
    ) -> None:
        super().__init__(desk, name)
        self._manifest = manifest
        self._digest = digest
        self._tell_closed = tell_closed
        self._unlock: Callable[[], object] | None = None
        self._closed = False
        self._write: Callable[[Write], asyncio.Future[Any]] = desk.writer.write
        self._place = Place(0, name, 0)
        self._passes = Passes(desk.ended_passes)
        self._run_clock = RunClock(desk.clock)
        self._clock_noted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._clock_noted.set_result(None)

    @property
    def info(self) -> RunInfo:
        return self._info if self._closed else replace(self._info, rows=self._place.rows)

    # Rows

    async def in_turn(self, function: Callable[[Batches], _T]) -> _T:
        return await self._desk.write(lambda: function(self._desk.batches))

    async def add(self, key: str, request: StartBatchJob) -> LedgerRow:
        self.check_open()
        check_key(key)
        if not self._info.planned:
            return cast("LedgerRow", await self._write(addition(self._place, key, request)))
        try:
            row = await self.row(key)
        except RowNotFoundError:
            raise ManifestChangedError(self._address, self._name, added=[key]) from None
        run_id, columns = self._place.id, to_columns(request)
        if not await self._desk.read(lambda connection: reads.is_planned_as(connection, run_id, key, columns)):
            raise ManifestChangedError(self._address, self._name, changed=[key])
        return row

    # Attempts

    def intend(
        self, number: int, attempt: int, at: float, *, not_after: float | None = None, resend: bool = False
    ) -> asyncio.Future[None]:
        if not 0 < number <= self._place.rows:
            raise self._not_writable(number)
        write = intent(self._place, number, attempt, to_micros(at), to_micros(not_after), resend=resend)
        return self._write(write)

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
        self.check_open()
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
                address=self._address,
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
            address=self._address,
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
            address=self._address,
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
        now = self._clock()
        with self._desk.batches.transaction() as connection:
            connection.execute(_SQL["make_run"], (self._name, to_micros(now)))
            info = reads.run_info(connection, self._name)
            assert info is not None  # noqa: S101 - it was just made
            self._take_lock(info.id, now)
            place = Place(info.id, self._name, info.rows)
            orders = reads.orders(connection, info)
            if orders.stopped and to_send:
                raise RunStoppedError(self._address, self._name, orders.at or now)
            run = {"first": place.base, "last": place.last}
            self._run_clock.open(connection, place, now)
            [latest] = connection.execute(_SQL["latest_time"], run).fetchone()
            if latest is not None and not by_hand:
                check_clock(self._address, self._name, to_seconds(latest), now)
            for forget in ("forget_pace", "forget_asked"):
                connection.execute(_SQL[forget], (info.id,))
            crash = {"event": RowEvent.CRASH.value, "at": to_micros(now), "code": CRASH_CODE, "message": CRASH_MESSAGE}
            crash |= {"clock": place.clock}
            connection.execute(_SQL["crashed_attempts"], run | crash)
            connection.execute(_SQL["crashed_rows"], run | crash)
        self._info, self._place = info, place

    def _take_lock(self, run_id: int, now: float) -> None:
        try:
            self._unlock = self._desk.storage.take_lock(run_id, now)
        except LockHeldError as exc:
            raise RunInUseError(self._address, self._name, **exc.holder._asdict()) from None

    async def aclose(self) -> None:
        if self._closed or self._desk.writer.home.is_forked:
            return
        self._desk.writer.home.check()
        place, self._place = self._place, Place(0, self._name, 0)  # which has no rows to write
        self._closed = True
        self._tell_closed(self)
        if self._unlock is not None:
            release = partial(self._release, self._unlock, place)
            await self._desk.writer.call(release)

    def _release(self, unlock: Callable[[], object], place: Place) -> None:
        with ExitStack() as stack:
            stack.callback(unlock)
            if place.id and self._given and (place.rows or self._info.planned):
                with suppress(LedgerError), self._desk.batches.transaction() as connection:
                    clear(connection, place_beside(place))
            if not place.id or place.rows:
                return
            with suppress(LedgerError), self._desk.batches.transaction() as connection:
                if connection.execute(_SQL["remove_run"], (place.id,)).rowcount:
                    clear(connection, place)
                    belonging.forget(connection, place.id)
                    connection.execute(_SQL["forget_orders"], (place.id,))
                stack.close()  # before others can make a run in its place

    def check_open(self) -> None:
        if self._closed:
            raise LedgerClosedError(self._address, f"run {self._name!r} is closed")

    def _not_writable(self, number: int) -> LedgerError:
        if self._closed:
            return LedgerClosedError(self._address, f"run {self._name!r} is closed")
        if not self._place.rows and not self._info.planned:
            return RunNotPlannedError(self._address, self._name)
        return RowNotFoundError(self._address, self._name, number)
