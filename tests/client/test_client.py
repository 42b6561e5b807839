from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any, Literal

import pytest

from m2async import (
    AnswerTimeoutError,
    CallError,
    ConnectionLostError,
    FileJob,
    InternalServerException,
    InvalidRequestError,
    LocalEndpoint,
    M2Client,
    M2ServiceException,
    NotSentError,
    ResourceNotFoundException,
    ScriptJob,
    StartBatchJob,
    StartBatchJobResponse,
    ThrottlingException,
    UnreadableAnswerError,
    ValidationException,
)
from m2async.client.answers import parse_retry_after
from tests.scripted import (
    ScriptedServer,
    Step,
    answer,
    close,
    error,
    hang,
    nobody,
    reset,
    scripted,
    send,
    started,
    truncated,
)

APPLICATION = "carddemolocalapplication23"
REQUEST = StartBatchJob(APPLICATION, ScriptJob("POSTTRAN"), {"RUNDATE": "20261123"})


# Every test runs with both transports: what holds for one holds for the other.


@pytest.fixture(autouse=True, params=["wire", "aiobotocore"])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(ScriptedServer, "transport", request.param)
    chosen: str = request.param
    return chosen


@pytest.fixture
async def client(endpoint: LocalEndpoint, transport: Literal["wire", "aiobotocore"]) -> AsyncIterator[M2Client]:
    async with M2Client(**endpoint.client_settings(), transport=transport) as client:
        yield client


async def test_a_started_job_gives_its_execution_id_and_the_request_id() -> None:
    async with scripted(started("abc")) as server, M2Client(**server.settings()) as client:
        response = await client.start_batch_job(REQUEST)
    assert response == StartBatchJobResponse("abc", "r-1")
    [sent] = server.requests
    assert sent.startswith(f"POST {REQUEST.path} HTTP/1.1\r\n".encode())
    assert json.loads(sent.partition(b"\r\n\r\n")[2]) == json.loads(REQUEST.body())


@pytest.mark.parametrize(
    ("step", "kind", "may_have_started"),
    [
        (error(400, "ValidationException", reason="other"), ValidationException, False),
        (error(404, "ResourceNotFoundException"), ResourceNotFoundException, False),
        (error(429, "ThrottlingException"), ThrottlingException, False),
        (answer(429, b"slow down"), ThrottlingException, False),
        (error(500, "InternalServerException"), InternalServerException, True),
        (answer(500, b"<html>"), M2ServiceException, True),
        (answer(503, b""), M2ServiceException, True),
        (answer(200, {}), UnreadableAnswerError, True),
        (answer(200, {"executionId": 7}), UnreadableAnswerError, True),
        (answer(200, {"executionId": ""}), UnreadableAnswerError, True),
        (answer(200, b"[1]"), UnreadableAnswerError, True),
        (answer(200, b"not json"), UnreadableAnswerError, True),
        (send(b"SMTP ready\r\n\r\n"), CallError, True),
        (truncated, ConnectionLostError, True),
        (close, ConnectionLostError, True),
        (reset, ConnectionLostError, True),
        (hang, AnswerTimeoutError, True),
    ],
)
async def test_each_end_of_a_call_has_its_error_and_the_request_was_sent_once(
    step: Step, kind: type[CallError], may_have_started: bool
) -> None:
    read_timeout = 0.3 if step is hang else 60
    async with scripted(step) as server, M2Client(**server.settings(read_timeout=read_timeout)) as client:
        with pytest.raises(CallError) as caught:
            await client.start_batch_job(REQUEST)
        assert len(server.requests) == 1
    assert isinstance(caught.value, kind)
    assert caught.value.may_have_started is may_have_started
    assert caught.value.code
    assert caught.value.message


async def test_a_connection_that_breaks_on_its_second_use_is_not_used_to_send_again() -> None:
    async with scripted(started(), reset) as server, M2Client(**server.settings()) as client:
        await client.start_batch_job(REQUEST)
        with pytest.raises(ConnectionLostError):
            await client.start_batch_job(REQUEST)
        assert len(server.requests) == 2


async def test_a_port_where_nobody_listens_means_not_sent() -> None:
    with nobody() as server:
        async with M2Client(**server.settings()) as client:
            with pytest.raises(NotSentError) as caught:
                await client.start_batch_job(REQUEST)
    assert caught.value.may_have_started is False


async def test_an_unverifiable_certificate_means_not_sent(tmp_path: Path) -> None:
    async with scripted(started()) as server:
        settings = server.settings(endpoint_url=server.url.replace("http:", "https:"), connect_timeout=0.2)
        async with M2Client(**settings) as client:  # it speaks no TLS
            with pytest.raises(NotSentError):
                await client.start_batch_job(REQUEST)
    assert server.requests == []


async def test_retry_after_and_modelled_members_reach_the_caller() -> None:
    step = error(429, "ThrottlingException", {"Retry-After": "7"}, quotaCode="L-1", serviceCode="m2")
    async with scripted(step) as server, M2Client(**server.settings()) as client:
        with pytest.raises(ThrottlingException) as caught:
            await client.start_batch_job(REQUEST)
    throttled = caught.value
    assert (throttled.retry_after, throttled.quota_code, throttled.service_code) == (7.0, "L-1", "m2")
    assert (throttled.http_status, throttled.request_id, throttled.message) == (429, "r-1", "ThrottlingException said")


