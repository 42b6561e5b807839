from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m2async.pacing import TokenBucket
from tests.pacing.windows import most_above_inflow

rates = st.floats(0.01, 10_000)
bursts = st.floats(1, 1_000)
gaps = st.floats(0, 10) | st.floats(0, 0.01)
times = st.lists(gaps, min_size=1, max_size=200)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("take"), gaps),
        st.tuples(st.just("take all"), gaps),
        st.tuples(st.just("give back"), st.integers(0, 50)),
        st.tuples(st.just("set rate"), st.tuples(st.floats(0.1, 100), st.floats(1, 20))),
        st.tuples(st.just("pause"), gaps),
    ),
    max_size=60,
)


@given(rates, bursts, times)
def test_no_window_holds_more_than_the_burst_and_what_flows_in(rate: float, burst: float, gaps: list[float]) -> None:
    bucket = TokenBucket(rate, burst)
    now = 0.0
    grants: list[float] = []
    for gap in gaps:
        now += gap
        while len(grants) < 2_000 and bucket.try_take(now):
            grants.append(now)
    assert most_above_inflow(grants, [(0, rate)]) <= burst + 1e-4


@given(st.floats(0.1, 100), st.floats(1, 20), steps)
def test_no_window_holds_more_whatever_is_given_back_and_changed(
    rate: float, burst: float, steps: list[tuple[str, object]]
) -> None:
    bucket, now = TokenBucket(rate, burst), 0.0
    used: list[float] = []
    rates, largest = [(0.0, rate)], burst
    for step, value in steps:
        match step, value:
            case "take" | "take all", float(gap):
                now += gap
                while bucket.try_take(now) and len(used) < 500:
                    used.append(now)
                    if step == "take":
                        break
            case "give back", int(index) if used:
                bucket.give_back(used.pop(-1 - index % len(used)), now)
            case "set rate", (float(rate), float(burst)):
                bucket.set_rate(rate, burst, now)
                rates.append((now, rate))
                largest = max(largest, burst)
            case "pause", float(gap):
                bucket.pause(now + gap)
    assert most_above_inflow(used, rates) <= largest + 1e-5


@given(rates, bursts, times)
def test_a_token_is_there_when_announced_and_not_before(rate: float, burst: float, gaps: list[float]) -> None:
    bucket = TokenBucket(rate, burst)
    now = 0.0
    for gap in gaps:
        now += gap
        at = bucket.next_token_at(now)
        assert at >= now
        if at > now:
            assert not bucket.try_take(now)
            assert not bucket.try_take(now + 0.9 * (at - now))
            now = at
        assert bucket.try_take(now)


@given(rates, bursts)
def test_a_token_given_back_at_once_can_be_taken_again_but_the_burst_stays(rate: float, burst: float) -> None:
    bucket = TokenBucket(rate, burst)
    assert bucket.try_take(0)
    bucket.give_back(0, 0)
    bucket.give_back(0, 0)
    taken = 0
    while bucket.try_take(0):
        taken += 1
    assert taken == int(burst + 1e-9)


def test_a_token_that_would_have_flowed_over_is_not_given_back() -> None:
    bucket = TokenBucket(1, 5)
    assert bucket.try_take(0)
    assert all(bucket.try_take(1) for _ in range(5))
    bucket.give_back(0, 1)
    assert not bucket.try_take(1)


def test_nothing_is_granted_during_a_pause_and_what_flowed_in_after_it() -> None:
    bucket = TokenBucket(10, 5)
    bucket.pause(3)
    assert not bucket.try_take(2.9)
    assert bucket.next_token_at(2.9) == 3
    assert [bucket.try_take(3) for _ in range(6)] == [True] * 5 + [False]


def test_a_larger_burst_has_to_flow_in() -> None:
    bucket = TokenBucket(10, 1)
    bucket.set_rate(10, 3, 0)
    assert [bucket.try_take(0) for _ in range(2)] == [True, False]
    assert [bucket.try_take(1) for _ in range(4)] == [True] * 3 + [False]


def test_time_that_goes_back_grants_nothing() -> None:
    bucket = TokenBucket(1, 1)
    assert bucket.try_take(100)
    assert not bucket.try_take(50)
    assert not bucket.try_take(100.5)
    assert bucket.try_take(101)


@pytest.mark.parametrize(("rate", "burst"), [(0, 1), (-1, 1), (float("nan"), 1), (float("inf"), 1), (1, 0.5), (1, 0)])
def test_a_bucket_that_never_grants_or_always_does_is_refused(rate: float, burst: float) -> None:
    with pytest.raises(ValueError, match="must be"):
        TokenBucket(rate, burst)
    bucket = TokenBucket(2, 2)
    with pytest.raises(ValueError, match="must be"):
        bucket.set_rate(rate, burst, 0)
    assert (bucket.rate, bucket.burst) == (2, 2)
