"""How a run went, asked of SQLite."""

from __future__ import annotations

import sqlite3

from m2async.ledger.activity import NO_ACTIVITY, Activity, AttemptCount, LatencyCount, stretch_width
from m2async.ledger.rows import RunInfo, to_micros, to_seconds
from m2async.ledger.sqlite.statements import named_statements
from m2async.ledger.states import RowEvent

_SQL = named_statements("activity")


def activity(connection: sqlite3.Connection, info: RunInfo, stretches: int) -> Activity:
    """Count the answers of a run by when they came and what they were."""
    rows = _rows(info)
    began, ended = connection.execute(_SQL["span"], rows).fetchone()
    if began is None:
        return NO_ACTIVITY
    width = to_micros(stretch_width(to_seconds(ended - began), stretches))
    counted = connection.execute(_SQL["activity"], {**rows, "width": width})
    return Activity(
        to_seconds(began),
        to_seconds(ended),
        to_seconds(width),
        [
            AttemptCount(to_seconds(stretch * width), RowEvent(event), code, attempts)
            for stretch, event, code, attempts in counted
        ],
    )


def latencies(connection: sqlite3.Connection, info: RunInfo) -> list[LatencyCount]:
    """Count the attempts of a run that took equally long."""
    return [
        LatencyCount(tenths / 10_000, attempts)
        for tenths, attempts in connection.execute(_SQL["latencies"], _rows(info))
    ]


def _rows(info: RunInfo) -> dict[str, int]:
    base = info.id << 32
    return {"first": base, "last": base + info.rows}