def test_retry_after_is_a_number_of_seconds_or_a_date() -> None:
    assert parse_retry_after("2.5") == 2.5
    in_a_minute = parse_retry_after(format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True))
    assert in_a_minute is not None
    assert 55 < in_a_minute <= 60
    assert parse_retry_after("Mon, 01 Jan 2001 00:00:00 GMT") == 0


NO_RETRY_AFTER = (
    "", " ", "soon", "nan", "inf", "-inf", "-3", "+3", "1e400", "2e0", "0x10", "1_0", "1,5", ".5", "5.", "9" * 400,
    "\u0663", "\u00b2", "\uff17", "3 s", "3\n4", "Fri, 31 Dec 10000 23:59:59 GMT", "Thu, 45 Nov 2026 10:00:00 GMT",
    "Thu, 26 Nov 2026 \u0661\u0660:00:00 GMT", "yesterday", "true", "null", "[]", ",", "Mon, ", "0000-00-00",
)  # fmt: skip


@pytest.mark.parametrize("given", [None, *NO_RETRY_AFTER])
def test_what_is_no_retry_after_is_as_none(given: str | None) -> None:
    assert parse_retry_after(given) is None


@pytest.mark.parametrize("years", [-20, 0, 20])
def test_a_date_in_retry_after_is_one_of_the_clock_of_the_service(years: int) -> None:
    answered = datetime(2026 + years, 11, 26, 10, 0, 0, tzinfo=UTC)
    until = format_datetime(answered + timedelta(seconds=90), usegmt=True)
    assert parse_retry_after(until, format_datetime(answered, usegmt=True)) == 90


async def test_lists_follow_the_token_to_their_end(client: M2Client, endpoint: LocalEndpoint) -> None:
    ids = [(await client.start_batch_job(REQUEST)).execution_id for _ in range(7)]
    listed = [e async for e in client.list_batch_job_executions(APPLICATION, page_size=3)]
    assert {e.execution_id for e in listed} == set(ids)
    assert len(listed) == 7
    two = [e.execution_id async for e in client.list_batch_job_executions(APPLICATION, execution_ids=ids[:2])]
    assert set(two) == set(ids[:2])
    long_ago, soon = datetime(2001, 1, 1, tzinfo=UTC), datetime.now(UTC) + timedelta(hours=1)
    assert len([e async for e in client.list_batch_job_executions(APPLICATION, started_after=long_ago)]) == 7
    assert [e async for e in client.list_batch_job_executions(APPLICATION, started_after=soon)] == []
    definitions = [d async for d in client.list_batch_job_definitions(APPLICATION, page_size=10)]
    assert len({d.name for d in definitions}) == 46
    named = [d async for d in client.list_batch_job_definitions(APPLICATION, prefix="POSTTRAN")]
    assert [(d.type, d.name) for d in named] == [("file", "POSTTRAN.jcl")]
    assert [a.application_id async for a in client.list_applications()] == [APPLICATION]
    assert [a async for a in client.list_applications(names=["Nobody"])] == []


async def test_a_list_that_is_closed_early_leaves_no_task_behind(client: M2Client) -> None:
    await client.start_batch_job(REQUEST)
    before = asyncio.all_tasks()
    listed: Any = client.list_batch_job_executions(APPLICATION)
    async with aclosing(listed):
        await anext(listed)
    await asyncio.sleep(0)  # what closes a generator that was dropped begins a turn later
    assert asyncio.all_tasks() == before


async def test_a_list_that_is_missing_is_not_an_empty_list() -> None:
    async with scripted(answer(200, {})) as server, M2Client(**server.settings()) as client:
        for items in (client.list_applications(), client.list_batch_job_executions(APPLICATION)):
            with pytest.raises(UnreadableAnswerError):
                await anext(items)


async def test_an_execution_can_be_read_cancelled_and_asked_for_its_steps(client: M2Client) -> None:
    started = await client.start_batch_job(StartBatchJob(APPLICATION, FileJob("CARDFILE.jcl")))
    execution = await client.get_batch_job_execution(APPLICATION, started.execution_id)
    assert execution.job == FileJob("CARDFILE.jcl")
    assert not execution.is_terminal
    steps = await client.list_batch_job_restart_points(APPLICATION, started.execution_id)
    assert [step.step_name for step in steps][:2] == ["CLCIFIL", "STEP05"]
    await client.cancel_batch_job_execution(APPLICATION, started.execution_id)
    execution = await client.get_batch_job_execution(APPLICATION, started.execution_id)
    assert execution.status in {"Cancelling", "Cancelled"}
    application = await client.get_application(APPLICATION)
    assert (application.name, application.status) == ("CardDemo", "Running")


async def test_an_id_that_would_change_the_path_is_refused_before_it_is_sent(client: M2Client) -> None:
    for wrong in ("..", "", "a b"):
        with pytest.raises(InvalidRequestError):
            await client.get_batch_job_execution(APPLICATION, wrong)
        with pytest.raises(InvalidRequestError):
            await client.get_application(wrong)


async def test_middleware_sees_request_and_answer_the_last_one_added_first() -> None:
    seen = []
    async with scripted(started()) as server, M2Client(**server.settings()) as client:
        for name in ("inner", "outer"):

            async def middleware(request: StartBatchJob, call_next: object, name: str = name) -> StartBatchJobResponse:
                seen.append(f"{name} before")
                response: StartBatchJobResponse = await call_next(request)  # type: ignore[operator]
                seen.append(f"{name} after")
                return response

            client.use(middleware)
        await client.start_batch_job(REQUEST)
    assert seen == ["outer before", "inner before", "inner after", "outer after"]
