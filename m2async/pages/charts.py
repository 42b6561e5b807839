"""Charts as inline SVG, drawn without a browser: the only file that knows Vega-Lite.

Colours are the variables of `style.css`, so that a chart follows the theme. Each chart is drawn twice, for a wide and
for a narrow page, of which the style shows one: a drawing that is scaled down to a phone has text too small to read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import vl_convert
from markupsafe import Markup

from m2async.texts import number

_WIDTHS = {"wide": 1056, "narrow": 240}  # of what is inside the axes, in pixels: a phone shows it unscaled
_AXIS = 48  # pixels to the left of it
_TICKS = {"wide": 10, "narrow": 4}  # at most, on the axis of time
_STEPS = (
    0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 14_400, 21_600, 43_200, 86_400,
)  # fmt: skip
_PERCENTILES = (0, 50, 90, 99, 99.9, 99.99, 99.999)
_CONFIG: dict[str, Any] = {
    "aria": False,  # the chart has a text and the page a table: to a screen reader, a label on each mark is noise
    "font": "sans-serif",
    "view": {"stroke": None},
    "axis": {
        "domain": False, "ticks": False, "labelPadding": 6, "labelFontSize": 12, "labelColor": "var(--muted)",
        "gridColor": "var(--line)", "minExtent": _AXIS, "maxExtent": _AXIS,
    },
    "axisX": {"grid": False, "minExtent": 0, "maxExtent": 30, "domain": True, "domainColor": "var(--axis)"},
    "title": {"anchor": "start", "fontSize": 13, "fontWeight": 600, "color": "var(--text)", "offset": 8},
}  # fmt: skip


class Panel(NamedTuple):
    """One quantity over time: its title, the name of its colour in the style, and its values, a stretch each."""

    title: str
    colour: str
    values: Sequence[float]


def over_time(panels: Sequence[Panel], width: float) -> Markup:
    """Draw quantities over the same time, one below the other, the first one larger.

    Arguments:
        panels: each has as many values as there are stretches.
        width: seconds of a stretch; the axis counts from the first one's beginning.
    """
    total = width * max(len(panel.values) for panel in panels)
    return _drawn(lambda size: {"vconcat": [*_panels(panels, width, total, size)], "spacing": 22})


def _panels(panels: Sequence[Panel], width: float, total: float, size: str) -> Iterable[dict[str, Any]]:
    ticks = _time_ticks(total, _TICKS[size])
    for place, panel in enumerate(panels):
        last = place == len(panels) - 1
        values = [*panel.values, panel.values[-1]]  # the last stretch has an end as well
        axis = {"values": ticks, "labelExpr": _labels(ticks, lambda at: _elapsed(at, total))} if last else None
        yield {
            "width": _WIDTHS[size],
            "height": 48 if place else 150,
            "title": panel.title,
            "data": {"values": [{"x": index * width, "y": value} for index, value in enumerate(values)]},
            "mark": {
                "type": "area", "interpolate": "step-after", "color": f"var(--{panel.colour})", "fillOpacity": 0.25,
                "line": {"color": f"var(--{panel.colour})", "strokeWidth": 1.5, "interpolate": "step-after"},
            },
            "encoding": {
                "x": {
                    "field": "x", "type": "quantitative", "title": None, "axis": axis,
                    "scale": {"domain": [0, total], "nice": False},
                },
                "y": _y_axis(max(values), 2 if place else 4),
            },
        }  # fmt: skip


def latency(curve: Sequence[tuple[float, float]], calls: int) -> Markup:
    """Draw latencies over their percentiles, with as much room for the last per cent as for the first ninety.

    Arguments:
        curve: percentiles and their latencies in seconds, as `Times.curve` gives them.
        calls: how many there were: the slowest of them ends the curve.
    """
    end = math.log10(max(10, calls))
    points = [(-math.log10(1 - at / 100), value) for at, value in curve if at < 100 * (1 - 1 / calls)]
    points.append((end, curve[-1][1]))
    factor, unit = (1e3, "ms") if max(value for _, value in curve) < 1 else (1.0, "s")
    marks = {-math.log10(1 - at / 100): f"{at:g} %" for at in _PERCENTILES}
    ticks = [at for at in marks if at <= end]

    def spec(size: str) -> dict[str, Any]:
        return {
            "width": _WIDTHS[size],
            "height": 180,
            "title": f"Time to answer in {unit}, by percentile",
            "data": {"values": [{"x": x, "y": value * factor} for x, value in points]},
            "mark": {
                "type": "area", "color": "var(--started)", "fillOpacity": 0.12,
                "line": {"color": "var(--started)", "strokeWidth": 2},
            },
            "encoding": {
                "x": {
                    "field": "x", "type": "quantitative", "title": None, "scale": {"domain": [0, end], "nice": False},
                    "axis": {"values": ticks, "labelExpr": _labels(ticks, marks.__getitem__), "grid": True},
                },
                "y": _y_axis(max(value for _, value in curve) * factor, 4),
            },
        }  # fmt: skip

    return _drawn(spec)


def _y_axis(top: float, ticks: int) -> dict[str, Any]:
    values = _ticks(top, ticks)
    return {
        "field": "y", "type": "quantitative", "title": None,
        "scale": {"domain": [0, max(top, values[-1])], "nice": False},
        "axis": {"values": values, "labelExpr": _labels(values, number)},
    }  # fmt: skip


def _ticks(top: float, count: int) -> list[float]:
    """Give at most so many round numbers from 0 on, the last of them `top` or less than a step above it."""
    rough = top / count
    if rough < 1e-300:  # nothing, or so little that its power of ten may be no number
        return [0.0, 1.0]
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    return [step * index for index in range(math.ceil(top / step * 0.999) + 1)]


def _time_ticks(total: float, count: int) -> list[float]:
    step = next((step for step in _STEPS if total / step <= count), None) or 86_400 * math.ceil(total / 86_400 / count)
    return [float(step * index) for index in range(math.floor(total / step) + 1)]


def _elapsed(at: float, total: float) -> str:
    """Word a time on an axis that is `total` seconds long: 10 s, 1:30 min, 2:00 h, 3 d."""
    if total < 120 or not at:
        return f"{at:g} s"
    if total < 7_200:
        return f"{at // 60:.0f}:{at % 60:02.0f} min"
    if total < 172_800:
        return f"{at // 3_600:.0f}:{at % 3_600 // 60:02.0f} h"
    return f"{at / 86_400:g} d"


def _labels(values: Iterable[float], word: Callable[[float], str]) -> str:
    """Give the Vega expression that words each of an axis's values."""
    cases = [f"abs(datum.value - {value!r}) < {1e-9 + abs(value) * 1e-6!r} ? '{word(value)}' : " for value in values]
    return "".join(cases) + "''"


def _drawn(spec: Callable[[str], dict[str, Any]]) -> Markup:
    """Draw it for each width; the class names are the style's."""
    drawings = []
    for size in _WIDTHS:
        svg = vl_convert.vegalite_to_svg({"background": None, "config": _CONFIG, "padding": 2, **spec(size)})
        drawings.append(Markup('<div class="{}">{}</div>').format(size, Markup(svg)))  # noqa: S704 - Vega escapes
    return Markup("").join(drawings)
