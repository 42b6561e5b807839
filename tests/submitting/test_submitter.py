from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import time
import tracemalloc
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from math import inf
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest
import structlog
from structlog.testing import CapturingLogger

from m2async import (
    AccessDeniedException,
    CallCancelledError,
    CallError,
    ConnectionLostError,
    FileJob,
    LocalEndpoint,
    M2Client,
    NotSentError,
    Outcome,
    Pacer,
    Rejected,
    RetryPolicy,
    ScriptJob,
    StartBatchJob,
    StartBatchJobResponse,
    Started,
    SubmissionStoppedError,
    Submitter,
    ThrottlingException,
    TokenBucket,
    Unknown,
    events,
)
from m2async.certainty.verdict import OnUnknown
from m2async.errors import service_exception
from m2async.ledger import IllegalTransitionError, ManifestChangedError, RowState, open_ledger
from m2async.pacing.budget import RESERVE, SHARE, UNPACED
from tests.scripted import error, hang, nobody, reset, scripted, started
from tests.virtual_time import in_virtual_time, now

APPLICATION = "carddemolocalapplication23"
QUICK = RetryPolicy(base=0.001, cap=0.01)


def request(name: str = "POSTTRAN") -> StartBatchJob:
    return StartBatchJob(APPLICATION, ScriptJob(name), {"RUNDATE": "20261123"})


def requests(count: int) -> Iterator[StartBatchJob]:
    return (request() for _ in range(count))


class FakeClient:
    """Answers by a function of the call's number, counted from 1; counts what is under way."""

    def __init__(self, answer: Callable[[int], Awaitable[str] | str]) -> None:
        self.answer = answer
        self.calls: list[StartBatchJob] = []
        self.under_way = 0
        self.most_under_way = 0

    async def start_batch_job(self, request: StartBatchJob, /) -> StartBatchJobResponse:
        self.calls.append(request)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            answer = self.answer(len(self.calls))
            execution_id = answer if isinstance(answer, str) else await answer
            await asyncio.sleep(0)
        finally:
            self.under_way -= 1
        return StartBatchJobResponse(execution_id, "r")


def failing(*errors: CallError, then: str = "e") -> Callable[[int], str]:
    def answer(number: int) -> str:
        if number <= len(errors):
            raise errors[number - 1]
        return f"{then}-{number}"

    return answer


def said(code: str, status: int, **details: Any) -> CallError:
    return service_exception(code, "said", http_status=status, **details)


async def collect(outcomes: AsyncIterator[Outcome]) -> tuple[list[Outcome], Exception | None]:
    ended = []
    try:
        async for outcome in outcomes:
            ended.append(outcome)
    except Exception as exc:  # noqa: BLE001 - what the iteration ended in is what the tests look at
        return ended, exc
    return ended, None


# Against the endpoint: what was really started


async def really_started(endpoint: LocalEndpoint) -> list[dict[str, Any]]:
    async with aiohttp.ClientSession() as session, session.get(f"{endpoint.url}/_local/executions") as answer:
        executions: list[dict[str, Any]] = (await answer.json())["executions"]
        return executions


async def test_every_job_is_started_once_and_has_its_execution_id(endpoint: LocalEndpoint, client: M2Client) -> None:
    pairs = [(f"key-{n}", StartBatchJob(APPLICATION, FileJob("POSTTRAN.jcl"), {"NUMBER": str(n)})) for n in range(300)]
    async with Submitter(client) as submitter:
        ended, failure = await collect(submitter.submit_many(pairs))
    assert failure is None
    executions = {e["executionId"]: e["jobParams"]["NUMBER"] for e in await really_started(endpoint)}
    assert len(executions) == 300
    assert {o.key for o in ended} == {key for key, _ in pairs}
    for outcome in ended:
        assert isinstance(outcome, Outcome)
        assert isinstance(outcome, Started)
        assert executions[outcome.execution_id] == outcome.request.params["NUMBER"]
        assert outcome.attempts == 1


async def test_a_quota_is_kept_to_and_every_job_starts() -> None:
    async with LocalEndpoint(rate=100, burst=1, seed=1) as endpoint, M2Client(**endpoint.client_settings()) as client:
        began = time.monotonic()
        async with Submitter(client) as submitter:
            ended, failure = await collect(submitter.submit_many(requests(60)))
        assert failure is None
        assert Counter(type(outcome) for outcome in ended) == {Started: 60}
        assert time.monotonic() - began >= 59 / 100
        assert len(await really_started(endpoint)) == 60


@in_virtual_time
async def test_paced_at_the_quota_next_to_nothing_is_throttled() -> None:
    quota = TokenBucket(100, 1)

    def answer(number: int) -> str:
        if not quota.try_take(now()):
            raise said("ThrottlingException", 429)
        return f"e-{number}"

    client = FakeClient(answer)
    async with Submitter(client, rate=100.0) as submitter:
        ended, failure = await collect(submitter.submit_many(requests(60)))
    assert failure is None
    assert Counter(type(outcome) for outcome in ended) == {Started: 60}
    assert now() >= 59 / 100
    assert len(client.calls) <= 60 * 1.1


FAULTS = {"500": 0.1, "throttle": 0.1, "drop-before-accept": 0.1, "accept-then-500": 0.1, "accept-then-drop": 0.1}


