from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m2async.figures.latency import Latencies

SECONDS = st.floats(1e-6, 3_000.0)


@given(st.lists(SECONDS, min_size=1, max_size=200), st.sampled_from([50.0, 90.0, 99.0, 99.9, 100.0]))
def test_percentiles_are_those_of_the_sorted_latencies(seconds: list[float], percent: float) -> None:
    latencies = Latencies()
    for each in seconds:
        latencies.record(each)
    rank = max(1, int(percent / 100 * len(seconds) + 0.5))
    expected = sorted(seconds)[rank - 1]
    assert latencies.at(percent) == pytest.approx(expected, rel=2e-3, abs=1e-6)


@given(st.lists(st.tuples(SECONDS, st.integers(1, 1_000)), min_size=1, max_size=50))
def test_many_at_once_are_as_many_one_by_one(counted: list[tuple[float, int]]) -> None:
    at_once, one_by_one = Latencies(), Latencies()
    for seconds, count in counted:
        at_once.record(seconds, count)
        for _ in range(count):
            one_by_one.record(seconds)
    assert at_once.figures() == one_by_one.figures()
    assert list(at_once.curve()) == list(one_by_one.curve())


def test_the_curve_rises_to_the_longest() -> None:
    latencies = Latencies()
    for millis in range(1, 1_001):
        latencies.record(millis / 1_000)
    curve = list(latencies.curve())
    assert curve == sorted(curve)
    assert curve[-1] == (100.0, 1.0)


def test_what_is_too_long_or_too_short_is_kept_as_the_nearest() -> None:
    latencies = Latencies()
    latencies.record(0.0)
    latencies.record(1e6)
    figures = latencies.figures()
    assert figures is not None
    assert (figures.count, figures.max) == (2, 1e6)
    assert latencies.at(50) == pytest.approx(1e-6)
    assert Latencies().figures() is None
    assert list(Latencies().curve()) == []
