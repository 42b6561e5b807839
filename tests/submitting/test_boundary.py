"""What comes from outside harms the job that it touches, and no other."""

from __future__ import annotations

import asyncio
import contextlib
import math
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
    NotSentError,
    Outcome,
    Rejected,
    RetryPolicy,
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
from tests.virtual_time import in_virtual_time, now

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


@pytest.mark.parametrize("transport", ["wire", "aiobotocore"])
async def test_a_job_that_a_middleware_refuses_for_what_it_asked_the_service_is_rejected(transport: Any) -> None:
    async with LocalEndpoint() as endpoint, M2Client(**endpoint.client_settings(), transport=transport) as client:

        async def careful(job: StartBatchJob, call_next: CallNext) -> StartBatchJobResponse:
            application = await client.get_application(job.application_id)
            raise ValueError(f"{application.name} is not to be used")

        client.use(careful)
        async with Submitter(client) as submitter:
            [outcome] = (await by_key(submitter, of(endpoint, 1))).values()
        assert isinstance(outcome, Rejected)  # nothing was sent that starts a job
        assert not await started_at(client, endpoint)


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


class _OddError(BaseException):
    """One that is no Exception."""


@pytest.mark.parametrize(
    ("name", "exception"),
    [
        ("clock_offset", ValueError("own")), ("signing_time", ValueError("own")),
        ("start_batch_job", ValueError("own")), ("start_batch_job", _OddError("own")),
    ],
)  # fmt: skip
async def test_whatever_of_a_client_raises_harms_one_job_at_most(
    tmp_path: Path, name: str, exception: BaseException
) -> None:
    class Odd:
        def __init__(self, client: M2Client) -> None:
            self._client = client

        def _meets(self, member: str) -> None:
            if member == name:
                raise exception

        @property
        def clock_offset(self) -> float | None:
            self._meets("clock_offset")
            return self._client.clock_offset

        def signing_time(self) -> float:
            self._meets("signing_time")
            return self._client.signing_time()

        async def start_batch_job(
            self, request: StartBatchJob, /, *, not_after: float | None = None
        ) -> StartBatchJobResponse:
            if request.job.name == "JOB1":
                self._meets("start_batch_job")
            return await self._client.start_batch_job(request, not_after=not_after)

    async with LocalEndpoint() as endpoint, M2Client(**endpoint.client_settings()) as client:
        async with Submitter(Odd(client), ledger=tmp_path / "ledger.db", on_unknown="hold") as submitter:
            ended = await by_key(submitter, of(endpoint, 3))
            assert submitter.stopped_by is None
        names = set(await started_at(client, endpoint))
    failed = {"key-1"} if name == "start_batch_job" else set()
    assert {key for key, outcome in ended.items() if outcome.state != "started"} == failed
    assert names == {f"JOB{n}" for n in range(3) if f"key-{n}" not in failed}


async def test_an_old_cancellation_makes_no_later_one_real() -> None:
    """As where a middleware's timeout of its own has cancelled the task, and did not take that back."""

    async def middleware(job: StartBatchJob, call_next: CallNext) -> StartBatchJobResponse:
        task = asyncio.current_task()
        assert task is not None
        if job.job.name == "JOB0":
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
        if job.job.name == "JOB2":
            raise asyncio.CancelledError
        return await call_next(job)

    async with scripted(started()) as server, M2Client(**server.settings()) as client:
        client.use(middleware)
        async with Submitter(client, concurrency=1) as submitter:
            ended = await by_key(submitter, [request(f"JOB{n}") for n in range(4)])
    assert [ended[f"{n}"].state for n in range(1, 5)] == ["started", "started", "rejected", "started"]


async def test_what_is_no_request_id_is_left_out(tmp_path: Path) -> None:
    response = StartBatchJobResponse("e-1", 42)  # type: ignore[arg-type]
    async with Submitter(OthersClient(lambda _: response), ledger=tmp_path / "l.db", on_unknown="hold") as submitter:
        outcome = await submitter.submit(request("X"), key="x")
    assert isinstance(outcome, Started)
    assert (outcome.execution_id, outcome.request_id) == ("e-1", None)


@pytest.mark.parametrize("told", [None, math.nan, math.inf, "now", -math.inf, 1e300], ids=repr)
async def test_times_of_a_client_that_are_none_are_left_out(tmp_path: Path, told: Any) -> None:
    class Odd(OthersClient):
        clock_offset = told

        def signing_time(self) -> float:
            return told  # type: ignore[no-any-return]

        async def start_batch_job(
            self, request: StartBatchJob, /, *, not_after: float | None = None
        ) -> StartBatchJobResponse:
            return StartBatchJobResponse(request.job.name)

    client = Odd(lambda _: None)
    async with Submitter(client, ledger=tmp_path / "ledger.db", on_unknown="hold") as submitter:
        assert (await submitter.submit(request("X"), key="x")).state == "started"
        assert submitter.stopped_by is None


@pytest.mark.parametrize("exception", [_OddError("own"), ValueError("own")], ids=repr)
async def test_a_fault_of_any_kind_ends_the_iteration_too(
    monkeypatch: pytest.MonkeyPatch, exception: BaseException
) -> None:
    def faulty(*_: Any, **__: Any) -> Started:
        raise exception

    monkeypatch.setattr(Endings, "started", faulty)
    async with Submitter(OthersClient(lambda _: StartBatchJobResponse("e")), concurrency=2) as submitter:
        await seen_until(SubmissionStoppedError, submitter.submit_many([request(f"JOB{n}") for n in range(20)]))
        assert isinstance(submitter.stopped_by, UnexpectedError)


async def test_a_client_that_was_closed_starts_nothing_and_every_job_says_so(tmp_path: Path) -> None:
    async with scripted(started()) as server, open_ledger(tmp_path / "ledger.db") as ledger:
        client = M2Client(**server.settings())
        async with client:
            submitter = Submitter(client, ledger=ledger, run="r")
            await submitter.__aenter__()
        async with contextlib.aclosing(_Left(submitter)):
            ended = await by_key(submitter, [(str(n), request("X")) for n in range(3)])
        assert {type(outcome) for outcome in ended.values()} == {Rejected}
        assert {row.attempts for row in await (await ledger.run("r")).page()} == {1}
    assert server.requests == []


class _Left:
    def __init__(self, submitter: Submitter) -> None:
        self._submitter = submitter

    async def aclose(self) -> None:
        await self._submitter.__aexit__(None, None, None)


@in_virtual_time
async def test_a_middlewares_failure_does_not_count_as_an_answer_of_the_service() -> None:
    """So an endpoint that was never reached stops the run as soon as without it."""

    class Unreachable:
        async def start_batch_job(self, request: StartBatchJob, /) -> StartBatchJobResponse:
            raise KeyError("own") if request.job.name == "JOB0" else NotSentError("nobody")

    async with Submitter(Unreachable(), retry=RetryPolicy(unreachable=5.0, patience=600.0)) as submitter:
        await seen_until(
            SubmissionStoppedError, submitter.submit_many([(f"{n}", request(f"JOB{n}")) for n in range(300)])
        )
        assert isinstance(submitter.stopped_by, NotSentError)
    assert now() < 20


@pytest.mark.parametrize(
    "given",
    [
        None, "e-1", {"executionId": "e-1"}, StartBatchJobResponse(""), 0, StartBatchJobResponse(42),  # type: ignore[arg-type]
        StartBatchJobResponse("x y"), StartBatchJobResponse("x" * 81), StartBatchJobResponse("a\nb"),
    ],
)  # fmt: skip
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

    for exception in EVERY:
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
