"""The probe against real servers: what it sends and when, what it measures, and what it leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import sqlite3
from bisect import bisect
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession

from m2async import LedgerError, LocalEndpoint, M2Client, ScriptJob, StartBatchJob, StartBatchJobResponse
from m2async.errors import AccessDeniedException, NotSentError
from m2async.ledger import RowState, open_ledger
from m2async.local.definitions import ApplicationDefinition, JobDefinition, StepDefinition
from m2async.probing.plans import Limits, Plan, Ramp, Steps
from m2async.probing.probe import Probe, StartedUnasked
from m2async.probing.record import CallStretch, QuotaVerdict
from m2async.probing.summary import Asked
from tests.campaigns.faults import really_started
from tests.scripted import answer, close, error, nobody, scripted, started

NOWHERE = StartBatchJob("ab2cdefghijklmnopqrstuvwxy", ScriptJob("NOJOB"))


def probe(client: M2Client, plan: Plan, request: StartBatchJob = NOWHERE, **others: Any) -> Probe:
    settings: dict[str, Any] = {"asked": "no application", "max_calls": 5_000, "max_seconds": 20.0, **others}
    return Probe(client, plan, request, **settings)


# Latency, as a client of an open loop sees it


class SlowServer:
    """Refuses every request after a time of its own."""

    def __init__(self, delays: list[float]) -> None:
        self.delays = iter(delays)
        self.url = ""
        self.now = monotonic
        self.written: list[float] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line[:15] == b"content-length:")
                await reader.readexactly(length)
                await asyncio.sleep(next(self.delays))
                self.written.append(self.now())
                writer.write(
                    b"HTTP/1.1 404 X\r\ncontent-length: 2\r\nx-amzn-errortype: ResourceNotFoundException\r\n\r\n{}"
                )
        writer.close()

    def settings(self) -> dict[str, Any]:
        session = AioSession()
        session.set_credentials("local", "local")
        session.set_default_client_config(AioConfig(proxies={}))
        return {"session": session, "region_name": "us-east-1", "endpoint_url": self.url, "max_connections": 500}


@contextlib.asynccontextmanager
async def slow(delays: list[float]) -> AsyncIterator[SlowServer]:
    server = SlowServer(delays)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, backlog=500)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listener.close()
        await listener.wait_closed()
        for _ in range(20):  # the handlers see the ends of their connections
            await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def turning(one: Probe) -> AsyncIterator[Callable[[float, float], int]]:
    """Counts the turns that the event loop took between two times of a probe.

    Seconds would say how busy the machine is; what is done within a few turns is done as soon as it can be.
    """
    times: list[float] = []

    async def turn() -> None:
        while True:
            times.append(one.elapsed)
            await asyncio.sleep(0.001)

    task = asyncio.ensure_future(turn())
    try:
        yield lambda begin, end: bisect(times, end) - bisect(times, begin)
    finally:
        task.cancel()


def percentile(latencies: list[float], percent: float) -> float:
    return sorted(latencies)[math.ceil(percent / 100 * len(latencies)) - 1]


@pytest.mark.parametrize("stalled", [True, False])
async def test_latencies_are_those_of_the_calls_that_were_due_during_a_stall_too(stalled: bool) -> None:
    """Call n is due n / 100 s after the load's beginning; those due in the stall are answered after its end."""
    rate, calls, draw = 100.0, 450 if stalled else 150, random.Random(7)
    delays = [0.1 + 0.2 * draw.random() for _ in range(calls)]
    begin, end = (1.0, 3.0) if stalled else (9.0, 9.0)
    due = [0.0] + [(number - 1) / rate for number in range(1, calls)]
    least = [
        delay + (end - at if number and begin <= at < end else 0.0)
        for number, (delay, at) in enumerate(zip(delays, due, strict=True))
    ]
    plan = Steps([rate], calls / rate)
    async with slow(least) as server, M2Client(**server.settings()) as client:
        one = probe(client, plan)
        server.now = lambda: one.elapsed
        async with turning(one) as turns:
            await one.run()
    made, latency = plan.done[0].record, one.findings().latency
    assert latency is not None
    assert latency.count == calls
    assert [call.due - made.calls[1].due for call in made.calls[1:]] == pytest.approx(due[1:])
    for written, read in zip(server.written, [call.answered or 0.0 for call in made.answers], strict=True):
        assert written <= read
        assert turns(written, read) < 20
    took = [(call.answered or 0.0) - call.due for call in made.calls]
    for told, percent in ((latency.p50, 50), (latency.p99, 99), (latency.max, 100)):
        assert told == pytest.approx(percentile(took, percent), abs=1e-6)
        assert told >= 0.99 * percentile(least, percent)


