from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m2async.figures.percentiles import Times, nearest_rank

SECONDS = st.floats(1e-6, 3_000.0)


def each(*seconds: float) -> Times:
    return Times((one, 1) for one in seconds)


@given(st.lists(SECONDS, min_size=1, max_size=200), st.sampled_from(["0", "50", "90", "99", "99.9", "100"]))
def test_percentiles_are_those_of_the_sorted_latencies(seconds: list[float], percent: str) -> None:
    rank = max(1, math.ceil(Fraction(percent) / 100 * len(seconds)))
    assert each(*seconds).at(float(percent)) == round(sorted(seconds)[rank - 1], 6)


@pytest.mark.parametrize(
    ("percent", "number", "rank"), [(99.9, 1_000, 999), (99.9, 1_001, 1_000), (50, 2, 1), (0, 5, 1)]
)
def test_a_percentile_has_the_least_rank_that_so_many_percent_do_not_exceed(
    percent: float, number: int, rank: int
) -> None:
    assert nearest_rank(percent, number) == rank


@given(st.lists(st.tuples(SECONDS, st.integers(1, 100)), min_size=1, max_size=50))
def test_many_at_once_are_as_many_one_by_one(counted: list[tuple[float, int]]) -> None:
    at_once, one_by_one = Times(counted), each(*(seconds for seconds, count in counted for _ in range(count)))
    assert at_once.percentiles() == one_by_one.percentiles()
    assert list(at_once.curve()) == list(one_by_one.curve())


@given(st.lists(SECONDS, min_size=1, max_size=300))
def test_the_curve_rises_to_the_longest_and_tells_the_percentiles_that_reports_list(seconds: list[float]) -> None:
    latencies = each(*seconds)
    curve = list(latencies.curve())
    assert curve == sorted(curve)
    assert curve[-1] == (100.0, round(max(seconds), 6))
    for percent in (50, 75, 90, 95, 99, 99.9):
        assert next(value for at, value in curve if at >= percent) == latencies.at(percent)


def test_the_curve_has_as_many_points_in_the_last_percents_as_in_the_first() -> None:
    curve = list(each(*(millis / 1e3 for millis in range(1, 1_001))).curve())
    assert [sum(low <= at < high for at, _ in curve) for low, high in ((0, 90), (90, 99), (99, 99.9))] == [18, 18, 18]
    assert curve[-2:] == [(99.9, 0.999), (100.0, 1.0)]


def test_very_long_and_very_short_latencies_are_kept() -> None:
    latencies = each(0.0, 1e6)
    figures = latencies.percentiles()
    assert figures is not None
    assert (figures.count, figures.p50, figures.max) == (2, 0.0, 1e6)


def test_a_clock_that_was_set_back_meanwhile_gives_no_time_at_all() -> None:
    assert each(-3.0).at(100) == 0.0


def test_of_no_calls_there_are_no_figures() -> None:
    assert each().percentiles() is None
    assert list(each().curve()) == []
