"""What one task opens, another may use and a third one close, as fixtures, lifespans and shutdown hooks do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, TypeVar

import anyio
import pytest

from m2async import (
    LocalEndpoint,
    M2Client,
    NotSentError,
    Outcome,
    ScriptJob,
    StartBatchJob,
    StartBatchJobResponse,
    Started,
    SubmissionStoppedError,
    Submitter,
    Tracker,
    Unknown,
    open_ledger,
)
from m2async.dashboard import serve
from m2async.following import JobLogs
from m2async.ledger import open_for_decisions
from m2async.submitting.endings import Endings
from tests.virtual_time import in_virtual_time, now

T = TypeVar("T")
Open = Callable[[AbstractAsyncContextManager[Any]], Coroutine[Any, Any, Any]]
"""Opens a context in a task of its own; it is closed by another, in reverse order."""


async def elsewhere(work: Awaitable[T]) -> T:
    async def wait() -> T:
        return await work

    return await asyncio.create_task(wait())


@pytest.fixture
async def opened() -> AsyncIterator[Open]:
    contexts: list[AbstractAsyncContextManager[Any]] = []

    async def open_one(context: AbstractAsyncContextManager[Any]) -> Any:
        async def within_a_scope() -> Any:
            with anyio.fail_after(600):
                return await context.__aenter__()

        value = await elsewhere(within_a_scope())
        contexts.append(context)
        return value

    async def close(context: AbstractAsyncContextManager[Any]) -> None:
        with anyio.fail_after(600):
            await context.__aexit__(None, None, None)

    yield open_one
    tasks_before = asyncio.all_tasks()
    while contexts:
        await elsewhere(close(contexts.pop()))
    assert asyncio.all_tasks() <= tasks_before


def job(endpoint: LocalEndpoint) -> StartBatchJob:
    return StartBatchJob(endpoint.application_ids[0], ScriptJob("POSTTRAN"))


@pytest.mark.parametrize("transport", ["wire", "aiobotocore"])
async def test_clients_endpoints_and_submitters(opened: Open, transport: Any) -> None:
    endpoint: LocalEndpoint = await opened(LocalEndpoint())
    client = await opened(M2Client(**endpoint.client_settings(), transport=transport))
    submitter: Submitter = await opened(Submitter(client, rate=100))
    outcomes = await asyncio.gather(*(elsewhere(submitter.submit(job(endpoint), key=f"K{n}")) for n in range(3)))
    assert [outcome.state for outcome in outcomes] == ["started"] * 3
    stream = submitter.submit_many([job(endpoint)] * 3)
    assert [(await elsewhere(anext(stream))).state for _ in range(3)] == ["started"] * 3
    await elsewhere(stream.aclose())


async def test_ledgers_runs_trackers_and_decisions(opened: Open, tmp_path: Path) -> None:
    endpoint: LocalEndpoint = await opened(LocalEndpoint())
    client = await opened(M2Client(**endpoint.client_settings()))
    submitter: Submitter = await opened(Submitter(client, ledger=tmp_path / "own.db", settle=0.1))
    assert (await elsewhere(submitter.submit(job(endpoint), key="K"))).state == "started"
    ledger = await opened(open_ledger(tmp_path / "l.db"))
    run = await opened(await ledger.open_run("night"))
    sending: Submitter = await opened(Submitter(client, ledger=ledger, run=run, start_anyway=True))
    assert (await elsewhere(sending.submit(job(endpoint), key="K"))).state == "started"
    decisions = await opened(open_for_decisions(ledger, "night"))
    assert (await elsewhere(decisions.view.row("K"))).state.name == "STARTED"
    tracker: Tracker = await opened(Tracker(client, tmp_path / "l.db", "night"))
    assert (await elsewhere(anext(aiter(tracker)))).key == "K"


async def test_the_dashboard_and_logs(opened: Open) -> None:
    ledger = await opened(open_ledger("memory:"))
    url = await opened(serve(ledger, M2Client, lambda run, what: None))
    assert url.startswith("http://127.0.0.1:")
    await opened(JobLogs(profile_name=None, region_name="us-east-1", endpoint_url="http://127.0.0.1:1"))


async def test_whoever_opened_it_may_be_gone_or_cancelled() -> None:
    async with LocalEndpoint() as endpoint, M2Client(**endpoint.client_settings()) as client:
        submitter = Submitter(client)

        async def handler() -> None:
            await submitter.__aenter__()
            await asyncio.Event().wait()

        first = asyncio.create_task(handler())
        while not first.cancelled():
            first.cancel() if hasattr(submitter, "_tasks") and submitter._tasks else None
            await asyncio.sleep(0)
        assert (await submitter.submit(job(endpoint))).state == "started"
        await elsewhere(submitter.__aexit__(None, None, None))
        with pytest.raises(SubmissionStoppedError):
            await submitter.submit(job(endpoint))


async def test_a_cancelled_opening_leaves_nothing_behind(tmp_path: Path) -> None:
    before = asyncio.all_tasks()
    for turns in range(12):
        opening = asyncio.create_task(Submitter(Refuses(), ledger=tmp_path / "l.db").__aenter__())
        for _ in range(turns):
            await asyncio.sleep(0)
        opening.cancel()
        await asyncio.wait([opening])
        if opening.cancelled():
            assert asyncio.all_tasks() <= before
            async with Submitter(Refuses(), ledger=tmp_path / "l.db"):
                pass  # nobody else has the run open
        else:
            await opening.result().__aexit__(None, None, None)


async def test_a_fault_ends_the_submitter_and_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    request = StartBatchJob("app1", ScriptJob("A"))
    monkeypatch.setattr(Endings, "started", breaks)
    async with Submitter(Hangs(), concurrency=2) as submitter:
        callers = [asyncio.create_task(submitter.submit(request)) for _ in range(5)]
        ends = await asyncio.gather(*callers, return_exceptions=True)
        assert {type(end) for end in ends} == {Unknown, SubmissionStoppedError}
        with pytest.raises(SubmissionStoppedError, match="ZeroDivisionError"):
            await submitter.submit(request)


@in_virtual_time
async def test_calls_under_way_at_a_fault_get_the_grace_and_the_others_are_told_at_once() -> None:
    async def end_of(submitted: Coroutine[Any, Any, Outcome]) -> tuple[str, float]:
        try:
            return (await submitted).state, now()
        except SubmissionStoppedError as error:
            return type(error).__name__, now()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Endings, "started", breaks)
        async with Submitter(Hangs(), concurrency=2, grace=3.0) as submitter:
            submitted = (submitter.submit(StartBatchJob("app1", ScriptJob(name))) for name in ("HANGS", "BREAKS", "A"))
            ends = await asyncio.gather(*map(end_of, submitted))
    assert ends == [("unknown", 3.0), ("unknown", 0.0), ("SubmissionStoppedError", 0.0)]


def breaks(*_: Any, **__: Any) -> Started:
    raise ZeroDivisionError


class Refuses:
    async def start_batch_job(self, request: StartBatchJob, /) -> StartBatchJobResponse:
        raise NotSentError("no connection")


class Hangs:
    async def start_batch_job(self, request: StartBatchJob, /) -> StartBatchJobResponse:
        if request.job == ScriptJob("HANGS"):
            await asyncio.Event().wait()
        return StartBatchJobResponse("e-1")
