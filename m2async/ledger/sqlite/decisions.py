"""What is found out or decided about single rows in SQLite; each gives False where the row does not allow it."""

from __future__ import annotations

import sqlite3
from typing import Any

import msgspec

from m2async.ledger.errors import ExecutionClaimedError
from m2async.ledger.sqlite.statements import named_statements
from m2async.ledger.states import RowEvent

_SQL = named_statements("decisions")


def claim(
    connection: sqlite3.Connection,
    *,
    address: str,
    row: int,
    attempt: int,
    at: int,
    execution_id: str,
    inferred: bool,
    note: str,
) -> bool:
    """Give an execution to an UNKNOWN row's attempt in doubt; raises ExecutionClaimedError."""
    connection.execute(_SQL["index_executions"])
    holder = connection.execute(_SQL["holder_of_execution"], {"execution_id": execution_id}).fetchone()
    if holder is not None:
        raise ExecutionClaimedError(address, execution_id, *holder)
    values = {"id": row, "attempt": attempt, "at": at, "execution_id": execution_id, "note": note}
    if not _changes(connection, "settle_attempt", {"id": row, "attempt": attempt}):
        return False
    connection.execute(_SQL["claim"], {**values, "inferred": inferred})
    connection.execute(_SQL["decision"], {**values, "event": RowEvent.CLAIMED.value})
    return True


def not_started(connection: sqlite3.Connection, *, row: int, attempt: int, at: int, note: str) -> bool:
    """Make an UNKNOWN row PENDING: none of its attempts started anything."""
    return _decide(connection, "not_started", RowEvent.NOT_STARTED, row, attempt, at, note)


def retry(connection: sqlite3.Connection, *, row: int, attempt: int, at: int, note: str) -> bool:
    """Make a REJECTED row PENDING."""
    return _decide(connection, "retry", RowEvent.RETRY, row, attempt, at, note)


def give_up(connection: sqlite3.Connection, *, row: int, attempt: int, at: int, note: str) -> bool:
    """Make a PENDING row REJECTED."""
    return _decide(connection, "give_up", RowEvent.GIVEN_UP, row, attempt, at, note)


def candidates(connection: sqlite3.Connection, *, row: int, execution_ids: list[str]) -> bool:
    """Write the candidates of a row in doubt."""
    values = {"id": row, "candidates": msgspec.json.encode(execution_ids).decode()}
    return _changes(connection, "candidates", values)


def _decide(
    connection: sqlite3.Connection, statement: str, event: RowEvent, row: int, attempt: int, at: int, note: str
) -> bool:
    if not _changes(connection, statement, {"id": row, "attempt": attempt, "note": note}):
        return False
    connection.execute(_SQL["settle_row"], {"id": row})
    decision = {"id": row, "attempt": attempt, "event": event.value, "at": at, "execution_id": None, "note": note}
    connection.execute(_SQL["decision"], decision)
    return True


def _changes(connection: sqlite3.Connection, statement: str, values: dict[str, Any]) -> bool:
    return connection.execute(_SQL[statement], values).rowcount == 1
