"""What comes from outside harms the job that it touches, and no other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from m2async import (
    CallNext,
    InvalidRequestError,
    LocalEndpoint,
    M2Client,
    Middleware,
    MiddlewareError,
    Outcome,
    Rejected,
    RowState,
    ScriptJob,
    StartBatchJob,
    StartBatchJobResponse,
    Started,
    SubmissionStoppedError,
    Submitter,
    UnexpectedError,
    Unknown,
    open_ledger,
)
from m2async.submitting.endings import Endings
from tests.exceptions import every_exception
from tests.scripted import error, reset, scripted, started

EVERY = [*every_exception(), asyncio.CancelledError()]


@pytest.fixture
def told() -> list[dict[str, Any]]:
    """What the event loop's exception handler is told."""
    return []


@pytest.fixture(autouse=True)
async def listening(told: list[dict[str, Any]]) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))


def request(name: str, application: str = "application") -> StartBatchJob:
    return StartBatchJob(application, ScriptJob(name))


def of(endpoint: LocalEndpoint, count: int) -> list[tuple[str, StartBatchJob]]:
    return [(f"key-{n}", request(f"JOB{n}", endpoint.application_ids[0])) for n in range(count)]


async def started_at(client: M2Client, endpoint: LocalEndpoint) -> dict[str, str]:
    """Give the execution of each script that the endpoint started, by the script's name."""
    listed = client.list_batch_job_executions(endpoint.application_ids[0])
    return {str(each.job_name): each.execution_id async for each in listed}


async def seen_until(
    failure: type[BaseException] | tuple[type[BaseException], ...], outcomes: Any
) -> tuple[list[str], BaseException]:
    """Give the keys of what an iteration gives, and the error that ends it."""
    seen = []

    async def iterate() -> None:
        async for outcome in outcomes:
            seen.append(outcome.key)

    with pytest.raises(failure) as caught:
        await iterate()
    return seen, caught.value


async def by_key(submitter: Submitter, requests: Any) -> dict[str, Outcome]:
    return {outcome.key: outcome async for outcome in submitter.submit_many(requests)}


# What stands around a call


