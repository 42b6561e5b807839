"""No request is signed, first or anew, with a later date than was written of it."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Any, Literal

import pytest

from m2async import CallNext, LocalEndpoint, M2Client, ScriptJob, SignatureTooLateError, StartBatchJob
from m2async import StartBatchJobResponse as Response
from m2async.client.wire.sigv4 import Credentials
from tests.client.wire.test_sigv4 import read
from tests.client.wire.test_transport import EXPIRED, NEW, OLD, Clock, Provider, Source, wire
from tests.scripted import Step, scripted, started

APPLICATION = "carddemolocalapplication23"
REQUEST = StartBatchJob(APPLICATION, ScriptJob("POSTTRAN"))
HOUR = 3_600


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock(1_800_000_000.25)
    monkeypatch.setattr("m2async.client.wire.transport.time", clock)
    return clock


@pytest.mark.parametrize("transport", ["wire", "aiobotocore"])
async def test_a_later_date_than_given_is_not_signed(transport: Literal["wire", "aiobotocore"]) -> None:
    async with scripted(started()) as server, M2Client(**server.settings(transport=transport)) as client:
        for late in (1.5, HOUR):
            with pytest.raises(SignatureTooLateError, match="was not sent") as caught:
                await client.start_batch_job(REQUEST, not_after=client.signing_time() - late)
            assert not caught.value.may_have_started
        assert not server.requests
        latest = client.signing_time() + 5
        await client.start_batch_job(REQUEST, not_after=latest)
        [sent] = server.requests
        assert read(sent).second <= latest
        await client.start_batch_job(REQUEST)
    assert abs(client_time() - latest) < 60


def client_time() -> float:
    return time.time()


async def test_over_aiobotocore_the_date_that_is_signed_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    later = datetime.fromtimestamp(time.time() + HOUR, UTC)  # the machine was suspended just before
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: later)
    async with scripted(started()) as server, M2Client(**server.settings(transport="aiobotocore")) as client:
        with pytest.raises(SignatureTooLateError):
            await client.start_batch_job(REQUEST, not_after=time.time() + HOUR - 10)
        assert not server.requests


async def test_a_middleware_passes_it_on_unseen() -> None:
    async def middleware(request: StartBatchJob, call_next: CallNext) -> Response:
        return await call_next(request)

    async with scripted(started()) as server, M2Client(**server.settings()) as client:
        client.use(middleware)
        with pytest.raises(SignatureTooLateError):
            await client.start_batch_job(REQUEST, not_after=client.signing_time() - 2)
        assert not server.requests


async def test_a_suspend_while_credentials_are_had(clock: Clock) -> None:
    class Slow(Source):
        async def current(self) -> Credentials:
            clock.now += HOUR
            return await super().current()

    async with scripted(started()) as server, wire(server.url, Slow()) as transport:
        with pytest.raises(SignatureTooLateError):
            await transport.start_batch_job(REQUEST, transport.signing_time() + 60)
        assert not server.requests


async def test_a_suspend_while_a_connection_is_waited_for_leaves_the_connection(clock: Clock) -> None:
    gate = asyncio.Event()

    async def gated(writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        await started()(writer)

    async with scripted(gated) as server, wire(server.url, Source(), max_connections=1) as transport:
        first = asyncio.ensure_future(transport.start_batch_job(REQUEST, transport.signing_time() + 60))
        await server.arrived.wait()
        second = asyncio.ensure_future(transport.start_batch_job(REQUEST, transport.signing_time() + 60))
        await asyncio.sleep(0)
        clock.now += HOUR
        gate.set()
        await first
        with pytest.raises(SignatureTooLateError):
            await second
        await transport.start_batch_job(REQUEST, transport.signing_time() + 60)
        assert (len(server.requests), server.connections) == (2, 1)


async def test_a_suspend_while_a_token_is_renewed(clock: Clock) -> None:
    async def refuse_late(writer: asyncio.StreamWriter) -> None:
        clock.now += HOUR
        await EXPIRED(writer)

    steps: list[Step] = [refuse_late, started()]
    async with scripted(*steps) as server, wire(server.url, await Provider(OLD, NEW).source()) as transport:
        with pytest.raises(SignatureTooLateError):
            await transport.start_batch_job(REQUEST, transport.signing_time() + 60)
        assert len(server.requests) == 1


@pytest.mark.parametrize("offset", [HOUR, -HOUR])
async def test_a_clock_that_is_corrected_needs_a_new_intent_where_it_goes_forward(offset: float) -> None:
    async with LocalEndpoint(clock=lambda: time.time() + offset) as endpoint:
        async with M2Client(**endpoint.client_settings()) as client:
            before = client.signing_time()
            if offset > 0:
                with pytest.raises(SignatureTooLateError):
                    await client.start_batch_job(REQUEST, not_after=before + 60)
                assert client.signing_time() - before > offset - 5
            await client.start_batch_job(REQUEST, not_after=client.signing_time() + 60)
            assert len([e async for e in client.list_batch_job_executions(APPLICATION)]) == 1


async def test_a_closed_client_has_no_time() -> None:
    client: Any = M2Client("us-east-1")
    with pytest.raises(RuntimeError, match="not open"):
        client.signing_time()
