"""Executions after their start, over every ledger."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from m2async.ledger import (
    SPAN,
    ExecutionClaimedError,
    ExecutionCount,
    IllegalTransitionError,
    Ledger,
    ManifestChangedError,
    Observation,
    RowNotFoundError,
    RowState,
    Run,
    TrackedExecution,
    open_ledger,
)
from m2async.service.requests import RestartJob
from tests.ledger.samples import APPLICATION, JOBS, planned, request, row_of, rows


@pytest.fixture
async def run(ledger: Ledger) -> AsyncIterator[Run]:
    """Rows 1 to 4 of 6 are started."""
    async with planned(ledger, 6) as run:
        for number in range(1, 5):
            await run.intend(number, 1, 100.0 + number)
            await run.started(number, 1, f"e-{number}")
        yield run


def seen(
    number: int, status: str | None, code: str | None = None, *, ended: bool = False, gone: bool = False
) -> Observation:
    return Observation(number, f"e-{number}", status, code, 200.5, 300.25 if ended and not gone else None, ended, gone)


async def statuses(run: Run) -> dict[int, str | None]:
    return {execution.number: execution.status async for execution in run.all_executions()}


async def test_every_started_row_has_its_execution_and_no_other_row_has(run: Run) -> None:
    [first, *_] = executions = [execution async for execution in run.all_executions()]
    assert [execution.number for execution in executions] == [1, 2, 3, 4]
    assert first == TrackedExecution(1, "key-1", APPLICATION, JOBS[0], "e-1", 1, False, 101.0)
    assert first.judgement.result.value == "open"


async def test_what_is_observed_is_read_back_and_what_ended_is_no_longer_open(run: Run) -> None:
    await run.observe([seen(1, "Running"), seen(2, "Failed", "12", ended=True), seen(3, None, ended=True, gone=True)])
    maybe_open = [execution.number for execution in await run.executions(1, 6, open_only=True)]
    assert maybe_open == [1, 3, 4]  # what is gone may show up again
    [second, third] = await run.executions(2, 3)
    assert (second.status, second.return_code, second.start_time, second.end_time) == ("Failed", "12", 200.5, 300.25)
    assert (second.ended, second.gone, third.ended, third.gone) == (True, False, True, True)
    assert await run.execution_counts() == [
        ExecutionCount(None, None, False, False, None, 1),
        ExecutionCount(None, None, True, True, None, 1),
        ExecutionCount("Failed", "12", True, False, None, 1),
        ExecutionCount("Running", None, False, False, None, 1),
    ]


async def test_an_end_stays_whatever_is_written_after_it_and_corrects_that_it_was_gone(run: Run) -> None:
    await run.observe([seen(1, "Succeeded", "0", ended=True), seen(2, "Running", ended=True, gone=True)])
    await run.observe([seen(1, "Running"), seen(1, None, gone=True), seen(2, "Running")])
    found = [(execution.ended, execution.gone) for execution in await run.executions(1, 2)]
    assert found == [(True, False), (False, False)]
    await run.observe([seen(1, "Succeeded", ended=True, gone=True), seen(2, "Succeeded", "0", ended=True)])
    assert [(execution.return_code, execution.gone) for execution in await run.executions(1, 2)] == [("0", False)] * 2


async def test_what_is_said_of_another_execution_than_the_rows_own_is_left_out(run: Run) -> None:
    await run.observe([seen(1, "Failed", ended=True)._replace(execution_id="foreign"), seen(5, "Failed", ended=True)])
    assert await statuses(run) == {1: None, 2: None, 3: None, 4: None}


async def test_texts_that_a_database_cannot_hold_are_mended(run: Run) -> None:
    await run.observe([seen(1, "Run\0ning", "\ud800")])
    [execution] = await run.executions(1, 1)
    assert (execution.status, execution.return_code) == ("Run\N{REPLACEMENT CHARACTER}ning", "?")


async def test_executions_are_read_span_by_span(ledger: Ledger) -> None:
    async with planned(ledger, SPAN + 2) as run:
        for number in (1, SPAN, SPAN + 1, SPAN + 2):
            await run.intend(number, 1, 1.0)
            await run.started(number, 1, f"e-{number}")
        assert list(await statuses(run)) == [1, SPAN, SPAN + 1, SPAN + 2]


# Rules


async def test_a_rows_own_rule_goes_before_the_runs(run: Run) -> None:
    await run.observe([seen(1, "Succeeded", "4", ended=True), seen(2, "Succeeded", "4", ended=True)])
    assert [execution.max_rc for execution in await run.executions(1, 2)] == [None, None]
    await run.set_rule(4)
    await run.set_rule(2, "key-2")
    assert [execution.max_rc for execution in await run.executions(1, 2)] == [4, 2]
    results = [(count.rows, count.judgement.result.value) for count in await run.execution_counts() if count.ended]
    assert sorted(results) == [(1, "failure"), (1, "success")]
    await run.set_rule(8, "key-2")
    assert [execution.max_rc for execution in await run.executions(1, 2)] == [4, 8]


async def test_a_rule_for_a_row_that_is_not_there_is_refused(run: Run) -> None:
    with pytest.raises(RowNotFoundError):
        await run.set_rule(4, "other")


# Beside another


async def test_a_run_can_be_tracked_while_it_is_written_and_tells_that_it_is(ledger: Ledger) -> None:
    async with planned(ledger, 2) as run:
        view = await ledger.run("run")
        assert await view.in_use()
        await run.intend(1, 1, 1.0)
        await run.started(1, 1, "e-1")
        await view.observe([seen(1, "Succeeded", "0", ended=True)])
        await view.set_rule(4)
        await run.intend(2, 1, 1.0)
    assert not await view.in_use()
    [count] = await view.execution_counts()
    assert (count.status, count.max_rc, count.rows) == ("Succeeded", 4, 1)


OTHER = """
import asyncio, sys
from m2async.ledger import Observation, open_ledger