async def test_with_faults_no_job_is_started_twice_and_none_is_lost() -> None:
    async with LocalEndpoint(faults=FAULTS, seed=7) as endpoint, M2Client(**endpoint.client_settings()) as client:
        pairs = [(str(n), StartBatchJob(APPLICATION, ScriptJob("X"), {"NUMBER": str(n)})) for n in range(400)]
        async with Submitter(client, retry=QUICK) as submitter:
            ended, failure = await collect(submitter.submit_many(pairs))
        executions = await really_started(endpoint)
    assert failure is None
    assert len(ended) == 400
    numbers = Counter(e["jobParams"]["NUMBER"] for e in executions)
    assert max(numbers.values()) == 1
    started = {o.key for o in ended if isinstance(o, Started)}
    unknown = {o.key for o in ended if isinstance(o, Unknown)}
    assert started | unknown == {key for key, _ in pairs}
    assert started <= numbers.keys() <= started | unknown
    assert len(unknown) > 50


async def test_resending_starts_every_job_and_can_start_one_twice() -> None:
    async with LocalEndpoint(faults=FAULTS, seed=7) as endpoint, M2Client(**endpoint.client_settings()) as client:
        policy = RetryPolicy(base=0.001, cap=0.01, resends=50)
        async with Submitter(client, retry=policy, on_unknown="resend") as submitter:
            ended, _ = await collect(submitter.submit_many(requests(200)))
        executions = await really_started(endpoint)
    assert {type(outcome) for outcome in ended} == {Started}
    assert len(executions) > 200


# Retries and their end


@in_virtual_time
async def test_a_throttled_call_is_sent_again_until_it_is_started() -> None:
    client = FakeClient(failing(*[said("ThrottlingException", 429)] * 9))
    async with Submitter(client, retry=QUICK) as submitter:
        outcome = await submitter.submit(request(), key="k")
    assert outcome == Started(key="k", request=request(), attempts=10, execution_id="e-10", request_id="r")


@in_virtual_time
async def test_retry_after_of_the_service_is_waited_out() -> None:
    client = FakeClient(failing(said("ThrottlingException", 429, retry_after=0.3)))
    async with Submitter(client, retry=QUICK) as submitter:
        await submitter.submit(request())
    assert 0.3 <= now() <= 0.3 + QUICK.base


@in_virtual_time
@pytest.mark.parametrize(
    ("policy", "longest"),
    [(RetryPolicy(), 60.0), (RetryPolicy(patience=1.0), 1.0), (RetryPolicy(max_retry_after=7.0), 7.0)],
)
@pytest.mark.parametrize("asked", [86_400.0, 1e300])
@pytest.mark.parametrize(
    "pace", [{"rate": 50.0, "burst": 5.0}, {"adaptive": True}, {}], ids=["rate", "adaptive", "none"]
)
async def test_no_retry_after_holds_a_run_for_longer_than_the_policy_says(
    policy: RetryPolicy, longest: float, asked: float, pace: dict[str, Any]
) -> None:
    client = FakeClient(failing(said("ThrottlingException", 429, retry_after=asked)))
    async with Submitter(client, **pace, retry=policy) as submitter:
        outcomes, _ = await collect(submitter.submit_many(requests(200)))
        assert submitter.cut_retry_after == (asked, longest)
    assert len(outcomes) == 200
    assert {outcome.state for outcome in outcomes} <= {"started", "rejected"}
    assert Counter(outcome.state for outcome in outcomes)["started"] >= 199
    assert longest <= now() <= longest + 30.0


@in_virtual_time
async def test_that_a_retry_after_is_cut_is_logged_once() -> None:
    client = FakeClient(failing(*[said("ThrottlingException", 429, retry_after=90.0)] * 9))
    logger = CapturingLogger()
    async with Submitter(client, logger=logger) as submitter:
        outcomes, _ = await collect(submitter.submit_many(requests(20)))
    assert [outcome.state for outcome in outcomes] == ["started"] * 20
    [cut] = [call for call in logger.calls if call.args == ("retry_after.cut",)]
    assert (cut.method_name, cut.kwargs["retry_after"], cut.kwargs["heeded"]) == ("warning", 90.0, 60.0)


@pytest.mark.parametrize("wrong", [-1.0, float("nan")])
def test_a_ceiling_of_retry_after_that_is_none_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match="max_retry_after must not be negative"):
        RetryPolicy(max_retry_after=wrong)


@in_virtual_time
async def test_throttling_without_end_is_given_up_after_the_patience_and_rejects_only_that_job() -> None:
    client = FakeClient(lambda number: failing(*[said("ThrottlingException", 429)] * 10_000)(number))
    policy = RetryPolicy(base=1.0, cap=1.0, patience=600.0)
    async with Submitter(client, retry=policy) as submitter:
        outcome = await submitter.submit(request())
        assert policy.patience <= now() <= policy.patience + policy.cap
        assert isinstance(outcome, Rejected)
        assert isinstance(outcome.error, ThrottlingException)
        assert outcome.attempts > 1
        assert isinstance(await submitter.submit(request()), Rejected)  # the submitter goes on


@in_virtual_time
async def test_an_unknown_is_sent_again_only_on_request_and_at_most_so_often() -> None:
    lost = ConnectionLostError("lost")
    client = FakeClient(failing(*[lost] * 100))
    async with Submitter(client, retry=QUICK) as submitter:
        outcome = await submitter.submit(request())
    assert (type(outcome), outcome.attempts) == (Unknown, 1)
    async with Submitter(client, retry=QUICK, on_unknown="resend") as submitter:
        outcome = await submitter.submit(request())
    assert (type(outcome), outcome.attempts) == (Unknown, 1 + QUICK.resends)


