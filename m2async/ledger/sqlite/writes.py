"""Batches of writes as SQLite transactions: one statement for all writes of a kind, whatever their number.

A statement for each row would let go of the interpreter's lock and fight for it again with each row, against
a busy event loop; so the rows of a kind go to SQLite together, as JSON.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import IntEnum
from typing import Any, TypeAlias

import msgspec

from m2async.ledger.errors import (
    IllegalTransitionError,
    LedgerDamagedError,
    LedgerError,
    ManifestChangedError,
)
from m2async.ledger.requests import to_columns
from m2async.ledger.rows import LedgerRow
from m2async.ledger.sqlite.file import translated
from m2async.ledger.sqlite.reads import is_planned_as, row_of_key
from m2async.ledger.sqlite.statements import named_statements
from m2async.ledger.sqlite.storage import Storage
from m2async.ledger.states import NEXT_STATE, RowEvent, RowState, Standing, follow, illegal_reason
from m2async.service import StartBatchJob

_SQL = named_statements("writes", "decisions", "runs")
_encode = msgspec.json.encode


class Place:
    """Where a run's rows are: row n has the id `base + n`, for n from 1 to `rows`."""

    __slots__ = ("base", "id", "name", "rows")

    def __init__(self, id_: int, name: str, rows: int) -> None:
        self.id: int = id_
        self.name: str = name
        self.base: int = id_ << 32
        self.rows: int = rows

    @property
    def last(self) -> int:
        """The greatest id that a row of the run can have."""
        return self.base + 0xFFFF_FFFF


class WriteKind(IntEnum):
    """What a write is; the writes of a batch are made kind by kind, in this order."""

    FIRST_INTENT = 0
    FURTHER_INTENT = 1
    ENDED = 2
    ADD = 3
    DECISION = 4


Write: TypeAlias = tuple[int, Place, Hashable, Any]
"""A kind, the run, what no two writes of one batch may share, and what the kind's statement takes."""

_AFTER_INTENT = {
    event: (
        NEXT_STATE[RowState.INTENT, event].value,
        after.state.value,
        after.doubts - 1,
        None if event is RowEvent.STARTED else event.value,
    )
    for event in (RowEvent.STARTED, RowEvent.REFUSED, RowEvent.REJECTED, RowEvent.UNKNOWN)
    for after in [follow(Standing(RowState.INTENT, 1), event)]
    if after
}


def intent(place: Place, number: int, attempt: int, sent_at: int, *, resend: bool) -> Write:
    """Write that an attempt will be sent."""
    row = place.base + number
    if attempt == 1 and not resend:
        return WriteKind.FIRST_INTENT, place, row, (row, sent_at)
    state = RowState.UNKNOWN if resend else RowState.PENDING
    return WriteKind.FURTHER_INTENT, place, row, (row, attempt, state.value, sent_at)


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
) -> Write:
    """Write how an attempt ended."""
    row = place.base + number
    state, state_in_doubt, doubts, in_history = _AFTER_INTENT[event]
    return (
        WriteKind.ENDED,
        place,
        row,
        (row, attempt, state, state_in_doubt, doubts, ended_at, execution_id, request_id, code, message, in_history),
    )


def addition(place: Place, key: str, request: StartBatchJob) -> Write:
    """Add a row to the run's end, or find the one that has this key."""
    return WriteKind.ADD, place, (place.id, key), (key, request, to_columns(request))


def decision(place: Place, number: int, what: str, make: Callable[[sqlite3.Connection], bool]) -> Write:
    """Let `make` write something about a single row; it gives False if the row does not allow it.

    It must change nothing before it gives False or raises; `what` says what it would have done.
    """
    return WriteKind.DECISION, place, (row := place.base + number), (row, what, make)


class _MisfitError(Exception):
    """Some write of a batch does not fit the rows as they stand."""


class Batches:
    """Makes batches of writes durable over one connection, in the connection's thread."""

    def __init__(self, connection: sqlite3.Connection, storage: Storage) -> None:
        self._connection = connection
        self._storage = storage
        self._address = storage.address
        self._damage: LedgerDamagedError | None = None
        self._rows_before: dict[Place, int] = {}

    def commit(self, writes: Sequence[Write]) -> list[object] | None:
        """Make the writes in one transaction; gives the result of each, or None if there is nothing to tell."""
        self._rows_before = {}
        try:
            with suppress(_MisfitError):
                if all(write[0] <= WriteKind.ENDED for write in writes):
                    with self._sound():
                        self._make_attempts(writes)
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
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _sound(self) -> Iterator[None]:
        """See that what is committed within goes where the ledger was opened."""
        if self._damage is not None:
            raise self._damage
        self._check_storage()  # before, as a file that was cut may be made long again by writing
        try:
            yield
        except sqlite3.Error as exc:
            self._check_storage()  # what became of the file explains more
            error = translated(exc, self._address)
            self._damage = error if isinstance(error, LedgerDamagedError) else None
            raise error from exc
        self._check_storage()  # after, as what was written into a deleted file is not durable

    def _check_storage(self) -> None:
        try:
            self._storage.check()
        except LedgerDamagedError as exc:
            self._damage = exc
            raise

    # Together: a statement for each kind

    def _together(self, writes: Sequence[Write]) -> list[object]:
        self._make_attempts(writes)
        additions = [write for write in writes if write[0] == WriteKind.ADD]
        added = iter(self._add_all(additions) if additions else ())
        results: list[object] = []
        for write in writes:
            match write[0]:
                case WriteKind.ADD:
                    results.append(next(added))
                case WriteKind.DECISION:
                    results.append(self._decide(write))
                case _:
                    results.append(None)
        return results

    def _make_attempts(self, writes: Sequence[Write]) -> None:
        if len({what for _, _, what, _ in writes}) != len(writes):  # their order matters
            raise _MisfitError
        rows: list[list[Any]] = [
            [row for its_kind, _, _, row in writes if its_kind == kind]
            for kind in (WriteKind.FIRST_INTENT, WriteKind.FURTHER_INTENT, WriteKind.ENDED)
        ]
        rows.append([row for row in rows[-1] if row[-1] is not None])
        try:
            self._connection.execute(_SQL["attempts"], [_encode(part).decode() for part in rows])
        except sqlite3.IntegrityError as exc:
            raise _MisfitError from exc

    def _add_all(self, writes: Sequence[Write]) -> list[LedgerRow]:
        places = {place.id: place for _, place, _, _ in writes}
        rows = {place.id: place.rows for place in places.values()}
        for place in places.values():
            if not place.rows:  # what is there is of a plan that was not finished
                self._connection.execute(_SQL["clear_plan"], (place.base, place.last))
        given, results = [], []
        for _, place, _, (key, request, columns) in writes:
            rows[place.id] += 1
            given.append((place.base + rows[place.id], place.id, key, *columns))
            results.append(LedgerRow(rows[place.id], key, request))
        if self._connection.execute(_SQL["add"], (_encode(given).decode(),)).rowcount != len(given):
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