def raising(when: str) -> Middleware:
    """Raise another error for each odd job, and let the even ones go."""

    async def middleware(job: StartBatchJob, call_next: CallNext) -> StartBatchJobResponse:
        number = int(job.job.name[3:])
        if number % 2 and when == "before":
            raise EVERY[number // 2]
        response = await call_next(job)
        if number % 2:
            raise EVERY[number // 2]
        return response

    return middleware


async def test_whatever_a_middleware_raises_before_the_request_rejects_that_job_alone(tmp_path: Path) -> None:
    async with LocalEndpoint() as endpoint, M2Client(**endpoint.client_settings()) as client:
        client.use(raising("before"))
        async with open_ledger(tmp_path / "ledger.db") as ledger:
            async with Submitter(client, ledger=ledger, run="r") as submitter:
                ended = await by_key(submitter, of(endpoint, 2 * len(EVERY)))
            counts = await (await ledger.run("r")).counts()
        names = set(await started_at(client, endpoint))
    rejected = [outcome for outcome in ended.values() if isinstance(outcome, Rejected)]
    assert {type(outcome.error) for outcome in rejected} == {MiddlewareError}
    assert {outcome.key for outcome in rejected} == {f"key-{n}" for n in range(1, 2 * len(EVERY), 2)}
    assert all(isinstance(ended[f"key-{n}"], Started) for n in range(0, 2 * len(EVERY), 2))
    assert names == {f"JOB{n}" for n in range(0, 2 * len(EVERY), 2)}
    assert (counts[RowState.STARTED], counts[RowState.REJECTED]) == (len(EVERY), len(EVERY))


async def test_whatever_a_middleware_raises_behind_the_request_the_job_was_started(
    tmp_path: Path, told: list[dict[str, Any]]
) -> None:
    async with LocalEndpoint() as endpoint, M2Client(**endpoint.client_settings()) as client:
        client.use(raising("behind"))
        async with Submitter(client, ledger=tmp_path / "ledger.db") as submitter:
            ended = await by_key(submitter, of(endpoint, 2 * len(EVERY)))
        ids = set((await started_at(client, endpoint)).values())
    assert {each.execution_id for each in ended.values() if isinstance(each, Started) and not each.adopted} == ids
    assert len(ids) == 2 * len(EVERY)
    assert len(told) == len(EVERY)  # each error is told, as nobody else gets it


async def test_a_lost_answer_stays_unknown_whatever_a_middleware_raises_behind_it() -> None:
    async with scripted(reset) as server, M2Client(**server.settings()) as client:
        client.use(_all_raise_behind)
        async with Submitter(client) as submitter:
            ended = await by_key(submitter, [request(f"JOB{n}") for n in range(len(EVERY))])
    assert {type(outcome) for outcome in ended.values()} == {Unknown}


async def _all_raise_behind(job: StartBatchJob, call_next: CallNext) -> StartBatchJobResponse:
    try:
        return await call_next(job)
    finally:
        raise EVERY[int(job.job.name[3:])]


class OthersClient:
    """A client that does not tell whether anything was sent."""

    def __init__(self, call: Callable[[StartBatchJob], Any]) -> None:
        self._call = call

    async def start_batch_job(self, request: StartBatchJob, /) -> StartBatchJobResponse:
        answer: StartBatchJobResponse = self._call(request)
        return answer


async def test_whatever_anothers_client_raises_leaves_that_job_unknown() -> None:
    def call(job: StartBatchJob) -> StartBatchJobResponse:
        number = int(job.job.name[3:])
        if number % 2:
            raise EVERY[number // 2]
        return StartBatchJobResponse(f"e-{number}")

    async with Submitter(OthersClient(call)) as submitter:
        ended = await by_key(submitter, [(str(n), request(f"JOB{n}")) for n in range(2 * len(EVERY))])
    for number in range(2 * len(EVERY)):
        outcome = ended[str(number)]
        assert isinstance(outcome, Unknown if number % 2 else Started)
        if isinstance(outcome, Unknown):
            assert isinstance(outcome.error, MiddlewareError)
            assert "\n" not in outcome.error.message


@pytest.mark.parametrize("given", [None, "e-1", {"executionId": "e-1"}, StartBatchJobResponse(""), 0])
async def test_what_is_no_answer_of_the_service_starts_nothing(given: Any) -> None:
    async def forgetful(job: StartBatchJob, call_next: CallNext) -> StartBatchJobResponse:
        await call_next(job)
        return given  # type: ignore[no-any-return]

    async def idle(job: StartBatchJob, call_next: CallNext) -> StartBatchJobResponse:
        return given  # type: ignore[no-any-return]

    async with scripted(started("e-7")) as server, M2Client(**server.settings()) as client:
        client.use(forgetful)
        async with Submitter(client) as submitter:
            outcome = await submitter.submit(request("X"))
            assert isinstance(outcome, Started)
            assert outcome.execution_id == "e-7"  # what the request brought
            client.use(idle)
            outcome = await submitter.submit(request("X"))
            assert isinstance(outcome, Rejected)  # nothing was sent
            assert isinstance(outcome.error, MiddlewareError)
    assert len(server.requests) == 1
    async with Submitter(OthersClient(lambda _: given)) as submitter:
        assert isinstance(await submitter.submit(request("X")), Unknown)


async def test_a_refusal_stays_one_where_a_middleware_makes_an_answer_of_it() -> None:
    async def inventing(job: StartBatchJob, call_next: CallNext) -> StartBatchJobResponse:
        try:
            return await call_next(job)
        except Exception:  # noqa: BLE001
            return StartBatchJobResponse("made up")

    async with scripted(error(400, "ValidationException")) as server, M2Client(**server.settings()) as client:
        client.use(inventing)
        async with Submitter(client) as submitter:
            outcome = await submitter.submit(request("X"))
    assert isinstance(outcome, Rejected)
    assert outcome.error.code == "ValidationException"


# What is submitted


async def test_whatever_reading_the_requests_raises_is_that_iterations_alone() -> None:
    def broken(exception: BaseException) -> Iterator[tuple[str, StartBatchJob]]:
        yield "first", request("X")
        raise exception

    async def broken_too(exception: BaseException) -> AsyncIterator[tuple[str, StartBatchJob]]:
        yield "first", request("X")
        raise exception

    async with Submitter(OthersClient(lambda _: StartBatchJobResponse("e"))) as submitter:
        for exception in EVERY[:-1]:
            for requests in (broken(exception), broken_too(exception)):
                seen, caught = await seen_until(Exception, submitter.submit_many(requests))
                assert exception in {caught, caught.__cause__}  # the latter for a generator's StopIteration
                assert seen == ["first"]
        assert (await submitter.submit(request("X"))).state == "started"


@pytest.mark.parametrize(
    "wrong", ["a text", None, 5, ("key", "no request"), (5, request("X")), ("key", request("X"), "more"), object(), ()]
)
async def test_what_is_no_request_ends_its_iteration_alone(tmp_path: Path, wrong: Any) -> None:
    async with Submitter(
        OthersClient(lambda job: StartBatchJobResponse(job.job.name)), ledger=tmp_path / "ledger.db", on_unknown="hold"
    ) as submitter:
        waiting = asyncio.create_task(submitter.submit(request("BESIDE"), key="beside"))
        given = [("good", request("GOOD")), wrong, ("late", request("LATE"))]
        seen, _ = await seen_until((TypeError, ValueError), submitter.submit_many(given))
        assert seen == ["good"]
        assert isinstance(await waiting, Started)
        with pytest.raises(TypeError):
            await submitter.submit(wrong, key="another")


@pytest.mark.parametrize("key", ["bad\nkey", "", "k" * 513, "\udcff", "\x00", "\u202e"])
async def test_a_key_that_the_ledger_refuses_is_its_callers_error_alone(tmp_path: Path, key: str) -> None:
    client = OthersClient(lambda job: StartBatchJobResponse(job.job.name))
    async with Submitter(client, ledger=tmp_path / "ledger.db", on_unknown="hold") as submitter:
        tasks = [asyncio.create_task(submitter.submit(request(f"J{n}"), key=f"k{n}")) for n in range(8)]
        with pytest.raises(InvalidRequestError):
            await submitter.submit(request("X"), key=key)
        assert {outcome.state for outcome in await asyncio.gather(*tasks)} == {"started"}
        given = [(key, request("BAD")), ("good", request("GOOD"))]
        seen, _ = await seen_until(InvalidRequestError, submitter.submit_many(given))
        assert seen == ["good"]


# What the events are written to


class BrokenLogger:
    def __init__(self, exception: BaseException) -> None:
        self.exception = exception

    def info(self, *_: Any, **__: Any) -> None:
        raise self.exception

    warning = error = info


async def test_whatever_a_logger_raises_changes_no_outcome_and_is_told_once(told: list[dict[str, Any]]) -> None:
    def call(job: StartBatchJob) -> StartBatchJobResponse:
        if job.job.name == "REFUSED":
            raise TypeError("no")
        return StartBatchJobResponse("e")

    for exception in EVERY[:-1]:
        told.clear()
        async with Submitter(OthersClient(call), logger=BrokenLogger(exception)) as submitter:  # type: ignore[arg-type]
            states = [(await submitter.submit(request(name))).state for name in ("A", "REFUSED", "B")]
        assert states == ["started", "unknown", "started"]
        [context] = told
        assert context["exception"] is exception


async def test_a_logger_that_cannot_be_made_or_asked_changes_no_outcome(told: list[dict[str, Any]]) -> None:
    class Unbound(BrokenLogger):
        def bind(self) -> None:
            raise self.exception

    class Unasked(BrokenLogger):
        def isEnabledFor(self, level: int) -> bool:  # noqa: N802
            raise self.exception

    for kind in (Unbound, Unasked):
        logger: Any = kind(RuntimeError("x"))
        async with Submitter(OthersClient(lambda _: StartBatchJobResponse("e")), logger=logger) as submitter:
            assert (await submitter.submit(request("A"))).state == "started"
    assert len(told) == 2


# A fault of our own


@pytest.mark.parametrize("exception", [KeyError("RUNDATE=secret"), RecursionError(), ExceptionGroup("g", [OSError(1)])])
async def test_a_fault_stops_the_submitter_and_everybody_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exception: Exception
) -> None:
    def faulty(*_: Any, **__: Any) -> Started:
        raise exception

    client = OthersClient(lambda job: StartBatchJobResponse(job.job.name))
    monkeypatch.setattr(Endings, "started", faulty)
    async with open_ledger(tmp_path / "ledger.db") as ledger:
        async with Submitter(client, ledger=ledger, run="r", on_unknown="hold", concurrency=2) as submitter:
            tasks = [asyncio.create_task(submitter.submit(request(f"J{n}"), key=f"k{n}")) for n in range(6)]
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            assert isinstance(submitter.stopped_by, UnexpectedError)
            with pytest.raises(SubmissionStoppedError, match="secret|failed by a fault of its own"):
                await submitter.submit(request("X"), key="x")
        counts = await (await ledger.run("r")).counts()
    told = [each for each in ended if isinstance(each, SubmissionStoppedError)]
    assert all(isinstance(each.cause, UnexpectedError) and each.cause.__cause__ is exception for each in told)
    assert {type(each) for each in ended} <= {SubmissionStoppedError, Unknown}
    assert "secret" not in str(submitter.stopped_by)
    assert counts[RowState.STARTED] == sum(isinstance(each, Unknown) for each in ended) > 0  # what was sent is written
    assert counts[RowState.INTENT] == counts[RowState.UNKNOWN] == 0
