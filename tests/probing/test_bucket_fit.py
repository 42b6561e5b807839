from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from m2async.pacing import TokenBucket
from m2async.probing.bucket_fit import Arrival, arrivals, drain, estimate_rate, mismatched, saturated
from m2async.probing.record import Call, QuotaVerdict

GAPS = st.lists(st.floats(1e-4, 0.2), min_size=2, max_size=100)


def answered(rate: float, burst: float, gaps: list[float]) -> list[Arrival]:
    """Calls of these intervals, as a token bucket that is full at first answers them."""
    bucket, at, seen = TokenBucket(rate, burst), 0.0, []
    for gap in gaps:
        at += gap
        seen.append(Arrival(at, bucket.try_take(at)))
    return seen


@given(
    rate=st.floats(1, 1_000), burst=st.integers(1, 30), gaps=st.lists(st.floats(1e-4, 0.01), min_size=40, max_size=80)
)
def test_a_drain_holds_the_burst_between_its_bounds(rate: float, burst: int, gaps: list[float]) -> None:
    read = drain(answered(rate, burst, gaps), rate)
    assume(read is not None)
    assert read is not None
    assert read.least <= burst + 1e-6
    assert burst <= read.most + 1e-6


@given(rate=st.floats(1, 1_000), gaps=GAPS)
def test_the_true_bucket_explains_every_answer(rate: float, gaps: list[float]) -> None:
    assert mismatched(saturated(answered(rate, 1, gaps)), rate, 1) == 0


@given(rate=st.floats(5, 1_000), burst=st.integers(3, 50), more=st.floats(1.4, 4))
def test_the_rate_of_a_bucket_that_is_kept_empty_is_what_flows_in(rate: float, burst: int, more: float) -> None:
    seen = saturated(answered(rate, burst, [1 / (more * rate)] * (20 * burst + 400)))
    estimate = estimate_rate(seen)
    assert estimate is not None
    assert estimate.value == pytest.approx(rate, rel=0.02)
    assert estimate.least <= rate <= estimate.most


def test_there_is_no_rate_without_throttles_or_without_accepted_calls() -> None:
    assert estimate_rate([]) is None
    assert estimate_rate(saturated([Arrival(float(n), True) for n in range(9)])) is None
    assert estimate_rate([Arrival(float(n), False) for n in range(9)]) is None
    assert drain([Arrival(float(n), True) for n in range(9)], 1.0) is None
    assert drain([], 1.0) is None


def test_calls_of_which_nothing_is_known_are_left_out() -> None:
    known = Call(0.0, 0.1, 0.2, QuotaVerdict.ACCEPTED)
    calls = [known, Call(0.0, 0.3, 0.4, QuotaVerdict.UNKNOWN), Call(0.0, 0.5)]
    assert arrivals(calls, by_answer=True) == [Arrival(0.2, True)]
    assert arrivals(calls, by_answer=False) == [Arrival(0.1, True)]


def test_a_burst_of_one_loses_what_flows_over_between_two_calls() -> None:
    """Evenly sent at 1.3 times the rate, every second call is accepted: that alone would tell 0.65 of the rate."""
    gaps = [(1 + 0.9 * math.sin(n)) / 130 for n in range(2_000)]
    seen = saturated(answered(100.0, 1, gaps))
    plain, corrected = estimate_rate(seen), estimate_rate(seen, 1)
    assert plain is not None
    assert corrected is not None
    assert plain.value < 80
    assert corrected.value == pytest.approx(100, rel=0.02)
