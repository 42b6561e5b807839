"""Executions to their end: over real HTTP and a real ledger, in the endpoint's simulated time."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from m2async import (
    DEFAULT_APPLICATION_ID,
    LocalEndpoint,
    M2Client,
    ResourceNotFoundException,
    RetryPolicy,
    ScriptJob,
    SentElsewhereError,
    StartBatchJob,
    Submitter,
    ThrottlingException,
    Tracker,
)
from m2async.errors import CallError
from m2async.ledger import Ledger, RowState, open_ledger
from m2async.service.results import Result
from tests.ledger.samples import APPLICATION, OTHER_APPLICATION
from tests.simulated import Simulation, definitions, planned


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    async with open_ledger(tmp_path / "ledger.db") as ledger:
        yield ledger


def tracker(client: M2Client, ledger: Ledger, simulation: Simulation, **settings: Any) -> Tracker:
    return Tracker(
        client,
        ledger,
        "night",
        **{"rate": 10_000, "burst": 10_000, "sleep": simulation.sleep, "clock": simulation.clock, **settings},
    )


async def ends(ledger: Ledger) -> dict[str, tuple[str | None, str | None]]:
    view = await ledger.run("night")
    return {each.execution_id: (each.status, each.return_code) async for each in view.all_executions() if each.ended}


async def test_thousands_are_followed_to_their_ends_with_a_hundredth_of_the_calls(ledger: Ledger) -> None:
    draw = random.Random(1)
    jobs = [(draw.uniform(30, 200), draw.choice([0, 0, 0, 0, 4, 12])) for _ in range(200)]
    simulation = Simulation(definitions(*jobs))
    async with planned(ledger, 3_000, len(jobs)) as run:
        await simulation.start(run, every=0.01, foreign=0.1)
    seen: Counter[str] = Counter()
    of_one_get_each, ended = 0, 0

    async def sleep(seconds: float) -> None:
        nonlocal of_one_get_each
        of_one_get_each += 3_000 - ended
        await simulation.sleep(seconds)

    async with simulation.client() as client, tracker(client, ledger, simulation, sleep=sleep) as tracked:
        async for change in tracked:
            ended += change.execution.ended
            seen[change.execution.execution_id] += change.execution.ended
    truth = simulation.truth()
    assert await ends(ledger) == {execution_id: truth[execution_id] for execution_id in seen}
    assert (len(seen), set(seen.values())) == (3_000, {1})
    assert simulation.calls.total() <= of_one_get_each / 100


async def test_each_change_is_told_once_in_order_and_is_in_the_ledger_by_then(ledger: Ledger) -> None:
    simulation = Simulation(definitions((3.0, 0), (20.0, 8)))
    async with planned(ledger, 2, 2) as run:
        await simulation.start(run)
    told: dict[str, list[str | None]] = {"row-0": [None], "row-1": [None]}
    async with simulation.client() as client, tracker(client, ledger, simulation, longest=2.0) as tracked:
        async for change in tracked:
            assert change.before == told[change.key][-1]
            told[change.key].append(change.execution.status)
            view = await ledger.run("night")
            [written] = await view.executions(change.execution.number, change.execution.number)
            assert written == change.execution
            if change.execution.ended:
                assert change.judgement.result is (Result.SUCCESS if change.key == "row-0" else Result.FAILURE)
    assert told["row-0"] == [None, "Submitting", "Running", "Succeeded"]
    assert told["row-1"] == [None, "Submitting", "Running", "Failed"]


async def test_tracking_that_is_broken_off_goes_on_to_the_same_end(ledger: Ledger) -> None:
    draw = random.Random(2)
    jobs = [(draw.uniform(1, 120), draw.choice([0, 4])) for _ in range(50)]
    simulation = Simulation(definitions(*jobs))
    async with planned(ledger, 300, len(jobs)) as run:
        await simulation.start(run, every=0.1)
    told: Counter[str] = Counter()
    async with simulation.client() as client:
        for _ in range(100):
            changes = 0
            async with tracker(client, ledger, simulation) as tracked:
                async for change in tracked:
                    told[change.key] += change.execution.ended
                    changes += 1
                    if changes == 40:
                        break
            if changes < 40:
                break
    truth = simulation.truth()
    found = await ends(ledger)
    assert len(found) == 300
    assert all(truth[execution_id] == end for execution_id, end in found.items())


async def test_a_straggler_among_many_executions_of_others_is_asked_for_by_its_id(ledger: Ledger) -> None:
    simulation = Simulation(definitions((2_000.0, 0), (1.0, 0)))
    async with planned(ledger, 1, 1) as run:
        await simulation.start(run)
        [row] = await run.page()
    for _ in range(15_000):
        simulation.now += 0.01
        simulation.service.start(row.request)
    async with simulation.client() as client, tracker(client, ledger, simulation) as tracked:
        async for _ in tracked:
            pass
    assert simulation.calls["window"] <= 16  # one look, and what was signed by the wrong clock
    assert simulation.calls["ids"] >= 30
    assert list((await ends(ledger)).values()) == [("Succeeded", "0")]


async def test_rows_that_are_started_meanwhile_are_followed_until_no_more_come(ledger: Ledger) -> None:
    simulation = Simulation(definitions((5.0, 0)))
    asked = 0
    async with planned(ledger, 4, 1) as run, simulation.client() as client:

        async def more() -> bool:
            nonlocal asked
            asked += 1
            if asked in {10, 20, 30, 40}:  # long after the last one has ended
                [row, *_] = await run.page(RowState.PENDING)
                await run.intend(row.number, 1, simulation.clock())
                await run.started(row.number, 1, simulation.service.start(row.request))
            return asked < 40

        async with tracker(client, ledger, simulation, more=more) as tracked:
            followed = [change.key async for change in tracked if change.execution.ended]
    assert followed == ["row-0", "row-1", "row-2", "row-3"]


async def test_throttling_and_server_errors_are_survived_and_told(ledger: Ledger) -> None:
    simulation = Simulation(definitions((900.0, 0)))
    draw = random.Random(3)
    answers = [(429, "ThrottlingException"), (500, "InternalServerException"), (503, "ServiceUnavailable")]

    def fail(path: str) -> web.Response | None:
        if draw.random() < 0.5:
            status, code = draw.choice(answers)
            return simulation.answer(status, {}, **{"x-amzn-ErrorType": code, "Retry-After": "2"})
        return None

    simulation.fail = fail
    troubles: list[CallError] = []
    async with planned(ledger, 50, 1) as run:
        await simulation.start(run)
    async with simulation.client() as client:
        async with tracker(client, ledger, simulation, troubled=lambda e, s: troubles.append(e)) as tracked:
            assert len([change async for change in tracked if change.execution.ended]) == 50
    assert {error.code for error in troubles} == {code for _, code in answers}


async def test_a_throttle_that_does_not_pass_ends_it_in_that_error(ledger: Ledger) -> None:
    simulation = Simulation(definitions((60.0, 0)))
    simulation.fail = lambda path: simulation.answer(429, {}, **{"x-amzn-ErrorType": "ThrottlingException"})
    async with planned(ledger, 1, 1) as run:
        await simulation.start(run)
    async with (
        simulation.client() as client,
        tracker(client, ledger, simulation, retry=RetryPolicy(patience=0)) as tracked,
    ):
        with pytest.raises(ThrottlingException):
            await anext(aiter(tracked))


@pytest.mark.parametrize("lag", [60.0, 500.0])
async def test_new_executions_that_reads_do_not_show_yet_are_open_until_they_do(ledger: Ledger, lag: float) -> None:
    simulation = Simulation(definitions((20.0, 0)))
    async with planned(ledger, 3, 1) as run:
        await simulation.start(run)
    began = simulation.now
    simulation.fail = lambda path: not_shown(simulation, path) if simulation.now - began < lag else None
    results = set()
    async with simulation.client() as client, tracker(client, ledger, simulation) as tracked:
        async for change in tracked:
            results.add((change.execution.gone, change.judgement.result))
    assert results == {(True, Result.OPEN), (False, Result.SUCCESS)}
    assert list((await ends(ledger)).values()) == [("Succeeded", "0")] * 3


async def test_what_was_gone_is_looked_for_once_by_whoever_follows_the_run_again(ledger: Ledger) -> None:
    simulation = Simulation(definitions((20.0, 0)))
    async with planned(ledger, 3, 1) as run, simulation.client() as client:
        await simulation.start(run)
        view = await ledger.run("night")
        simulation.fail = lambda path: not_shown(simulation, path)
        for judged in (["gone"] * 3, []):
            simulation.calls.clear()
            async with tracker(client, ledger, simulation) as tracked:
                told = [change.judgement.reason.partition(":")[0] async for change in tracked if change.execution.ended]
            assert told == judged
            alone = [count for kind, count in simulation.calls.items() if kind not in {"ids", "window"}]
            assert alone == [6 if judged else 1] * 3
        assert {alike.judgement.result for alike in await view.execution_counts()} == {Result.FAILURE}
        simulation.fail = lambda path: None
        async with tracker(client, ledger, simulation) as tracked:
            assert {change.judgement.result async for change in tracked} == {Result.SUCCESS}
    assert [execution.gone async for execution in view.all_executions()] == [False] * 3


def not_shown(simulation: Simulation, path: str) -> web.Response:
    """Answer as where what is read lags behind what was written."""
    resource = path.partition("?")[0].rpartition("/")[2]
    if resource == "batch-job-executions":
        return simulation.answer(200, {"batchJobExecutions": []})
    unknown = {"message": "not found", "resourceId": resource, "resourceType": "execution"}
    return simulation.answer(404, unknown, **{"x-amzn-ErrorType": "ResourceNotFoundException"})


async def test_an_execution_that_the_service_does_not_know_any_more_is_a_failure_and_ends_the_wait(
    ledger: Ledger,
) -> None:
    simulation = Simulation(definitions((1_000.0, 0), (5.0, 0)))
    async with planned(ledger, 2, 2) as run:
        await simulation.start(run)
        lost = (await run.row("row-0")).execution_id
    async with simulation.client() as client, tracker(client, ledger, simulation) as tracked:
        reasons = {}
        async for change in tracked:
            if change.before == "Running" or change.execution.status == "Running":
                application = simulation.service.application(APPLICATION)
                application.executions[:] = [e for e in application.executions if e.execution_id != lost]
                simulation.service._executions.pop(str(lost), None)
            if change.execution.ended:
                reasons[change.key] = change.judgement
    assert reasons["row-0"].result is Result.FAILURE
    assert "last seen" in reasons["row-0"].reason
    assert reasons["row-1"].result is Result.SUCCESS
    assert 600 < simulation.now - simulation.service.application(APPLICATION).created_at < 700


async def test_an_execution_that_is_missing_from_lists_but_there_is_followed_all_the_same(ledger: Ledger) -> None:
    simulation = Simulation(definitions((90.0, 4)))
    async with planned(ledger, 1, 1) as run:
        await simulation.start(run)
    simulation.service.application(APPLICATION).executions.clear()
    simulation.fail = lambda path: (
        simulation.answer(200, {"batchJobExecutions": []}) if "executionIds=" in path else None
    )
    async with simulation.client() as client, tracker(client, ledger, simulation) as tracked:
        assert [change.execution.status async for change in tracked if change.execution.ended] == ["Failed"]


async def test_an_application_that_is_not_there_leaves_its_jobs_open_and_the_others_are_followed(
    ledger: Ledger,
) -> None:
    simulation = Simulation(definitions((5.0, 0)))
    async with planned(ledger, 4, 1, applications=(APPLICATION, OTHER_APPLICATION)) as run:
        for row in await run.page():
            known = row.request.application_id == APPLICATION
            await run.intend(row.number, 1, simulation.now)
            await run.started(row.number, 1, simulation.service.start(row.request) if known else f"e-{row.number}")
    followed = []

    async def follow(tracked: Tracker) -> None:
        async for change in tracked:
            followed.extend([change.key] if change.execution.ended else [])

    async with simulation.client() as client, tracker(client, ledger, simulation) as tracked:
        with pytest.raises(ResourceNotFoundException):
            await follow(tracked)
        view = await ledger.run("night")
        assert [each.key async for each in view.all_executions(open_only=True)] == ["row-1", "row-3"]
    assert followed == ["row-0", "row-2"]


@pytest.mark.parametrize("offset", [-7_200.0, 0.0, 7_200.0])
async def test_a_clock_that_is_wrong_does_not_make_calls_dear(ledger: Ledger, offset: float) -> None:
    """Attempts are written down by the local clock, executions by the service's."""
    simulation = Simulation(definitions((5.0, 0), (20.0, 0)), offset=offset)
    async with planned(ledger, 200, 2) as run:
        await simulation.start(run, every=0.1)
    async with simulation.client() as client, tracker(client, ledger, simulation) as tracked:
        assert len([change async for change in tracked if change.execution.ended]) == 200
    assert simulation.calls["ids"] == 0