async def test_a_job_in_doubt_stays_unknown_when_its_resend_is_refused() -> None:
    client = FakeClient(failing(ConnectionLostError("lost"), said("ValidationException", 400)))
    async with Submitter(client, retry=QUICK, on_unknown="resend") as submitter:
        outcome = await submitter.submit(request())
    assert isinstance(outcome, Unknown)
    assert isinstance(outcome.error, ConnectionLostError)


# What stops a run, and what does not


async def test_denied_access_stops_the_run_after_the_first_answers() -> None:
    step = error(403, "AccessDeniedException")
    async with scripted(step) as server, M2Client(**server.settings()) as client:
        async with Submitter(client, concurrency=8) as submitter:
            ended, failure = await collect(submitter.submit_many(requests(10_000)))
            assert isinstance(failure, SubmissionStoppedError)
            assert isinstance(failure.cause, AccessDeniedException)
            with pytest.raises(SubmissionStoppedError):
                await submitter.submit(request())
            with pytest.raises(SubmissionStoppedError):
                await anext(submitter.submit_many(requests(1)))
        assert len(server.requests) <= 8
        assert len(ended) == len(server.requests)
    assert all(isinstance(outcome, Rejected) for outcome in ended)


async def test_an_endpoint_that_cannot_be_reached_stops_the_run() -> None:
    policy = RetryPolicy(base=0.01, unreachable=0.1)
    with nobody() as server:
        async with M2Client(**server.settings()) as client, Submitter(client, retry=policy) as submitter:
            ended, failure = await collect(submitter.submit_many(requests(1_000)))
    assert isinstance(failure, SubmissionStoppedError)
    assert isinstance(failure.cause, NotSentError)
    assert len(ended) <= 64


@in_virtual_time
async def test_a_short_outage_after_the_service_has_answered_is_waited_out() -> None:
    client = FakeClient(lambda n: failing(*[NotSentError("down")] * 40)(n - 1) if n > 1 else "first")
    async with Submitter(client, retry=RetryPolicy(base=0.001, cap=0.01, unreachable=0.0)) as submitter:
        assert isinstance(await submitter.submit(request()), Started)
        assert isinstance(await submitter.submit(request()), Started)
    assert len(client.calls) == 42


def jobs_of_two(jobs: int) -> list[StartBatchJob]:
    return [StartBatchJob(name, ScriptJob("X")) for _ in range(jobs) for name in ("stopped", "running")]


def stopped(refusals: float) -> FakeClient:
    """Has an application that does not run until it has refused so often."""
    refused = 0

    def answer(number: int) -> str:
        nonlocal refused
        if client.calls[-1].application_id == "stopped" and refused < refusals:
            refused += 1
            raise said("ConflictException", 409)
        return f"e-{number}"

    client = FakeClient(answer)
    return client


@in_virtual_time
async def test_a_stopped_application_is_not_called_again_while_others_go_on() -> None:
    client = stopped(inf)
    async with Submitter(client, concurrency=4, retry=RetryPolicy(hold=0.0)) as submitter:
        ended, failure = await collect(submitter.submit_many(jobs_of_two(100)))
    assert failure is None
    assert Counter((o.request.application_id, o.state) for o in ended)[("running", "started")] == 100
    called = sum(call.application_id == "stopped" for call in client.calls)
    assert called <= 4
    states = Counter(o.state for o in ended if o.request.application_id == "stopped")
    assert states == {"rejected": called, "skipped": 100 - called}


@in_virtual_time
async def test_jobs_of_a_stopped_application_wait_until_a_probe_finds_that_it_runs() -> None:
    client = stopped(6)  # four by workers that were at it, and two probes
    async with Submitter(client, concurrency=4, retry=RetryPolicy(probe=0.01)) as submitter:
        ended, failure = await collect(submitter.submit_many(jobs_of_two(100)))
    assert failure is None
    assert Counter(outcome.state for outcome in ended) == {"started": 200}
    assert len(client.calls) == 206
    order = [outcome.request.application_id for outcome in ended]
    assert order[:100] == ["running"] * 100


@in_virtual_time
async def test_held_jobs_are_rejected_after_the_hold_with_the_reason_and_as_skipped_where_they_were_not_sent() -> None:
    client = stopped(inf)
    async with Submitter(client, concurrency=4, retry=RetryPolicy(probe=5.0, hold=60.0)) as submitter:
        ended, failure = await collect(submitter.submit_many(jobs_of_two(20)))
    assert failure is None
    assert now() == pytest.approx(60)
    refused = [outcome for outcome in ended if isinstance(outcome, Rejected)]
    assert {outcome.error.code for outcome in refused} == {"ConflictException"}
    probes = 3  # after 5, 15 and 35 seconds
    assert [call.application_id for call in client.calls].count("stopped") == 1 + probes
    assert Counter(o.state for o in ended) == {"started": 20, "rejected": 3, "skipped": 17}  # the first is probed too


async def test_held_jobs_that_were_sent_are_rejected_in_the_ledger_and_the_others_are_pending() -> None:
    client = stopped(inf)
    policy = RetryPolicy(probe=0.01, hold=0.1)
    async with (
        open_ledger("memory:") as ledger,
        await ledger.open_run("run") as run,
        Submitter(client, ledger=ledger, run=run, on_unknown="hold", concurrency=4, retry=policy) as submitter,
    ):
        named = [(str(number), job) for number, job in enumerate(jobs_of_two(20))]
        ended, failure = await collect(submitter.submit_many(named))
        states = {row.key: row.state.label async for row in run.rows()}
    assert failure is None
    in_the_ledger = {"started": "started", "rejected": "rejected", "skipped": "pending"}
    assert {outcome.key: in_the_ledger[outcome.state] for outcome in ended} == states
    assert Counter(states.values())["started"] == 20
    assert Counter(states.values())["rejected"] >= 1


