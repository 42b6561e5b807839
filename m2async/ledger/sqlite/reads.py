"""Reading an SQLite ledger: each function is one question to a connection."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from typing import Any

import msgspec

from m2async.ledger.requests import RequestColumns, from_columns, job_of_identifier
from m2async.ledger.rows import Counts, HistoryEntry, LedgerRow, OpenAttempt, Orders, RunInfo, RunSummary, to_seconds
from m2async.ledger.sqlite.statements import named_statements
from m2async.ledger.states import RowEvent, RowState

_SQL = named_statements("reads", "runs", "orders")
_OPEN = frozenset({RowState.INTENT, RowState.UNKNOWN})
_decode_ids = msgspec.json.Decoder(tuple[str, ...]).decode


def run_info(connection: sqlite3.Connection, name: str) -> RunInfo | None:
    """Give a run by its name."""
    found = connection.execute(_SQL["run"], (name,)).fetchone()
    return None if found is None else _run_info(found)


def run_summaries(connection: sqlite3.Connection) -> list[RunSummary]:
    """Give all runs, oldest first."""
    runs = [_run_info(found) for found in connection.execute(_SQL["all_runs"]).fetchall()]
    return [RunSummary(info, counts(connection, info)) for info in runs]


def counts(connection: sqlite3.Connection, info: RunInfo) -> Counts:
    """Count a run's rows by state."""
    base = info.id << 32
    counted = dict.fromkeys(RowState, 0)
    for state, count in connection.execute(_SQL["counts"], (base, base + info.rows)):
        counted[RowState(state)] = count
    attempted = sum(counted.values()) - counted[RowState.PENDING]
    return {**counted, RowState.PENDING: info.rows - attempted}


def page(
    connection: sqlite3.Connection, info: RunInfo, states: Collection[RowState], after: int, limit: int
) -> list[LedgerRow]:
    """Give the first rows behind number `after` that are in one of `states`, or in any."""
    base = info.id << 32
    statement = "page_of_open" if states and _OPEN.issuperset(states) else "page"
    asked = {
        "after": base + after,
        "last": base + info.rows,
        "states": sum(1 << state for state in set(states or RowState)),
        "limit": limit,
    }
    return [_ledger_row(found) for found in connection.execute(_SQL[statement], asked)]


def orders(connection: sqlite3.Connection, info: RunInfo) -> Orders:
    """Give what a run in progress was told."""
    found = connection.execute(_SQL["orders"], (info.id,)).fetchone()
    if found is None:
        return Orders()
    rate, burst, paused, stopped = found
    return Orders(rate, burst, bool(paused), bool(stopped))


def row_of_key(connection: sqlite3.Connection, run_id: int, key: str, last: int) -> LedgerRow | None:
    """Give the row of a key whose id is at most `last`."""
    found = connection.execute(_SQL["row"], {"run": run_id, "key": key, "last": last}).fetchone()
    return None if found is None else _ledger_row(found)


def is_planned_as(connection: sqlite3.Connection, run_id: int, key: str, columns: RequestColumns) -> bool:
    """Tell whether a key's row was planned with this request, whatever it was restarted as since."""
    found = connection.execute(_SQL["planned_row"], (run_id, key)).fetchone()
    return found is not None and found[1:] == columns


def history(connection: sqlite3.Connection, row_id: int) -> list[HistoryEntry]:
    """Give what happened to a row."""
    return [
        HistoryEntry(
            attempt, RowEvent(event), _seconds(sent_at), to_seconds(ended_at),
            code, message, request_id, execution_id, note, bool(is_open),
        )
        for attempt, event, sent_at, ended_at, code, message, request_id, execution_id, note, is_open
        in connection.execute(_SQL["history"], (row_id,))
    ]  # fmt: skip


def open_attempts(connection: sqlite3.Connection, application_id: str) -> list[OpenAttempt]:
    """Give the attempts of an application that are under way or in doubt."""
    return [
        OpenAttempt(
            run_id=run_id,
            run=run,
            number=row_id & 0xFFFF_FFFF,
            key=key,
            attempt=attempt,
            state=RowState(state),
            application_id=application_id,
            job=job_of_identifier(job),
            identifier=job,
            sent_at=to_seconds(sent_at),
            ended_at=_seconds(ended_at),
        )
        for run_id, run, row_id, key, attempt, state, job, sent_at, ended_at in connection.execute(
            _SQL["open_attempts"], (application_id,)
        )
    ]


def claimed(connection: sqlite3.Connection, application_id: str, execution_ids: Collection[str]) -> set[str]:
    """Give the executions that belong to rows; `index_executions` must have been made."""
    asked = {"given": msgspec.json.encode(list(execution_ids)).decode(), "application_id": application_id}
    return {execution_id for (execution_id,) in connection.execute(_SQL["claimed"], asked)}


def _run_info(found: tuple[Any, ...]) -> RunInfo:
    id_, name, manifest, digest, planned, rows, created_at = found
    return RunInfo(id_, name, manifest, digest, bool(planned), rows, to_seconds(created_at))


def _ledger_row(found: tuple[Any, ...]) -> LedgerRow:
    (
        id_, key, application_id, job, params, secret,
        state, attempts, doubts, sent_at, ended_at, execution_id, request_id, adopted, code, message, candidates, note,
    ) = found  # fmt: skip
    request = from_columns(application_id, job, params, secret)
    if state is None:
        return LedgerRow(id_ & 0xFFFF_FFFF, key, request)
    return LedgerRow(
        id_ & 0xFFFF_FFFF,
        key,
        request,
        RowState(state),
        attempts,
        doubts,
        _seconds(sent_at),
        _seconds(ended_at),
        execution_id,
        request_id,
        bool(adopted),
        code,
        message,
        () if candidates is None else _decode_ids(candidates),
        note,
    )


def _seconds(micros: int | None) -> float | None:
    return None if micros is None else to_seconds(micros)
