from __future__ import annotations

import math
import random

from hypothesis import given
from hypothesis import strategies as st

from m2async.pacing import AdaptiveRate, Grant
from tests.pacing.simulator import Scenario, simulate


def answer_all(controller: AdaptiveRate, seconds: float, latency: float) -> float:
    """Send at the controller's rate, with every call answered; gives the time of the last."""
    now, number = 0.0, 0
    while now < seconds:
        number += 1
        controller.answered(Grant(number, now, controller.rate), now + latency)
        now += 1 / controller.rate
    return now


def test_a_given_rate_stays_exactly_as_long_as_nobody_throttles() -> None:
    controller = AdaptiveRate(50, 7)
    answer_all(controller, 100, 0.2)
    assert (controller.rate, controller.burst) == (50, 7)
    assert controller.found_rate is None


@given(st.floats(5, 500), st.floats(1, 100), st.floats(0.005, 0.3), st.integers(0, 1_000))
def test_a_given_rate_and_burst_are_never_exceeded(rate: float, burst: float, latency: float, seed: int) -> None:
    controller, draw, now = AdaptiveRate(rate, burst), random.Random(seed), 0.0
    for number in range(1, 400):
        now += 1 / controller.rate
        grant = Grant(number, now - latency, controller.rate)
        if draw.random() < 0.1:
            controller.throttled(grant, now, draw.choice([None, None, 1.0]))
        else:
            controller.answered(grant, now)
        assert 0 < controller.rate <= rate
        assert 1 <= controller.burst <= burst


def test_a_wrong_given_rate_is_lowered_to_the_quota_and_told() -> None:
    scenario = Scenario(rate=60, burst=60, latency=0.05, workers=64, seconds=60)
    result = simulate(scenario, lambda: AdaptiveRate(200, 200))
    assert result.used(10) >= 0.97
    assert result.throttled(10) <= 0.02
    found = result.senders[0].law.found_rate
    assert found is not None
    assert abs(found - 60) < 3


def test_a_lowered_rate_goes_back_up_to_the_given_one_and_no_further() -> None:
    scenario = Scenario(rate=100, burst=20, latency=0.05, workers=64, seconds=60, steps=((10, 40), (20, 400)))
    result = simulate(scenario, lambda: AdaptiveRate(100, 20))
    assert result.accepted(12, 20) <= 40 * 8 * 1.02 + 20
    assert abs(result.accepted(30, 60) - 100 * 30) <= 0.01 * 3_000
    assert result.throttled(30) == 0


def test_throttles_of_calls_already_under_way_are_one_signal() -> None:
    controller = AdaptiveRate()
    now = answer_all(controller, 4.0, 0.05)
    rate = controller.rate
    under_way = [Grant(10**6 + number, now + number / rate, rate) for number in range(20)]
    lowered = []
    for grant in under_way:  # half of them
        if grant.number % 2:
            controller.throttled(grant, now + 0.5)
            lowered.append(controller.rate)
    assert controller.rate >= 0.25 * rate
    assert len(set(lowered)) <= 3


def test_retry_after_pauses_everything() -> None:
    controller = AdaptiveRate(100, 10)
    controller.throttled(Grant(1, 0.0, 100), 0.5, 2.0)
    assert controller.paused_until == 2.5
    controller.throttled(Grant(2, 0.0, 100), 0.6, 1.0)
    assert controller.paused_until == 2.5


def test_an_application_that_sends_little_does_not_make_the_rate_grow() -> None:
    controller = AdaptiveRate()
    for number in range(1, 500):
        controller.answered(Grant(number, float(number), controller.rate), number + 0.05)
    assert controller.rate < 100


@given(st.lists(st.tuples(st.floats(0, 2), st.booleans(), st.floats(0, 5)), max_size=200))
def test_it_never_stalls_whatever_it_is_told(answers: list[tuple[float, bool, float]]) -> None:
    controller, now = AdaptiveRate(), 0.0
    for number, (gap, throttled, latency) in enumerate(answers, 1):
        now += gap
        grant = Grant(number, now - latency, controller.rate)
        if throttled:
            controller.throttled(grant, now)
        else:
            controller.answered(grant, now)
        assert 0.1 <= controller.rate < math.inf
        assert controller.paused_until <= now + 0.25
    number, now = len(answers), now + 10
    while controller.rate <= 10:  # and it recovers
        number += 1
        now += 1 / controller.rate
        assert number < 5_000
        controller.answered(Grant(number, now, controller.rate), now + 0.05)


def test_slow_answers_are_no_throttles() -> None:
    scenario = Scenario(rate=100, burst=100, latency=0.05, workers=400, seconds=40)
    fast = simulate(scenario, AdaptiveRate)
    controller = fast.senders[0].law
    assert controller.rate > 80
    rate, now, number = controller.rate, 40.0, 10**6
    for latency in (0.5, 2.0, 5.0):
        for _ in range(50):
            number += 1
            now += 0.01
            controller.answered(Grant(number, now - latency, rate), now)
            assert controller.rate >= 0.95 * rate


def test_throttles_that_come_at_any_rate_do_not_bring_a_given_rate_to_a_halt() -> None:
    controller, now = AdaptiveRate(1_000, 10), 0.0
    for number in range(1, 5_001):
        now = max(now + 1 / controller.rate, controller.paused_until)
        tell = controller.answered if number % 5 else controller.throttled
        tell(Grant(number, now, controller.rate), now + 0.01)
        assert controller.rate >= 10
