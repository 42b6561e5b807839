"""Executions that others start beside a run that is followed: told once each, and never one of the run's own."""

from __future__ import annotations

import logging
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from m2async import M2Client, ScriptJob, StartBatchJob
from m2async.certainty import ApplicationOfRun, Margins
from m2async.events import Events
from m2async.following.others import OthersExecutions
from m2async.ledger import Ledger, RowState, Run, destination_of
from tests.following.test_tracker import ledger, tracker
from tests.ledger.samples import APPLICATION
from tests.simulated import Simulation, definitions, planned

__all__ = ["ledger"]


async def belongs(run: Run, client: M2Client) -> None:
    """Write down that a run is sent where a client's calls go."""
    destination = destination_of(client)
    assert destination is not None
    await run.belong_to(destination)


async def follow(client: M2Client, ledger: Ledger, simulation: Simulation, **settings: Any) -> None:
    async with tracker(client, ledger, simulation, **settings) as tracked:
        async for _ in tracked:
            pass


async def foreign(ledger: Ledger) -> set[str]:
    return {each.execution_id for each in await (await ledger.run("night")).foreign()}


def theirs(simulation: Simulation, job: str = "JOB0", application: str = APPLICATION) -> str:
    """Let somebody else start a job."""
    return simulation.service.start(StartBatchJob(application, ScriptJob(job)))


def told(caplog: pytest.LogCaptureFixture) -> Counter[str]:
    """How often each execution was logged as somebody else's."""
    events = [record.__dict__["m2async"] for record in caplog.records if "execution.foreign" in record.getMessage()]
    return Counter(event["execution_id"] for event in events)


async def test_others_executions_are_logged_once_each_and_are_in_the_ledger(
    ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    simulation = Simulation(definitions(*[(60.0, 0)] * 20))
    async with planned(ledger, 200, 20) as run:
        await simulation.start(run, every=0.1, foreign=0.2)
        own = {row.execution_id async for row in run.rows()}
    others = simulation.truth().keys() - own
    assert len(others) > 20
    async with simulation.client() as client:
        for _ in range(2):  # and whoever follows it again tells none anew
            await follow(client, ledger, simulation)
            assert await foreign(ledger) == others
            assert told(caplog) == dict.fromkeys(others, 1)


async def test_what_ends_between_two_looks_is_told_too_and_other_jobs_are_not(ledger: Ledger) -> None:
    simulation = Simulation(definitions((4.0, 0), (300.0, 0), (1.0, 0)))
    found: list[str] = []
    async with planned(ledger, 2, 2) as run:
        await simulation.start(run)

    async def sleep(seconds: float) -> None:
        if len(found) < 5:
            found.append(theirs(simulation))
            theirs(simulation, "JOB2")  # which no row names
        await simulation.sleep(seconds)

    async with simulation.client() as client:
        await follow(client, ledger, simulation, sleep=sleep)
    assert await foreign(ledger) == set(found)


async def test_an_execution_whose_answer_is_under_way_is_the_run_s_own(ledger: Ledger) -> None:
    """It is listed before its answer is written; another's, which is older, is told once that is."""
    simulation = Simulation(definitions((30.0, 0)))
    async with simulation.client() as client, planned(ledger, 2, 1) as run:
        await belongs(run, client)
        await run.note_clock(0.0)
        [one, later] = await run.page()
        others = OthersExecutions(ApplicationOfRun(client, ledger, run, APPLICATION, Margins()), Events())
        await run.intend(one.number, 1, simulation.clock())
        theirs_id, own_id = theirs(simulation), simulation.service.start(one.request)
        listed = [each async for each in client.list_batch_job_executions(APPLICATION)]
        assert {each.execution_id for each in listed} == {theirs_id, own_id}
        await others.note(listed, (), simulation.clock())
        await others.tell(())
        assert await foreign(ledger) == set()  # either may be the one
        simulation.now += 10
        await run.intend(later.number, 1, simulation.clock())  # which was sent after they were seen
        await others.note(listed, (), simulation.clock())
        await run.started(one.number, 1, own_id)
        await others.tell(())
    assert await foreign(ledger) == {theirs_id}


@pytest.mark.parametrize("lost", [0, 1, 2])
async def test_attempts_in_doubt_explain_one_execution_each(ledger: Ledger, lost: int) -> None:
    simulation = Simulation(definitions((30.0, 0)))
    async with simulation.client() as client, planned(ledger, 1 + lost, 1) as run:
        await belongs(run, client)
        for row in await run.page():
            run.intend(row.number, 1, simulation.clock())
            if row.number == 1:
                await run.started(1, 1, simulation.service.start(row.request))
            else:
                await run.unknown(row.number, 1, "ConnectionLostError", "lost")
        simulation.now += 1
        seen = {theirs(simulation), theirs(simulation)}
        await follow(client, ledger, simulation)
    assert len(await foreign(ledger) & seen) == 2 - lost


async def test_executions_of_other_runs_of_the_ledger_are_nobody_else_s(ledger: Ledger) -> None:
    simulation = Simulation(definitions((60.0, 0)))
    async with planned(ledger, 5, 1) as run:
        await simulation.start(run, every=0.5)
    async with await ledger.open_run("another") as another:
        await another.plan((f"row-{n}", StartBatchJob(APPLICATION, ScriptJob("JOB0"))) for n in range(5))
        last = (await another.page())[-1]
        another.intend(last.number, 1, simulation.clock())
        await another.unknown(last.number, 1, "ConnectionLostError", "lost")
        await another.claim(last.number, 1, simulation.service.start(last.request), "found")
        await simulation.start(another, every=0.5)
    async with simulation.client() as client:
        await follow(client, ledger, simulation)
    assert await foreign(ledger) == set()


async def test_while_nobody_else_starts_anything_the_ledger_is_asked_for_no_execution(
    ledger: Ledger, tmp_path: Path
) -> None:
    """So that no index of executions is kept, with which each answer would cost more to write."""
    simulation = Simulation(definitions((20.0, 0)))
    async with simulation.client() as client, planned(ledger, 400, 1) as run:
        left = [row async for row in run.rows(RowState.PENDING)]

        async def more() -> bool:
            for row in left[:40]:
                simulation.now += 0.01
                run.intend(row.number, 1, simulation.clock())
                written = run.started(row.number, 1, simulation.service.start(row.request))
                await written
            del left[:40]
            return bool(left)

        await follow(client, ledger, simulation, more=more)
    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        indexes = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'index'")}
    connection.close()
    assert "progress_by_execution" not in indexes
    assert await foreign(ledger) == set()
