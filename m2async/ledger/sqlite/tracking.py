"""Executions after their start, in SQLite: reading them, and writing what the service says of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec

from m2async.ledger.requests import job_of_identifier
from m2async.ledger.rows import ExecutionCount, Observation, RunInfo, TrackedExecution, to_micros, to_seconds
from m2async.ledger.sqlite.statements import named_statements
from m2async.ledger.states import RowEvent

_SQL = named_statements("tracking")


def executions(
    connection: sqlite3.Connection, info: RunInfo, first: int, last: int, *, open_only: bool
) -> list[TrackedExecution]:
    """Give the executions of some rows of a run."""
    base = info.id << 32
    asked = {"base": base, "first": base + first, "last": base + min(last, info.rows), "until": 1 if open_only else 2}
    return [_execution(found) for found in connection.execute(_SQL["executions"], asked)]


def counts(connection: sqlite3.Connection, info: RunInfo) -> list[ExecutionCount]:
    """Count the executions of a run that look the same."""
    base = info.id << 32
    found = connection.execute(_SQL["execution_counts"], {"base": base, "last": base + info.rows})
    return [ExecutionCount(*values) for values in found]


def observe(connection: sqlite3.Connection, base: int, observations: Sequence[Observation], at: int) -> None:
    """Write what was seen of executions: all in one statement."""
    given = [
        (
            base + seen.number, seen.execution_id, seen.status, seen.return_code, _micros(seen.start_time),
            _micros(seen.end_time), at, int(seen.ended), int(seen.gone),
        )
        for seen in observations
    ]  # fmt: skip
    connection.execute(_SQL["observe"], (msgspec.json.encode(given).decode(),))


def set_rule(connection: sqlite3.Connection, row: int, max_rc: int) -> None:
    """Write the greatest return code of a success, of a row or, with the id of row 0, of a run."""
    connection.execute(_SQL["set_rule"], (row, max_rc))


def restart(connection: sqlite3.Connection, *, row: int, attempt: int, at: int, job: str, note: str) -> bool:
    """Make a STARTED row PENDING, and let another job stand in its job's place."""
    values: dict[str, Any] = {"id": row, "attempt": attempt, "at": at, "job": job, "note": note}
    if connection.execute(_SQL["note_restart"], {"id": row, "attempt": attempt}).rowcount != 1:
        return False
    for statement in ("restart_history", "restart_job", "restart", "forget_execution"):
        connection.execute(_SQL[statement], {**values, "event": RowEvent.RESTART.value})
    return True


def _execution(found: tuple[Any, ...]) -> TrackedExecution:
    (
        id_, key, application_id, job, attempts, adopted, sent_at,
        execution_id, status, return_code, started_at, ended_at, ended, gone, max_rc,
    ) = found  # fmt: skip
    return TrackedExecution(
        id_ & 0xFFFF_FFFF, key, application_id, job_of_identifier(job), execution_id, attempts, bool(adopted),
        to_seconds(sent_at), status, return_code, _seconds(started_at), _seconds(ended_at), bool(ended), bool(gone),
        max_rc,
    )  # fmt: skip


def _micros(seconds: float | None) -> int | None:
    return None if seconds is None else to_micros(seconds)


def _seconds(micros: int | None) -> float | None:
    return None if micros is None else to_seconds(micros)
