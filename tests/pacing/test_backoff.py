from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from m2async.errors import CallError, NotSentError, service_exception
from m2async.pacing.backoff import RetryPolicy, repeated, wait_before_resend


def waits(error: CallError, failures: int, policy: RetryPolicy) -> list[float]:
    return [wait_before_resend(policy, failures, error) for _ in range(200)]


@given(st.integers(1, 40))
def test_the_backoff_is_full_jitter_under_a_doubling_ceiling(attempt: int) -> None:
    ceiling = min(5.0, 0.1 * 2 ** (attempt - 1))
    drawn = waits(NotSentError("x"), attempt, RetryPolicy(base=0.1, cap=5.0))
    assert all(0 <= wait <= ceiling for wait in drawn)
    assert min(drawn) < 0.1 * ceiling  # from nothing ...
    assert max(drawn) > 0.9 * ceiling  # ... to the ceiling


def test_retry_after_is_waited_out_before_the_jitter() -> None:
    error = service_exception("ThrottlingException", "x", http_status=429, retry_after=7.0)
    drawn = waits(error, 1, RetryPolicy(base=0.1))
    assert all(7.0 <= wait <= 7.1 for wait in drawn)
    assert len(set(drawn)) > 100


async def test_what_is_repeated_may_be_any_function_that_gives_an_awaitable() -> None:
    answers = iter([service_exception("ThrottlingException", "slow down", http_status=429), None])

    async def call() -> str:
        error = next(answers)
        if error is not None:
            raise error
        return "done"

    waits: list[float] = []
    policy = RetryPolicy(base=0.001, cap=0.001)
    again = repeated(lambda: call(), policy, reached=lambda: True, before_wait=lambda error, wait: waits.append(wait))
    assert await again == "done"
    assert len(waits) == 1
