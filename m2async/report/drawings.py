"""The charts of reports: each with a sentence that says what it shows, and its figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup

from m2async.figures import Percentiles
from m2async.pages import charts
from m2async.texts import plural, seconds

_SHARES = (50.0, 75.0, 90.0, 95.0, 99.0, 99.9)

LABELS = {
    "started": "Started",
    "accepted": "Accepted",
    "throttled": "Throttled",
    "refused": "Other refusals",
    "unknown": "Unknown",
}
"""What can become of a call."""

_COLOURS = {"accepted": "started"}


class Chart(NamedTuple):
    """A drawing, what it shows in a sentence, and its figures."""

    title: str
    finding: str
    drawing: Markup
    headings: Sequence[str]
    rows: Sequence[Sequence[object]]


def over_time(title: str, finding: str, counts: Mapping[str, Sequence[int]], width: float) -> Chart:
    """Draw what became of calls in stretches of time.

    Arguments:
        title: the chart's.
        finding: what it shows.
        counts: calls of each stretch by what became of them; what never happened is left out, but for the first.
        width: seconds of a stretch.
    """
    first = next(iter(counts))
    shown = {kind: values for kind, values in counts.items() if kind == first or any(values)}
    panels = [
        charts.Panel(f"{LABELS[kind]} per second", _COLOURS.get(kind, kind), [count / width for count in values])
        for kind, values in shown.items()
    ]
    rows = [
        (seconds(place * width), *(f"{count:,}" for count in values))
        for place, values in enumerate(zip(*shown.values(), strict=True))
    ]
    headings = ("Time since the first", *(LABELS[kind] for kind in shown))
    return Chart(title, finding, charts.over_time(panels, width), headings, rows)


def latency(figures: Percentiles, curve: Sequence[tuple[float, float]], since: str = "") -> Chart:
    """Draw latencies by percentile; `since` says from when they count."""
    finding = (
        f"Half of {plural(figures.count, 'call')} were answered within {seconds(figures.p50)}, 99 % within "
        f"{seconds(figures.p99)}; the longest took {seconds(figures.max)}.{since and f' {since}'}"
    )
    return Chart(
        "Time to answer",
        finding,
        charts.latency(curve, figures.count),
        ("Share of calls", "Answered within"),
        [*_shares(curve), ("all", seconds(figures.max))],
    )


def _shares(curve: Sequence[tuple[float, float]]) -> Iterator[tuple[str, str]]:
    for share in _SHARES:
        yield f"{share:g} %", seconds(next(value for percent, value in curve if percent >= share))
