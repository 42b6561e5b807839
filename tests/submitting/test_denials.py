"""One application's refusal is that application's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

from m2async import (
    AccessDeniedException,
    ConflictException,
    LedgerRow,
    Rejected,
    RetryPolicy,
    RowState,
    ScriptJob,
    StartBatchJob,
    StartBatchJobResponse,
    SubmissionStoppedError,
    Submitter,
    open_ledger,
)
from tests.virtual_time import in_virtual_time, now

DENIED = AccessDeniedException("not authorized", code="AccessDeniedException", http_status=403)
POLICY = RetryPolicy(probe=5.0, hold=60.0)
QUICK = RetryPolicy(probe=0.05, hold=0.2)


class Service:
    """Denies some applications to its caller."""

    def __init__(self, *denied: str) -> None:
        self.denied = set(denied)
        self.calls: list[str] = []
        self.started: list[str] = []

    async def start_batch_job(self, request: StartBatchJob, /) -> StartBatchJobResponse:
        self.calls.append(request.application_id)
        is_denied = request.application_id in self.denied
        await asyncio.sleep(0.01)
        if is_denied:
            raise DENIED
        self.started.append(request.application_id)
        return StartBatchJobResponse(f"e{len(self.calls)}")


def jobs(*applications: str) -> list[tuple[str, StartBatchJob]]:
    return [(f"{name}-{n}", StartBatchJob(name, ScriptJob(f"JOB{n}"))) for n, name in enumerate(applications)]


@in_virtual_time
async def test_a_tenant_that_is_denied_ends_the_service_for_no_other() -> None:
    service = Service("denied")
    async with Submitter(service, retry=POLICY) as submitter:
        first = asyncio.create_task(submitter.submit(jobs("denied")[0][1]))
        await asyncio.sleep(1)
        for name in ("one", "two", "one"):
            assert (await submitter.submit(jobs(name)[0][1])).state == "started"
        assert submitter.held == {"denied": (DENIED, 1)}
        outcome = await first
        assert isinstance(outcome, Rejected)
        assert outcome.error is DENIED
        assert 59 < now() < 61
        assert submitter.stopped_by is None


@in_virtual_time
async def test_access_that_is_given_meanwhile_is_used() -> None:
    service = Service("late")
    async with Submitter(service, retry=POLICY) as submitter:
        waiting = asyncio.create_task(submitter.submit(jobs("late")[0][1]))
        await asyncio.sleep(1)
        service.denied.clear()
        assert (await waiting).state == "started"
    assert service.calls == ["late", "late"]


@pytest.mark.parametrize("denied_first", [True, False])
async def test_a_run_goes_on_with_the_applications_that_are_not_denied(denied_first: bool) -> None:
    names = ["denied"] * 300 + ["one"] * 300
    service = Service("denied")
    async with open_ledger("memory:") as ledger:
        run = await ledger.open_run("r")
        async with run:
            await run.plan(jobs(*(names if denied_first else reversed(names))))
            async with Submitter(
                service, ledger=ledger, run=run, retry=QUICK, on_unknown="hold", concurrency=4
            ) as submitter:
                states = [outcome.state async for outcome in submitter.submit_many(run.rows(RowState.PENDING))]
    assert states.count("started") == 300
    assert states.count("rejected") + states.count("skipped") == 300
    assert service.calls.count("denied") < 20  # those under way at once, and the probes


@pytest.mark.parametrize("names", [["denied"] * 300, ["denied", "denied-too"] * 150])
@in_virtual_time
async def test_a_run_stops_where_all_its_applications_are_denied(names: Sequence[str]) -> None:
    service = Service("denied", "denied-too")
    async with Submitter(service, retry=POLICY, concurrency=4) as submitter:
        with pytest.raises(SubmissionStoppedError) as caught:
            [outcome async for outcome in submitter.submit_many(jobs(*names))]
        assert caught.value.cause is DENIED
    assert len(service.calls) < 12
    assert now() < 1


async def test_what_was_started_before_does_not_count(tmp_path: Path) -> None:
    """A run of which only denied jobs are left stops at once."""
    async with open_ledger(tmp_path / "ledger.db") as ledger, await ledger.open_run("r") as run:
        await run.plan(jobs("one", "denied", "one"))
        for stops in (None, DENIED):
            service = Service("denied")
            async with Submitter(service, ledger=ledger, run=run, retry=QUICK, on_unknown="hold") as submitter:
                rows = run.rows(RowState.PENDING, RowState.REJECTED)
                assert "rejected" in [outcome.state async for outcome in submitter.submit_many(rows)]
                assert submitter.stopped_by is stops
    assert service.calls == ["denied"]


async def test_an_application_that_gives_access_meanwhile_is_no_longer_one_that_denies_it() -> None:
    service = Service("late", "denied")

    async def rows(given: Sequence[LedgerRow]) -> AsyncIterator[LedgerRow]:
        yield given[0]
        await until(lambda: service.calls == ["late"])
        service.denied.discard("late")
        await until(lambda: service.started == ["late"])
        yield given[1]

    async with open_ledger("memory:") as ledger, await ledger.open_run("r") as run:
        await run.plan(jobs("late", "denied"))
        given = await run.page(RowState.PENDING)
        async with Submitter(service, ledger=ledger, run=run, retry=QUICK, on_unknown="hold") as submitter:
            states = [outcome.state async for outcome in submitter.submit_many(rows(given))]
            assert submitter.stopped_by is None
    assert states == ["started", "rejected"]


async def until(it_is_so: Callable[[], bool]) -> None:
    while not it_is_so():
        await asyncio.sleep(0.001)


@in_virtual_time
async def test_a_conflict_about_an_execution_is_that_jobs_alone() -> None:
    class Restarting(Service):
        async def start_batch_job(self, request: StartBatchJob, /) -> StartBatchJobResponse:
            self.calls.append(request.job.name)
            if request.job.name == "JOB5":
                details = {"resourceId": "abcdefghijklmnopqrstuvwxyz", "resourceType": "batch-job-execution"}
                raise ConflictException("in progress", code="ConflictException", http_status=409, details=details)
            return StartBatchJobResponse(f"e{len(self.calls)}")

    async with Submitter(Restarting(), retry=POLICY, concurrency=2) as submitter:
        ended = {outcome.key: outcome.state async for outcome in submitter.submit_many(jobs(*["one"] * 20))}
        assert submitter.held == {}
    assert ended.pop("one-5") == "rejected"
    assert set(ended.values()) == {"started"}
    assert now() < 1
