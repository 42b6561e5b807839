"""A manifest that is given again, in SQLite: its rows beside those of runs, compared there and not in memory.

The rows wait in a place of their own: that of the new run that was opened for them, or one below zero that goes with
the run that they are compared with.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from typing import Any

from m2async.ledger.changes import MAX_KEYS, ChangeKind, Differences, RowChange
from m2async.ledger.errors import DuplicateKeyError
from m2async.ledger.rows import RunInfo
from m2async.ledger.sqlite.statements import as_json, named_statements
from m2async.ledger.sqlite.writes import Place
from m2async.ledger.states import RowEvent

_SQL = named_statements("again")
_ORDER = 3  # the change of a row that comes after others than before
_NOTE = "the manifest was given again with another request"


def place_beside(place: Place) -> Place:
    """Give the place where rows wait that are given for a run that has its own."""
    return Place(-place.id, place.name, 0)


def kin(connection: sqlite3.Connection, given: Place, unlike: Collection[int]) -> dict[int, int]:
    """Give the runs that the given rows were in last, with how many of them; `unlike` are runs that do not count."""
    asked = {"first": given.base, "end": given.last, "unlike": as_json(list(unlike))}
    return dict(connection.execute(_SQL["kin"], asked).fetchall())


def planned(connection: sqlite3.Connection) -> tuple[int, ...]:
    """Give what changes when a run is planned, or takes over rows."""
    found: tuple[int, ...] = connection.execute(_SQL["planned_runs"]).fetchone()
    return found


def compare(connection: sqlite3.Connection, given: Place, place: Place, unlike: Collection[int]) -> Differences:
    """Pair given rows with those of a run, and say what differs; both are kept with the connection for `amend`."""
    asked: dict[str, Any] = {**_spans(given, place), "unlike": as_json(list(unlike))}
    for statement in ("make_pairs", "make_differing", "forget_pairs", "forget_differing"):
        connection.execute(_SQL[statement])
    connection.execute(_SQL["pair_by_key"], asked)
    if connection.execute(_SQL["has_numbered"], asked).fetchone()[0]:
        for to_numbered in (1, 0):
            connection.execute(_SQL["pair_by_request"], {**asked, "to_numbered": to_numbered})
    connection.execute(_SQL["find_differing"], asked)
    connection.execute(_SQL["find_elsewhere"], asked)
    return _differences(connection)


def amend(connection: sqlite3.Connection, address: str, given: Place, place: Place, at: int) -> int:
    """Make a run's rows those that were compared with it last; gives the greatest number among them.

    Raises DuplicateKeyError where the number by which a row without a key is called is the key of another.
    """
    asked: dict[str, Any] = {**_spans(given, place), "at": at, "note": _NOTE, "event": RowEvent.AMENDED.value}
    added: int = connection.execute(_SQL["number_added"], asked).rowcount
    if clash := connection.execute(_SQL["clash"], asked).fetchone():
        raise DuplicateKeyError(address, *clash)
    for statement in (
        "add_given", "change_rows", "note_changed", "settle_changed", "let_changed_start", "restore", "withdraw",
        "forget_order", "order_given",
    ):  # fmt: skip
        connection.execute(_SQL[statement], asked)
    return place.rows + added


def given_as(connection: sqlite3.Connection, first: int, numbers: Collection[int]) -> dict[int, int]:
    """Give the numbers that rows have in the run that took them over last, by those that they were given with."""
    asked = {"first": first, "numbers": as_json(list(numbers))}
    return dict(connection.execute(_SQL["given_as"], asked).fetchall())


def unlike(infos: Collection[RunInfo], *, rehearsal: bool) -> list[int]:
    """Give the runs that are rehearsals, or for a rehearsal those that are none: they started nothing there."""
    return [info.id for info in infos if info.sent_to is not None and info.sent_to.is_rehearsal is not rehearsal]


def _spans(given: Place, place: Place) -> dict[str, int]:
    base = place.base + 1
    return {"first": given.base, "end": given.last, "run": place.id, "base": base, "last": place.base + place.rows}


def _differences(connection: sqlite3.Connection) -> Differences:
    counts: dict[RowChange, int] = {}
    keys: dict[RowChange, list[str]] = {}
    for change, may_have_started, elsewhere, numbered, count in connection.execute(_SQL["count_differing"]).fetchall():
        kind = ChangeKind.CHANGED if change == _ORDER else ChangeKind(change)
        row = RowChange(kind, bool(may_have_started), bool(elsewhere), bool(numbered))
        asked = {"change": change, **row._asdict(), "limit": MAX_KEYS}
        asked["change"] = change
        counts[row] = counts.get(row, 0) + count
        keys.setdefault(row, []).extend(key for (key,) in connection.execute(_SQL["keys_of_differing"], asked))
    return Differences(counts, keys)
