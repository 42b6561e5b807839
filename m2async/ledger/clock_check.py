"""Whether the clock still is the one that a run's times were written by."""

from __future__ import annotations

from m2async.clock import CLOCK_TOLERANCE
from m2async.ledger.errors import ClockSetBackError


def check_clock(ledger: str, run: str, latest: float, now: float) -> None:
    """Raise ClockSetBackError if the clock is so far behind a run's `latest` time that matching would go wrong.

    The time that went by since is not known, so a clock that was set back by less than that is not noticed.
    """
    if latest > now + CLOCK_TOLERANCE:
        raise ClockSetBackError(ledger, run, latest=latest, now=now)