async def test_calls_are_sent_when_they_are_due_while_others_wait_for_their_answers() -> None:
    """None but the first is answered before the last has come; and how late a call is counts in turns of the loop."""
    plan, refused, all_there = Steps([50.0], 1.0), error(404, "ResourceNotFoundException"), asyncio.Event()

    async def refuse_when_all_are_there(writer: asyncio.StreamWriter) -> None:
        if len(server.requests) == 50:
            all_there.set()
        await all_there.wait()
        await refused(writer)

    async with (
        scripted(refused, refuse_when_all_are_there) as server,
        M2Client(**server.settings(max_connections=50, read_timeout=20)) as client,
    ):
        one = probe(client, plan)
        async with turning(one) as turns:
            await one.run()
    calls = plan.done[0].record.calls
    assert [call.verdict for call in calls] == [QuotaVerdict.ACCEPTED] * 50
    assert [call.due - calls[1].due for call in calls[1:]] == pytest.approx([n / 50 for n in range(49)])
    assert all(call.due <= call.sent for call in calls)
    assert max(turns(call.due, call.sent) for call in calls) < 20


# What ends it


class Seldom(Steps):
    """Two calls, of which the first is answered before the other goes, and a third a minute later."""

    def stretches(self) -> Iterator[CallStretch]:
        yield CallStretch("step", 0.0, iter([0.0, 0.0, 60.0]), lambda *_: False, 1.0)


async def run_against(*steps: Any, plan: Plan | None = None, **others: Any) -> tuple[Probe, int]:
    async with scripted(*steps) as server, M2Client(**server.settings()) as client:
        one = probe(client, plan or Ramp(Limits(500.0, 5.0)), **others)
        await one.run()
        return one, len(server.requests)


async def test_access_that_is_denied_ends_it_at_the_first_call() -> None:
    one, requests = await run_against(error(403, "AccessDeniedException"))
    assert isinstance(one.error, AccessDeniedException)
    assert requests == 1


async def test_a_call_that_fails_as_every_other_would_ends_it_while_it_waits_for_the_next_to_be_due() -> None:
    one, requests = await run_against(
        error(404, "ResourceNotFoundException"), error(403, "AccessDeniedException"), plan=Seldom([1.0], 100.0)
    )
    assert isinstance(one.error, AccessDeniedException)
    assert requests == 2


async def test_an_endpoint_that_nobody_serves_ends_it_at_the_first_call() -> None:
    with nobody() as server:
        async with M2Client(**server.settings()) as client:
            one = probe(client, Ramp(Limits(500.0, 5.0)))
            await one.run()
    assert isinstance(one.error, NotSentError)
    assert one.calls == 1


@pytest.mark.parametrize("asked", ["no application", "no job"])
async def test_a_start_that_was_not_asked_for_ends_it_and_is_cancelled(asked: Asked) -> None:
    refused = error(404, "ResourceNotFoundException")
    one, requests = await run_against(refused, started("e-9"), error(200, ""), asked=asked, plan=Seldom([1.0], 100.0))
    assert isinstance(one.error, StartedUnasked)
    assert one.started == one.cancelled == ["e-9"]
    assert requests == 3


async def test_where_the_endpoint_is_no_service_an_execution_id_is_no_start() -> None:
    one, requests = await run_against(started("e-9"), plan=Steps([100.0], 0.2), stand_in=True)
    findings = one.findings()
    assert (one.error, findings.started, findings.accepted, requests) == (None, (), 20, 20)
    assert any("stand-in" in note for note in findings.notes)


async def test_no_more_calls_are_made_than_are_allowed() -> None:
    one, requests = await run_against(error(404, "ResourceNotFoundException"), max_calls=17)
    assert requests == one.calls == 17
    assert "cap of 17 calls" in one.findings().notes[0]


