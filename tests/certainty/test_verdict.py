from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m2async.certainty.verdict import OnUnknown, Verdict, verdict
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
        (said("ConflictException", 409, resourceId="app"), Verdict.HOLD_APPLICATION, Verdict.HOLD_APPLICATION),
        (said("ConflictException", 409, resourceId="an-execution"), Verdict.REJECT, Verdict.REJECT),
        (said("AccessDeniedException", 403), Verdict.HOLD_APPLICATION, Verdict.HOLD_APPLICATION),
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
