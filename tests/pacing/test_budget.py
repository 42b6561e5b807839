from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from m2async.pacing import RetryBudget
from m2async.pacing.budget import PER_SECOND, RATIO, RESERVE


@given(st.lists(st.tuples(st.floats(0, 3), st.integers(0, 50)), max_size=50))
def test_resends_stay_within_what_was_earned(turns: list[tuple[float, int]]) -> None:
    budget, now = RetryBudget(), 0.0
    resends = successes = 0
    for gap, succeeded in turns:
        now += gap
        for _ in range(succeeded):
            budget.succeeded(now)
        successes += succeeded
        while budget.try_take(now):
            resends += 1
        assert resends <= RESERVE + RATIO * successes + PER_SECOND * now + 1e-6


def test_a_service_that_fails_every_call_sees_a_trickle() -> None:
    budget = RetryBudget()
    resends = sum(budget.try_take(second / 100) for second in range(60 * 100))
    assert resends <= RESERVE + 60 * PER_SECOND


def test_a_fifth_of_successes_can_be_resent_without_waiting() -> None:
    budget = RetryBudget()
    while budget.try_take(0):
        pass
    for _ in range(50):
        budget.succeeded(0)
    assert [budget.try_take(0) for _ in range(11)] == [True] * 10 + [False]


def test_a_resend_is_told_when_to_ask_again() -> None:
    budget = RetryBudget()
    while budget.try_take(0):
        pass
    at = budget.next_token_at(0)
    assert not budget.try_take(at * 0.99)
    assert budget.try_take(at)
