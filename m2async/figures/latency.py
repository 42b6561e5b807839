"""How long calls took, in percentiles: the only file that knows HdrHistogram."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from hdrh.histogram import HdrHistogram

_LONGEST = 3_600.0  # seconds
_DIGITS = 3
_CURVE_TICKS = 5  # points of the curve in each half of what remains to 100 %


class LatencyFigures(msgspec.Struct, frozen=True):
    """Percentiles of a number of latencies, in seconds."""

    count: int
    p50: float
    p90: float
    p99: float
    p999: float
    max: float


class Latencies:
    """Latencies from 1 µs to an hour, kept to three digits, whatever their number."""

    def __init__(self) -> None:
        self._histogram = HdrHistogram(1, round(_LONGEST * 1e6), _DIGITS)
        self._max = 0.0

    def __len__(self) -> int:
        count: int = self._histogram.get_total_count()
        return count

    def record(self, seconds: float, count: int = 1) -> None:
        """Note a latency that so many calls had; what is longer than an hour counts as an hour."""
        self._max = max(self._max, seconds)
        self._histogram.record_value(max(1, round(min(seconds, _LONGEST) * 1e6)), count)

    def at(self, percent: float) -> float:
        """Give the latency, in seconds, that so many percent of the calls did not exceed."""
        return min(float(self._histogram.get_value_at_percentile(percent)) / 1e6, self._max)

    def figures(self) -> LatencyFigures | None:
        """Sum them up; None if there are none."""
        if not len(self):
            return None
        return LatencyFigures(len(self), self.at(50), self.at(90), self.at(99), self.at(99.9), self._max)

    def curve(self) -> Iterator[tuple[float, float]]:
        """Give percentiles and their latencies in seconds, the more of them the nearer 100 %."""
        if len(self):
            for step in self._histogram.get_percentile_iterator(_CURVE_TICKS):
                yield step.percentile_level_iterated_to, min(step.value_iterated_to / 1e6, self._max)
