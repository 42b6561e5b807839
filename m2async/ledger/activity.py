"""How a run went: what was answered in each stretch of time."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import NamedTuple

import msgspec

from m2async.ledger.states import RowEvent

STRETCHES = 120
"""Stretches of time that a run is divided into at most, unless told."""

_CLOCK_WIDTHS = (15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 21_600, 43_200, 86_400)


class AttemptCount(NamedTuple):
    """How many attempts were answered in the same way in the stretch that begins at `at`, in seconds of the epoch.

    `event` is STARTED, REFUSED, REJECTED, UNKNOWN or, where the process ended before the answer, CRASH; `code` is the
    error's. CLAIMED is no answer: it counts attempts in doubt whose executions were found in that stretch.
    """

    at: float
    event: RowEvent
    code: str | None
    attempts: int


class Activity(msgspec.Struct, frozen=True):
    """What was answered when. `began` is when the first attempt was sent, `ended` the latest time that is known of any.

    Both are in seconds of the epoch, None where nothing was sent; `width` is the length of a stretch in seconds.
    Stretches in which nothing was answered are not among the `attempts`.
    """

    began: float | None
    ended: float | None
    width: float
    attempts: Sequence[AttemptCount]


NO_ACTIVITY = Activity(None, None, 1.0, ())


class LatencyCount(NamedTuple):
    """How many attempts took so many seconds from their intent to their answer, to a tenth of a millisecond."""

    seconds: float
    attempts: int


def stretch_width(seconds: float, stretches: int) -> float:
    """Give the shortest of the usual lengths, in seconds and at least 0.1, of which so many cover the time."""
    least = seconds / stretches
    if least <= 10:
        tens = (factor * 10.0**power for power in count(-1) for factor in (1, 2, 5))
        return next(width for width in tens if width >= least)
    if least <= _CLOCK_WIDTHS[-1]:
        return next(float(width) for width in _CLOCK_WIDTHS if width >= least)
    days = -(-least // _CLOCK_WIDTHS[-1])
    return days * _CLOCK_WIDTHS[-1]
