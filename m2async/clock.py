"""The clocks: the one that attempts are written down with, and what is known of the service's."""

from __future__ import annotations

import time
from collections.abc import Callable

CLOCK_TOLERANCE = 2.0
"""Seconds that two clocks which are right may differ; a known difference counts besides."""

_JUMP = 1.0
"""Seconds that the service's clocks may differ among themselves; a greater change is a jump of the local clock."""

_FINEST = 0.25
"""Seconds to which a difference is narrowed down: more than many servers' clocks agree."""

# Both count the time that a machine sleeps: CLOCK_BOOTTIME on Linux, CLOCK_MONOTONIC on macOS and the BSDs.
# CLOCK_MONOTONIC stands still meanwhile on Linux (clock_gettime(2)).
_UPTIME = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def uptime() -> float:
    """Seconds since the machine was booted, those that it slept included; nobody can set this clock."""
    return time.clock_gettime(_UPTIME)


_BEGAN = time.time() - uptime()


def steady_time() -> float:
    """Seconds of the epoch, as the system's clock said when the program began, and as they went by since.

    Nobody can set it while the program runs, and it goes on while the machine sleeps.
    """
    return _BEGAN + uptime()


class ClockOffset(float):
    """How far the service's clock is ahead of the local one, in seconds.

    Attributes:
        least, most: what it surely is between.
        before: what it was before the clocks jumped; None if they never did.
        since: the local time at which that was seen to hold last: this one may hold from then on.
    """

    __slots__ = ("before", "least", "most", "since")

    def __new__(
        cls, least: float, most: float, before: ClockOffset | None = None, since: float | None = None
    ) -> ClockOffset:
        offset = super().__new__(cls, (least + most) / 2)
        offset.least, offset.most, offset.before, offset.since = least, most, before, since
        return offset

    least: float
    most: float
    before: ClockOffset | None
    since: float | None

    @classmethod
    def of(cls, offset: float) -> ClockOffset:
        """Take a number for an offset that is known as exactly as one `Date` tells it."""
        return offset if isinstance(offset, ClockOffset) else cls(offset - 0.5, offset + 0.5)


class ServiceClock:
    """What answers tell of the service's clock.

    An answer's `Date` was stamped between the sending of the request and the arrival of the answer, so a slow one tells
    little. What several answers say is taken together; where they cannot all be right, a clock jumped: the local one
    was set, the machine stood still without its clocks noticing (a virtual one that was paused), or the service's was.

    Arguments:
        clock: the local clock, in seconds of the epoch.
    """

    def __init__(self, clock: Callable[[], float] = steady_time) -> None:
        self.local_time: Callable[[], float] = clock
        self.offset: ClockOffset | None = None  # a new object where more, or something else, is known
        self._least = self._most = self._confirmed_at = 0.0

    def read(self, date: float, sent_at: float, received_at: float) -> None:
        """Take note of a `Date`, in whole seconds of the epoch, of an answer to a request of these local times."""
        least, most = date - received_at, date + 1.0 - sent_at
        offset = self.offset
        if offset is None:
            self._set(least, most, None, None)
        elif least > self._most + _JUMP or most < self._least - _JUMP:
            self._set(least, most, offset, self._confirmed_at)
        else:
            if least <= self._most and most >= self._least:
                least, most = max(least, self._least), min(most, self._most)
            else:
                least, most = min(least, self._least), max(most, self._most)
            narrower = max(most - least, _FINEST) < (offset.most - offset.least) / 2
            if narrower or least < offset.least or most > offset.most:
                self._set(least, most, offset.before, offset.since)
            self._least, self._most = least, most
        self._confirmed_at = max(sent_at, self._confirmed_at)

    def _set(self, least: float, most: float, before: ClockOffset | None, since: float | None) -> None:
        self._least, self._most = least, most
        margin = max(0.0, _FINEST - (most - least)) / 2
        self.offset = ClockOffset(least - margin, most + margin, before, since)
