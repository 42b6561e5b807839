"""A middleware stands around one request: whatever it does, no second goes out, and what the first brought stands."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import pytest

from m2async import (
    AnswerTimeoutError,
    CallCancelledError,
    CallError,
    CallNext,
    ConnectionLostError,
    CredentialsError,
    InternalServerException,
    M2Client,
    Middleware,
    NotSentError,
    RepeatedCallError,
    ScriptJob,
    StartBatchJob,
    StartBatchJobResponse,
    Submitter,
    ThrottlingException,
    open_ledger,
)
from m2async.client.once import OnlyRequest
from tests.scripted import ScriptedServer, Step, error, hang, nobody, reset, scripted, started

REQUEST = StartBatchJob("application", ScriptJob("POSTTRAN"))
OTHER = StartBatchJob("application", ScriptJob("ANOTHER"))


@pytest.fixture(autouse=True, params=["wire", "aiobotocore"])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Literal["wire", "aiobotocore"]:
    monkeypatch.setattr(ScriptedServer, "transport", request.param)
    chosen: Literal["wire", "aiobotocore"] = request.param
    return chosen


async def retrying(request: StartBatchJob, call_next: CallNext) -> StartBatchJobResponse:
    """The most usual one: it calls on again where it failed."""
    with contextlib.suppress(CallError):
        return await call_next(request)
    return await call_next(request)


async def with_another_request(request: StartBatchJob, call_next: CallNext) -> StartBatchJobResponse:
    with contextlib.suppress(CallError):
        return await call_next(request)
    return await call_next(OTHER)


async def after_the_answer(request: StartBatchJob, call_next: CallNext) -> StartBatchJobResponse:
    with contextlib.suppress(CallError):
        await call_next(request)
    return await call_next(request)


async def at_once(request: StartBatchJob, call_next: CallNext) -> StartBatchJobResponse:
    first, _ = await asyncio.gather(call_next(request), call_next(request))
    return first


async def in_tasks(request: StartBatchJob, call_next: CallNext) -> StartBatchJobResponse:
    tasks = [asyncio.create_task(call_next(request)) for _ in range(3)]
    done, _ = await asyncio.wait(tasks)
    return next(task.result() for task in done if not isinstance(task.exception(), CallError))


async def denying(request: StartBatchJob, call_next: CallNext) -> StartBatchJobResponse:
    with contextlib.suppress(CallError):
        await call_next(request)
    raise CredentialsError("no more")


MIDDLEWARES: list[Middleware] = [retrying, with_another_request, after_the_answer, at_once, denying]


@pytest.mark.parametrize("middleware", MIDDLEWARES, ids=lambda middleware: middleware.__name__)
@pytest.mark.parametrize(
    ("first", "brings"),
    [
        (started(), StartBatchJobResponse),
        (reset, ConnectionLostError),
        (error(500, "InternalServerException"), InternalServerException),
        (hang, AnswerTimeoutError),
    ],
    ids=["started", "reset", "500", "hang"],
)
async def test_what_the_first_brought_stands(middleware: Middleware, first: Step, brings: type[object]) -> None:
    async with scripted(first, started("e-2")) as server:
        async with M2Client(**server.settings(read_timeout=0.2 if first is hang else 60)) as client:
            client.use(middleware)
            assert isinstance(await outcome(client.start_batch_job(REQUEST)), brings)
        assert len(server.requests) == 1


async def test_a_middleware_in_tasks_gets_one_answer() -> None:
    async with scripted(started()) as server, M2Client(**server.settings()) as client:
        client.use(in_tasks)
        assert (await client.start_batch_job(REQUEST)).execution_id == "e-1"
        assert len(server.requests) == 1


async def test_a_refusal_of_the_service_was_sent_as_well() -> None:
    async with scripted(error(429, "ThrottlingException"), started()) as server:
        async with M2Client(**server.settings()) as client:
            client.use(retrying)
            assert isinstance(await outcome(client.start_batch_job(REQUEST)), ThrottlingException)
        assert len(server.requests) == 1


async def test_who_surely_sent_nothing_may_call_on_again() -> None:
    calls = 0

    async def counting(request: StartBatchJob, call_next: CallNext) -> StartBatchJobResponse:
        nonlocal calls
        calls += 1
        return await call_next(request)

    with nobody() as server:
        async with M2Client(**server.settings()) as client:
            client.use(counting)
            client.use(retrying)
            assert isinstance(await outcome(client.start_batch_job(REQUEST)), NotSentError)
    assert calls == 2


@pytest.mark.parametrize("is_first", [True, False])
async def test_nothing_is_sent_after_the_call_has_ended(is_first: bool) -> None:
    later: list[Callable[[], Awaitable[Any]]] = []

    async def leaving(request: StartBatchJob, call_next: CallNext) -> StartBatchJobResponse:
        later.append(lambda: call_next(request))
        return StartBatchJobResponse("made up") if is_first else await call_next(request)

    async with scripted(error(429, "ThrottlingException"), started()) as server:
        async with M2Client(**server.settings()) as client:
            client.use(leaving)
            await outcome(client.start_batch_job(REQUEST))
            sent = len(server.requests)
            [call] = later
            refused = await outcome(asyncio.ensure_future(call()))
            assert isinstance(refused, RepeatedCallError)
            assert "after the call had ended" in refused.message
            assert not refused.may_have_started
        assert len(server.requests) == sent


async def test_a_call_that_a_middleware_gave_up_may_have_started() -> None:
    async def impatient(request: StartBatchJob, call_next: CallNext) -> StartBatchJobResponse:
        first = asyncio.ensure_future(call_next(request))
        await server.arrived.wait()
        first.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await first
        return await call_next(request)

    async with scripted(hang, started()) as server, M2Client(**server.settings()) as client:
        client.use(impatient)
        assert isinstance(await outcome(client.start_batch_job(REQUEST)), CallCancelledError)
        assert len(server.requests) == 1


async def test_a_call_that_has_ended_sends_nothing_more_while_its_request_is_under_way() -> None:
    sent, refused = 0, asyncio.Event()

    async def send(_: StartBatchJob) -> StartBatchJobResponse:
        nonlocal sent
        sent += 1
        if sent == 1:
            await refused.wait()
            raise NotSentError("refused")
        return StartBatchJobResponse("e-2")

    async def again(call_next: CallNext) -> None:
        with contextlib.suppress(RepeatedCallError):
            with contextlib.suppress(NotSentError):
                await call_next(REQUEST)
            await call_next(REQUEST)

    async def leaving(_: StartBatchJob) -> StartBatchJobResponse:
        tasks.append(asyncio.create_task(again(start.send)))
        await asyncio.sleep(0)
        raise own

    for own in (TimeoutError("x"), AnswerTimeoutError("x"), NotSentError("x")):  # noqa: B007 - of `leaving`
        sent, refused, tasks = 0, asyncio.Event(), list[asyncio.Task[None]]()
        start = OnlyRequest(send)
        call = asyncio.create_task(start.outcome_of(leaving, REQUEST))
        while not sent:
            await asyncio.sleep(0)
        refused.set()
        with pytest.raises(CallError):
            await call
        await asyncio.gather(*tasks)
        assert sent == 1


@pytest.mark.parametrize("own", [AnswerTimeoutError("x"), TimeoutError("x"), NotSentError("x")], ids=repr)
async def test_what_a_request_brings_stands_also_where_a_middleware_gave_it_up_before(own: Exception) -> None:
    async def slowly(writer: asyncio.StreamWriter) -> None:
        await given_up.wait()
        await started("e-9")(writer)

    async def impatient(request: StartBatchJob, call_next: CallNext) -> StartBatchJobResponse:
        tasks.append(asyncio.ensure_future(call_next(request)))
        await server.arrived.wait()
        asyncio.get_running_loop().call_soon(given_up.set)
        raise own

    given_up, tasks = asyncio.Event(), list[asyncio.Future[Any]]()
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    async with scripted(slowly) as server, M2Client(**server.settings()) as client:
        client.use(impatient)
        assert (await client.start_batch_job(REQUEST)).execution_id == "e-9"
        await asyncio.gather(*tasks)


async def test_each_call_and_each_middleware_counts_for_itself() -> None:
    async with scripted(started()) as server, M2Client(**server.settings()) as client:
        client.use(after_the_answer)
        client.use(after_the_answer)
        for _ in range(3):
            assert (await client.start_batch_job(REQUEST)).execution_id == "e-1"
        assert len(server.requests) == 3


async def test_a_submitter_starts_no_job_twice_by_a_retrying_middleware(tmp_path: Any) -> None:
    async with scripted(reset, error(503, "SlowDown"), started("e-3")) as server:
        async with M2Client(**server.settings()) as client, open_ledger(tmp_path / "ledger.db") as ledger:
            client.use(retrying)
            async with Submitter(client, ledger=ledger, on_unknown="hold", concurrency=1) as submitter:
                requests = [(str(n), REQUEST) for n in range(3)]
                states = [outcome.state async for outcome in submitter.submit_many(requests)]
    assert states == ["unknown", "unknown", "started"]
    assert len(server.requests) == 3


async def test_a_hook_that_asks_for_a_retry_gets_none(transport: str) -> None:
    async with scripted(error(500, "InternalServerException"), started()) as server:
        settings = server.settings(transport=None)
        settings["session"].get_component("event_emitter").register("needs-retry.m2", lambda **_: 0)
        async with M2Client(**settings) as client:
            assert isinstance(await outcome(client.start_batch_job(REQUEST)), InternalServerException)
        assert len(server.requests) == 1


async def outcome(call: Awaitable[object]) -> object:
    try:
        return await call
    except CallError as exc:
        return exc
