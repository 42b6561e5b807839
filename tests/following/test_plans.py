from __future__ import annotations

from bisect import bisect_left
from math import ceil

from hypothesis import given
from hypothesis import strategies as st

from m2async.following.plans import IDS, PAGE, OpenExecution, next_interval, plan

times = st.floats(0, 100, allow_nan=False)


def wanted(since: list[float]) -> list[OpenExecution]:
    return [OpenExecution(time, f"e-{number}") for number, time in enumerate(sorted(since))]


def calls(window: float | None, stragglers: int, each: list[OpenExecution], started: list[float]) -> int:
    """How many calls a plan takes, as far as can be told from what was listed last."""
    by_id = ceil(stragglers / IDS)
    if window is None:
        return by_id
    return by_id + ceil(max(len(started) - bisect_left(started, window), len(each) - stragglers) / PAGE)


@given(st.lists(times, max_size=60), st.lists(times, max_size=60), st.integers(1, 2_000))
def test_every_execution_is_asked_for_once_and_no_division_takes_fewer_calls(
    since: list[float], others: list[float], crowd: int
) -> None:
    each, started = wanted(since), sorted(time for time in others for _ in range(crowd))
    made = plan(each, started)
    stragglers = list(made.stragglers)
    assert [w.execution_id for w in each[: len(stragglers)]] == stragglers
    if made.window is None:
        assert len(stragglers) == len(each)
    else:
        assert all(w.since >= made.window for w in each[len(stragglers) :])
        assert len(stragglers) < len(each)
    best = min(calls(each[cut].since if cut < len(each) else None, cut, each, started) for cut in range(len(each) + 1))
    assert calls(made.window, len(stragglers), each, started) == best


def test_a_run_alone_is_a_window_and_its_pages() -> None:
    each = wanted([float(number) for number in range(10_000)])
    assert plan(each, [w.since for w in each]) == (0.0, ())


def test_a_few_old_ones_among_many_of_others_are_asked_for_by_id() -> None:
    each = wanted([0.0, 1.0, *[1_000.0 + number for number in range(50)]])
    others = [2.0 + number / 100 for number in range(90_000)]
    made = plan(each, others)
    assert made.window is not None
    assert made.window >= 1_000.0
    assert {"e-0", "e-1"} <= set(made.stragglers)


def test_nothing_is_asked_for_where_nothing_is_open() -> None:
    assert plan([], [1.0, 2.0]) == (None, ())


@given(st.floats(1, 30), st.integers(0, 1_000), st.integers(0, 1_000))
def test_the_interval_stays_within_its_bounds_and_follows_the_changes(interval: float, changed: int, more: int) -> None:
    open_before = changed + more
    following = next_interval(interval, changed, open_before, shortest=1.0, longest=30.0)
    assert 1.0 <= following <= 30.0
    if not changed and open_before:
        assert following == min(30.0, interval * 1.5)
    elif changed >= 0.1 * open_before:
        assert following <= interval
    elif changed < 0.01 * open_before:
        assert following >= interval


def test_a_quiet_run_is_soon_looked_at_rarely_and_an_ending_one_often() -> None:
    interval, looks = 1.0, 0
    while interval < 30.0:
        interval = next_interval(interval, 0, 100, shortest=1.0, longest=30.0)
        looks += 1
    assert looks <= 10
    while interval > 1.0:
        interval = next_interval(interval, 50, 100, shortest=1.0, longest=30.0)
        looks -= 1
    assert looks > 0
