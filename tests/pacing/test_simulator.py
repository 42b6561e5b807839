from __future__ import annotations

from tests.pacing.simulator import BucketQuota, NginxQuota, Scenario, simulate
from tests.pacing.windows import most_above_inflow


class Constant:
    """A law that knows the rate and learns nothing."""

    paused_until = float("-inf")
    found_rate = None

    def __init__(self, rate: float, burst: float) -> None:
        self.rate = rate
        self.burst = burst

    def answered(self, grant: object, now: float) -> None: ...

    def throttled(self, grant: object, now: float, retry_after: float | None = None) -> None: ...


def test_both_quotas_accept_their_burst_at_once_and_then_their_rate() -> None:
    for quota, at_once in ((BucketQuota(50, 20), 20), (NginxQuota(50, 20), 21)):  # nginx: the burst on top of one
        assert sum(quota.accepts(0) for _ in range(100)) == at_once
        assert sum(quota.accepts(number / 1000) for number in range(1, 10_001)) == 500


def test_a_changed_quota_holds_from_its_time() -> None:
    for quota in (BucketQuota(10, 1), NginxQuota(10, 1)):
        for number in range(100):
            quota.accepts(number / 100)
        quota.set_rate(50, 1.0)
        assert 49 <= sum(quota.accepts(1 + number / 1000) for number in range(1, 1_001)) <= 52


def test_workers_limit_what_is_under_way() -> None:
    result = simulate(Scenario(1000, 1000, latency=1.0, workers=10, seconds=20, jitter=0), lambda: Constant(1000, 1000))
    assert abs(result.accepted(0, 20) - 10 * 20) <= 10


def test_a_law_that_sends_too_much_is_throttled_by_as_much() -> None:
    result = simulate(Scenario(100, 10, latency=0.05, workers=64, seconds=60), lambda: Constant(200, 1))
    assert abs(result.throttled() - 0.5) < 0.01
    assert abs(result.used() - 1) < 0.01


def test_a_sender_keeps_to_its_bucket() -> None:
    result = simulate(Scenario(1000, 1000, latency=0.05, workers=64, seconds=5), lambda: Constant(100, 5))
    times = sorted(at for at, _ in result.senders[0].answers)
    assert most_above_inflow(times, [(0, 100)]) <= 5 + 1e-6


def test_the_same_seed_gives_the_same_result() -> None:
    scenario = Scenario(100, 10, latency=0.05, workers=64, seconds=5, seed=7)
    first, second = (simulate(scenario, lambda: Constant(150, 5)).senders[0].answers for _ in range(2))
    assert first == second
