"""Planning a run in SQLite: rows in batches, or the comparison with those that are there."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from itertools import islice

from m2async.ledger.changes import After, Changes
from m2async.ledger.errors import DuplicateKeyError
from m2async.ledger.requests import to_columns
from m2async.ledger.sqlite import dependencies
from m2async.ledger.sqlite.statements import named_statements
from m2async.ledger.sqlite.writes import Batches, Place
from m2async.service import StartBatchJob

BATCH = 100_000
"""Rows of one transaction: enough that each page of the keys' index is written seldom, few enough that other writers
get in between and that a cancellation is heeded within about a second."""

PAGE = 10_000
"""Rows that are compared at a time."""

_SQL = named_statements("runs")
KeyedRequest = tuple[str, StartBatchJob]


class Planning:
    """Puts rows into a run that has none yet; `rows` counts those that are there."""

    def __init__(self, place: Place, address: str, batches: Batches, rows: int = 0) -> None:
        self._place = place
        self._address = address
        self._batches = batches
        self.rows: int = rows

    def begin(self) -> None:
        """Remove what an unfinished plan left."""
        with self._batches.transaction() as connection:
            connection.execute(_SQL["clear_plan"], (self._place.base, self._place.last))

    def next_batch(self, rows: Iterator[KeyedRequest]) -> bool:
        """Plan the next batch of rows; tells whether there may be more."""
        before = self.rows
        with self._batches.transaction() as connection:
            try:
                connection.executemany(_SQL["plan_row"], self._columns(islice(rows, BATCH)))
            except sqlite3.IntegrityError as exc:
                [(first,)] = connection.execute(_SQL["id_of_key"], (self._place.id, self._key))
                raise DuplicateKeyError(self._address, self._key, first - self._place.base, self.rows) from exc
        return self.rows - before == BATCH

    def finish(self, manifest: str | None, digest: str | None, after: After) -> None:
        """Mark the run as planned, its rows in this order."""
        with self._batches.transaction() as connection:
            dependencies.add(connection, self._address, self._place, after)
            connection.execute(_SQL["planned"], (self.rows, manifest, digest, self._place.id))
        self._place.rows = self.rows

    def _columns(self, rows: Iterator[KeyedRequest]) -> Iterator[tuple[int | str | None, ...]]:
        base, run = self._place.base, self._place.id
        for self._key, request in rows:
            self.rows += 1
            yield base + self.rows, run, self._key, *to_columns(request)


class Comparison:
    """Compares rows with those that a run was planned with."""

    def __init__(self, place: Place, address: str) -> None:
        self._place = place
        self._address = address
        self._changes = Changes(place.rows)
        self._given = 0

    def next_batch(self, connection: sqlite3.Connection, rows: Iterator[KeyedRequest]) -> bool:
        """Compare the next batch of rows; tells whether there may be more."""
        first = self._place.base + self._given + 1
        last = min(first + PAGE - 1, self._place.base + self._place.rows)
        planned = iter(connection.execute(_SQL["planned_rows"], (first, last)).fetchall())
        before = self._given
        for key, request in islice(rows, PAGE):
            self._given += 1
            columns = to_columns(request)
            beside = next(planned, None)
            if beside is not None and beside[0] == key:
                self._found(key, self._given, same=beside[1:] == columns)
            else:
                self._look_up(connection, key, columns)
        return self._given - before == PAGE

    def finish(self, connection: sqlite3.Connection) -> None:
        """Raise ManifestChangedError if there was a difference."""
        keys = []
        for number in self._changes.missing():
            [(key,)] = connection.execute(_SQL["planned_key"], (self._place.base + number,))
            keys.append(key)
        error = self._changes.error(self._address, self._place.name, keys)
        if error is not None:
            raise error

    def _look_up(self, connection: sqlite3.Connection, key: str, columns: tuple[str | None, ...]) -> None:
        found = connection.execute(_SQL["planned_row"], (self._place.id, key)).fetchone()
        if found is None:
            self._changes.added(key)
        else:
            self._found(key, found[0] - self._place.base, same=found[1:] == columns)

    def _found(self, key: str, planned: int, *, same: bool) -> None:
        twice = self._changes.found(key, self._given, planned, same=same)
        if twice is not None:
            raise DuplicateKeyError(self._address, key, *twice)
