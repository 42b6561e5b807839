"""Plans against simulated quotas, in virtual time."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from m2async.pacing import TokenBucket
from m2async.probing.plans import Limits, Ramp, Steps
from tests.pacing.simulator import NginxQuota
from tests.probing.simulated import Quota, play

LIMITS = Limits(2_000.0, 60.0)


def found(quota: Quota, **others: float) -> tuple[Ramp, int]:
    plan = Ramp(LIMITS)
    return plan, play(plan, quota, **others)  # type: ignore[arg-type]


def near(plan: Ramp, rate: float, burst: int, calls: int = 0) -> bool:
    """Whether both were found: the rate to 5 %, the burst to 10 % or so many calls."""
    estimates = plan.estimates()
    assert estimates.rate is not None, estimates
    assert estimates.burst is not None, estimates
    assert estimates.rate.least <= estimates.rate.value <= estimates.rate.most
    assert estimates.burst.least <= estimates.burst.value <= estimates.burst.most
    return abs(estimates.rate.value / rate - 1) <= 0.05 and abs(estimates.burst.value - burst) <= max(
        0.10 * burst, calls
    )


@settings(max_examples=20)
@given(
    rate=st.floats(5, 1_000),
    burst=st.integers(1, 500),
    latency=st.floats(0.0005, 0.1),
    jitter=st.floats(0, 0.01),
    seed=st.integers(0, 99),
)
def test_a_token_bucket_is_found_where_its_burst_takes_longer_than_the_jitter(
    rate: float, burst: int, latency: float, jitter: float, seed: int
) -> None:
    bucket = TokenBucket(rate, burst)
    plan, calls = found(bucket.try_take, latency=latency, jitter=min(jitter, 0.02 * burst / rate), seed=seed)
    assert near(plan, rate, burst), plan.estimates()
    assert calls <= 20_000
    assert max(call.answered or 0.0 for done in plan.done for call in done.record.calls) <= 60.0


@settings(max_examples=20)
@given(rate=st.integers(10, 1_000), burst=st.integers(1, 499), latency=st.floats(0.001, 0.05))
@example(rate=500, burst=1, latency=0.03125)  # a millisecond brings half a token, and so another call
@example(rate=1_000, burst=5, latency=0.02)
def test_a_leaky_bucket_in_milliseconds_is_found_and_lets_one_call_more_pass_at_once(
    rate: int, burst: int, latency: float
) -> None:
    quota = NginxQuota(rate, burst)
    plan, _ = found(quota.accepts, latency=latency)
    assert near(plan, rate, burst + 1, calls=1 if rate >= 500 else 0), plan.estimates()


def test_where_nothing_is_throttled_there_is_no_quota() -> None:
    plan, calls = found(lambda at: True)
    estimates = plan.estimates()
    assert (estimates.rate, estimates.burst, estimates.unsteady) == (None, None, False)
    assert 2_000 < calls < 12_000


@pytest.mark.parametrize("share", [0.01, 0.05, 0.2, 0.5])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_throttles_at_random_are_no_quota(share: float, seed: int) -> None:
    draw = random.Random(seed)
    plan, _ = found(lambda at: draw.random() >= share, jitter=0.0005)
    estimates = plan.estimates()
    assert estimates.rate is None, estimates
    assert estimates.unsteady or estimates.throttled_at_any_rate


def per_window(limit: int, seconds: float) -> Callable[[float], bool]:
    counts: dict[int, int] = {}

    def accepts(at: float) -> bool:
        window = int(at / seconds)
        counts[window] = counts.get(window, 0) + 1
        return counts[window] <= limit

    return accepts


@pytest.mark.parametrize(("limit", "seconds"), [(100, 1.0), (500, 1.0), (300, 3.0)])
def test_a_count_per_window_is_no_steady_rate(limit: int, seconds: float) -> None:
    plan, _ = found(per_window(limit, seconds))
    assert plan.estimates().unsteady, plan.estimates()


def test_a_quota_that_another_uses_now_and_then_does_not_crash_it() -> None:
    bucket, draw = TokenBucket(100, 50), random.Random(1)

    def accepts(at: float) -> bool:
        if int(at) % 2:
            for _ in range(draw.randrange(3)):
                bucket.try_take(at)
        return bucket.try_take(at)

    plan, _ = found(accepts)
    estimates = plan.estimates()
    assert estimates.rate is None or estimates.rate.value <= 101


def test_a_server_that_falls_behind_is_told_from_a_quota() -> None:
    """It serves 200 calls a second, one after the other: the ramp ends where answers fall behind."""
    plan, free = Ramp(LIMITS), 0.0

    def served(at: float) -> float:
        nonlocal free
        free = max(free, at) + 0.005
        return free - at

    calls = play(plan, lambda at: True, latency=0.002, delay=served)
    estimates = plan.estimates()
    assert estimates.rate is None
    assert estimates.overloaded_at is not None
    assert 200 < estimates.overloaded_at < 800
    assert calls < 1_500


@given(rates=st.lists(st.floats(1, 500), min_size=1, max_size=4), seconds=st.floats(0.1, 3))
@settings(max_examples=30)
def test_steps_offer_each_rate_for_its_time_whatever_is_answered(rates: list[float], seconds: float) -> None:
    plan = Steps(rates, seconds)
    play(plan, TokenBucket(10, 1).try_take)
    for rate, done in zip(rates, plan.done, strict=True):
        dues = [call.due for call in done.record.calls]
        assert len(dues) == max(1, round(rate * seconds))
        assert all(later - earlier == pytest.approx(1 / rate) for earlier, later in pairwise(dues))


@pytest.mark.parametrize("cut", [1, 2, 3, 4])
def test_a_probe_that_is_broken_off_tells_what_it_has(cut: int) -> None:
    plan = Ramp(LIMITS)
    play(plan, TokenBucket(100, 50).try_take, stretches=cut)
    estimates = plan.estimates()
    assert (estimates.rate is None) == (cut == 1)
