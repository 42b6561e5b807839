"""What an intent says of when it is signed: durable before the first byte, and kept."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from m2async import (
    CallNext,
    M2Client,
    Pacer,
    RetryPolicy,
    ScriptJob,
    StartBatchJob,
    StartBatchJobResponse,
    Started,
    Submitter,
    TokenBucket,
    open_ledger,
)
from m2async.ledger import OpenAttempt
from m2async.submitting.sender import SIGNED_WITHIN, Sender
from tests.client.wire.test_sigv4 import read
from tests.client.wire.test_transport import Clock
from tests.scripted import reset, scripted, started

REQUEST = StartBatchJob("application", ScriptJob("POSTTRAN"))
SOON = RetryPolicy(base=1e-6, cap=1e-6)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock(time.time())
    monkeypatch.setattr("m2async.client.wire.transport.time", clock)
    return clock


async def test_the_latest_date_is_in_the_ledger_before_the_first_byte_goes(tmp_path: Path) -> None:
    seen: list[OpenAttempt] = []

    async def look(writer: asyncio.StreamWriter) -> None:
        async with open_ledger(tmp_path / "ledger.db", must_exist=True) as ledger:
            seen.extend(await ledger.open_attempts("application"))
        await started()(writer)

    async with scripted(look) as server, M2Client(**server.settings()) as client:
        async with Submitter(client, ledger=tmp_path / "ledger.db") as submitter:
            before = time.time()
            assert isinstance(await submitter.submit(REQUEST, key="key"), Started)
    [attempt] = seen
    [sent] = server.requests
    assert attempt.not_after is not None
    assert before + SIGNED_WITHIN <= attempt.not_after <= time.time() + SIGNED_WITHIN
    assert read(sent).second <= attempt.not_after


async def test_a_machine_that_was_suspended_sends_no_intent_of_before(clock: Clock, tmp_path: Path) -> None:
    suspends = iter([3_600.0, 0.0])

    async def suspended(request: StartBatchJob, call_next: CallNext) -> StartBatchJobResponse:
        clock.now += next(suspends)
        return await call_next(request)

    async with scripted(started()) as server, M2Client(**server.settings()) as client:
        client.use(suspended)
        async with open_ledger(tmp_path / "ledger.db") as ledger:
            async with Submitter(client, ledger=ledger, run="run", retry=SOON) as submitter:
                outcome = await submitter.submit(REQUEST, key="key")
            view = await ledger.run("run")
            history = await view.history(1)
    assert isinstance(outcome, Started)
    assert outcome.attempts == 2
    assert [(entry.attempt, entry.error_code, entry.open) for entry in history] == [(1, "SignatureTooLateError", False)]
    assert len(server.requests) == 1


async def test_a_job_that_comes_late_again_and_again_is_given_up_and_stops_nobody(clock: Clock) -> None:
    async def slow(request: StartBatchJob, call_next: CallNext) -> StartBatchJobResponse:
        clock.now += 3_600 if request.job.name == "SLOW" else 0
        return await call_next(request)

    async with scripted(started()) as server, M2Client(**server.settings()) as client:
        client.use(slow)
        async with Submitter(client, retry=RetryPolicy(base=1e-6, cap=1e-6, patience=0.0)) as submitter:
            given_up = await submitter.submit(StartBatchJob("application", ScriptJob("SLOW")))
            assert given_up.state == "rejected"
            assert isinstance(await submitter.submit(REQUEST), Started)


async def test_a_doubt_keeps_what_its_intent_said(tmp_path: Path) -> None:
    async with scripted(reset) as server, M2Client(**server.settings()) as client:
        async with open_ledger(tmp_path / "ledger.db") as ledger:
            async with Submitter(client, ledger=ledger, on_unknown="hold") as submitter:
                await submitter.submit(REQUEST, key="key")
            [attempt] = await ledger.open_attempts("application")
    assert attempt.not_after is not None
    assert attempt.not_after > time.time()


class Plain:
    """A client that knows nothing of dates."""

    async def start_batch_job(self, request: StartBatchJob, /) -> StartBatchJobResponse:
        return StartBatchJobResponse("e-1")


class Wrapping:
    """One that wraps another, and gives what that has besides."""

    def __init__(self, client: M2Client) -> None:
        self.client = client
        self.called = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.client, name)

    async def start_batch_job(self, request: StartBatchJob) -> StartBatchJobResponse:
        self.called += 1
        return await self.client.start_batch_job(request)


async def test_a_client_that_knows_nothing_of_dates_is_used_as_ever(tmp_path: Path) -> None:
    assert Sender(Plain()).latest_date() is None
    async with Submitter(Plain(), ledger=tmp_path / "ledger.db") as submitter:
        assert isinstance(await submitter.submit(REQUEST, key="key"), Started)
    async with scripted(started()) as server, M2Client(**server.settings()) as client:
        wrapping = Wrapping(client)
        async with Submitter(wrapping, pacer=Pacer(TokenBucket(100, 1))) as submitter:
            assert isinstance(await submitter.submit(REQUEST), Started)
        assert wrapping.called == len(server.requests) == 1