async def main():
    async with open_ledger(sys.argv[1]) as ledger:
        view = await ledger.run("run")
        print(await view.in_use(), flush=True)
        for n in range(1, 201):
            await view.observe([Observation(n, f"e-{n}", "Succeeded", "0", None, None, True)])

asyncio.run(main())
"""


async def test_another_process_tracks_while_this_one_starts_jobs(path: Path) -> None:
    async with open_ledger(path) as ledger, planned(ledger, 400) as run:
        for number in range(1, 201):
            run.intend(number, 1, 1.0)
            await run.started(number, 1, f"e-{number}")
        other = await asyncio.create_subprocess_exec(
            sys.executable, "-c", OTHER, str(path), stdout=subprocess.PIPE, env={}
        )
        for number in range(201, 401):
            run.intend(number, 1, 1.0)
            await run.started(number, 1, f"e-{number}")
        out, _ = await other.communicate()
        assert (other.returncode, out) == (0, b"True\n")
        assert (await run.counts())[RowState.STARTED] == 400
        assert sum(execution.ended for execution in await run.executions(1, 400)) == 200


# Restarts


async def test_a_restart_makes_the_row_pending_with_the_new_job_and_keeps_what_was(run: Run, ledger: Ledger) -> None:
    await run.observe([seen(1, "Failed", "12", ended=True)])
    job = RestartJob("e-1", "STEP2")
    await run.restart(1, 1, job, "an operator's word")
    row = await row_of(run, 1)
    assert (row.state, row.attempts, row.execution_id) == (RowState.PENDING, 1, None)
    assert (row.request.job, row.request.params) == (job, request(1).params)
    assert list(await statuses(run)) == [2, 3, 4]
    [entry] = await run.history(1)
    assert (entry.event.name, entry.attempt, entry.execution_id) == ("RESTART", 1, "e-1")
    await run.intend(1, 2, 400.0)
    [attempt] = await ledger.open_attempts(APPLICATION)
    assert (attempt.job, attempt.attempt) == (job, 2)
    await run.started(1, 2, "e-1b")
    assert (await statuses(run))[1] is None


async def test_an_execution_that_was_restarted_stays_its_rows_own(run: Run, ledger: Ledger) -> None:
    await run.restart(1, 1, RestartJob("e-1", "STEP2"), "note")
    assert await ledger.claimed(APPLICATION, ["e-1", "e-2", "e-9"]) == {"e-1", "e-2"}
    await run.intend(5, 1, 1.0)
    await run.unknown(5, 1, "code", "message")
    with pytest.raises(ExecutionClaimedError):
        await run.claim(5, 1, "e-1", "note")


async def test_only_a_started_row_without_doubts_is_restarted(run: Run) -> None:
    with pytest.raises(IllegalTransitionError):
        await run.restart(5, 0, RestartJob("e-5", "STEP2"), "note")
    with pytest.raises(IllegalTransitionError):
        await run.restart(1, 2, RestartJob("e-1", "STEP2"), "note")
    await run.intend(5, 1, 1.0)
    await run.unknown(5, 1, "code", "message")
    await run.intend(5, 2, 2.0, resend=True)
    await run.started(5, 2, "e-5")
    with pytest.raises(IllegalTransitionError, match="in doubt"):
        await run.restart(5, 2, RestartJob("e-5", "STEP2"), "note")
    assert (await row_of(run, 5)).state is RowState.STARTED


async def test_the_manifest_of_a_run_is_still_its_own_after_a_restart(ledger: Ledger) -> None:
    async with planned(ledger, 3) as run:
        await run.intend(1, 1, 1.0)
        await run.started(1, 1, "e-1")
        for step in ("STEP1", "STEP2"):
            row = await row_of(run, 1)
            await run.restart(1, row.attempts, RestartJob(str(row.execution_id), step), "note")
            await run.intend(1, row.attempts + 1, 2.0)
            await run.started(1, row.attempts + 1, f"e-1-{step}")
    async with await ledger.open_run("run") as run:
        await run.plan(rows(3))
        with pytest.raises(ManifestChangedError):
            await run.plan([("key-1", request(9)), *rows(3)[1:]])
        row = await run.add("key-1", request(1))
        assert row.execution_id == "e-1-STEP2"
        with pytest.raises(ManifestChangedError):
            await run.add("key-1", row.request)


async def test_a_job_added_again_after_its_restart_is_the_same_job(ledger: Ledger) -> None:
    async with await ledger.open_run("run") as run:
        await run.add("key", request(1))
        await run.intend(1, 1, 1.0)
        await run.started(1, 1, "e-1")
        await run.restart(1, 1, RestartJob("e-1", "STEP1"), "note")
        assert (await run.add("key", request(1))).request.job == RestartJob("e-1", "STEP1")
        with pytest.raises(ManifestChangedError):
            await run.add("key", request(2))
