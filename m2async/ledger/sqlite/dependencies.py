"""Dependencies in SQLite: each function is one question to a connection, or one write to it."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from sys import intern

from m2async.ledger.changes import After
from m2async.ledger.errors import RowNotFoundError
from m2async.ledger.rows import LedgerRow, RunInfo
from m2async.ledger.sqlite.reads import row_of_key
from m2async.ledger.sqlite.statements import named_statements
from m2async.ledger.sqlite.writes import Place

_SQL = named_statements("dependencies")


def add(connection: sqlite3.Connection, address: str, place: Place, after: After) -> None:
    """Write which rows come after which; raises RowNotFoundError for a key that no row has."""
    for key, earlier in after.items():
        for other in earlier:
            asked = {"run": place.id, "key": key, "after": other}
            if connection.execute(_SQL["add_dependency"], asked).rowcount != 1:
                raise RowNotFoundError(address, place.name, other)


def read(connection: sqlite3.Connection, info: RunInfo) -> After:
    """Give the keys that each row comes after, in the order of the manifest."""
    base = info.id << 32
    after: dict[str, list[str]] = {}
    for key, earlier in connection.execute(_SQL["dependencies"], (base, base + info.rows)):
        after.setdefault(intern(key), []).append(intern(earlier))
    return after


def rows_of(connection: sqlite3.Connection, address: str, info: RunInfo, keys: Collection[str]) -> list[LedgerRow]:
    """Give the rows of these keys in the order of the manifest; raises RowNotFoundError."""
    rows = []
    for key in keys:
        row = row_of_key(connection, info.id, key, (info.id << 32) + info.rows)
        if row is None:
            raise RowNotFoundError(address, info.name, key)
        rows.append(row)
    return sorted(rows, key=lambda row: row.number)
