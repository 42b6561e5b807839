"""No job twice, none lost, and what cannot be known is shown: the ledger beside what was really started."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import anyio
import pytest

from m2async import (
    ConnectionLostError,
    LocalEndpoint,
    M2Client,
    RetryPolicy,
    ScriptJob,
    StartBatchJob,
    StartBatchJobResponse,
    Submitter,
)
from m2async.errors import CallError, service_exception
from m2async.ledger import open_ledger
from m2async.service.responses import BatchJobExecution
from tests.campaigns.faults import FAULTS, MIXED, Audit, audit, faulty, one_run, patience, really_started, serving
from tests.campaigns.killed_later import KILLED_LATER
from tests.campaigns.sigkill import campaigns
from tests.cli.terminal import APPLICATION

QUICK = RetryPolicy(base=0.001, cap=0.01)


def numbered(count: int, *, identical: bool = False) -> Iterator[tuple[str, StartBatchJob]]:
    for number in range(count):
        name = "SAME" if identical else f"JOB{number}"
        yield f"row-{number}", StartBatchJob(APPLICATION, ScriptJob(name), {"NUMBER": str(number)})


# Faults


@pytest.mark.parametrize("name", FAULTS)
async def test_under_any_fault_no_job_starts_twice_and_none_is_lost(tmp_path: Path, name: str) -> None:
    jobs = 500 if name == MIXED else 100
    audits: dict[str, Audit] = {}
    async with serving(*faulty(FAULTS[name], 3)) as url, anyio.create_task_group() as tasks:

        async def run(what: str, numbers: range) -> None:
            (tmp_path / what).mkdir()
            identical = what == "identical"
            _, audits[what] = await one_run(
                url, tmp_path / what, numbers, *patience(FAULTS[name]), identical=identical, again=1
            )

        tasks.start_soon(run, "distinct", range(jobs))
        tasks.start_soon(run, "identical", range(jobs, 2 * jobs))
    assert audits["distinct"].problems == []
    assert audits["distinct"].states == {"started": jobs}
    assert audits["identical"].problems == []
    assert audits["identical"].states["started"] + audits["identical"].states["unknown"] == jobs
    if name == MIXED or name.startswith("accept-then"):
        assert audits["distinct"].adopted > 0
        assert audits["identical"].together + audits["identical"].states["unknown"] > 0
    elif name != "latency":  # whose longest delays are not waited for
        assert audits["distinct"].adopted == audits["identical"].states["unknown"] == 0
    if name.startswith("accept-then"):  # as many executions as attempts: only which is whose cannot be told
        assert audits["identical"].states == {"started": jobs}


# Kills


async def test_whenever_it_is_killed_the_same_command_goes_on_and_starts_no_job_twice(tmp_path: Path) -> None:
    made = await campaigns(3, 7, tmp_path, ["submit"], rows=120)
    for one in made:
        assert one.problems == [], one.name
        assert one.damages == [], one.name
        assert one.kills == 3
    assert sum(one.resumed for one in made) > 0


@pytest.mark.parametrize("command", KILLED_LATER)
async def test_whenever_a_later_command_is_killed_the_same_command_comes_to_its_right_end(
    tmp_path: Path, command: str
) -> None:
    [one] = await campaigns(2, 7, tmp_path, [command])
    assert one.problems == []
    assert one.damages == []
    assert one.kills == 2


# Cancellation


class Service:
    """Starts jobs, answers by turns, and lists what it started."""

    clock_offset = 0.0
    endpoint_url, region_name = "http://127.0.0.1:1", "us-east-1"

    def __init__(self) -> None:
        self.executions: list[tuple[str, StartBatchJob, float]] = []
        self.answered: dict[str, str] = {}
        self.calls = 0

    async def start_batch_job(self, request: StartBatchJob, /) -> StartBatchJobResponse:
        self.calls += 1
        number = self.calls
        turn = number % 4
        await asyncio.sleep(0)
        if turn == 2:
            raise service_exception("ThrottlingException", "said", http_status=429)
        execution_id = f"e-{number}"
        self.executions.append((execution_id, request, time.time()))
        await asyncio.sleep(0)
        if turn == 3:
            raise ConnectionLostError("lost")
        self.answered[request.params["NUMBER"]] = execution_id
        return StartBatchJobResponse(execution_id, "r")

    async def list_batch_job_executions(
        self,
        application_id: str,
        /,
        *,
        started_after: datetime | None = None,
        started_before: datetime | None = None,
    ) -> AsyncIterator[BatchJobExecution]:
        for execution_id, request, at in list(self.executions):
            await asyncio.sleep(0)
            yield BatchJobExecution(
                execution_id=execution_id,
                application_id=application_id,
                status="Running",
                start_time=datetime.fromtimestamp(at).astimezone(),
                batch_job_identifier={request.job.member: request.job.to_members()},
            )

    def listed(self) -> list[dict[str, Any]]:
        return [{"executionId": id_, "jobParams": dict(request.params)} for id_, request, _ in self.executions]


class Steps:
    """Counts each time that a task of the program goes on, and cancels it at one of them."""

    def __init__(self, at: int) -> None:
        self.taken = 0
        self.at = at
        self.cancel: Callable[[], object] = lambda: None

    def factory(
        self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **settings: Any
    ) -> asyncio.Task[Any]:
        return asyncio.Task(self._stepping(coroutine), loop=loop, **settings)

    async def _stepping(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return await _Stepping(coroutine, self._step)

    def _step(self) -> None:
        self.taken += 1
        if self.taken == self.at:
            self.cancel()


class _Stepping:
    def __init__(self, coroutine: Coroutine[Any, Any, Any], step: Callable[[], None]) -> None:
        self._coroutine = coroutine
        self._step = step

    def __await__(self) -> Generator[Any, Any, Any]:
        go_on: Callable[[Any], Any] = self._coroutine.send
        argument: Any = None
        while True:
            self._step()
            try:
                waits_for = go_on(argument)
            except StopIteration as end:
                return end.value
            try:
                argument = yield waits_for
                go_on = self._coroutine.send
            except BaseException as exc:  # noqa: BLE001 - it is thrown into the coroutine
                go_on, argument = self._coroutine.throw, exc


async def submit_all(service: Service, ledger: Path, grace: float) -> None:
    async with Submitter(
        service, ledger=ledger, run="night", concurrency=2, settle=0.01, grace=grace, retry=QUICK
    ) as submitter:
        async for _ in submitter.submit_many(numbered(4)):
            pass


async def cancelled_at(step: int, service: Service, ledger: Path, *, by_scope: bool) -> bool:
    """Submit, and cancel at a step; tells whether it came so far."""
    steps = Steps(step)
    loop = asyncio.get_running_loop()
    grace = 0 if by_scope else 10

    async def host() -> None:
        with anyio.CancelScope() as scope:
            steps.cancel = scope.cancel if by_scope else task.cancel
            await submit_all(service, ledger, grace)

    loop.set_task_factory(steps.factory)  # type: ignore[arg-type] # it takes what is there
    try:
        task: asyncio.Task[None] = loop.create_task(host())
        await asyncio.wait([task])
    finally:
        loop.set_task_factory(None)
    if not task.cancelled():
        task.result()
    return steps.taken >= step


@pytest.mark.parametrize("by_scope", [False, True], ids=["its task", "a scope around it, with no grace"])
async def test_at_whatever_step_it_is_cancelled_no_execution_id_is_lost(tmp_path: Path, by_scope: bool) -> None:
    doubts = 0
    for step in itertools.count(1):
        service, ledger = Service(), tmp_path / f"{step}.db"
        reached = await cancelled_at(step, service, ledger, by_scope=by_scope)
        if not ledger.exists():
            continue
        async with open_ledger(ledger) as opened:
            async with await opened.open_run("night") as run:  # what was under way is in doubt now
                rows = {row.request.params["NUMBER"]: row async for row in run.rows()}
        for number, execution_id in service.answered.items():
            assert rows[number].execution_id == execution_id, f"cancelled at step {step}"
        if rows:
            found = await audit(ledger, "night", service.listed(), ended=False)
            assert found.problems == [], f"cancelled at step {step}"
            doubts += found.states["unknown"]
        await submit_all(service, ledger, 10)
        found = await audit(ledger, "night", service.listed())
        assert found.problems == [], f"cancelled at step {step}, then submitted again"
        assert found.states == {"started": 4}
        if not reached:
            break
    assert step > 50
    assert doubts > 0


# Others start the same jobs


async def foreign_starts(client: M2Client, names: list[str], each: int) -> None:
    """Start jobs as somebody else does, until each has been answered so often."""
    for name, number in itertools.product(names, range(each)):
        while True:
            try:
                await client.start_batch_job(StartBatchJob(APPLICATION, ScriptJob(name), {"FOREIGN": str(number)}))
            except CallError:
                continue
            break


async def test_executions_that_others_start_are_never_claimed_where_several_are_around(tmp_path: Path) -> None:
    faults = {"accept-then-drop": 0.2, "drop-before-accept": 0.2}
    names = [f"JOB{number}" for number in range(60)]
    async with LocalEndpoint(faults=faults, seed=5) as endpoint, M2Client(**endpoint.client_settings()) as other:
        await foreign_starts(other, names, 2)
        async with M2Client(**endpoint.client_settings()) as client, anyio.create_task_group() as tasks:
            tasks.start_soon(foreign_starts, other, names, 1)
            async with Submitter(client, ledger=tmp_path / "ledger.db", run="night", settle=0.2) as submitter:
                states = Counter([outcome.state async for outcome in submitter.submit_many(numbered(60))])
        found = await audit(tmp_path / "ledger.db", "night", await really_started(endpoint.url), foreign=True)
    assert found.problems == []
    assert found.adopted == 0
    assert states == found.states
    assert states["unknown"] > 10


# Clocks


@pytest.mark.parametrize("seconds", [-3_600, -10, 10, 3_600])
async def test_a_service_whose_clock_is_another_starts_no_job_twice(tmp_path: Path, seconds: int) -> None:
    faults = {"accept-then-drop": 0.2, "drop-before-accept": 0.1}
    async with (
        LocalEndpoint(faults=faults, seed=1, clock=lambda: time.time() + seconds) as endpoint,
        M2Client(**endpoint.client_settings()) as client,
    ):
        async with Submitter(client, ledger=tmp_path / "ledger.db", run="night", settle=0.2) as submitter:
            async for _ in submitter.submit_many(numbered(100)):
                pass
        found = await audit(tmp_path / "ledger.db", "night", await really_started(endpoint.url))
    assert found.problems == []
    assert found.states["started"] + found.states["unknown"] == 100
