from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from m2async import (
    RetryPolicy,
    ScriptJob,
    StartBatchJob,
    StartBatchJobResponse,
    Submitter,
    TokenBucket,
    open_ledger,
)
from m2async.ledger import RowState
from m2async.submitting.intake import Caller, Submission
from m2async.submitting.tokens import Tokens
from tests.virtual_time import in_virtual_time, now


@in_virtual_time
async def test_whether_a_job_may_be_sent_is_asked_anew_after_each_pause() -> None:
    tokens = Tokens(rate=1.0, burst=2.0, adaptive=False, pacer=None, weight=1.0, buckets={}, policy=RetryPolicy())
    job = Submission("job", StartBatchJob("a" * 26, ScriptJob("JOB")), Caller())
    asked: list[float] = []

    def may_send() -> bool:
        asked.append(now())
        if len(asked) == 2:
            tokens.pause.begin()
        return len(asked) < 3

    tokens.pause.begin()
    for at in (60.0, 120.0):
        asyncio.get_running_loop().call_later(at, tokens.pause.end)
    assert not await tokens.take(job, may_send)
    assert asked == [0.0, 60.0, 120.0]
    assert job.grant is None


class Timed:
    """Starts jobs, and notes when each call came."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, str]] = []

    async def start_batch_job(self, request: StartBatchJob, /) -> StartBatchJobResponse:
        self.calls.append((now(), request.application_id))
        await asyncio.sleep(0.01)
        return StartBatchJobResponse(f"e-{len(self.calls)}")

    def between(self, first: float, last: float) -> Counter[str]:
        return Counter(application for at, application in self.calls if first <= at < last)


def jobs(count: int, *applications: str) -> list[StartBatchJob]:
    return [StartBatchJob(application, ScriptJob("JOB")) for _ in range(count) for application in applications]


async def ended(submitter: Submitter, requests: list[StartBatchJob]) -> None:
    assert len([outcome async for outcome in submitter.submit_many(requests)]) == len(requests)


@in_virtual_time
async def test_the_buckets_of_applications_hold_where_nothing_else_paces_and_the_others_go_unpaced() -> None:
    client = Timed()
    async with Submitter(client, application_buckets={"slow": TokenBucket(1.0, 2.0)}) as submitter:
        await asyncio.gather(ended(submitter, jobs(10, "slow")), ended(submitter, jobs(100, "free")))
    assert client.between(0, 0.5) == {"slow": 2, "free": 100}
    assert client.between(0.5, 8.5) == {"slow": 8}


@in_virtual_time
async def test_applications_that_share_a_bucket_share_its_tokens_and_submitters_do() -> None:
    client, bucket = Timed(), TokenBucket(1.0)
    buckets = {"one": bucket, "other": bucket}
    async with Submitter(client, application_buckets=buckets) as a, Submitter(client, application_buckets=buckets) as b:
        await asyncio.gather(ended(a, jobs(3, "one", "other")), ended(b, jobs(3, "one")))
    assert client.between(0, 4.5).total() == 5
    assert client.between(0, 9).total() == 9


@in_virtual_time
async def test_a_rate_that_comes_later_holds_besides_the_buckets_of_applications() -> None:
    client = Timed()
    async with Submitter(client, application_buckets={"slow": TokenBucket(1.0)}) as submitter:
        waiting = asyncio.create_task(ended(submitter, jobs(20, "slow")))
        await asyncio.sleep(3.5)
        submitter.set_rate(0.5)
        await asyncio.sleep(20)
        submitter.set_rate(100.0)
        await waiting
    assert client.between(0, 3.5) == {"slow": 4}
    assert client.between(3.5, 23.5).total() in range(9, 12)
    assert client.between(24, 30).total() in range(5, 7)


@pytest.mark.parametrize("ledger", [None, "memory:"])
@pytest.mark.parametrize("burst", [1.0, 3.0])
def test_a_rate_that_is_set_in_a_pause_holds_from_its_end_on(ledger: str | None, burst: float) -> None:
    async def use() -> None:
        client = Timed()
        async with Submitter(client, ledger=ledger, on_unknown="hold") as submitter:
            submitter.pause()
            sending = asyncio.create_task(ended_many(submitter))
            for _ in range(200):
                await asyncio.sleep(0)
            submitter.set_rate(0.001, burst)
            submitter.unpause()
            while len(client.calls) < burst:
                await asyncio.sleep(0)
            for _ in range(200):
                await asyncio.sleep(0)
            assert len(client.calls) == burst
            sending.cancel()

    asyncio.run(use())


async def ended_many(submitter: Submitter) -> None:
    async for _ in submitter.submit_many((f"K{n}", request) for n, request in enumerate(jobs(300, "app"))):
        pass


@pytest.mark.parametrize("is_paused", [True, False])
async def test_what_was_on_its_way_into_the_ledger_goes_at_the_rate_that_was_set_meanwhile(is_paused: bool) -> None:
    """Also where the pause was over before the intents were written."""
    client = Timed()
    async with open_ledger("memory:") as ledger, await ledger.open_run("run") as run:
        async with Submitter(client, ledger=ledger, run=run, on_unknown="hold") as submitter:
            sending = asyncio.create_task(ended_many(submitter))
            intend, intents = run.intend, []

            def seen(*args: object, **more: object) -> asyncio.Future[None]:
                intents.append(args)
                return intend(*args, **more)  # type: ignore[arg-type]

            run.intend = seen  # type: ignore[method-assign]
            while not intents:
                await asyncio.sleep(0)
            if is_paused:
                submitter.pause()
            submitter.set_rate(0.001)
            submitter.unpause()
            for number in range(5):  # each is durable after all that was on its way
                await run.add(f"other-{number}", jobs(1, "app")[0])
            while not client.calls:
                await asyncio.sleep(0)
            for number in range(5, 10):
                await run.add(f"other-{number}", jobs(1, "app")[0])
            assert len(client.calls) == 1
            sending.cancel()
        counts = await run.counts()
        assert (counts[RowState.INTENT], counts[RowState.UNKNOWN], counts[RowState.STARTED]) == (0, 0, 1)
