from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m2async.certainty.retry import OnUnknown, RetryPolicy, Verdict, repeated, verdict, wait_before_resend
from m2async.errors import (
    AnswerTimeoutError,
    CallError,
    ConnectionLostError,
    CredentialsError,
    NotSentError,
    UnreadableAnswerError,
    service_exception,
)
from m2async.service.requests import ScriptJob, StartBatchJob

REQUEST = StartBatchJob("app", ScriptJob("X"))


def said(code: str, status: int, **details: str) -> CallError:
    return service_exception(code, "said", http_status=status, details=details)


@pytest.mark.parametrize(
    ("error", "hold", "resend"),
    [
        (said("ThrottlingException", 429), Verdict.RETRY, Verdict.RETRY),
        (NotSentError("x"), Verdict.RETRY, Verdict.RETRY),
        (said("InternalServerException", 500), Verdict.HOLD, Verdict.RETRY),
        (said("ServiceUnavailable", 503), Verdict.HOLD, Verdict.RETRY),
        (AnswerTimeoutError("x"), Verdict.HOLD, Verdict.RETRY),
        (ConnectionLostError("x"), Verdict.HOLD, Verdict.RETRY),
        (UnreadableAnswerError("x"), Verdict.HOLD, Verdict.RETRY),
        (said("ValidationException", 400), Verdict.REJECT, Verdict.REJECT),
        (said("Unheard", 418), Verdict.REJECT, Verdict.REJECT),
        (said("ResourceNotFoundException", 404), Verdict.HOLD_APPLICATION, Verdict.HOLD_APPLICATION),
        (
            said("ResourceNotFoundException", 404, resourceId="app"),
            Verdict.HOLD_APPLICATION,
            Verdict.HOLD_APPLICATION,
        ),
        (said("ResourceNotFoundException", 404, resourceId="X.jcl"), Verdict.REJECT, Verdict.REJECT),
        (said("ConflictException", 409), Verdict.HOLD_APPLICATION, Verdict.HOLD_APPLICATION),
        (said("AccessDeniedException", 403), Verdict.STOP, Verdict.STOP),
        (said("UnrecognizedClientException", 403), Verdict.STOP, Verdict.STOP),
        (said("ExpiredTokenException", 403), Verdict.STOP, Verdict.STOP),
        (CredentialsError("x"), Verdict.STOP, Verdict.STOP),
    ],
)
def test_what_follows_from_each_failure(error: CallError, hold: Verdict, resend: Verdict) -> None:
    assert verdict(error, REQUEST, "hold") is hold
    assert verdict(error, REQUEST, "adopt") is (Verdict.ADOPT if hold is Verdict.HOLD else hold)
    assert verdict(error, REQUEST, "resend") is resend


@given(st.sampled_from([200, 302, 400, 403, 404, 409, 429, 500, 503]), st.sampled_from(["adopt", "hold"]))
def test_what_may_have_started_is_never_sent_again_unasked(status: int, on_unknown: OnUnknown) -> None:
    error = said("Some", status)
    if error.may_have_started:
        assert verdict(error, REQUEST, on_unknown) in {Verdict.HOLD, Verdict.ADOPT}


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
    answers = iter([said("ThrottlingException", 429), None])

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