@in_virtual_time
async def test_a_service_that_fails_every_call_meets_a_trickle_of_resends() -> None:
    client = FakeClient(failing(*[ConnectionLostError("lost")] * 10_000))
    async with Submitter(client, on_unknown="resend", retry=RetryPolicy(base=0.0001, cap=0.001)) as submitter:
        outcomes = submitter.submit_many(request() for _ in range(300))
        waiting = asyncio.ensure_future(anext(outcomes))
        for second in range(1, 11):
            await asyncio.sleep(1)
            assert abs(len(client.calls) - (300 + RESERVE + second * SHARE * UNPACED)) <= 1
        waiting.cancel()
        await outcomes.aclose()


@in_virtual_time
async def test_the_resends_of_some_do_not_keep_others_from_being_sent() -> None:
    lost = [StartBatchJob("lost", ScriptJob("X"))] * 200
    client = FakeClient(lambda number: failing(*[ConnectionLostError("lost")] * 10_000)(number))
    good = FakeClient(lambda number: f"e-{number}")

    class Both:
        async def start_batch_job(self, request: StartBatchJob, /) -> StartBatchJobResponse:
            return await (client if request.application_id == "lost" else good).start_batch_job(request)

    async with Submitter(Both(), on_unknown="resend", concurrency=4) as submitter:
        outcomes = submitter.submit_many([*lost, *(request() for _ in range(200))])
        while len(good.calls) < 200:
            await anext(outcomes)
        await outcomes.aclose()


async def test_what_the_block_raises_is_raised_as_it_is() -> None:
    with pytest.raises(KeyError, match="of the caller"):
        async with Submitter(FakeClient(lambda n: "e"), ledger="memory:", on_unknown="hold"):
            raise KeyError("of the caller")


@pytest.mark.parametrize(
    ("error", "on_unknown", "state"),
    [
        (said("ThrottlingException", 429, retry_after=600.0), "hold", None),
        (said("ConflictException", 409), "hold", None),
        (ConnectionLostError("lost"), "resend", "unknown"),
    ],
    ids=["throttled", "refused", "lost"],
)
async def test_what_would_wait_ends_at_once_when_the_answer_comes_after_the_stop(
    error: CallError, on_unknown: OnUnknown, state: str | None
) -> None:
    gate = asyncio.Event()

    async def answer() -> str:
        await gate.wait()
        raise error

    client = FakeClient(lambda number: answer())
    async with open_ledger("memory:") as ledger, await ledger.open_run("run") as run:
        async with Submitter(client, ledger=ledger, run=run, on_unknown=on_unknown) as submitter:
            waiting = asyncio.create_task(submitter.submit(request(), key="k"))
            while not client.under_way:
                await asyncio.sleep(0)
            submitter.stop("enough")
            gate.set()
            if state is None:
                with pytest.raises(SubmissionStoppedError, match="enough"):
                    await waiting
            else:
                assert (await waiting).state == state
        row = await run.row("k")
    assert row.state.label == (state or "pending")


async def test_a_probe_that_the_ledger_refuses_leaves_the_next_one_to_probe() -> None:
    client = stopped(2)
    async with open_ledger("memory:") as ledger, await ledger.open_run("run") as run:
        policy = RetryPolicy(probe=0.01, hold=10.0)
        async with Submitter(client, ledger=ledger, run=run, on_unknown="hold", retry=policy) as submitter:
            job = StartBatchJob("stopped", ScriptJob("X"))
            same = [asyncio.create_task(submitter.submit(job, key=key)) for key in ("k", "k", "l")]
            ended = await asyncio.gather(*same, return_exceptions=True)
    assert [type(each) for each in ended].count(IllegalTransitionError) == 1
    assert [type(each) for each in ended].count(Started) == 2


@in_virtual_time
async def test_another_rate_holds_for_a_running_submitter() -> None:
    client = FakeClient(lambda n: f"e-{n}")
    async with Submitter(client, rate=0.001) as submitter:
        outcomes = submitter.submit_many(request() for _ in range(100))
        await anext(outcomes)  # the burst of one
        submitter.set_rate(100_000, 100)
        assert submitter.rate == 100_000
        assert len([outcome async for outcome in outcomes]) == 99


@pytest.mark.parametrize("rate", [None, 100_000.0])
async def test_nothing_is_sent_in_a_pause_and_all_the_rest_after_it(rate: float | None) -> None:
    client = FakeClient(lambda n: f"e-{n}")
    async with Submitter(client, rate=rate) as submitter:
        outcomes = submitter.submit_many(request() for _ in range(1_000))
        await anext(outcomes)
        submitter.pause()
        submitter.pause()
        ended = 1 + len([await anext(outcomes) for _ in range(client.under_way)])
        sent = len(client.calls)
        assert sent < 1_000
        for _ in range(2_000):
            await asyncio.sleep(0)
        assert len(client.calls) == sent
        submitter.unpause()
        submitter.unpause()
        assert ended + len([outcome async for outcome in outcomes]) == 1_000
    assert len(client.calls) == 1_000


