"""Spans of time that were looked at."""

from __future__ import annotations

from collections.abc import Iterator


class SpansOfTime:
    """What was looked at: spans that do not touch, each a beginning and an end in seconds of the epoch."""

    def __init__(self) -> None:
        self._spans: list[tuple[float, float]] = []

    def __iter__(self) -> Iterator[tuple[float, float]]:
        return iter(self._spans)

    def add(self, first: float, last: float) -> None:
        """Take note of one more."""
        apart = [span for span in self._spans if span[1] < first or last < span[0]]
        firsts, lasts = zip(*(span for span in (*self._spans, (first, last)) if span not in apart), strict=True)
        self._spans = [*apart, (min(firsts), max(lasts))]

    def rest_of(self, first: float, last: float) -> tuple[float, float] | None:
        """Give a span without what was looked at of its beginning and its end; None if nothing is left."""
        for start, end in sorted(self._spans):
            if start <= first < end:
                first = end
            if start < last <= end:
                last = start
        return (first, last) if first < last else None