async def test_many_pages_are_read_only_as_far_as_something_is_sought(ledger: Ledger) -> None:
    simulation = Simulation(definitions((50.0, 0)))
    async with planned(ledger, 10, 1) as run:
        [row, *_] = await run.page()
        for _ in range(5_000):
            simulation.service.start(row.request)
        await simulation.start(run)
    async with simulation.client() as client, tracker(client, ledger, simulation) as tracked:
        async for _ in tracked:
            pass
    looks = len(simulation.slept) + 1
    assert simulation.calls.total() == looks


async def test_a_run_that_was_sent_elsewhere_is_not_followed_here(tmp_path: Path, endpoint: LocalEndpoint) -> None:
    path = tmp_path / "ledger.db"
    async with M2Client(**endpoint.client_settings()) as client, Submitter(client, ledger=path) as submitter:
        await submitter.submit(StartBatchJob(DEFAULT_APPLICATION_ID, ScriptJob("A")), key="a")
    async with LocalEndpoint() as elsewhere, M2Client(**elsewhere.client_settings()) as client:
        with pytest.raises(SentElsewhereError):
            async with Tracker(client, path, "default"):
                pass
    async with M2Client(**endpoint.client_settings()) as client, Tracker(client, path, "default") as tracker:
        await tracker.refresh()


async def test_executions_of_others_that_cannot_be_read_hide_none_of_the_runs_own(ledger: Ledger) -> None:
    simulation = Simulation(definitions((3.0, 0), (20.0, 8)))
    async with planned(ledger, 4, 2) as run:
        await simulation.start(run)
    strange = [
        None, "x", {}, {"executionId": "e" * 81}, {"executionId": "other", "applicationId": APPLICATION, "status": 7},
        {"executionId": "other", "applicationId": APPLICATION, "startTime": -1, "status": "Running"},
    ]  # fmt: skip
    async with simulation.client() as client:
        call = client._transport.call

        async def among_others(operation: str, members: Any) -> Any:
            answer = await call(operation, members)
            if operation == "ListBatchJobExecutions":
                answer.members["batchJobExecutions"][:0] = strange
            return answer

        client._transport.call = among_others  # type: ignore[method-assign]
        async with tracker(client, ledger, simulation) as tracked:
            ended = {change.execution.execution_id async for change in tracked if change.execution.ended}
    assert len(ended) == 4
    assert await ends(ledger) == {each: simulation.truth()[each] for each in ended}
