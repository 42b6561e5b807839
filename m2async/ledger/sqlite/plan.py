"""Putting a manifest's rows into an SQLite ledger, in batches."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from itertools import islice

from m2async.ledger.changes import After
from m2async.ledger.errors import DuplicateKeyError
from m2async.ledger.requests import likeness, to_columns
from m2async.ledger.sqlite import dependencies
from m2async.ledger.sqlite.statements import named_statements
from m2async.ledger.sqlite.writes import Batches, Place, clear
from m2async.service import StartBatchJob

BATCH = 100_000
"""Rows of one transaction: enough that each page of the keys' index is written seldom, few enough that other writers
get in between and that a cancellation is heeded within about a second."""

_SQL = named_statements("runs")
KeyedRequest = tuple[str, StartBatchJob]


class Planning:
    """Puts rows where those of a run belong, or wait: none of them counts yet; `rows` is how many there are."""

    def __init__(self, place: Place, address: str, batches: Batches) -> None:
        self._place = place
        self._address = address
        self._batches = batches
        self.rows: int = 0

    def begin(self) -> None:
        """Remove what an unfinished plan left."""
        with self._batches.transaction() as connection:
            clear(connection, self._place)

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

    def finish(self, after: After) -> None:
        """Put in order what has come."""
        if after:
            with self._batches.transaction() as connection:
                dependencies.add(connection, self._address, self._place, after)

    def _columns(self, rows: Iterator[KeyedRequest]) -> Iterator[tuple[int | str | None, ...]]:
        base, run = self._place.base, self._place.id
        for self._key, request in rows:
            self.rows += 1
            columns = to_columns(request)
            yield base + self.rows, run, self._key, *columns, *likeness(self._key, columns)
