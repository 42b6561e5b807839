"""Whoever submits a job finds its own context in what is logged of the job, and in what stands around its call."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections import defaultdict
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
import structlog
from structlog.contextvars import bind_contextvars, bound_contextvars, merge_contextvars

from m2async import (
    LocalEndpoint,
    M2Client,
    NotSentError,
    ResourceNotFoundException,
    RetryPolicy,
    ScriptJob,
    StartBatchJob,
    StartBatchJobResponse,
    Submitter,
    open_ledger,
)
from m2async.client.client import CallNext
from m2async.clock import steady_time
from m2async.ledger import destination_of

APPLICATION = "carddemolocalapplication23"
SPAN: ContextVar[object] = ContextVar("span", default=None)
Logged = list[dict[str, Any]]


def request(name: str = "A") -> StartBatchJob:
    return StartBatchJob(APPLICATION, ScriptJob(name))


def log_into(logged: Logged) -> None:
    def keep(logger: object, method: str, event: Any) -> Any:
        logged.append(dict(event))
        raise structlog.DropEvent

    structlog.configure(processors=[merge_contextvars, keep])


@pytest.fixture
def logged() -> Iterator[Logged]:
    logged: Logged = []
    log_into(logged)
    with bound_contextvars(tenant="who opened it"):
        yield logged
    structlog.reset_defaults()


def tenants(logged: Logged, *, of: str = "") -> dict[str, set[Any]]:
    """The tenants in the events of each job, by its key."""
    found: dict[str, set[Any]] = defaultdict(set)
    for event in logged:
        if event["event"].startswith("batch_job") and of in event["event"]:
            found[event["key"]].add(event.get("tenant"))
    return dict(found)


async def as_tenant(submitter: Submitter, tenant: str, key: str, name: str = "A") -> None:
    with bound_contextvars(tenant=tenant):
        await submitter.submit(request(name), key=key)


@pytest.mark.parametrize(
    "faults", [{}, {"throttle": 0.3}, {"500": 0.4, "drop-before-accept": 0.2}, {"accept-then-drop": 0.5}], ids=str
)
@pytest.mark.parametrize("transport", ["wire", "aiobotocore"])
async def test_every_event_of_a_job_bears_its_callers_context(
    logged: Logged, faults: dict[str, float], transport: Any
) -> None:
    async with (
        LocalEndpoint(seed=3, faults=faults) as endpoint,
        M2Client(**endpoint.client_settings(), transport=transport) as client,
        Submitter(client, concurrency=3, ledger="memory:", settle=0.1) as submitter,
    ):
        callers = [as_tenant(submitter, f"tenant {n}", f"K{n}", f"J{n}") for n in range(20)]
        await asyncio.gather(*map(asyncio.create_task, callers))
    assert tenants(logged) == {f"K{n}": {f"tenant {n}"} for n in range(20)}
    assert not faults or any(event.get("attempt", 1) > 1 or event.get("adopted") for event in logged)


async def test_the_jobs_of_submit_many_bear_the_context_of_its_call_whatever_the_iterable_sets(
    logged: Logged, client: M2Client
) -> None:
    read_in: list[Any] = []

    def requests(prefix: str) -> Iterator[tuple[str, StartBatchJob]]:
        for number in range(10):
            read_in.append(structlog.contextvars.get_contextvars()["tenant"])
            bind_contextvars(tenant="set by the iterable")
            yield f"{prefix}{number}", request()
            bind_contextvars(tenant=prefix)

    async with Submitter(client, concurrency=2) as submitter:
        streams = []
        for prefix in ("a", "b"):
            with bound_contextvars(tenant=prefix):
                streams.append(submitter.submit_many(requests(prefix)))
        for stream in streams:
            async for _ in stream:
                pass
    assert tenants(logged) == {f"{prefix}{number}": {prefix} for prefix in "ab" for number in range(10)}
    assert read_in == ["a"] * 10 + ["b"] * 10
    assert structlog.contextvars.get_contextvars()["tenant"] == "who opened it"


@pytest.mark.parametrize("transport", ["wire", "aiobotocore"])
async def test_a_middleware_sees_the_callers_context_in_each_attempt_and_leaves_nothing_in_it(
    logged: Logged, transport: Any
) -> None:
    seen: dict[str, list[object]] = defaultdict(list)

    async def middleware(sent: StartBatchJob, call_next: CallNext) -> StartBatchJobResponse:
        seen[sent.job.name].append(SPAN.get())
        token = SPAN.set(f"call of {sent.job.name}")
        await asyncio.sleep(0)
        try:
            return await call_next(sent)
        finally:
            assert SPAN.get() == f"call of {sent.job.name}"
            SPAN.reset(token)
            SPAN.set("left behind")

    async def trace(submitter: Submitter, name: str) -> None:
        SPAN.set(f"span {name}")
        await submitter.submit(request(name))
        assert SPAN.get() == f"span {name}"

    async with (
        LocalEndpoint(seed=2, faults={"throttle": 0.4}) as endpoint,
        M2Client(**endpoint.client_settings(), transport=transport) as client,
        Submitter(client, concurrency=4) as submitter,
    ):
        client.use(middleware)
        await asyncio.gather(*(trace(submitter, f"J{n}") for n in range(8)))
        SPAN.set("all of them")
        _ = [outcome async for outcome in submitter.submit_many([request(f"M{n}") for n in range(8)])]
    assert max(map(len, seen.values())) > 1
    for name, spans in seen.items():
        assert set(spans) == {f"span {name}" if name.startswith("J") else "all of them"}


async def test_what_an_earlier_process_left_bears_the_context_of_who_opened_the_submitter(
    logged: Logged, client: M2Client, tmp_path: Path
) -> None:
    async with open_ledger(tmp_path / "l.db") as ledger, await ledger.open_run("default") as run:
        destination = destination_of(client)
        assert destination is not None
        await run.belong_to(destination)
        for number, key in enumerate(("LEFT", "ASKED"), 1):
            await run.add(key, request(key))
            await run.intend(number, 1, steady_time())
            await client.start_batch_job(request(key))
    async with Submitter(client, ledger=tmp_path / "l.db", settle=0.3) as submitter:
        await as_tenant(submitter, "tenant 1", "ASKED", "ASKED")
        while len(tenants(logged)) < 2:
            await asyncio.sleep(0)
    assert tenants(logged) == {"LEFT": {"who opened it"}, "ASKED": {"tenant 1"}}


async def test_what_is_said_of_no_single_job_bears_the_context_of_who_opened_the_submitter(logged: Logged) -> None:
    class Refuses:
        async def start_batch_job(self, request: StartBatchJob, /) -> StartBatchJobResponse:
            raise ResourceNotFoundException("no such application", code="ResourceNotFoundException", http_status=404)

    class OutOfReach:
        async def start_batch_job(self, request: StartBatchJob, /) -> StartBatchJobResponse:
            raise NotSentError("no connection")

    async with Submitter(Refuses(), retry=RetryPolicy(hold=0.1)) as submitter:
        await as_tenant(submitter, "tenant 1", "K1")
    async with Submitter(OutOfReach(), retry=RetryPolicy(unreachable=0)) as submitter:
        await as_tenant(submitter, "tenant 2", "K2")
    told = {event["event"]: event["tenant"] for event in logged}
    assert told.items() >= {("application.held", "who opened it"), ("submission.stopped", "who opened it")}
    assert tenants(logged) == {"K1": {"tenant 1"}, "K2": {"tenant 2"}}


@pytest.mark.parametrize("given", [True, False])
async def test_a_submitter_logs_by_what_is_configured_when_it_logs(client: M2Client, given: bool) -> None:
    before: Logged = []
    after: Logged = []
    structlog.reset_defaults()
    try:
        async with Submitter(client, logger=structlog.get_logger() if given else None) as submitter:
            log_into(before)
            await submitter.submit(request(), key="K1")
            log_into(after)
            await submitter.submit(request(), key="K2")
        assert [event["key"] for event in before] == ["K1"]
        assert [event["key"] for event in after] == ["K2"]
    finally:
        structlog.reset_defaults()


async def test_a_context_is_let_go_of_with_its_job_although_the_connection_stays(client: M2Client) -> None:
    class Held:
        pass

    async def handler(submitter: Submitter) -> weakref.ref[Held]:
        held = Held()
        SPAN.set(held)
        await submitter.submit(request())
        return weakref.ref(held)

    async with Submitter(client, concurrency=1) as submitter:
        held = await asyncio.create_task(handler(submitter))
        await submitter.submit(request())
        gc.collect()
        assert held() is None
