"""A call is in flight from its first byte on: what waits for credentials or for a connection was surely not sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import anyio
import pytest
from aiobotocore.credentials import AioCredentials
from botocore.credentials import ReadOnlyCredentials

from m2async import M2Client, RetryPolicy, StartBatchJob, Started, SubmissionStoppedError, Submitter, open_ledger
from m2async.ledger import Ledger, RowState
from m2async.service import ScriptJob, Sending
from m2async.submitting.under_way import CallsUnderWay
from tests.scripted import ScriptedServer, error, hang, scripted, started
from tests.virtual_time import VirtualLoop, in_virtual_time

BOTH = pytest.mark.parametrize("transport", ["wire", "aiobotocore"])
SOON = RetryPolicy(base=1e-6, cap=1e-6)


def request(name: str) -> StartBatchJob:
    return StartBatchJob("application", ScriptJob(name))


class Keys(AioCredentials):  # type: ignore[misc] # it has no types
    """Credentials that have to be asked for again each time, and come when they may."""

    refresh_needed = True

    def __init__(self) -> None:
        super().__init__("local", "local")
        self.may_come = asyncio.Event()
        self.may_come.set()
        self.asked = asyncio.Event()

    async def get_frozen_credentials(self) -> ReadOnlyCredentials:
        self.asked.set()
        await self.may_come.wait()
        return ReadOnlyCredentials("local", "local", None)


@asynccontextmanager
async def opened(
    server: ScriptedServer, ledger: Ledger, *, keys: Keys | None = None, grace: float = 60.0, **settings: Any
) -> AsyncIterator[Submitter]:
    """A submitter whose calls wait for the keys, if they are given."""
    settings = server.settings(**settings)
    if keys is not None:
        settings["session"]._credentials = keys
    async with M2Client(**settings) as client:
        if keys is not None:
            keys.may_come.clear()
            keys.asked.clear()
        async with Submitter(client, ledger=ledger, run="run", retry=SOON, grace=grace) as submitter:
            yield submitter


async def states(ledger: Ledger) -> dict[str, RowState]:
    page = await (await ledger.run("run")).page()
    return {row.key: row.state for row in page}


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    async with open_ledger(tmp_path / "ledger.db") as ledger:
        yield ledger


@BOTH
async def test_what_waits_for_credentials_when_the_submitter_is_left_was_not_sent_and_is_not_waited_for(
    ledger: Ledger, transport: Literal["wire", "aiobotocore"]
) -> None:
    keys = Keys()
    async with scripted(started()) as server:
        async with opened(server, ledger, keys=keys, transport=transport) as submitter:
            calls = [asyncio.create_task(submitter.submit(request("JOB"), key=f"k{n}")) for n in range(3)]
            await keys.asked.wait()
        for call in calls:
            with pytest.raises(SubmissionStoppedError):
                await call
    assert set((await states(ledger)).values()) == {RowState.PENDING}
    assert server.requests == []


async def test_what_waits_for_a_connection_when_the_submitter_is_left_was_not_sent(ledger: Ledger) -> None:
    async with scripted(hang) as server:
        async with opened(server, ledger, grace=0.05, max_connections=1) as submitter:
            calls = [asyncio.create_task(submitter.submit(request("JOB"), key=f"k{n}")) for n in range(3)]
            await server.arrived.wait()
        ended = await asyncio.gather(*calls, return_exceptions=True)
    assert sorted(type(one).__name__ for one in ended) == [
        "SubmissionStoppedError",
        "SubmissionStoppedError",
        "Unknown",
    ]
    assert sorted((await states(ledger)).values()) == [RowState.PENDING, RowState.PENDING, RowState.UNKNOWN]
    assert len(server.requests) == 1


async def test_what_waits_for_credentials_anew_after_a_refusal_was_not_sent_either(ledger: Ledger) -> None:
    """The service said that the session token had expired: then nothing is under way until it is signed anew."""
    keys = Keys()
    async with scripted(error(403, "ExpiredTokenException")) as server:
        async with opened(server, ledger, keys=keys) as submitter:
            call = asyncio.create_task(submitter.submit(request("JOB"), key="k"))
            keys.may_come.set()
            await server.arrived.wait()
            keys.may_come.clear()
            keys.asked.clear()
            await keys.asked.wait()
        with pytest.raises(SubmissionStoppedError):
            await call
    assert await states(ledger) == {"k": RowState.PENDING}
    assert len(server.requests) == 1


@BOTH
async def test_what_waits_for_credentials_is_not_sent_once_its_caller_gave_up(
    ledger: Ledger, transport: Literal["wire", "aiobotocore"]
) -> None:
    keys = Keys()
    async with scripted(started()) as server:
        async with opened(server, ledger, keys=keys, transport=transport) as submitter:
            left = asyncio.create_task(submitter.submit(request("LEFT"), key="left"))
            await keys.asked.wait()
            left.cancel()
            await asyncio.gather(left, return_exceptions=True)
            keys.may_come.set()
            assert isinstance(await submitter.submit(request("AWAITED"), key="awaited"), Started)
        assert await states(ledger) == {"left": RowState.PENDING, "awaited": RowState.STARTED}
    assert len(server.requests) == 1


async def test_what_waits_for_a_connection_is_not_sent_once_its_caller_gave_up(ledger: Ledger) -> None:
    may_answer = asyncio.Event()

    async def when_allowed(writer: asyncio.StreamWriter) -> None:
        await may_answer.wait()
        await started()(writer)

    async with scripted(when_allowed) as server:
        async with opened(server, ledger, max_connections=1) as submitter:
            first = asyncio.create_task(submitter.submit(request("FIRST"), key="first"))
            await server.arrived.wait()
            left = asyncio.create_task(submitter.submit(request("LEFT"), key="left"))
            while await states(ledger) != {"first": RowState.INTENT, "left": RowState.INTENT}:
                await asyncio.sleep(0)
            left.cancel()
            await asyncio.gather(left, return_exceptions=True)
            may_answer.set()
            assert isinstance(await first, Started)
            assert isinstance(await submitter.submit(request("AWAITED"), key="awaited"), Started)
        assert (await states(ledger))["left"] is RowState.PENDING
    assert len(server.requests) == 2


@BOTH
async def test_what_was_sent_is_answered_within_the_grace(
    ledger: Ledger, transport: Literal["wire", "aiobotocore"]
) -> None:
    left = asyncio.Event()

    async def once_it_is_left(writer: asyncio.StreamWriter) -> None:
        await left.wait()
        await started()(writer)

    async with scripted(once_it_is_left) as server:
        async with opened(server, ledger, transport=transport) as submitter:
            call = asyncio.create_task(submitter.submit(request("JOB"), key="k"))
            await server.arrived.wait()
            asyncio.get_running_loop().call_soon(left.set)
        assert (await call).state == "started"
    assert await states(ledger) == {"k": RowState.STARTED}


@BOTH
async def test_what_was_sent_is_unknown_when_the_grace_ends(
    ledger: Ledger, transport: Literal["wire", "aiobotocore"]
) -> None:
    async with scripted(hang) as server:
        async with opened(server, ledger, grace=0.05, transport=transport) as submitter:
            call = asyncio.create_task(submitter.submit(request("JOB"), key="k"))
            await server.arrived.wait()
        assert (await call).state == "unknown"
    assert await states(ledger) == {"k": RowState.UNKNOWN}


@in_virtual_time
async def test_a_grace_that_ended_while_the_process_stood_still_lets_what_came_meanwhile_be_read() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    under_way, sending = CallsUnderWay(grace=0.01), Sending(lambda: True)
    sending.begins()
    answer: asyncio.Future[str] = loop.create_future()

    def read_in(turns: int) -> None:
        if turns:
            loop.call_soon(read_in, turns - 1)
        else:
            answer.set_result("started")

    with anyio.CancelScope() as scope:
        under_way.add(scope, sending)
        under_way.end()
        loop.stand_still(0.5)
        read_in(5)
        assert await answer == "started"
        under_way.remove(scope)
    assert not scope.cancelled_caught


@BOTH
async def test_what_waits_for_credentials_when_a_pause_begins_goes_when_it_ends(
    ledger: Ledger, transport: Literal["wire", "aiobotocore"]
) -> None:
    keys = Keys()
    async with scripted(started()) as server:
        async with opened(server, ledger, keys=keys, transport=transport) as submitter:
            call = asyncio.create_task(submitter.submit(request("JOB"), key="k"))
            await keys.asked.wait()
            submitter.pause()
            keys.may_come.set()
            while await states(ledger) != {"k": RowState.PENDING}:
                await asyncio.sleep(0)
            assert server.requests == []
            submitter.unpause()
            assert isinstance(await call, Started)
    assert await states(ledger) == {"k": RowState.STARTED}
    assert len(server.requests) == 1


async def test_what_waits_for_a_connection_when_a_pause_begins_is_not_in_doubt_and_goes_when_it_ends(
    ledger: Ledger,
) -> None:
    may_answer = asyncio.Event()

    async def when_allowed(writer: asyncio.StreamWriter) -> None:
        await may_answer.wait()
        await started(f"e-{len(server.requests)}")(writer)

    async with scripted(when_allowed) as server:
        async with opened(server, ledger, max_connections=1) as submitter:
            first = asyncio.create_task(submitter.submit(request("FIRST"), key="first"))
            await server.arrived.wait()
            others = [asyncio.create_task(submitter.submit(request(f"JOB{n}"), key=f"k{n}")) for n in range(3)]
            while list((await states(ledger)).values()) != [RowState.INTENT] * 4:
                await asyncio.sleep(0)
            submitter.pause()
            may_answer.set()
            assert isinstance(await first, Started)
            while list((await states(ledger)).values()) != [RowState.STARTED] + [RowState.PENDING] * 3:
                await asyncio.sleep(0)
            assert len(server.requests) == 1
            submitter.unpause()
            ended = await asyncio.gather(*others)
    assert [one.state for one in ended] == ["started"] * 3
    assert [one.attempts for one in ended] == [1] * 3
    assert [row.attempts for row in await (await ledger.run("run")).page()] == [1] * 4
    assert len(server.requests) == 4


async def test_what_a_pause_holds_back_is_not_sent_when_the_submitter_is_left_in_it(ledger: Ledger) -> None:
    keys = Keys()
    async with scripted(started()) as server:
        async with opened(server, ledger, keys=keys) as submitter:
            call = asyncio.create_task(submitter.submit(request("JOB"), key="k"))
            await keys.asked.wait()
            submitter.pause()
            keys.may_come.set()
            while await states(ledger) != {"k": RowState.PENDING}:
                await asyncio.sleep(0)
        with pytest.raises(SubmissionStoppedError):
            await call
    assert await states(ledger) == {"k": RowState.PENDING}
    assert server.requests == []