@in_virtual_time
async def test_a_paused_submitter_can_be_stopped() -> None:
    client = FakeClient(lambda n: f"e-{n}")
    async with Submitter(client, rate=100_000.0) as submitter:
        submitter.pause()
        waiting = asyncio.ensure_future(submitter.submit(request()))
        for _ in range(100):
            await asyncio.sleep(0)
        submitter.stop("enough")
        with pytest.raises(SubmissionStoppedError, match="enough"):
            await waiting
    assert client.calls == []


def test_a_submitter_can_be_paused_before_a_loop_runs() -> None:
    client = FakeClient(lambda n: f"e-{n}")
    submitter = Submitter(client)
    submitter.pause()

    async def unpaused() -> None:
        async with submitter:
            waiting = asyncio.ensure_future(submitter.submit(request()))
            for _ in range(100):
                await asyncio.sleep(0)
            assert client.calls == []
            submitter.unpause()
            assert (await waiting).state == "started"

    asyncio.run(unpaused())


@in_virtual_time
async def test_no_patience_runs_out_in_a_pause() -> None:
    client = stopped(2)
    policy = RetryPolicy(probe=0.01, hold=0.05)
    async with Submitter(client, retry=policy) as submitter:
        held = asyncio.ensure_future(submitter.submit(StartBatchJob("stopped", ScriptJob("X"))))
        while not submitter.held:
            await asyncio.sleep(0)
        submitter.pause()
        sent = len(client.calls)
        await asyncio.sleep(3 * policy.hold)
        assert (held.done(), len(client.calls)) == (False, sent)
        submitter.unpause()
        assert (await held).state == "started"


@in_virtual_time
async def test_the_patience_with_a_throttled_job_stands_still_in_a_pause() -> None:
    client = FakeClient(failing(*[said("ThrottlingException", 429)] * 3))
    policy = RetryPolicy(base=0.001, cap=0.002, patience=0.2)
    async with Submitter(client, retry=policy) as submitter:
        throttled = asyncio.ensure_future(submitter.submit(request()))
        while not client.calls:
            await asyncio.sleep(0)
        submitter.pause()
        await asyncio.sleep(2 * policy.patience)
        submitter.unpause()
        assert (await throttled).state == "started"


async def test_a_missing_file_rejects_its_job_alone(client: M2Client) -> None:
    jobs = [StartBatchJob(APPLICATION, FileJob(name)) for name in ("NOSUCH.jcl", "POSTTRAN.jcl")]
    async with Submitter(client, concurrency=1) as submitter:
        ended, _ = await collect(submitter.submit_many(jobs))
    assert [outcome.state for outcome in ended] == ["rejected", "started"]


# Input, backpressure and memory


async def test_input_is_read_no_further_ahead_than_the_workers_need() -> None:
    read = 0

    def counted() -> Iterator[StartBatchJob]:
        nonlocal read
        for _ in range(1_000):
            read += 1
            yield request()

    client = FakeClient(lambda n: f"e-{n}")
    async with Submitter(client, concurrency=4) as submitter:
        taken = 0
        async for _ in submitter.submit_many(counted()):
            taken += 1
            assert read <= taken + 3 * 4 + 1
    assert taken == read == 1_000
    assert client.most_under_way <= 4


async def test_async_input_is_taken_too_and_closed_when_it_is_left_early() -> None:
    closed = False

    async def endless() -> AsyncIterator[tuple[str, StartBatchJob]]:
        nonlocal closed
        try:
            while True:
                yield "again", request()
                await asyncio.sleep(0)
        finally:
            closed = True

    client = FakeClient(lambda n: f"e-{n}")
    async with Submitter(client, concurrency=2) as submitter:
        outcomes = submitter.submit_many(endless())
        async for outcome in outcomes:
            assert outcome.key == "again"
            break
        await outcomes.aclose()
        assert [outcome async for outcome in outcomes if outcome.state != "started"] == []
        assert closed
        assert isinstance(await submitter.submit(request()), Started)  # the submitter itself goes on


async def test_an_error_of_the_input_reaches_the_caller_after_the_outcomes() -> None:
    def broken() -> Iterator[StartBatchJob]:
        yield from requests(5)
        raise LookupError("row 6")

    async with Submitter(FakeClient(lambda n: f"e-{n}")) as submitter:
        ended, failure = await collect(submitter.submit_many(broken()))
    assert len(ended) == 5
    assert isinstance(failure, LookupError)


async def test_memory_does_not_grow_with_the_number_of_jobs() -> None:
    async def peak(count: int) -> int:
        gc.collect()
        tracemalloc.start()
        async with Submitter(FakeClient(lambda n: "e"), concurrency=16) as submitter:
            submitter._client.calls = deque_of_nothing()  # type: ignore[attr-defined]
            async for _ in submitter.submit_many(requests(count)):
                pass
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    await peak(100)
    assert await peak(10_000) < 1.2 * await peak(1_000) + 20_000


def deque_of_nothing() -> Any:
    return deque(maxlen=1)


async def test_keys_default_to_the_number_or_the_name_of_the_job() -> None:
    async with Submitter(FakeClient(lambda n: f"e-{n}")) as submitter:
        ended, _ = await collect(submitter.submit_many(requests(3)))
        assert (await submitter.submit(request())).key == "POSTTRAN"
    assert [outcome.key for outcome in ended] == ["1", "2", "3"]


# Leaving early


async def wait_for_ever() -> str:
    await asyncio.get_running_loop().create_future()
    raise AssertionError


