"""Jobs of one name wait for each other as far as the certainty that is aimed at needs; other names are not slowed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from m2async import (
    AnswerTimeoutError,
    CallError,
    CallNext,
    ConflictException,
    ConnectionLostError,
    Destination,
    LocalEndpoint,
    M2Client,
    Pacer,
    RetryPolicy,
    ScriptJob,
    StartBatchJob,
    StartBatchJobResponse,
    Submitter,
    TokenBucket,
    open_ledger,
)
from m2async.certainty import Apart, Certainty
from m2async.ledger import RowState
from m2async.submitting.intake import Caller, Submission
from m2async.submitting.lanes import Lanes
from tests.virtual_time import in_virtual_time

APPLICATION = "carddemolocalapplication23"


def request(name: str, row: int = 0) -> StartBatchJob:
    return StartBatchJob(APPLICATION, ScriptJob(name), {"ROW": str(row)})


def rows(name: str, count: int) -> list[tuple[str, StartBatchJob]]:
    return [(f"{name}-{row}", request(name, row)) for row in range(count)]


class Losing:
    """A client whose first calls of a name get no answer; half of them start their job."""

    def __init__(self, client: M2Client, name: str, *errors: CallError, starts: bool = False) -> None:
        self.sent: list[str] = []
        self._name = name
        self._errors = list(errors)
        self._starts = starts
        client.use(self._call)

    async def _call(self, request: StartBatchJob, call_next: CallNext) -> StartBatchJobResponse:
        self.sent.append(f"{request.job.name}-{request.params['ROW']}")
        if request.job.name != self._name or not self._errors:
            return await call_next(request)
        error = self._errors.pop(0)
        if self._starts:
            await call_next(request)
        raise error


def closed() -> CallError:
    return ConnectionLostError("lost", ended_by_service=True)


async def started(endpoint: LocalEndpoint) -> Counter[str]:
    async with aiohttp.ClientSession() as session, session.get(f"{endpoint.url}/_local/executions") as answer:
        executions: list[dict[str, Any]] = (await answer.json())["executions"]
    return Counter(f"{each['batchJobIdentifier']['scriptBatchJobIdentifier']['scriptName']}-{each['jobParams']['ROW']}"
                   for each in executions)  # fmt: skip


async def test_a_name_that_waits_costs_the_others_no_token_no_worker_and_no_place(
    client: M2Client, endpoint: LocalEndpoint
) -> None:
    """There is a token for each row of the others, and five for what the bad name sends before it waits."""
    losing = Losing(client, "BAD", AnswerTimeoutError("no answer"))
    pacer = Pacer(TokenBucket(0.01, 105))
    jobs = [*rows("BAD", 300), *rows("GOOD", 100)]
    async with Submitter(client, pacer=pacer, ledger="memory:", concurrency=2, settle=60.0) as submitter:
        outcomes = submitter.submit_many(jobs)
        ended: set[str] = set()
        while not ended >= {key for key, _ in jobs[300:]}:
            ended.add((await anext(outcomes)).key)
        [waiting] = submitter.waiting
        assert waiting.job == "BAD"
        assert waiting.jobs >= 295
    assert losing.sent[0] == "BAD-0"
    sent = Counter(each.partition("-")[0] for each in losing.sent)
    assert sent["GOOD"] == 100
    assert sent["BAD"] <= 5
    assert set((await started(endpoint)).values()) == {1}


async def test_with_fast_nothing_waits(client: M2Client) -> None:
    losing = Losing(client, "BAD", closed(), starts=True)
    async with Submitter(client, ledger="memory:", concurrency=2, settle=3.0, certainty="fast") as submitter:
        outcomes = submitter.submit_many(rows("BAD", 100))
        ended = [await anext(outcomes) for _ in range(99)]
        assert not submitter.waiting
    assert len(ended) == len(losing.sent) - 1 == 99


@pytest.mark.parametrize("certainty", ["careful", "exact"])
async def test_all_of_a_name_whose_answer_was_lost_are_started_once_and_in_exact_it_goes_first_again(
    client: M2Client, endpoint: LocalEndpoint, certainty: str
) -> None:
    losing = Losing(client, "BAD", AnswerTimeoutError("no answer"))
    async with Submitter(client, ledger="memory:", concurrency=1, settle=0.3, certainty=certainty) as submitter:
        ended = [outcome.state async for outcome in submitter.submit_many(rows("BAD", 10))]
    assert ended == ["started"] * 10
    assert losing.sent[0] == "BAD-0"
    if certainty == "exact":
        assert losing.sent == ["BAD-0", *(f"BAD-{row}" for row in range(10))]
    assert set((await started(endpoint)).values()) == {1}


@pytest.mark.parametrize(("certainty", "unknown"), [("careful", range(4)), ("fast", range(6, 61))])
async def test_of_many_rows_of_one_name_hardly_any_ends_unknown(certainty: str, unknown: range) -> None:
    """Of the answers 8 % are lost, half of them of jobs that were started."""
    faults = {"accept-then-drop": 0.04, "drop-before-accept": 0.04}
    async with (
        LocalEndpoint(seed=3, faults=faults) as endpoint,
        M2Client(**endpoint.client_settings()) as client,
        Submitter(client, rate=100, burst=10, ledger="memory:", settle=1.0, certainty=certainty) as submitter,
    ):
        states = Counter([outcome.state async for outcome in submitter.submit_many(rows("ONE", 400))])
        really = await started(endpoint)
    assert set(really.values()) == {1}
    assert states["started"] + states["unknown"] == 400
    assert states["started"] <= len(really)
    assert states["unknown"] in unknown


async def test_what_an_earlier_process_left_in_doubt_holds_its_name_until_it_is_decided(
    tmp_path: Path, client: M2Client, endpoint: LocalEndpoint
) -> None:
    async with open_ledger(tmp_path / "ledger.db") as ledger:
        async with await ledger.open_run("run") as run:
            await run.plan([(key, each) for key, each in [*rows("BAD", 3), *rows("GOOD", 3)]])
            await run.belong_to(Destination(endpoint.url, "us-east-1", None))
            await run.intend(3, 1, run.info.created_at)  # and then the process is killed
        losing = Losing(client, "BAD")
        async with await ledger.open_run("run") as run:
            async with Submitter(client, ledger=ledger, run=run, settle=0.5) as submitter:
                ended = {outcome.key: outcome.state async for outcome in submitter.submit_many(run.rows())}
    assert set(ended.values()) == {"started"}
    assert [each.partition("-")[0] for each in losing.sent] == ["GOOD"] * 3 + ["BAD"] * 3


def test_a_certainty_that_cannot_be_is_refused(endpoint: LocalEndpoint) -> None:
    client = M2Client(**endpoint.client_settings())
    wrong: list[tuple[Callable[[], Submitter], str]] = [
        (lambda: Submitter(client, ledger="memory:", certainty=2.0), "above 0 and below 1"),
        (lambda: Submitter(client, ledger="memory:", certainty="sure"), "'sure'"),
        (
            lambda: Submitter(client, certainty="careful"),
            "certainty='careful' goes with on_unknown='adopt', not with 'hold'",
        ),
        (lambda: Submitter(client, ledger="memory:", certainty=0.1, on_unknown="resend"), "not with 'resend'"),
    ]
    for make, why in wrong:
        with pytest.raises(ValueError, match=why):
            make()


async def test_of_those_that_wait_in_a_lane_what_was_sent_before_goes_first_and_then_as_they_came() -> None:
    let_go: list[Submission] = []
    lanes = Lanes(Certainty(0.0), settle=5.0, apart=lambda _: Apart(), requeue=let_go.append)
    jobs = [Submission(str(number), request("ONE"), Caller()) for number in range(4)]
    jobs[3].attempts = 1
    assert [lanes.enter(job) for job in jobs] == [True, False, False, False]
    for leaving in jobs[0], jobs[3], jobs[1]:
        lanes.leave(leaving)
        assert lanes.enter(let_go[-1])  # which is asked once more when a worker takes it on
        assert lanes.may_send(let_go[-1])
    assert [job.key for job in let_go] == ["3", "1", "2"]


@in_virtual_time
async def test_a_name_goes_on_when_its_window_is_over_by_the_clocks_once_these_are_known_to_bound_it() -> None:
    let_go: list[Submission] = []
    apart = Apart()
    lanes = Lanes(Certainty(), settle=5.0, apart=lambda _: apart, requeue=let_go.append)
    lost, other = (Submission(key, request("ONE"), Caller()) for key in ("lost", "other"))
    assert lanes.enter(lost)
    assert lanes.may_send(lost)
    lanes.answered(lost, closed())
    lanes.leave(lost)
    assert not lanes.enter(other)
    await asyncio.sleep(8.0)
    apart = Apart(by_clocks=11.0)
    lanes.look_again()
    await asyncio.sleep(2.9)
    assert let_go == []
    await asyncio.sleep(0.2)
    assert let_go == [other]


@pytest.mark.parametrize(("certainty", "may_go"), [(0.0, False), (0.001, True)])
async def test_a_job_that_an_earlier_process_left_is_waited_for_until_it_is_decided_only_where_one_goes_at_once(
    certainty: float, may_go: bool
) -> None:
    """Else it holds its name for as long as its window is open."""
    lanes = Lanes(Certainty(certainty), settle=5.0, apart=lambda _: Apart(), requeue=lambda _: None)
    left, other = (Submission(key, request("ONE"), Caller()) for key in ("left", "other"))
    lanes.look_for(left)
    assert lanes.enter(other) is may_go


@pytest.mark.parametrize(
    ("certainty", "is_known", "may_go"), [(0.1, False, False), (0.1, True, True), (0.0, False, True)]
)
async def test_a_row_that_was_left_in_doubt_and_stays_so_holds_its_name_for_as_long_as_its_window_is_open(
    certainty: float, *, is_known: bool, may_go: bool
) -> None:
    let_go: list[Submission] = []
    lanes = Lanes(Certainty(certainty), settle=5.0, apart=lambda _: Apart(), requeue=let_go.append)
    async with open_ledger("memory:") as ledger, await ledger.open_run("run") as run:
        row = await run.add("left", request("ONE"))
    other = Submission("other", request("ONE", 2), Caller())
    lanes.hold(row, 60.0)
    assert not lanes.enter(other)
    lanes.decided(Submission("left", row.request, Caller(), row), goes_again=False, is_known=is_known)
    assert (let_go == [other]) is may_go
    [waiting] = lanes.waiting
    assert (waiting.left > 0) is not may_go
    lanes.take_all()


async def test_a_row_in_doubt_that_is_submitted_once_more_holds_nobody_up(client: M2Client) -> None:
    losing = Losing(client, "X", ConnectionLostError("lost"), starts=True)
    async with (
        open_ledger("memory:") as ledger,
        await ledger.open_run("run") as run,
        Submitter(client, ledger=ledger, run=run, settle=0.3) as submitter,
    ):
        first = asyncio.create_task(submitter.submit(request("X"), key="one"))
        while True:  # it may be found before it is seen here that it is in doubt
            counts = await run.counts()
            if counts[RowState.UNKNOWN] or counts[RowState.STARTED]:
                break
        again = asyncio.create_task(submitter.submit(request("X"), key="one"))
        outcomes = await asyncio.gather(first, again, return_exceptions=True)
        assert [getattr(outcome, "state", None) for outcome in outcomes].count("started") >= 1
        assert (await submitter.submit(request("X", 2), key="two")).state == "started"
    assert Counter(losing.sent) == {"X-0": 1, "X-2": 1}


async def test_a_probe_of_an_application_that_has_to_wait_for_its_name_leaves_the_probing_to_another(
    client: M2Client,
) -> None:
    refused = ConflictException("not running", code="ConflictException", http_status=409, request_id="r")
    lost = asyncio.Event()
    sent: Counter[str] = Counter()

    async def call(request: StartBatchJob, call_next: CallNext) -> StartBatchJobResponse:
        row = request.params["ROW"]
        sent[row] += 1
        if row == "0" and sent[row] == 1:
            await lost.wait()
            raise ConnectionLostError("lost")
        if row == "1" and sent[row] == 1:
            raise refused
        return await call_next(request)

    client.use(call)
    policy = RetryPolicy(probe=0.01, hold=20.0)
    pacer = Pacer(TokenBucket(1, 2))
    async with (
        Submitter(client, pacer=pacer, ledger="memory:", settle=1.0, retry=policy) as submitter,
    ):
        tasks = [asyncio.create_task(submitter.submit(request("X", 0), key="0"))]
        while not sent["0"]:
            await asyncio.sleep(0)
        tasks.append(asyncio.create_task(submitter.submit(request("X", 1), key="1")))
        while not submitter.held:
            await asyncio.sleep(0)
        tasks += [asyncio.create_task(submitter.submit(request("X", row), key=str(row))) for row in (2, 3)]
        while submitter.held[APPLICATION][1] != 2:  # the third waits for its token, to be the probe
            await asyncio.sleep(0)
        lost.set()
        assert [outcome.state for outcome in await asyncio.gather(*tasks)] == ["started"] * 4


async def test_with_a_client_that_cannot_list_a_lost_answer_is_unknown_and_its_name_goes_on(client: M2Client) -> None:
    class OnlyStarts:
        lost = 1

        async def start_batch_job(self, request: StartBatchJob) -> StartBatchJobResponse:
            answer = await client.start_batch_job(request)
            if self.lost:
                self.lost -= 1
                raise ConnectionLostError("lost")
            return answer

    async with Submitter(OnlyStarts(), ledger="memory:", concurrency=1) as submitter:
        outcomes = [outcome async for outcome in submitter.submit_many(rows("X", 5))]
    assert Counter(outcome.state for outcome in outcomes) == {"unknown": 1, "started": 4}
