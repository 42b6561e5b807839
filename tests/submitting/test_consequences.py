"""What follows from a failed attempt, over every kind of failure and everything that came before it."""

from __future__ import annotations

from itertools import product

import pytest

from m2async.certainty import OnUnknown, verdict
from m2async.errors import AnswerTimeoutError, CallError, CredentialsError, NotSentError, service_exception
from m2async.pacing import RetryPolicy
from m2async.service import ScriptJob, StartBatchJob
from m2async.submitting.consequences import Consequence, Failures, Step, consequence

REQUEST = StartBatchJob("app", ScriptJob("X"))
POLICY = RetryPolicy(patience=600.0, unreachable=5.0, resends=4)
NOTHING_BEFORE = Failures(in_doubt=False, sends_in_doubt=0, seconds=0.0, was_reached=True, is_denied_everywhere=False)


def said(code: str, status: int) -> CallError:
    return service_exception(code, "said", http_status=status)


THROTTLED, DENIED, INVALID = (
    said("ThrottlingException", 429), said("AccessDeniedException", 403), said("ValidationException", 400),
)  # fmt: skip
STOPPED, FAILED = said("ConflictException", 409), said("InternalServerException", 500)
UNSENT, LOST, NO_KEYS = NotSentError("x"), AnswerTimeoutError("x"), CredentialsError("x")
EVERY_ERROR = (THROTTLED, DENIED, INVALID, STOPPED, FAILED, UNSENT, LOST, NO_KEYS)
EVERY_PAST = [
    Failures(in_doubt, sends, seconds, reached, denied)
    for in_doubt, sends, seconds, reached, denied in product(
        (False, True), (0, 4, 5), (0.0, 5.0, 600.0), (False, True), (False, True)
    )
    if in_doubt or not sends
]


def follows(error: CallError, on_unknown: OnUnknown = "adopt", failures: Failures = NOTHING_BEFORE) -> Consequence:
    if error.may_have_started:  # as the submitter counts it before it asks
        failures = failures._replace(in_doubt=True, sends_in_doubt=failures.sends_in_doubt + 1)
    return consequence(error, verdict(error, REQUEST, on_unknown), failures, POLICY)


@pytest.mark.parametrize(
    ("error", "past", "step", "stops"),
    [
        (THROTTLED, {}, Step.SEND_AGAIN, False),
        (THROTTLED, {"seconds": 599.9}, Step.SEND_AGAIN, False),
        (THROTTLED, {"seconds": 600.0}, Step.GIVE_UP, False),
        (THROTTLED, {"seconds": 600.0, "in_doubt": True, "sends_in_doubt": 1}, Step.LOOK_FOR, False),
        (UNSENT, {"seconds": 5.0}, Step.SEND_AGAIN, False),
        (UNSENT, {"seconds": 4.9, "was_reached": False}, Step.SEND_AGAIN, False),
        (UNSENT, {"seconds": 5.0, "was_reached": False}, Step.REJECT, True),
        (UNSENT, {"seconds": 600.0}, Step.REJECT, True),
        (STOPPED, {}, Step.HOLD, False),
        (STOPPED, {"in_doubt": True, "sends_in_doubt": 1}, Step.LOOK_FOR, False),
        (INVALID, {}, Step.REJECT, False),
        (INVALID, {"in_doubt": True, "sends_in_doubt": 1}, Step.LOOK_FOR, False),
        (DENIED, {}, Step.HOLD, False),
        (DENIED, {"is_denied_everywhere": True}, Step.REJECT, True),
        (DENIED, {"is_denied_everywhere": True, "in_doubt": True, "sends_in_doubt": 1}, Step.LOOK_FOR, True),
        (THROTTLED, {"is_denied_everywhere": True}, Step.SEND_AGAIN, False),
        (STOPPED, {"is_denied_everywhere": True}, Step.HOLD, False),
        (NO_KEYS, {}, Step.REJECT, True),
        (FAILED, {}, Step.LOOK_FOR, False),
        (LOST, {}, Step.LOOK_FOR, False),
    ],
)
def test_what_follows(error: CallError, past: dict[str, bool | float], step: Step, stops: bool) -> None:
    found = follows(error, failures=NOTHING_BEFORE._replace(**past))  # type: ignore[arg-type]
    assert (found.step, found.stops) == (step, stops)


def test_a_job_that_may_have_started_is_sent_again_only_where_that_is_asked_for_and_so_often() -> None:
    assert [follows(LOST, "resend", NOTHING_BEFORE._replace(sends_in_doubt=sends)).step for sends in range(6)] == [
        *[Step.SEND_AGAIN] * 4,
        *[Step.LOOK_FOR] * 2,
    ]


@pytest.mark.parametrize("on_unknown", ["adopt", "hold", "resend"])
def test_what_holds_whatever_came_before(on_unknown: OnUnknown) -> None:
    for error, failures in product(EVERY_ERROR, EVERY_PAST):
        found = follows(error, on_unknown, failures)
        in_doubt = failures.in_doubt or error.may_have_started
        if in_doubt:  # nobody says of it that it was not started
            assert found.step in {Step.LOOK_FOR, Step.SEND_AGAIN}
        if error.may_have_started and on_unknown != "resend":
            assert found.step is Step.LOOK_FOR
        if found.step is Step.GIVE_UP:  # what is given up may be tried again by the next process
            assert found.may_be_tried_again
        if found.stops:  # nothing waits for what does not come
            assert found.step in {Step.REJECT, Step.LOOK_FOR}
