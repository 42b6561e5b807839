"""Drawings are well-formed, have what they show in them, and nothing that a page's policy forbids."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m2async.pages import charts

SVG = "{http://www.w3.org/2000/svg}"
DRAWINGS = ("wide", "narrow")


def drawings(markup: str) -> list[ET.Element]:
    """The SVGs of a chart, in the order of the sizes, after a look at what must not be in them."""
    root = ET.fromstring(f"<root>{markup}</root>")
    assert [part.get("class") for part in root] == list(DRAWINGS)
    for element in root.iter():
        assert element.tag.removeprefix(SVG) not in {"script", "style", "image", "foreignObject", "a"}
        assert not {"style", "id", "href"} & element.attrib.keys(), element.attrib
        assert not any("NaN" in value or "Infinity" in value for value in element.attrib.values())
    return [part[0] for part in root]


def texts(svg: ET.Element) -> list[str]:
    return [element.text or "" for element in svg.iter(f"{SVG}text")]


@settings(max_examples=12)
@given(
    st.lists(st.floats(0, 1e6), min_size=1, max_size=130),
    st.sampled_from([0.05, 1.0, 5.0, 60.0, 86_400.0, 3 * 86_400.0]),
)
def test_any_values_can_be_drawn_over_any_time(values: list[float], width: float) -> None:
    panels = [charts.Panel("Started per second", "started", values), charts.Panel("Throttled", "throttled", values)]
    for svg in drawings(charts.over_time(panels, width)):
        areas = [path for path in svg.iter(f"{SVG}path") if path.get("fill", "").startswith("var(--")]
        assert {path.get("fill") for path in areas} == {"var(--started)", "var(--throttled)"}
        assert {"Started per second", "Throttled", "0 s"} <= set(texts(svg))


@settings(max_examples=12)
@given(st.lists(st.floats(1e-6, 3_600), min_size=2, max_size=60), st.integers(1, 10**7))
def test_any_latencies_can_be_drawn(values: list[float], calls: int) -> None:
    values = sorted(values)
    curve = [(100 * place / (len(values) - 1), value) for place, value in enumerate(values)]
    for svg in drawings(charts.latency(curve, calls)):
        assert "50 %" in texts(svg)
        assert any(text.startswith("Time to answer in ") for text in texts(svg))


def test_the_last_stretch_is_as_long_as_the_others() -> None:
    for svg, width in zip(
        drawings(charts.over_time([charts.Panel("A", "started", [1.0, 10.0])], 60.0)), (1056, 240), strict=True
    ):
        [line] = [path.get("d", "") for path in svg.iter(f"{SVG}path") if path.get("stroke") == "var(--started)"]
        assert {float(x) for x in re.findall(r"([\d.]+),0(?!\d)", line)} >= {width / 2, width}


def test_what_is_drawn_is_as_high_as_its_value() -> None:
    """Heights are read off the drawing: 40 of 60 is two thirds of the plot."""
    for svg in drawings(charts.over_time([charts.Panel("Started", "started", [60.0, 40.0, 0.0])], 1.0)):
        [line] = [path.get("d", "") for path in svg.iter(f"{SVG}path") if path.get("stroke") == "var(--started)"]
        points = [tuple(map(float, pair.split(","))) for pair in re.findall(r"[\d.]+,[\d.]+", line)]
        heights = [150 - y for _, y in points]
        assert max(heights) == pytest.approx(150)
        assert any(math.isclose(height, 100, abs_tol=0.1) for height in heights)
        assert min(heights) == 0