async def test_it_takes_no_longer_than_is_allowed() -> None:
    plan = Steps([20.0], 60.0)
    one, requests = await run_against(error(404, "ResourceNotFoundException"), plan=plan, max_seconds=0.5)
    assert max(call.due for call in plan.done[0].record.calls) < 0.5
    assert requests <= 12
    assert "cap of 0.5 seconds" in one.findings().notes[0]


async def test_a_call_whose_answer_is_lost_is_not_repeated_and_counts_as_unknown() -> None:
    one, requests = await run_against(
        error(404, "ResourceNotFoundException"), close, error(500, "InternalServerException"), plan=Steps([50.0], 0.2)
    )
    findings = one.findings()
    assert requests == findings.calls == 10
    assert findings.unknown == 9
    assert findings.unknown_codes == {"InternalServerException": 8, "ConnectionLostError": 1}


async def test_the_codes_of_the_quota_are_told() -> None:
    throttle = error(429, "ThrottlingException", quotaCode="L-1234", serviceCode="m2")
    one, _ = await run_against(error(404, "ResourceNotFoundException"), throttle, plan=Steps([50.0], 0.2))
    [quota] = one.findings().quotas
    assert (quota.quota_code, quota.service_code, quota.calls) == ("L-1234", "m2", 9)


# Real jobs


@pytest.mark.parametrize("seconds", [None, 3_600], ids=["short", "long"])
@pytest.mark.parametrize("stop", [False, True])
async def test_real_jobs_are_all_in_the_ledger_and_all_cancelled(
    tmp_path: Path, stop: bool, seconds: float | None
) -> None:
    job = JobDefinition("POSTTRAN.jcl", "POSTTRAN", (StepDefinition("STEP1"),), seconds=seconds)
    definitions = [ApplicationDefinition(application := "nightly", "Nightly", jobs=(job,))]
    faults = {"accept-then-500": 0.1}
    async with LocalEndpoint(rate=30, burst=10, seed=1, faults=faults, definitions=definitions) as endpoint:
        async with (
            M2Client(**endpoint.client_settings()) as client,
            open_ledger(tmp_path / "ledger.db") as ledger,
            await ledger.open_run("probe") as run,
        ):
            one = probe(
                client,
                Steps([60.0], 1.0),
                StartBatchJob(application, ScriptJob("POSTTRAN")),
                asked="real jobs",
                run=run,
            )
            if stop:
                asyncio.get_running_loop().call_later(0.5, one.stop, "It was interrupted")
            await one.run()
            rows = [row async for row in run.rows()]
            listed = [each async for each in client.list_batch_job_executions(application)]
    by_state = {state: [row for row in rows if row.state is state] for state in RowState}
    assert {row.execution_id for row in by_state[RowState.STARTED]} == set(one.started)
    assert set(one.started) == {*one.cancelled, *one.had_ended}
    assert not by_state[RowState.PENDING]
    assert not by_state[RowState.INTENT]
    status = {each.execution_id: each.status for each in listed}
    assert all(status[execution_id] in {"Cancelling", "Cancelled"} for execution_id in one.cancelled)
    assert all(status[execution_id] == "Succeeded" for execution_id in one.had_ended)
    if seconds:
        assert one.cancelled
        assert not one.had_ended
    # What was started with a lost answer is what the ledger calls unknown.
    assert len(by_state[RowState.UNKNOWN]) == len(set(status) - set(one.started)) == one.findings().unknown
    sent = len([row for row in rows if row.error_code != "NotSentError"])
    assert sent == one.calls
    assert (one.calls < 60) == stop


class Breaking:
    """A client whose tenth start and second cancellation raise what no call should."""

    def __init__(self, client: M2Client, *, start: bool = False, cancel: bool = False) -> None:
        self.endpoint_url = client.endpoint_url
        self.get_batch_job_execution = client.get_batch_job_execution
        self._client = client
        self._breaks = {"start": start and 10, "cancel": cancel and 2}
        self._calls = Counter[str]()

    async def start_batch_job(self, request: StartBatchJob, /) -> StartBatchJobResponse:
        self._count("start")
        return await self._client.start_batch_job(request)

    async def cancel_batch_job_execution(
        self, application_id: str, execution_id: str, /, *, auth_secrets_manager_arn: str | None = None
    ) -> None:
        self._count("cancel")
        await self._client.cancel_batch_job_execution(application_id, execution_id)

    def _count(self, what: str) -> None:
        self._calls[what] += 1
        if self._calls[what] == self._breaks[what]:
            raise ValueError(f"{what} is broken")