async def test_calls_under_way_are_answered_when_the_host_is_cancelled() -> None:
    gate = asyncio.Event()

    async def answer() -> str:
        await gate.wait()
        return "late"

    client = FakeClient(lambda n: answer())
    logger = CapturingLogger()

    async def host() -> None:
        async with Submitter(client, logger=logger, concurrency=2) as submitter:
            async for _ in submitter.submit_many(requests(50)):
                pass

    task = asyncio.create_task(host())
    while client.under_way < 2:
        await asyncio.sleep(0)
    task.cancel()
    for _ in range(10):
        await asyncio.sleep(0)
    assert not task.done()  # it waits for the two
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [call.kwargs["execution_id"] for call in logger.calls] == ["late", "late"]
    assert len(client.calls) == 2


@in_virtual_time
async def test_calls_that_outlast_the_grace_are_unknown_and_logged() -> None:
    client = FakeClient(lambda n: wait_for_ever())
    logger = CapturingLogger()
    async with anyio.create_task_group() as tasks:
        ended: list[Outcome] = []

        async def caller(submitter: Submitter) -> None:
            ended.append(await submitter.submit(request(), key="k"))

        async with Submitter(client, grace=0.05, logger=logger) as submitter:
            tasks.start_soon(caller, submitter)
            while not client.under_way:
                await asyncio.sleep(0)
    [outcome] = ended
    assert isinstance(outcome, Unknown)
    assert isinstance(outcome.error, CallCancelledError)
    [event] = logger.calls
    assert event.args == ("batch_job.unknown",)
    assert event.kwargs["code"] == "CallCancelledError"


@in_virtual_time
async def test_a_scope_that_is_cancelled_around_the_submitter_ends_it_within_the_grace() -> None:
    client = FakeClient(lambda n: wait_for_ever())
    with anyio.move_on_after(0.05):
        async with Submitter(client, grace=0.05, rate=1_000, burst=3) as submitter:
            await collect(submitter.submit_many(requests(1_000)))
    assert client.under_way == 0
    assert len(client.calls) <= 64
    assert now() == pytest.approx(0.05 + 0.05)


async def test_those_in_line_are_told_when_the_submitter_is_left() -> None:
    client = FakeClient(lambda n: wait_for_ever())
    async with anyio.create_task_group() as tasks:
        told: list[BaseException | Outcome] = []

        async def caller(submitter: Submitter) -> None:
            try:
                told.append(await submitter.submit(request()))
            except SubmissionStoppedError as exc:
                told.append(exc)

        async with Submitter(client, grace=0, concurrency=1) as submitter:
            for _ in range(5):
                tasks.start_soon(caller, submitter)
            while not client.under_way:
                await asyncio.sleep(0)
            await asyncio.sleep(0)
    assert Counter(type(entry) for entry in told) == {Unknown: 1, SubmissionStoppedError: 4}
    assert len(client.calls) == 1


async def test_a_caller_that_is_cancelled_in_line_is_not_sent() -> None:
    client = FakeClient(lambda n: wait_for_ever())
    async with Submitter(client, grace=0, concurrency=1) as submitter:
        first = asyncio.create_task(submitter.submit(request("FIRST")))
        second = asyncio.create_task(submitter.submit(request("SECOND")))
        while not client.under_way:
            await asyncio.sleep(0)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
    await asyncio.gather(first, return_exceptions=True)
    assert [call.job.name for call in client.calls] == ["FIRST"]


@pytest.mark.parametrize("turns", range(40))
async def test_whenever_it_is_cancelled_every_job_sent_has_an_event_and_the_tokens_are_right(turns: int) -> None:
    client = FakeClient(failing(said("ThrottlingException", 429), ConnectionLostError("x"), NotSentError("y")))
    logger = CapturingLogger()
    policy = RetryPolicy(base=1e-6, cap=1e-6)

    async def host() -> None:
        async with Submitter(
            client,
            logger=logger,
            concurrency=2,
            rate=1e9,
            burst=1e6,
            retry=policy,
            on_unknown="resend",
        ) as submitter:
            async for _ in submitter.submit_many(requests(4)):
                pass

    task = asyncio.create_task(host())
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    events = Counter(call.args[0] for call in logger.calls)
    answered = len([n for n in range(1, len(client.calls) + 1) if n > 3])
    assert events["batch_job.started"] == answered
    assert client.under_way == 0


async def test_a_submitter_that_is_not_open_says_how_to_open_it() -> None:
    submitter = Submitter(FakeClient(lambda n: "e"))
    with pytest.raises(RuntimeError, match="async with Submitter"):
        await submitter.submit(request())
    with pytest.raises(RuntimeError, match="async with Submitter"):
        await anext(submitter.submit_many(requests(1)))


