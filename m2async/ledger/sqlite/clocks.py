"""Writing down which clock the times of a run are read off, and what is known of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from secrets import token_hex
from time import time

from m2async.clock import ClockOffset, steady_time, uptime
from m2async.ledger.clocks import boot_of_machine
from m2async.ledger.rows import to_micros
from m2async.ledger.sqlite.statements import named_statements
from m2async.ledger.sqlite.writes import Place, Write, decision

_SQL = named_statements("clocks")
_SET = 1.0
"""Seconds: a machine's clock that moves by more was set."""


class RunClock:
    """The clock of a run that is open for writing."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._offset: float | None = None
        self._opened_at = self._base = self._wall = 0.0
        self._boot = ""

    def open(self, connection: sqlite3.Connection, place: Place, now: float) -> None:
        """Write a clock of which nothing is known yet, for all times of the run from now on."""
        [last] = connection.execute(_SQL["last_clock"], {"first": place.base, "last": place.last}).fetchone()
        place.clock = (place.base if last is None else last) + 1
        self._opened_at, self._base, self._wall = now, now - uptime(), time() - now
        # Other clocks can be compared with ours, unless it is one of the caller's own.
        self._boot = (boot_of_machine() if self._clock is steady_time else None) or token_hex(8)
        connection.execute(_SQL["new_clock"], self._values(place.clock, now))

    def note(self, place: Place, offset: float | None) -> Write | None:
        """Give what writes that this is known from now on; None if it was noted before."""
        is_same = offset is self._offset or (offset == self._offset and not isinstance(offset, ClockOffset))
        if is_same and offset is not None:
            return None
        now = self._clock()
        if is_same and abs(time() - now - self._wall) < _SET:
            return None
        assert place.clock is not None  # noqa: S101 - the run is open
        rows = []
        for known in [None] if offset is None else _not_yet_noted(ClockOffset.of(offset), self._offset):
            self._offset, self._wall = known, time() - now
            place.clock += 1
            rows.append(self._values(place.clock, now))
        self._offset = offset

        def make(connection: sqlite3.Connection) -> bool:
            connection.executemany(_SQL["new_clock"], rows)
            return True

        return decision(place, 0, "to note what the clocks show", make)

    def _values(self, id_: int, now: float) -> dict[str, int | str | None]:
        offset = None if self._offset is None else ClockOffset.of(self._offset)
        return {
            "id": id_,
            "opened_at": to_micros(self._opened_at),
            "at": to_micros(now),
            "boot": self._boot,
            "base": to_micros(self._base),
            "wall": to_micros(self._wall),
            "least": None if offset is None else to_micros(offset.least),
            "most": None if offset is None else to_micros(offset.most),
            "since": None if offset is None or offset.since is None else to_micros(offset.since),
        }


def _not_yet_noted(offset: ClockOffset, noted: float | None) -> list[ClockOffset]:
    """Give an offset and those that held between the last one that was noted and this one, the earliest first."""
    held = [offset]
    since = noted.since if isinstance(noted, ClockOffset) else None
    while (before := held[-1].before) is not None and (noted is None or before.since != since):
        held.append(before)
    return held[::-1]
