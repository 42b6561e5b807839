"""Jobs without keys in SQLite: the rows that they stand in, counted by request within a pass over them."""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Sequence
from itertools import count
from typing import NamedTuple
from weakref import WeakKeyDictionary, finalize

from m2async.ledger.requests import RequestColumns, likeness
from m2async.ledger.rows import LedgerRow
from m2async.ledger.sqlite.reads import ledger_row
from m2async.ledger.sqlite.statements import as_json, named_statements
from m2async.service import RowNumber

_SQL = named_statements("unnamed_rows")
_NUMBERS = count(1)


class Passes:
    """The passes over the jobs of a run, each known by an object that lives as long as it; what has `ended` is told."""

    def __init__(self, ended: deque[int]) -> None:
        self._numbers: WeakKeyDictionary[object, int] = WeakKeyDictionary()
        self._ended = ended

    def number_of(self, among: object) -> int:
        """Give the number that only this pass has."""
        if (number := self._numbers.get(among)) is None:
            self._numbers[among] = number = next(_NUMBERS)
            finalize(among, self._ended.append, number).atexit = False
        return number

    def take_ended(self) -> list[int]:
        """Give the numbers of the passes that have ended, once."""
        return [self._ended.popleft() for _ in range(len(self._ended))]


class UnnamedJob(NamedTuple):
    """A job without a key: the next of its request in a pass, in a run with these ids."""

    pass_: int
    request: int
    base: int
    end: int
    ended: Sequence[int]  # passes that are to be forgotten


def complete_likeness(connection: sqlite3.Connection) -> bool:
    """Write what says which rows are the same, for some rows of before; tells whether there may be more."""
    found = connection.execute(_SQL["without_likeness"]).fetchall()
    given = [
        (*likeness(RowNumber(key) if is_numbered else key, RequestColumns(*columns)), id_)
        for id_, key, *columns, is_numbered in found
    ]
    connection.executemany(_SQL["set_likeness"], given)
    return bool(found)


def find(connection: sqlite3.Connection, jobs: Sequence[UnnamedJob]) -> list[LedgerRow | None]:
    """Give the row of each job, None where the run has no further one; `count_rows` is told what came of it."""
    while complete_likeness(connection):
        pass
    connection.execute(_SQL["make_counted"])
    if ended := [number for job in jobs for number in job.ended]:
        connection.execute(_SQL["forget"], (as_json(ended),))
    rows: dict[tuple[int, int], deque[LedgerRow]] = {}
    for pass_, request, *row in connection.execute(_SQL["find"], (as_json(jobs),)).fetchall():
        rows.setdefault((pass_, request), deque()).append(ledger_row(tuple(row)))
    return [left.popleft() if (left := rows.get((job.pass_, job.request))) else None for job in jobs]


def count_rows(connection: sqlite3.Connection, jobs: Sequence[UnnamedJob], rows: Sequence[LedgerRow | None]) -> None:
    """Take note of the rows that jobs were given."""
    given = [(job.pass_, job.request, job.base + row.number) for job, row in zip(jobs, rows, strict=True) if row]
    connection.execute(_SQL["count"], (as_json(given),))


def free_key(connection: sqlite3.Connection, run_id: int, number: int) -> RowNumber:
    """Give the key of a row whose number is the key of another: the first of `3-2`, `3-3`, … that no row has."""
    keys = (RowNumber(f"{number}-{nth}") for nth in count(2))
    return next(key for key in keys if not connection.execute(_SQL["has_key"], (run_id, key)).fetchone()[0])
