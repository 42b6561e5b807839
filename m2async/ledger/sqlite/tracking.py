"""Executions after their start, in SQLite: reading them, and writing what the service says of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec

from m2async.ledger.requests import job_of_identifier
from m2async.ledger.rows import (
    ExecutionCount,
    ExecutionEnd,
    Observation,
    RunInfo,
    TrackedExecution,
    to_micros,
    to_seconds,
)
from m2async.ledger.sqlite.statements import MaybeNumber, MaybeText, as_json, named_statements
from m2async.ledger.states import RowEvent, RowState

_SQL = named_statements("tracking")
_ExecutionColumns = tuple[
    int, str, str, str, int, int, int, MaybeText, MaybeText, MaybeText, MaybeNumber, MaybeNumber, int, int,
    MaybeNumber, MaybeNumber, MaybeText, MaybeText,
]  # fmt: skip
"""The columns of an execution, as m2async writes them: another program may have written something else."""
_decode_ids = msgspec.json.Decoder(tuple[str, ...]).decode
_decode_ends = msgspec.json.Decoder(list[tuple[int, MaybeText, MaybeText, int, int]]).decode
_NOT_RESTARTED = ExecutionEnd("Failed", None, ended=True, gone=False)
_BEING_RESTARTED = ExecutionEnd(None, None, ended=False, gone=False)


def executions(
    connection: sqlite3.Connection,
    info: RunInfo,
    first: int,
    last: int,
    *,
    open_only: bool = False,
    together: int | None = None,
) -> list[TrackedExecution]:
    """Give the executions of some rows of a run, or only those that a group of them shares."""
    base = info.id << 32
    asked = {
        "base": base, "first": base + first, "last": base + min(last, info.rows), "until": 1 if open_only else 2,
        "together": together,
    }  # fmt: skip
    return [_execution(found) for found in connection.execute(_SQL["executions"], asked)]


def together(connection: sqlite3.Connection, info: RunInfo, group: int) -> list[TrackedExecution]:
    """Give the executions that a group shares."""
    first, last = connection.execute(_SQL["of_group"], (group,)).fetchone()
    if first is None:
        return []
    base = info.id << 32
    return executions(connection, info, first - base, last - base, together=group)


def counts(connection: sqlite3.Connection, info: RunInfo) -> list[ExecutionCount]:
    """Count the executions of a run that look the same."""
    base = info.id << 32
    found = connection.execute(_SQL["execution_counts"], {"base": base, "last": base + info.rows})
    return [ExecutionCount(*values[:-1])._replace(ends=_ends(values[-1])) for values in found]


def observe(connection: sqlite3.Connection, base: int, observations: Sequence[Observation], at: int) -> None:
    """Write what was seen of executions: all in one statement."""
    given = [
        (
            base + seen.number, seen.execution_id, seen.status, seen.return_code, to_micros(seen.start_time),
            to_micros(seen.end_time), at, int(seen.ended), int(seen.gone),
        )
        for seen in observations
    ]  # fmt: skip
    connection.execute(_SQL["observe"], (as_json(given),))


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
        group, candidates, ends,
    ) = msgspec.convert(found, _ExecutionColumns)  # fmt: skip
    return TrackedExecution(
        id_ & 0xFFFF_FFFF, key, application_id, job_of_identifier(job), execution_id, attempts, adopted == 1,
        to_seconds(sent_at), status, return_code, to_seconds(started_at), to_seconds(ended_at), ended == 1, gone == 1,
        max_rc, group, () if candidates is None else _decode_ids(candidates), _ends(ends),
    )  # fmt: skip


def _ends(found: str | None) -> tuple[ExecutionEnd, ...]:
    """Give how the executions of a group stand, those of rows that are being restarted included."""
    if found is None:
        return ()
    return tuple(
        ExecutionEnd(status, return_code, ended == 1, gone == 1)
        if state == RowState.STARTED
        else _NOT_RESTARTED
        if state == RowState.REJECTED
        else _BEING_RESTARTED
        for state, status, return_code, ended, gone in _decode_ends(found)
    )
