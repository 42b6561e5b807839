"""What the promise of a token bucket is checked by."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate


def most_above_inflow(times: Sequence[float], rates: Sequence[tuple[float, float]]) -> float:
    """By how many grants the busiest window, of any length, exceeds what flowed in during it.

    `rates` are the rates in tokens a second, each with the time since when it held.
    """

    def flowed_in(until: float) -> float:
        ends = [at for at, _ in rates[1:]] + [float("inf")]
        return sum(rate * max(0.0, min(end, until) - at) for (at, rate), end in zip(rates, ends, strict=True))

    # Of the window from grant i to grant j: j - i + 1 - (inflow[j] - inflow[i])
    surplus = [number - flowed_in(at) for number, at in enumerate(times)]
    return max((last - first + 1 for first, last in zip(accumulate(surplus, min), surplus, strict=True)), default=0.0)
