"""What a client's answers tell of the service's clock, over both transports."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from email.utils import formatdate

import pytest

from m2async import M2Client, ScriptJob, StartBatchJob, ThrottlingException
from tests.ledger.samples import APPLICATION
from tests.scripted import ScriptedServer, Step, answer, error, scripted, send

REQUEST = StartBatchJob(APPLICATION, ScriptJob("PAYROLL"))
HOUR = 3_600.0


@pytest.fixture(params=["wire", "aiobotocore"], autouse=True)
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ScriptedServer, "transport", request.param)


def dated(step: Callable[[dict[str, str]], Step], ahead: float = 0.0) -> Step:
    """Take a step with the date of when it is taken, by a clock that is so far ahead."""

    async def then(writer: asyncio.StreamWriter) -> None:
        await step({"Date": formatdate(time.time() + ahead, usegmt=True)})(writer)

    return then


def late_body(gap: asyncio.Event) -> Step:
    """Send the head with its date, and the body once the event is set."""

    async def step(writer: asyncio.StreamWriter) -> None:
        body = b'{"batchJobExecutions": []}'
        now = formatdate(time.time(), usegmt=True)
        await send(f"HTTP/1.1 200 X\r\nDate: {now}\r\ncontent-length: {len(body)}\r\n\r\n".encode())(writer)
        await writer.drain()
        await gap.wait()
        writer.write(body)

    return step


async def listed(client: M2Client) -> None:
    assert [each async for each in client.list_batch_job_executions(APPLICATION)] == []


async def test_starts_tell_the_time_as_well_as_other_calls_do() -> None:
    async with (
        scripted(dated(lambda date: answer(200, {"executionId": "e-1"}, date), HOUR)) as server,
        M2Client(**server.settings()) as client,
    ):
        before = client.clock_offset
        began = time.monotonic()
        await client.start_batch_job(REQUEST)
        took = time.monotonic() - began
        offset = client.clock_offset
    assert before is None
    assert offset is not None
    assert offset.least <= HOUR + 0.1
    assert offset.most >= HOUR - 1.1
    assert offset.most - offset.least < 1 + took + 0.1


async def test_an_error_tells_the_time_as_well() -> None:
    async with (
        scripted(dated(lambda date: error(429, "ThrottlingException", date), -HOUR)) as server,
        M2Client(**server.settings()) as client,
    ):
        with pytest.raises(ThrottlingException):
            await client.start_batch_job(REQUEST)
        offset = client.clock_offset
    assert offset is not None
    assert offset.least <= -HOUR + 0.1
    assert offset.most >= -HOUR - 1.1


async def test_a_date_whose_answer_came_late_tells_little() -> None:
    gap = asyncio.Event()
    async with scripted(late_body(gap)) as server, M2Client(**server.settings()) as client:
        listing = asyncio.create_task(listed(client))
        await server.arrived.wait()
        began = time.monotonic()
        while time.monotonic() - began < 0.4:  # as long as the answer takes, spun on the clock
            await asyncio.sleep(0)
        gap.set()
        await listing
        offset = client.clock_offset
    assert offset is not None
    assert offset.most - offset.least >= 1.4
    assert offset.least <= 0.0 <= offset.most


@pytest.mark.parametrize("value", ["yesterday", "", "Fri, 99 Dec 2026 23:59:59 GMT"])
async def test_a_date_that_is_none_tells_nothing(value: str) -> None:
    async with (
        scripted(answer(200, {"batchJobExecutions": []}, {"Date": value})) as server,
        M2Client(**server.settings()) as client,
    ):
        await listed(client)
        assert client.clock_offset is None


@pytest.mark.parametrize("ahead", [-20_000 * 24 * HOUR, -25 * HOUR, 25 * HOUR, 2_000_000 * 24 * HOUR])
async def test_a_date_that_no_signature_would_be_taken_at_tells_something_only_with_a_refusal(ahead: float) -> None:
    steps = [
        dated(lambda date: answer(200, {"batchJobExecutions": []}, date), ahead),
        dated(lambda date: error(429, "ThrottlingException", date), ahead),
        dated(lambda date: answer(200, {"batchJobExecutions": []}, date), ahead + HOUR),
    ]
    async with scripted(*steps) as server, M2Client(**server.settings()) as client:
        await listed(client)
        assert client.clock_offset is None
        with pytest.raises(ThrottlingException):
            await client.start_batch_job(REQUEST)
        assert client.clock_offset == pytest.approx(ahead, abs=10)
        await listed(client)
        assert client.clock_offset == pytest.approx(ahead + HOUR, abs=10)


async def test_what_held_before_a_jump_is_kept() -> None:
    steps = [dated(lambda date: answer(200, {"batchJobExecutions": []}, date), ahead) for ahead in (0.0, HOUR, HOUR)]
    async with scripted(*steps) as server, M2Client(**server.settings()) as client:
        for _ in range(3):
            await listed(client)
        offset = client.clock_offset
    assert offset is not None
    assert offset.before is not None
    assert offset.least <= HOUR <= offset.most
    assert offset.before.least <= 0.0 <= offset.before.most
    assert offset.since is not None
