"""What pacing is for: the whole quota, and no more. The scenarios are drawn, but always the same."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from statistics import mean

import pytest

from m2async.pacing import AdaptiveRate
from tests.pacing.simulator import Scenario, simulate


def drawn(count: int, *, rates: tuple[float, float], seconds: float, seed: int) -> Iterator[Scenario]:
    """Quotas, bursts, latencies up to 200 ms and jitters; a burst is no less than what 10 ms of the rate bring."""
    draw = random.Random(seed)
    lowest, highest = rates
    for _ in range(count):
        rate = lowest * (highest / lowest) ** draw.random()
        least = max(1.0, rate / 100)
        burst = math.ceil(least * (1000 / least) ** draw.random())
        latency = 0.005 * 40 ** draw.random()
        yield Scenario(
            rate,
            burst,
            latency,
            workers=max(16, math.ceil(rate * latency * draw.uniform(1.5, 3))),
            seconds=seconds,
            jitter=draw.choice((0, 0.1, 0.3)),
            scatter=min(0.001, 0.05 * burst / rate),
            nginx=draw.random() < 0.3,
            seed=draw.randrange(10**6),
        )


@pytest.mark.parametrize("latency", [0.02, 0.2])
@pytest.mark.parametrize(("rate", "burst"), [(200, 200), (20, 1), (1000, 50)])
@pytest.mark.parametrize("nginx", [True, False])
def test_a_known_quota_is_used_to_98_percent(rate: int, burst: int, latency: float, *, nginx: bool) -> None:
    scatter = 0.0 if burst == 1 and not nginx else 0.001  # with a burst of 1, what comes early is refused
    workers = max(64, int(2 * rate * latency))
    scenario = Scenario(rate, burst, latency, workers, seconds=15, nginx=nginx, scatter=scatter)
    result = simulate(scenario, lambda: AdaptiveRate(rate, burst))
    assert result.used() >= 0.98
    assert result.throttled() <= 0.005


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("latency", [0.02, 0.2])
@pytest.mark.parametrize("rate", [50, 200, 1000])
def test_an_unknown_quota_is_found(rate: float, latency: float, seed: int) -> None:
    scenario = Scenario(rate, rate, latency, max(64, int(2 * rate * latency)), seed=seed)
    result = simulate(scenario, AdaptiveRate)
    assert result.used(5) >= 0.95
    assert result.used() >= 0.9
    assert result.throttled() <= 0.02


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("burst", [10, 40])
def test_a_quota_of_40_a_second_is_told_within_a_tenth_after_200_calls(burst: float, seed: int) -> None:
    result = simulate(Scenario(40, burst, 0.02, 16, seconds=(200 - burst) / 40, seed=seed), AdaptiveRate)
    found = result.senders[0].law.found_rate
    assert found is not None
    assert 36 <= found <= 44


@pytest.mark.parametrize("rate", [50, 200, 1000])
def test_answers_after_2_seconds_are_coped_with(rate: int) -> None:
    """What is sent in 2 s before the first throttle is known is lost: docs/pacing.md says why that cannot be helped."""
    result = simulate(Scenario(rate, rate, 2.0, 4 * rate), AdaptiveRate)
    assert result.used(5) >= 0.95
    assert result.used() >= 0.88
    assert result.throttled() <= 0.06
    assert result.throttled(30) <= 0.02


def test_any_quota_from_50_a_second_on_is_found() -> None:
    for scenario in drawn(40, rates=(50, 2000), seconds=60, seed=1):
        result = simulate(scenario, AdaptiveRate)
        assert result.used(5) >= 0.95, scenario
        assert result.used() >= 0.88, scenario
        assert result.throttled() <= 0.025, scenario


def test_smaller_quotas_are_found_at_a_few_throttles_more() -> None:
    settled = []
    for scenario in drawn(150, rates=(5, 50), seconds=60, seed=2):
        result = simulate(scenario, AdaptiveRate)
        assert result.used(5) >= 0.95, scenario
        assert result.used() >= 0.9, scenario
        assert result.throttled() <= 0.015 + 0.2 / math.sqrt(scenario.rate), scenario
        settled.append(result.throttled(20))
    assert mean(settled) <= 0.02


def test_whatever_the_quota_it_never_stalls() -> None:
    for scenario in drawn(400, rates=(5, 200), seconds=6, seed=3):
        result = simulate(scenario, AdaptiveRate)
        assert result.accepted(3, 6) >= 0.3 * min(scenario.rate, 60) * 3, scenario


@pytest.mark.parametrize("latency", [0.02, 0.2])
def test_a_changed_quota_is_followed(latency: float) -> None:
    for seed in range(6):
        down, up = 20 + seed / 3, 40 + seed / 2
        scenario = Scenario(200, 200, latency, max(64, int(600 * latency)), steps=((down, 50), (up, 300)), seed=seed)
        result = simulate(scenario, AdaptiveRate)
        for step, end in ((down, up), (up, 60.0)):
            accepted = result.accepted(step + 5, end) / result.allowed(step + 5, end)
            assert 0.9 <= accepted <= 1.1, scenario
        assert result.throttled() <= 0.035, scenario


@pytest.mark.parametrize("rate", [200, 1000])
def test_two_that_do_not_know_each_other_share_a_quota(rate: float) -> None:
    for seed in range(4 if rate == 200 else 1):
        result = simulate(Scenario(rate, rate, 0.02, 64, joins=(0, 0), seed=seed), AdaptiveRate)
        assert result.used() >= 0.9
        assert result.throttled() <= 0.04
        assert 0.35 <= result.share(0) <= 0.65


def test_retry_after_in_whole_seconds_is_honoured_and_does_not_lose_the_quota() -> None:
    for scenario in drawn(20, rates=(50, 400), seconds=60, seed=4):
        result = simulate(Scenario(scenario.rate, scenario.rate, 0.05, 64, retry_after=True), AdaptiveRate)
        assert result.used() >= 0.85, scenario
        assert result.throttled() <= 0.02, scenario
