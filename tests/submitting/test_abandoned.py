"""Jobs that nobody waits for any more: what was not sent is not sent later."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, suppress
from pathlib import Path

import anyio
import pytest

from m2async import (
    ConflictException,
    InternalServerException,
    RetryPolicy,
    StartBatchJob,
    StartBatchJobResponse,
    Started,
    Submitter,
    ThrottlingException,
    open_ledger,
)
from m2async.errors import CallError
from m2async.ledger import RowState
from m2async.service import ScriptJob
from tests.virtual_time import in_virtual_time, now

SOON = RetryPolicy(base=1e-6, cap=1e-6, probe=0.05, hold=30.0)


def request(name: str) -> StartBatchJob:
    return StartBatchJob("application", ScriptJob(name))


class Client:
    """Fails the first call of each job with `error`, and starts it at any other."""

    def __init__(self, error: CallError | None = None) -> None:
        self.error = error
        self.called: list[str] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def start_batch_job(self, request: StartBatchJob, /) -> StartBatchJobResponse:
        name = request.job.name
        first = name not in self.called
        self.called.append(name)
        await self.may_answer.wait()
        if first and self.error is not None:
            raise self.error
        return StartBatchJobResponse(f"e-{name}")


async def until_called(client: Client, count: int) -> None:
    while len(client.called) < count:
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    "error",
    [
        ThrottlingException("x", code="ThrottlingException", http_status=429, retry_after=0.05),
        ConflictException("x", code="ConflictException", http_status=409),
    ],
)
@in_virtual_time
async def test_a_caller_that_gives_up_while_its_job_waits_to_be_sent_again_takes_it_back(error: CallError) -> None:
    client = Client(error)
    async with Submitter(client, retry=SOON) as submitter:
        left = asyncio.create_task(submitter.submit(request("LEFT")))
        await until_called(client, 1)
        awaited = asyncio.create_task(submitter.submit(request("AWAITED")))
        if isinstance(error, ThrottlingException):
            await until_called(client, 2)
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)
        assert isinstance(await awaited, Started)  # it waited as long, and came later
    assert client.called.count("LEFT") == 1


@in_virtual_time
async def test_a_job_whose_caller_gave_up_in_line_for_a_token_leaves_the_token_to_the_next() -> None:
    client = Client()
    async with Submitter(client, rate=5.0, burst=1) as submitter:
        await submitter.submit(request("FIRST"))
        left = [asyncio.create_task(submitter.submit(request("LEFT"))) for _ in range(10)]
        await asyncio.sleep(0)
        awaited = asyncio.create_task(submitter.submit(request("AWAITED")))
        await asyncio.sleep(0)
        for task in left:
            task.cancel()
        await awaited
        assert now() == pytest.approx(1 / 5)  # one token's time, and not eleven
    assert client.called == ["FIRST", "AWAITED"]


async def test_a_row_whose_caller_gave_up_is_pending_and_can_be_submitted_again(tmp_path: Path) -> None:
    client = Client(ThrottlingException("x", code="ThrottlingException", http_status=429, retry_after=0.05))
    async with open_ledger(tmp_path / "ledger.db") as ledger:
        async with Submitter(client, ledger=ledger, run="run", retry=SOON) as submitter:
            left = asyncio.create_task(submitter.submit(request("LEFT"), key="left"))
            await until_called(client, 1)
            left.cancel()
            await asyncio.gather(left, return_exceptions=True)
            await submitter.submit(request("AWAITED"), key="awaited")
            row = await (await ledger.run("run")).row("left")
            assert (row.state, row.attempts) == (RowState.PENDING, 1)
        async with Submitter(client, ledger=ledger, run="run") as submitter:
            assert isinstance(await submitter.submit(request("LEFT"), key="left"), Started)
    assert client.called.count("LEFT") == 2


@in_virtual_time
async def test_what_may_have_started_is_not_sent_again_for_a_caller_that_gave_up() -> None:
    client = Client(InternalServerException("x", code="InternalServerException", http_status=500))
    async with Submitter(client, on_unknown="resend", retry=SOON) as submitter:
        client.may_answer.clear()
        left = asyncio.create_task(submitter.submit(request("LEFT")))
        await until_called(client, 1)
        left.cancel()
        client.may_answer.set()
        await asyncio.gather(left, return_exceptions=True)
        await submitter.submit(request("AWAITED"))
    assert client.called.count("LEFT") == 1


def many(read: list[int]) -> Iterator[StartBatchJob]:
    for number in range(1_000):
        read.append(number)
        yield request(f"JOB{number}")


async def test_a_break_that_drops_the_iterator_stops_the_sending_at_once() -> None:
    client, read = Client(), list[int]()
    async with Submitter(client, concurrency=4) as submitter:
        async for _ in submitter.submit_many(many(read)):
            break
        sent, taken = len(client.called), len(read)
        assert isinstance(await submitter.submit(request("AFTER")), Started)
        assert len(client.called) == sent + 1
        assert len(read) == taken < 1_000


async def test_an_iterator_that_the_caller_keeps_stays_open() -> None:
    client, read = Client(), list[int]()
    async with Submitter(client, concurrency=4) as submitter:
        outcomes = submitter.submit_many(many(read))
        async for _ in outcomes:
            break
        gc.collect()
        rest = [outcome async for outcome in outcomes]
    assert len(rest) == 999
    assert len(client.called) == 1_000


@in_virtual_time
async def test_a_closed_iterator_leaves_those_in_line_for_a_token_unsent() -> None:
    client, read = Client(), list[int]()
    async with Submitter(client, rate=50.0, burst=1, concurrency=8) as submitter:
        async with aclosing(submitter.submit_many(many(read))) as outcomes:
            await anext(outcomes)
            sent = len(client.called)
        await submitter.submit(request("AFTER"))
        assert len(client.called) <= sent + 1 + 1  # one may have been on its way


async def test_an_iterator_that_is_collected_in_another_thread_stops_the_sending_too() -> None:
    client, read = Client(), list[int]()
    async with Submitter(client, rate=200.0, burst=1, concurrency=2) as submitter:
        outcomes = [submitter.submit_many(many(read))]
        await anext(outcomes[0])
        thread = threading.Thread(target=outcomes.clear)
        thread.start()
        await asyncio.to_thread(thread.join)
        sent = len(client.called)
        await submitter.submit(request("AFTER"))
        assert len(client.called) <= sent + 1 + 1


@in_virtual_time
async def test_an_iterator_whose_loop_was_left_by_an_exception_stops_the_sending_though_the_traceback_is_kept() -> None:
    client, read = Client(), list[int]()
    kept = list[BaseException]()
    async with Submitter(client, rate=200.0, burst=1, concurrency=2) as submitter:

        async def fails() -> None:
            async for _ in submitter.submit_many(many(read)):
                raise ValueError

        async def is_cancelled() -> None:
            async for _ in submitter.submit_many(many(read)):
                iterated.set()

        iterated = asyncio.Event()
        for iteration in (fails, is_cancelled):
            task = asyncio.create_task(iteration())
            if iteration is is_cancelled:
                await iterated.wait()
                task.cancel()
            try:
                await task
            except (ValueError, asyncio.CancelledError) as error:
                kept.append(error)
            sent = len(client.called)
            await submitter.submit(request("AFTER"))
            assert len(client.called) <= sent + 1 + 1
    assert len(kept) == 2


@in_virtual_time
async def test_a_generator_around_the_iterator_that_is_dropped_stops_the_sending() -> None:
    """As a web framework does with a streaming answer whose client has left."""
    client, read = Client(), list[int]()

    async def lines(submitter: Submitter) -> AsyncIterator[str]:
        async for outcome in submitter.submit_many(many(read)):
            yield outcome.key

    async with Submitter(client, rate=200.0, burst=1, concurrency=2) as submitter:
        dropped = lines(submitter)
        await anext(dropped)
        del dropped
        await asyncio.sleep(0)
        in_a_cycle = [lines(submitter), submitter.submit_many(many(read))]
        in_a_cycle.append(in_a_cycle)  # type: ignore[arg-type]
        await anext(in_a_cycle[1])
        del in_a_cycle
        gc.collect()
        sent = len(client.called)
        await submitter.submit(request("AFTER"))
        assert len(client.called) <= sent + 1 + 1


def test_an_iterator_that_is_still_open_when_the_event_loop_ends_leaves_nothing_to_warn_of() -> None:
    kept = list[object]()

    async def main() -> None:
        async with Submitter(Client(), concurrency=2) as submitter:
            outcomes = submitter.submit_many(many([]))
            await anext(outcomes)
            kept.append(outcomes)

    asyncio.run(main())
    kept.clear()
    gc.collect()


async def in_timeout(call: Awaitable[object]) -> None:
    async with asyncio.timeout(0):
        await call


async def in_wait_for(call: Awaitable[object]) -> None:
    await asyncio.wait_for(call, 0.001)


async def in_scope(call: Awaitable[object]) -> None:
    with anyio.move_on_after(0):
        await call


@pytest.mark.parametrize("give_up", [in_timeout, in_wait_for, in_scope])
@pytest.mark.parametrize("waits_for", ["pause", "lane", "probe"])
async def test_however_a_caller_gives_up_and_whatever_its_job_waits_for_it_is_not_sent(
    tmp_path: Path, give_up: Callable[[Awaitable[object]], Awaitable[None]], waits_for: str
) -> None:
    client = Client(ConflictException("x", code="ConflictException", http_status=409) if waits_for == "probe" else None)
    async with (
        open_ledger(tmp_path / "ledger.db") as ledger,
        Submitter(
            client, ledger=ledger, run="run", certainty="exact" if waits_for == "lane" else None, retry=SOON
        ) as submitter,
    ):
        client.may_answer.clear()
        first = asyncio.create_task(submitter.submit(request("LEFT"), key="first"))
        await until_called(client, 1)
        if waits_for == "pause":
            submitter.pause()
        elif waits_for == "probe":
            client.may_answer.set()
            while not submitter.held:
                await asyncio.sleep(0)
        with suppress(TimeoutError):
            await give_up(submitter.submit(request("LEFT"), key="left"))
        client.may_answer.set()
        submitter.unpause()
        assert isinstance(await first, Started)
        assert isinstance(await submitter.submit(request("AWAITED"), key="awaited"), Started)
        for row in [row for row in await (await ledger.run("run")).page() if row.key == "left"]:
            assert (row.state, row.attempts) == (RowState.PENDING, 0)
    assert client.called.count("LEFT") == 1 + (waits_for == "probe")


async def test_a_job_that_its_application_refused_until_it_is_given_up_is_pending_if_nobody_waits(
    tmp_path: Path,
) -> None:
    client = Client(ConflictException("x", code="ConflictException", http_status=409))
    policy = RetryPolicy(probe=0.05, hold=0.05)
    async with open_ledger(tmp_path / "ledger.db") as ledger:
        async with Submitter(client, ledger=ledger, run="run", retry=policy) as submitter:
            left = asyncio.create_task(submitter.submit(request("LEFT"), key="left"))
            while not submitter.held:
                await asyncio.sleep(0)
            left.cancel()
            while any(jobs for _, jobs in submitter.held.values()):
                await asyncio.sleep(0)
        assert (await (await ledger.run("run")).row("left")).state is RowState.PENDING
    assert client.called == ["LEFT"]