@pytest.mark.parametrize(
    "wrong", [{"concurrency": 0}, {"rate": 0}, {"rate": 1, "burst": 0}, {"burst": 5}, {"on_unknown": "guess"}]
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be|goes with"):
        Submitter(FakeClient(lambda n: "e"), **wrong)


# Records


async def test_one_event_for_every_execution_id_retry_rejection_and_unknown() -> None:
    steps = [error(429, "ThrottlingException"), started("one"), error(400, "ValidationException"), reset]
    logger = CapturingLogger()
    async with scripted(*steps) as server, M2Client(**server.settings()) as client:
        async with Submitter(client, logger=logger, retry=QUICK) as submitter:
            ended = [await submitter.submit(request(), key=key) for key in "abc"]
    assert [outcome.state for outcome in ended] == ["started", "rejected", "unknown"]
    names = [call.args[0] for call in logger.calls]
    assert names == ["batch_job.retry", "batch_job.started", "batch_job.rejected", "batch_job.unknown"]
    retry, event, rejected, unknown = (call.kwargs for call in logger.calls)
    assert event["key"] == "a"
    assert event["application_id"] == APPLICATION
    assert event["job"] == "POSTTRAN"
    assert (event["execution_id"], event["request_id"], event["attempt"]) == ("one", "r-1", 2)
    assert event["elapsed"] > 0
    assert (retry["code"], retry["attempt"]) == ("ThrottlingException", 1)
    assert 0 <= retry["wait"] <= 0.001
    assert (rejected["key"], rejected["code"], rejected["http_status"]) == ("b", "ValidationException", 400)
    assert (unknown["key"], unknown["code"]) == ("c", "ConnectionLostError")
    assert "20261123" not in str(logger.calls)


async def test_parameters_are_logged_only_on_request() -> None:
    logger = CapturingLogger()
    async with Submitter(FakeClient(lambda n: "e"), logger=logger, log_params=True) as submitter:
        await submitter.submit(request())
    assert logger.calls[0].kwargs["params"] == {"RUNDATE": "20261123"}


async def test_events_reach_the_hosts_structlog_pipeline() -> None:
    with structlog.testing.capture_logs() as captured:
        async with Submitter(FakeClient(lambda n: "e-1")) as submitter:
            await submitter.submit(request())
    structlog.reset_defaults()
    assert [event["event"] for event in captured] == ["batch_job.started"]
    assert captured[0]["log_level"] == "info"
    assert captured[0]["execution_id"] == "e-1"


async def test_without_structlog_they_reach_the_hosts_standard_logging(caplog: pytest.LogCaptureFixture) -> None:
    handlers = logging.getLogger().handlers[:]
    with caplog.at_level(logging.INFO, "m2async"):
        async with Submitter(FakeClient(lambda n: "e-1")) as submitter:
            await submitter.submit(request(), key="k 1")
    [record] = caplog.records
    assert record.name == "m2async"
    assert record.getMessage().startswith('batch_job.started key="k 1" application_id=carddemo')
    assert record.m2async["execution_id"] == "e-1"  # type: ignore[attr-defined]
    assert logging.getLogger().handlers == handlers
    assert not structlog.is_configured()


async def test_an_event_that_is_filtered_out_is_not_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events.Events, "_job", lambda *_: pytest.fail("an event was built"))
    for logger in (None, structlog.wrap_logger(None, wrapper_class=structlog.make_filtering_bound_logger("warning"))):
        async with Submitter(FakeClient(lambda n: "e"), logger=logger) as submitter:
            assert isinstance(await submitter.submit(request()), Started)


async def test_embedding_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    async with Submitter(FakeClient(failing(said("ValidationException", 400)))) as submitter:
        await submitter.submit(request())
        await submitter.submit(request())
    assert capfd.readouterr() == ("", "")


async def test_hanging_calls_time_out_as_unknown() -> None:
    async with scripted(hang) as server, M2Client(**server.settings(read_timeout=0.2)) as client:
        async with Submitter(client) as submitter:
            outcome = await submitter.submit(request())
    assert isinstance(outcome, Unknown)
    assert outcome.to_line()["error"]["code"] == "AnswerTimeoutError"


# With a ledger


async def test_a_key_that_was_started_is_not_started_again_by_a_later_submitter(tmp_path: Path) -> None:
    client = FakeClient(lambda n: f"e-{n}")
    told: Any = {"key": "k", "request": request(), "attempts": 1, "execution_id": "e-1", "request_id": "r"}
    for before in (False, True):
        async with Submitter(client, ledger=tmp_path / "jobs.db", on_unknown="hold") as submitter:
            assert await submitter.submit(request(), key="k") == Started(**told, before=before)
            assert (await submitter.submit(request(), key="k")).before  # also where this program started it
    assert len(client.calls) == 1


async def test_what_is_unknown_from_before_says_so(tmp_path: Path) -> None:
    client = FakeClient(failing(ConnectionLostError("gone"), ConnectionLostError("gone")))
    for before, on_unknown in ((False, "hold"), (True, "hold"), (False, "resend")):
        async with Submitter(client, ledger=tmp_path / "jobs.db", on_unknown=on_unknown) as submitter:  # type: ignore[arg-type]
            outcome = await submitter.submit(request(), key="k")
        assert outcome.before == before
    assert (outcome.state, len(client.calls)) == ("started", 3)


async def test_a_job_that_is_given_up_is_rejected_in_the_ledger_too() -> None:
    client = FakeClient(lambda number: failing(*[said("ThrottlingException", 429)] * 10_000)(number))
    policy = RetryPolicy(base=0.001, cap=0.001, patience=0.05)
    async with open_ledger("memory:") as ledger, await ledger.open_run("run") as run:
        async with Submitter(client, ledger=ledger, run=run, on_unknown="hold", retry=policy) as submitter:
            assert isinstance(await submitter.submit(request(), key="k"), Rejected)
        row = await run.row("k")
    assert (row.state, row.error_code, row.note) == (RowState.REJECTED, "ThrottlingException", "tried often enough")


async def test_a_key_is_one_request_s_and_one_caller_s_at_a_time() -> None:
    gate = asyncio.Event()

    async def answer() -> str:
        await gate.wait()
        return "e"

    client = FakeClient(lambda n: answer())
    async with Submitter(client, ledger="memory:", on_unknown="hold") as submitter:
        first = asyncio.create_task(submitter.submit(request(), key="k"))
        while not client.under_way:
            await asyncio.sleep(0)
        with pytest.raises(IllegalTransitionError):
            await submitter.submit(request(), key="k")
        gate.set()
        assert isinstance(await first, Started)
        with pytest.raises(ManifestChangedError, match="k"):
            await submitter.submit(request("OTHER"), key="k")
        with pytest.raises(ValueError, match="needs a key"):
            await submitter.submit(request())
        assert isinstance(await submitter.submit(request("OTHER"), key="l"), Started)  # the submitter goes on
    assert len(client.calls) == 2


