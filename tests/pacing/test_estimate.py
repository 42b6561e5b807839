from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from m2async.pacing import Grant, TokenBucket
from m2async.pacing.estimate import NOTHING_KNOWN, Throttles


@given(st.floats(5, 500), st.floats(1, 50), st.floats(1.2, 4), st.randoms(use_true_random=False))
def test_the_quota_is_between_the_bounds_in_whatever_order_throttles_arrive(
    rate: float, burst: float, excess: float, draw: random.Random
) -> None:
    service, now = TokenBucket(rate, burst), 0.0
    throttled = []
    for number in range(1, 300):
        now += draw.uniform(0.5, 1.5) / (rate * excess)
        if not service.try_take(now):
            throttled.append(Grant(number, now, rate * excess))
    draw.shuffle(throttled)
    throttles = Throttles()
    for grant in throttled:
        throttles.add(grant)
    bounds = throttles.bounds(until=now, gap=8, shortest=0, slack=0)
    assert bounds.least <= rate * (1 + 1e-6)
    if burst >= 3:  # it does not overflow between throttles
        assert bounds.most >= rate * (1 - 1e-6)
        if bounds.accepted >= 20:
            assert bounds.most - bounds.least <= 0.15 * rate


def test_one_throttle_tells_nothing() -> None:
    throttles = Throttles()
    throttles.add(Grant(5, 1.0, 10))
    assert throttles.bounds(until=9, gap=8, shortest=0, slack=0) == NOTHING_KNOWN


def test_calls_that_may_still_be_answered_with_a_throttle_do_not_count() -> None:
    throttles = Throttles()
    for number in (1, 2, 3, 4):
        throttles.add(Grant(number * 2, number * 0.1, 20))
    everything = throttles.bounds(until=1, gap=8, shortest=0, slack=0)
    assert throttles.bounds(until=0.35, gap=8, shortest=0, slack=0).accepted == everything.accepted - 1


def test_throttles_far_apart_are_no_run() -> None:
    throttles = Throttles()
    throttles.add(Grant(1, 0.0, 20))
    throttles.add(Grant(100, 5.0, 20))
    assert throttles.bounds(until=9, gap=8, shortest=0, slack=0) == NOTHING_KNOWN
    assert throttles.calls_since_another(Grant(100, 5.0, 20)) == 99
