"""Batches of writes as SQLite transactions: one statement for all writes of a kind, whatever their number.

A statement for each row would let go of the interpreter's lock and fight for it again with each row, against
a busy event loop; so the rows of a kind go to SQLite together, as JSON.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import IntEnum
from functools import partial
from typing import Any, TypeAlias

from m2async.ledger.errors import (
    IllegalTransitionError,
    LedgerDamagedError,
    LedgerError,
    LedgerLockedError,
    ManifestChangedError,
)
from m2async.ledger.requests import likeness, to_columns
from m2async.ledger.rows import LedgerRow
from m2async.ledger.sqlite import unnamed_rows
from m2async.ledger.sqlite.commits import tag_commit
from m2async.ledger.sqlite.file import translated
from m2async.ledger.sqlite.reads import is_planned_as, row_of_key
from m2async.ledger.sqlite.schema import pragma
from m2async.ledger.sqlite.statements import as_json, named_statements
from m2async.ledger.sqlite.storage import Storage
from m2async.ledger.states import NEXT_STATE, RowEvent, RowState, Standing, follow, illegal_reason
from m2async.service import RowNumber, StartBatchJob

_SQL = named_statements("writes", "decisions", "runs")


class Place:
    """Where a run's rows are: row n has the id `base + n`, for n from 1 to `rows`. `clock` tells its times."""

    __slots__ = ("base", "clock", "id", "name", "rows")

    def __init__(self, id_: int, name: str, rows: int) -> None:
        self.id: int = id_
        self.name: str = name
        self.base: int = id_ << 32
        self.rows: int = rows
        self.clock: int | None = None

    @property
    def last(self) -> int:
        """The greatest id that a row of the run can have."""
        return self.base + 0xFFFF_FFFF


def clear(connection: sqlite3.Connection, place: Place) -> None:
    """Remove the rows that wait in a place, and their order: none of them counts."""
    for statement in ("clear_plan", "clear_order"):
        connection.execute(_SQL[statement], (place.base, place.last))


class WriteKind(IntEnum):
    """What a write is; the writes of a batch are made kind by kind, in this order."""

    FIRST_INTENT = 0
    FURTHER_INTENT = 1
    ENDED = 2
    ADD = 3
    ADD_UNNAMED = 4
    DECISION = 5


Write: TypeAlias = tuple[int, Place, Hashable, Any]
"""A kind, the run, what no two writes of one batch may share, and what the kind's statement takes."""

_AFTER_INTENT = {
    event: (
        NEXT_STATE[RowState.INTENT, event].value,
        after.state.value,
        after.doubts - 1,
        None if event in {RowEvent.STARTED, RowEvent.WITHDRAWN} else event.value,
    )
    for event in (RowEvent.STARTED, RowEvent.REFUSED, RowEvent.WITHDRAWN, RowEvent.REJECTED, RowEvent.UNKNOWN)
    for after in [follow(Standing(RowState.INTENT, 1), event)]
    if after
}


def intent(place: Place, number: int, attempt: int, sent_at: int, not_after: int | None, *, resend: bool) -> Write:
    """Write that an attempt will be sent."""
    row = place.base + number
    if attempt == 1 and not resend:
        return WriteKind.FIRST_INTENT, place, row, (row, sent_at, place.clock, not_after)
    state = RowState.UNKNOWN if resend else RowState.PENDING
    return WriteKind.FURTHER_INTENT, place, row, (row, attempt, state.value, sent_at, place.clock, not_after)


def ended(
    place: Place,
    number: int,
    attempt: int,
    event: RowEvent,
    ended_at: int,
    execution_id: str | None,
    request_id: str | None,
    code: str | None,
    message: str | None,
    *,
    by_service: bool = False,
) -> Write:
    """Write how an attempt ended."""
    row = place.base + number
    state, state_in_doubt, doubts, in_history = _AFTER_INTENT[event]
    values = (row, attempt, state, state_in_doubt, doubts, ended_at, execution_id, request_id, code, message)
    counted = attempt - (event is RowEvent.WITHDRAWN)
    return WriteKind.ENDED, place, row, (*values, in_history, place.clock, counted, by_service)


def addition(place: Place, key: str, request: StartBatchJob) -> Write:
    """Add a row to the run's end, or find the one that has this key."""
    return WriteKind.ADD, place, (place.id, key), (key, request, to_columns(request))


def unnamed_addition(
    place: Place, key: RowNumber, request: StartBatchJob, pass_: int, *, ended: Sequence[int], is_planned: bool
) -> Write:
    """Find the next row of a request in a pass, or add one to the end of a run that is not planned."""
    return WriteKind.ADD_UNNAMED, place, object(), (key, request, to_columns(request), pass_, ended, is_planned)