async def test_in_exact_mode_jobs_of_one_name_wait_for_each_other_and_others_do_not() -> None:
    most: Counter[str] = Counter()
    now: Counter[str] = Counter()
    both_were_sent = asyncio.Event()

    async def answer(name: str, number: int) -> str:
        now[name] += 1
        most[name] = max(most[name], now[name])
        if len(most) == 2:
            both_were_sent.set()
        await both_were_sent.wait()  # however long the other's intent takes to be durable
        for _ in range(3):
            await asyncio.sleep(0)
        now[name] -= 1
        return f"e-{number}"

    client = FakeClient(lambda n: answer(client.calls[-1].job.name, n))
    both = [(f"{name}-{n}", request(name)) for n in range(20) for name in ("A", "B")]
    async with Submitter(client, ledger="memory:", on_unknown="hold", exact=True) as submitter:
        ended, failure = await collect(submitter.submit_many(both))
    assert failure is None
    assert len(ended) == 40
    assert most == {"A": 1, "B": 1}
    assert client.most_under_way == 2


async def test_leaving_while_jobs_wait_in_lanes_or_are_looked_for_tells_everybody() -> None:
    async with LocalEndpoint(faults={"accept-then-500": 1.0}, seed=1) as endpoint:
        async with M2Client(**endpoint.client_settings()) as client, anyio.create_task_group() as tasks:
            told: list[object] = []

            async def caller(submitter: Submitter, number: int) -> None:
                try:
                    told.append(await submitter.submit(request(), key=str(number)))
                except SubmissionStoppedError as exc:
                    told.append(exc)

            async with Submitter(client, ledger="memory:", certainty="exact", settle=100.0) as submitter:
                for number in range(5):
                    tasks.start_soon(caller, submitter, number)
                while not await really_started(endpoint):
                    await asyncio.sleep(0)
    assert Counter(type(entry) for entry in told) == {Unknown: 1, SubmissionStoppedError: 4}


@in_virtual_time
async def test_submitters_that_share_a_pacer_get_their_shares_by_weight() -> None:
    pacer = Pacer(TokenBucket(2_000, 1))
    heavy, light = FakeClient(lambda n: f"h-{n}"), FakeClient(lambda n: f"l-{n}")
    async with (
        Submitter(heavy, pacer=pacer, weight=3.0) as first,
        Submitter(light, pacer=pacer) as second,
    ):
        both = [each.submit_many(request() for _ in range(10_000)) for each in (first, second)]
        waiting = [asyncio.ensure_future(anext(each)) for each in both]
        await asyncio.sleep(200 / 2_000)
        for each in waiting:
            each.cancel()
    assert abs(len(heavy.calls) - 150) <= 10


@in_virtual_time
async def test_tokens_of_an_application_are_needed_besides() -> None:
    client = FakeClient(lambda n: f"e-{n}")
    buckets = {"stopped": TokenBucket(0.001, 3)}
    async with Submitter(client, rate=100_000, burst=1_000, application_buckets=buckets) as submitter:
        outcomes = submitter.submit_many(jobs_of_two(50))
        ended = [await anext(outcomes) for _ in range(53)]
    assert Counter(outcome.request.application_id for outcome in ended) == {"running": 50, "stopped": 3}


async def test_rows_of_a_ledger_are_taken_as_they_stand_also_by_a_submitter_without_one() -> None:
    async with open_ledger("memory:") as ledger, await ledger.open_run("run") as run:
        for key in ("started", "unknown", "pending"):
            row = await run.add(key, request(key.upper()))
            if key != "pending":
                await run.intend(row.number, 1, 0.0)
        await run.started(1, 1, "e-before")
        await run.unknown(2, 1, "AnswerTimeoutError", "lost")
        rows = await run.page()
    client = FakeClient(lambda n: f"e-{n}")
    async with Submitter(client) as submitter:
        ended, failure = await collect(submitter.submit_many(rows))
    assert failure is None
    assert {(o.key, o.state, getattr(o, "execution_id", None), o.attempts) for o in ended} == {
        ("started", "started", "e-before", 1),
        ("unknown", "unknown", None, 1),
        ("pending", "started", "e-1", 1),
    }
    assert [call.job.name for call in client.calls] == ["PENDING"]


@pytest.mark.parametrize("turns", range(0, 40, 2))
async def test_in_a_pause_nothing_is_sent_whose_intent_was_on_its_way_into_the_ledger(
    tmp_path: Path, turns: int
) -> None:
    client = FakeClient(lambda n: f"e-{n}")
    async with open_ledger(tmp_path / "ledger.db") as ledger, await ledger.open_run("run") as run:
        async with Submitter(client, ledger=ledger, run=run) as submitter:
            submitted = asyncio.create_task(submitter.submit(request(), key="key"))
            for _ in range(turns):
                await asyncio.sleep(0)
            submitter.pause()
            sent = len(client.calls)
            for number in range(5):  # each is durable after all that was on its way
                await run.add(f"other-{number}", request())
            assert len(client.calls) == sent
            submitter.unpause()
            assert isinstance(await submitted, Started)
        assert (await run.row("key")).state is RowState.STARTED
    assert len(client.calls) == 1
