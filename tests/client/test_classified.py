"""Whether an answer leaves it open that the job was started: decided once, and all else follows from it."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Literal

import pytest

from m2async import CallError, M2Client, RetryPolicy, ScriptJob, StartBatchJob, Submitter, open_ledger
from m2async.certainty import Verdict, verdict
from m2async.errors import EXCEPTION_OF_CODE, service_exception
from m2async.ledger import RowEvent
from m2async.pacing import RetryPolicy as Policy
from m2async.submitting.consequences import Failures, Step, consequence
from tests.scripted import error, scripted, started

REQUEST = StartBatchJob("application", ScriptJob("POSTTRAN"))

IN_DOUBT = [
    (500, "InternalServerException"),
    (500, "InternalFailure"),
    (503, "ServiceUnavailable"),
    (503, "ThrottlingException"),
    (503, "SlowDown"),
    (500, "ThrottlingException"),
    (502, "TooManyRequestsException"),
    (504, "RequestLimitExceeded"),
    (503, "ConflictException"),
    (500, "ResourceNotFoundException"),
    (500, "AccessDeniedException"),
    (503, "ExpiredTokenException"),
    (500, "ValidationException"),
    (599, "RequestExpired"),
    (307, "TemporaryRedirect"),
    (304, "ThrottlingException"),
    (408, "RequestTimeout"),
    (400, "RequestTimeoutException"),
    (400, "RequestTimeout"),
    (400, "RequestAbortedException"),
    (499, "499"),
]
SURELY_NOT = [
    (429, "ThrottlingException"),
    (429, "InternalServerException"),
    (400, "ThrottlingException"),
    (400, "RequestLimitExceeded"),
    (400, "ValidationException"),
    (403, "AccessDeniedException"),
    (404, "ResourceNotFoundException"),
    (409, "ConflictException"),
    (418, "SomethingNewException"),
]


@pytest.mark.parametrize("transport", ["wire", "aiobotocore"])
async def test_each_status_and_code_says_the_same_over_both_transports(
    transport: Literal["wire", "aiobotocore"],
) -> None:
    answers = IN_DOUBT + SURELY_NOT
    async with scripted(*(error(status, code) for status, code in answers)) as server:
        async with M2Client(**server.settings(transport=transport)) as client:
            said = []
            for _ in answers:
                with pytest.raises(CallError) as caught:
                    await client.start_batch_job(REQUEST)
                said.append((caught.value.code, caught.value.may_have_started))
        assert len(server.requests) == len(answers)
    assert said == [(code, True) for _, code in IN_DOUBT] + [(code, False) for _, code in SURELY_NOT]


@pytest.mark.parametrize(("status", "code"), [*IN_DOUBT, (429, "ThrottlingException"), (400, "ThrottlingException")])
async def test_what_is_recorded_in_doubt_is_what_may_have_started_and_is_not_sent_again(
    status: int, code: str, tmp_path: Path
) -> None:
    in_doubt = (status, code) in IN_DOUBT
    async with scripted(error(status, code), started()) as server, open_ledger(tmp_path / "ledger.db") as ledger:
        async with M2Client(**server.settings()) as client:
            retry = RetryPolicy(base=1e-6, cap=1e-6)
            async with Submitter(client, ledger=ledger, run="run", on_unknown="hold", retry=retry) as submitter:
                outcome = await submitter.submit(REQUEST, key="key")
        view = await ledger.run("run")
        history = await view.history((await view.row("key")).number)
    assert outcome.state == ("unknown" if in_doubt else "started")
    assert len(server.requests) == outcome.attempts == (1 if in_doubt else 2)
    assert [(entry.event, entry.open) for entry in history] == [
        (RowEvent.UNKNOWN, True) if in_doubt else (RowEvent.REFUSED, False)
    ]


@pytest.mark.parametrize("on_unknown", ["adopt", "hold"])
def test_whatever_the_code_what_may_have_started_is_never_sent_again_by_itself(
    on_unknown: Literal["adopt", "hold"],
) -> None:
    codes = [*EXCEPTION_OF_CODE, "RequestAbortedException", "RequestTimeout", "Other"]
    for status, code in product(range(100, 600), codes):
        failure = service_exception(code, "said", http_status=status)
        what = verdict(failure, REQUEST, on_unknown)
        in_doubt = failure.may_have_started
        assert (what in {Verdict.ADOPT, Verdict.HOLD}) == in_doubt
        past = Failures(in_doubt, int(in_doubt), 0.0, was_reached=True, is_denied_everywhere=False)
        follows = consequence(failure, what, past, Policy())
        assert (follows.step is Step.LOOK_FOR) == in_doubt
