"""Reading an SQLite ledger: each function is one question to a connection."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from typing import Any

import msgspec

from m2async.ledger.clocks import Clock, Clocks
from m2async.ledger.destinations import Destination
from m2async.ledger.requests import RequestColumns, from_columns, job_of_identifier
from m2async.ledger.rows import (
    Counts,
    HistoryEntry,
    LedgerRow,
    OpenAttempt,
    Orders,
    RunInfo,
    RunSummary,
    to_seconds,
)
from m2async.ledger.sqlite.statements import MaybeNumber, MaybeText, as_json, named_statements
from m2async.ledger.states import RowEvent, RowState

_SQL = named_statements("reads", "runs", "orders", "clocks")
_OPEN = frozenset({RowState.INTENT, RowState.UNKNOWN})
_decode_ids = msgspec.json.Decoder(tuple[str, ...]).decode
_ProgressColumns = tuple[
    int, int, int, MaybeNumber, MaybeNumber, MaybeText, MaybeText, int, MaybeText, MaybeText, MaybeText, MaybeText
]
"""A row's columns from its state on, as m2async writes them: another program may have written something else."""


def run_info(connection: sqlite3.Connection, name: str) -> RunInfo | None:
    """Give a run by its name."""
    found = connection.execute(_SQL["run"], (name,)).fetchone()
    return None if found is None else _run_info(found)


def run_infos(connection: sqlite3.Connection) -> list[RunInfo]:
    """Give all runs, oldest first."""
    return [_run_info(found) for found in connection.execute(_SQL["all_runs"]).fetchall()]


def last_of(connection: sqlite3.Connection, digest: str) -> RunInfo | None:
    """Give the run that was made last of those that were planned with a digest."""
    found = connection.execute(_SQL["last_of_digest"], (digest,)).fetchone()
    return None if found is None else run_info(connection, found[0])


def run_summaries(connection: sqlite3.Connection) -> list[RunSummary]:
    """Give all runs, oldest first, and how far each is."""
    return [RunSummary(info, counts(connection, info)) for info in run_infos(connection)]


def counts(connection: sqlite3.Connection, info: RunInfo) -> Counts:
    """Count a run's rows by state."""
    base = info.id << 32
    counted = dict.fromkeys(RowState, 0)
    for state, count in connection.execute(_SQL["counts"], (base, base + info.rows)):
        counted[RowState(state)] = count
    attempted = sum(counted.values()) - counted[RowState.PENDING]
    counted[RowState.PENDING] = info.rows - attempted
    if info.gone:
        for state, count in connection.execute(_SQL["gone"], (base, base + info.rows)):
            counted[RowState(state)] -= count
    return counted


def page(
    connection: sqlite3.Connection, info: RunInfo, states: Collection[RowState], after: int, limit: int
) -> list[LedgerRow]:
    """Give the first rows behind number `after` that are in one of `states`, or in any."""
    base = info.id << 32
    statement = "page_of_open" if states and _OPEN.issuperset(states) else "page"
    asked = {
        "after": base + after,
        "last": base + info.rows,
        "states": sum(1 << state for state in set(states)) or -1,  # all bits: also of a state that there is not
        "limit": limit,
    }
    return [ledger_row(found) for found in connection.execute(_SQL[statement], asked)]


def orders(connection: sqlite3.Connection, info: RunInfo) -> Orders:
    """Give what a run in progress was told."""
    found = connection.execute(_SQL["orders"], (info.id,)).fetchone()
    if found is None:
        return Orders()
    rate, burst, paused, stopped, at = found
    return Orders(rate, burst, bool(paused), bool(stopped), to_seconds(at))


def asked(connection: sqlite3.Connection, info: RunInfo) -> list[tuple[int, str]]:
    """Give what is asked of whoever has a run open for writing."""
    return connection.execute(_SQL["asked"], (info.id,)).fetchall()


def answer_to(connection: sqlite3.Connection, entry: int) -> str | None:
    """Give the answer to something that was asked."""
    found = connection.execute(_SQL["answer_to"], (entry,)).fetchone()
    return None if found is None else str(found[0])


def row_of_key(connection: sqlite3.Connection, run_id: int, key: str, last: int) -> LedgerRow | None:
    """Give the row of a key whose id is at most `last`."""
    found = connection.execute(_SQL["row"], {"run": run_id, "key": key, "last": last}).fetchone()
    return None if found is None else ledger_row(found)