@pytest.mark.parametrize("fails", ["start", "cancel", "ledger"])
async def test_whatever_fails_all_that_was_started_is_cancelled_or_named(
    client: M2Client, endpoint: LocalEndpoint, tmp_path: Path, fails: str
) -> None:
    [application] = endpoint.application_ids
    path = tmp_path / "ledger.db"
    async with open_ledger(path) as ledger, await ledger.open_run("probe") as run:
        if fails == "ledger":
            with contextlib.closing(sqlite3.connect(path)) as other:
                other.execute(
                    "CREATE TRIGGER fails BEFORE UPDATE ON progress WHEN new.state = 2 AND new.id % 100 > 9"
                    " BEGIN SELECT raise(ABORT, 'the ledger is broken'); END"
                )
        one = Probe(
            Breaking(client, start=fails == "start", cancel=fails == "cancel"),
            Steps([50.0], 1.0),
            StartBatchJob(application, ScriptJob("POSTTRAN")),
            asked="real jobs",
            run=run,
            max_calls=1_000,
            max_seconds=5.0,
        )
        with contextlib.suppress(ValueError, LedgerError):
            await one.run()
            assert fails == "cancel"
        doubted = [row.error_code async for row in run.rows(RowState.UNKNOWN)]
    executions = {each["executionId"]: each["status"] for each in await really_started(endpoint.url)}
    left = {each.execution_id for each in one.not_cancelled}
    assert len(executions) > 5
    assert executions.keys() == {*one.cancelled, *one.had_ended, *left}
    assert len(left) == (fails == "cancel")
    assert all(executions[each] in {"Cancelling", "Cancelled"} for each in one.cancelled)
    assert (doubted, one.in_doubt) == ((["ValueError"], 1) if fails == "start" else ([], 0))


async def test_cancellations_that_are_throttled_are_made_again() -> None:
    throttles = 3

    async def step(writer: asyncio.StreamWriter) -> None:
        nonlocal throttles
        if not server.requests[-1].split(b" ")[1].endswith(b"/cancel"):
            return await started(f"e-{len(server.requests)}")(writer)
        throttles -= 1
        return await (error(429, "ThrottlingException") if throttles >= 0 else answer(200, {}))(writer)

    async with scripted(step) as server:
        async with (
            M2Client(**server.settings()) as client,
            open_ledger("memory:") as ledger,
            await ledger.open_run("probe") as run,
        ):
            one = probe(client, Steps([20.0], 0.3), asked="real jobs", run=run)
            await one.run()
            written = {execution.status async for execution in run.all_executions()}
    assert (set(one.cancelled), one.not_cancelled) == (set(one.started), [])
    assert (len(one.started), written) == (6, {"Cancelling"})


async def test_an_intent_is_durable_before_its_call_is_sent(tmp_path: Path) -> None:
    """Whenever a request arrives, the ledger's file has more intents than requests have arrived before."""
    path = tmp_path / "ledger.db"
    seen: list[tuple[int, int]] = []

    def intended() -> int:
        with contextlib.closing(sqlite3.connect(path)) as file:
            return int(file.execute("SELECT count(*) FROM progress WHERE attempts > 0").fetchone()[0])

    def looking(step: Callable[[asyncio.StreamWriter], Any]) -> Callable[[asyncio.StreamWriter], Any]:
        async def look(writer: asyncio.StreamWriter) -> None:
            seen.append((len(seen) + 1, await asyncio.to_thread(intended)))
            await step(writer)

        return look

    async with scripted(looking(error(429, "ThrottlingException"))) as server:
        async with (
            M2Client(**server.settings()) as client,
            open_ledger(path) as ledger,
            await ledger.open_run("probe") as run,
        ):
            one = probe(client, Steps([100.0], 0.5), asked="real jobs", run=run)
            await one.run()
    assert len(seen) == 50
    assert all(requests <= intents for requests, intents in seen)
