"""How long calls and executions took, in percentiles."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import accumulate, count

import msgspec


class Percentiles(msgspec.Struct, frozen=True):
    """Percentiles of a number of times, in seconds: each is one of them."""

    count: int
    p50: float
    p90: float
    p99: float
    p999: float
    max: float


class Times:
    """Times, counted to the microsecond.

    Arguments:
        counted: seconds, and how often it took so long.
    """

    def __init__(self, counted: Iterable[tuple[float, int]]) -> None:
        times = Counter[int]()
        for seconds, number in counted:
            times[max(0, round(seconds * 1e6))] += number  # a clock that was set back gives less than nothing
        self._micros = sorted(times)
        self._ranks = list(accumulate(times[micros] for micros in self._micros))

    def __len__(self) -> int:
        return self._ranks[-1] if self._ranks else 0

    def at(self, percent: float) -> float:
        """Give the time, in seconds, that so many percent did not exceed; there must be one."""
        return self._micros[bisect_left(self._ranks, nearest_rank(percent, len(self)))] / 1e6

    def percentiles(self) -> Percentiles | None:
        """Sum them up; None if there are none."""
        if not len(self):
            return None
        return Percentiles(len(self), *map(self.at, (50, 90, 99, 99.9, 100)))

    def curve(self) -> Iterator[tuple[float, float]]:
        """Give percentiles and their times in seconds, rising; from 90 to 99 % as many as below, and so on."""
        if not len(self):
            return
        for percent in (100 - rest / 10**nines for nines in count() for rest in range(100, 10, -5)):
            if nearest_rank(percent, len(self)) == len(self):
                break
            yield percent, self.at(percent)
        yield 100.0, self.at(100)


def nearest_rank(percent: float, number: int) -> int:
    """Give the place, from 1, of a percentile among so many sorted values; it is always the place of one of them.

    Source: Hyndman and Fan, Sample Quantiles in Statistical Packages (1996), definition 1.
    """
    return max(1, math.ceil(round(percent * number / 100, 6)))  # rounded, as 99.9 has no exact float