def decision(place: Place, number: int, what: str, make: Callable[[sqlite3.Connection], bool]) -> Write:
    """Let `make` write something about a single row; it gives False if the row does not allow it.

    It must change nothing before it gives False or raises; `what` says what it would have done.
    """
    return WriteKind.DECISION, place, (row := place.base + number), (row, what, make)


def _what(write: Write) -> Hashable:
    return write[2]


def _is_planned(write: Write) -> bool:
    return write[0] == WriteKind.ADD_UNNAMED and bool(write[3][-1])


def _asked(write: Write) -> unnamed_rows.UnnamedJob:
    _, place, _, (key, _, columns, pass_, ended, _) = write
    return unnamed_rows.UnnamedJob(pass_, likeness(key, columns)[0], place.base, place.base + place.rows, ended)


_ADDITIONS = {WriteKind.ADD, WriteKind.ADD_UNNAMED}

_EVENT = 10  # where the event is in what `ended` gives; None where the history has none


_HASTE = 30
"""By what to divide the time that a write waits, after one that waited in vain: 30 seconds become one."""


class _MisfitError(Exception):
    """Some write of a batch does not fit the rows as they stand."""


class Batches:
    """Makes batches of writes durable over one connection, in the connection's thread."""

    def __init__(self, connection: sqlite3.Connection, storage: Storage) -> None:
        self._connection = connection
        self._storage = storage
        self._before = partial(storage.check, log_only=True)
        self._address = storage.address
        self._damage: LedgerDamagedError | None = None
        self._patience: int = pragma(connection, "busy_timeout")  # milliseconds
        self._is_patient = True
        self._rows_before: dict[Place, int] = {}

    def commit(self, writes: Sequence[Write]) -> list[object] | None:
        """Make the writes in one transaction; gives the result of each, or None if there is nothing to tell."""
        self._rows_before = {}
        try:
            with suppress(_MisfitError):
                if all(write[0] <= WriteKind.ENDED for write in writes):
                    with self._sound():
                        self._make_attempts(writes, is_commit=True)
                    return None
                with self.transaction():
                    return self._together(writes)
            with self.transaction():
                return [self._alone(write) for write in writes]
        except BaseException:
            for place, rows in self._rows_before.items():
                place.rows = rows
            raise

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Commit what is written within; once it ended without an error, that is durable."""
        connection = self._connection
        with self._sound():
            try:
                connection.execute("BEGIN IMMEDIATE")
                before = connection.total_changes
                yield connection
                if connection.total_changes != before:
                    tag_commit(connection)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    @contextmanager
    def aside(self) -> Iterator[sqlite3.Connection]:
        """Read, and write temporary tables only, in no transaction: other writers are not kept waiting."""
        with self._sound():
            yield self._connection

    @contextmanager
    def _sound(self) -> Iterator[None]:
        """See that what is committed within goes where the ledger was opened."""
        if self._damage is not None:
            raise self._damage
        self._see(self._before)  # as a log that was cut may be made long again by writing
        try:
            yield
        except sqlite3.Error as exc:
            self._see(self._storage.check)  # what became of the file explains more
            error = translated(exc, self._address)
            self._damage = error if isinstance(error, LedgerDamagedError) else None
            self._be_patient(not isinstance(error, LedgerLockedError))
            raise error from exc
        self._be_patient(True)
        self._see(self._storage.seal)  # after, as what was written into a deleted file is not durable

    def _be_patient(self, wanted: bool) -> None:
        """Wait for other programs as long as was given; or shortly, once a write has waited so long in vain.

        What comes behind it in the queue would each wait as long again, and its callers with it.
        """
        if wanted is not self._is_patient:
            self._is_patient = wanted
            self._connection.execute(f"PRAGMA busy_timeout = {self._patience if wanted else self._patience // _HASTE}")

    def _see(self, look: Callable[[], object]) -> None:
        try:
            look()
        except LedgerDamagedError as exc:
            self._damage = exc
            raise

    # Together: a statement for each kind

    def _together(self, writes: Sequence[Write]) -> list[object]:
        self._make_attempts(writes)
        added = iter(self._give_rows([write for write in writes if write[0] in _ADDITIONS]))
        results: list[object] = []
        for write in writes:
            match write[0]:
                case WriteKind.ADD | WriteKind.ADD_UNNAMED:
                    results.append(next(added))
                case WriteKind.DECISION:
                    results.append(self._decide(write))
                case _:
                    results.append(None)
        return results

    def _make_attempts(self, writes: Sequence[Write], *, is_commit: bool = False) -> None:
        if len({what for _, _, what, _ in writes}) != len(writes):  # their order matters
            raise _MisfitError
        rows: list[list[Any]] = [
            [row for its_kind, _, _, row in writes if its_kind == kind]
            for kind in (WriteKind.FIRST_INTENT, WriteKind.FURTHER_INTENT, WriteKind.ENDED)
        ]
        rows.append([row for row in rows[-1] if row[_EVENT] is not None])
        try:
            self._connection.execute(_SQL["attempts"], [*(as_json(part) for part in rows), is_commit])
        except sqlite3.IntegrityError as exc:
            raise _MisfitError from exc

    def _give_rows(
        self, writes: Sequence[Write], *, free_key: RowNumber | None = None
    ) -> list[LedgerRow | LedgerError]:
        """Give the rows of jobs, and add those that there are not: a key that was given must be new then."""
        unnamed = [write for write in writes if write[0] == WriteKind.ADD_UNNAMED]
        if not unnamed:
            return [*self._add_all(writes)] if writes else []
        asked = [_asked(write) for write in unnamed]
        found = dict(zip(map(_what, unnamed), unnamed_rows.find(self._connection, asked), strict=True))
        new = [write for write in writes if found.get(_what(write)) is None and not _is_planned(write)]
        if (
            new
            and len(writes) > 1
            and len({(job.pass_, job.request) for job in asked}) > len({(job.base, job.request) for job in asked})
        ):
            raise _MisfitError  # what is added for one pass is there for the next
        if new:
            found |= zip(map(_what, new), self._add_all(new, free_key=free_key), strict=True)
        unnamed_rows.count_rows(self._connection, asked, [found[_what(write)] for write in unnamed])
        return [found[_what(write)] or self._not_planned(write) for write in writes]

    def _add_all(self, writes: Sequence[Write], *, free_key: RowNumber | None = None) -> list[LedgerRow]:
        places = {place.id: place for _, place, _, _ in writes}
        rows = {place.id: place.rows for place in places.values()}
        for place in places.values():
            if not place.rows:  # what is there is of a plan that was not finished
                clear(self._connection, place)
        given, results = [], []
        for _, place, _, (key, request, columns, *_) in writes:
            rows[place.id] += 1
            if isinstance(key, RowNumber):
                key = free_key or RowNumber(rows[place.id])
            given.append((place.base + rows[place.id], place.id, str(key), *columns, *likeness(key, columns)))
            results.append(LedgerRow(rows[place.id], str(key), request))
        if self._connection.execute(_SQL["add"], (as_json(given),)).rowcount != len(given):
            raise _MisfitError
        for id_, count in rows.items():
            self._connection.execute(_SQL["count_added"], (count, id_))
            self._rows_before.setdefault(places[id_], places[id_].rows)
            places[id_].rows = count
        return results

    # Alone: in order, each with a result of its own

    def _alone(self, write: Write) -> object:
        kind, place, _, row = write
        if kind == WriteKind.DECISION:
            return self._decide(write)
        try:
            if kind == WriteKind.ADD_UNNAMED:
                return self._add_unnamed(write)
            if kind == WriteKind.ADD:
                return self._add(write)
            self._make_attempts([write])
        except _MisfitError:
            what = "the end" if kind == WriteKind.ENDED else "intent"
            attempt = 1 if kind == WriteKind.FIRST_INTENT else row[1]
            return self._illegal(place, row[0], f"{what} of attempt {attempt}")
        return None

    def _add(self, write: Write) -> LedgerRow | LedgerError:
        _, place, _, (key, _, columns) = write
        found = row_of_key(self._connection, place.id, key, place.base + place.rows)
        if found is None:
            return self._add_all([write])[0]
        if not is_planned_as(self._connection, place.id, key, columns):
            return ManifestChangedError(self._address, place.name, changed=[key])
        return found

    def _add_unnamed(self, write: Write) -> LedgerRow | LedgerError:
        place = write[1]
        with suppress(_MisfitError):
            return self._give_rows([write])[0]
        free_key = unnamed_rows.free_key(self._connection, place.id, place.rows + 1)
        return self._give_rows([write], free_key=free_key)[0]

    def _not_planned(self, write: Write) -> ManifestChangedError:
        _, place, _, (key, *_) = write
        return ManifestChangedError(self._address, place.name, added=[key])

    def _decide(self, write: Write) -> LedgerError | None:
        _, place, _, (row, what, make) = write
        try:
            if not make(self._connection):
                return self._illegal(place, row, what)
        except LedgerError as exc:
            return exc
        return None

    def _illegal(self, place: Place, row: int, what: str) -> IllegalTransitionError:
        found = self._connection.execute(_SQL["standing"], (row,)).fetchone()
        state, attempts, doubts = found or (RowState.PENDING, 0, 0)
        reason = illegal_reason(what, Standing(RowState(state), doubts), attempts)
        return IllegalTransitionError(self._address, place.name, row - place.base, reason)