def is_planned_as(connection: sqlite3.Connection, run_id: int, key: str, columns: RequestColumns) -> bool:
    """Tell whether a key's row was planned with this request, whatever it was restarted as since."""
    found = connection.execute(_SQL["planned_row"], (run_id, key)).fetchone()
    return found is not None and found[1:] == columns


def history(connection: sqlite3.Connection, row_id: int) -> list[HistoryEntry]:
    """Give what happened to a row."""
    return [
        HistoryEntry(
            attempt, RowEvent(event), to_seconds(sent_at), to_seconds(ended_at),
            code, message, request_id, execution_id, note, is_open == 1,
        )
        for attempt, event, sent_at, ended_at, code, message, request_id, execution_id, note, is_open
        in connection.execute(_SQL["history"], (row_id,))
    ]  # fmt: skip


def open_attempts(connection: sqlite3.Connection, application_id: str) -> list[OpenAttempt]:
    """Give the attempts of an application that are under way or in doubt."""
    clocks = clocks_of(connection)
    found = connection.execute(_SQL["open_attempts"], (application_id,)).fetchall()
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
            ended_at=to_seconds(ended_at),
            sent_after=clocks.span(clock, to_seconds(sent_at))[0],
            ended_before=None if ended_at is None else clocks.ended_before(run_id, ended_clock, to_seconds(ended_at)),
            ended_by=None if ended_at is None else clocks.ended_by(run_id, ended_clock, to_seconds(ended_at)),
            is_former=clocks.is_former(run_id, clock),
            not_after=to_seconds(not_after),
            sent_to=_destination(*sent_to),
            uptimes=clocks.uptimes(clock, to_seconds(sent_at), ended_clock, to_seconds(ended_at)),
            ended_by_service=bool(by_service),
        )
        for (
            run_id, run, row_id, key, attempt, state, job,
            sent_at, clock, ended_at, ended_clock, not_after, by_service, *sent_to
        ) in found
    ]  # fmt: skip


def clocks_of(connection: sqlite3.Connection) -> Clocks:
    """Give the clocks that the times of attempts were read off."""
    return Clocks(
        Clock(
            id_, id_ >> 32, to_seconds(opened_at), to_seconds(at), boot, to_seconds(base), to_seconds(wall),
            to_seconds(least), to_seconds(most), to_seconds(since),
        )
        for id_, opened_at, at, boot, base, wall, least, most, since in connection.execute(_SQL["clocks"])
    )  # fmt: skip


def claimed(connection: sqlite3.Connection, application_id: str, execution_ids: Collection[str]) -> set[str]:
    """Give the executions that belong to rows; `index_executions` must have been made."""
    asked = {"given": as_json(list(execution_ids)), "application_id": application_id}
    return {execution_id for (execution_id,) in connection.execute(_SQL["claimed"], asked)}


def _run_info(found: tuple[Any, ...]) -> RunInfo:
    id_, name, manifest, digest, planned, rows, created_at, *sent_to, gone = found
    place = _destination(*sent_to)
    return RunInfo(id_, name, manifest, digest, bool(planned), rows, to_seconds(created_at), place, gone)


def _destination(endpoint_url: str | None, region_name: str, account_id: str | None) -> Destination | None:
    return None if endpoint_url is None else Destination(endpoint_url, region_name, account_id)


def ledger_row(found: tuple[Any, ...]) -> LedgerRow:
    """Make a row of its columns, as `page` gives them."""
    id_, key, application_id, job, params, secret, *progress = found
    request = from_columns(application_id, job, params, secret)
    number = id_ & 0xFFFF_FFFF
    if progress[0] is None:
        return LedgerRow(number, key, request)
    (
        state, attempts, doubts, sent_at, ended_at, execution_id, request_id, adopted, code, message, candidates, note,
    ) = msgspec.convert(progress, _ProgressColumns)  # fmt: skip
    return LedgerRow(
        number,
        key,
        request,
        RowState(state),
        attempts,
        doubts,
        to_seconds(sent_at),
        to_seconds(ended_at),
        execution_id,
        request_id,
        adopted == 1,
        code,
        message,
        () if candidates is None else _decode_ids(candidates),
        note,
    )
