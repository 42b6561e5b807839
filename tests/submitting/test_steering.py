from __future__ import annotations

import asyncio

import msgspec
import pytest

from m2async import LocalEndpoint, M2Client, RestartJob, ScriptJob, StartBatchJob, Started, Submitter, open_ledger
from m2async.ledger import LedgerLockedError, LedgerRow, Run, canonical_identifier
from m2async.ledger.asking import Deed
from m2async.submitting import Steering, steering
from tests.ledger.samples import APPLICATION


async def test_a_restart_that_the_submission_comes_to_first_is_sent_once(endpoint: LocalEndpoint) -> None:
    """Both read the row after it was marked: who is second finds it sent, and that is no fault."""
    outcomes: list[object] = []
    async with (
        M2Client(**endpoint.client_settings()) as client,
        open_ledger("memory:") as ledger,
        await ledger.open_run("night") as run,
    ):
        await run.plan([("key", StartBatchJob(APPLICATION, ScriptJob("JOB")))])
        async with Submitter(client, ledger=ledger, run=run) as submitter, asyncio.TaskGroup() as tasks:

            async def send(rows: list[LedgerRow]) -> None:
                async for outcome in submitter.submit_many(rows):
                    outcomes.append(outcome)

            await send(await run.page())
            [first] = outcomes
            assert isinstance(first, Started)
            assert first.execution_id is not None
            again = RestartJob(first.execution_id, "STEP1")
            deed = Deed("restart", 1, 1, "again", job=canonical_identifier(again))
            await run.ask(msgspec.json.encode(deed).decode())
            steering = Steering(
                run,
                submitter,
                stop=submitter.stop,
                restarted=lambda row: tasks.create_task(send([row])),
                ended=outcomes.append,
            )
            following = tasks.create_task(steering.follow())
            while len(outcomes) < 2:
                await asyncio.sleep(0.01)
            await steering.all_sent()
            following.cancel()
        [row] = await run.page()
        assert (row.attempts, row.request.job) == (2, again)


@pytest.mark.parametrize("fails", ["orders", "asked", "answer", "page"])
async def test_orders_and_restarts_survive_looks_at_the_ledger_that_fail(
    endpoint: LocalEndpoint, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    monkeypatch.setattr(steering, "LOOK_EVERY", 0.01)
    told: list[str] = []
    ended: list[object] = []
    stopped = asyncio.Event()
    async with (
        M2Client(**endpoint.client_settings()) as client,
        open_ledger("memory:") as ledger,
        await ledger.open_run("night") as run,
    ):
        await run.plan([("key", StartBatchJob(APPLICATION, ScriptJob("JOB")))])
        async with Submitter(client, ledger=ledger, run=run) as submitter, asyncio.TaskGroup() as tasks:
            [first] = [outcome async for outcome in submitter.submit_many(await run.page())]
            assert isinstance(first, Started)
            assert first.execution_id is not None
            deed = Deed("restart", 1, 1, "again", job=canonical_identifier(RestartJob(first.execution_id, "STEP1")))
            await run.ask(msgspec.json.encode(deed).decode())
            fail_twice(run, fails)
            steers = Steering(run, submitter, stop=lambda why: stopped.set(), tell=told.append, ended=ended.append)
            following = tasks.create_task(steers.follow())
            while not ended:
                await asyncio.sleep(0.01)
            await run.set_pace(7.0, 2.0)
            while submitter.rate != 7.0:
                await asyncio.sleep(0.01)
            await run.stop()
            await stopped.wait()
            following.cancel()
        [row] = await run.page()
        assert row.attempts == 2
    trouble = [said for said in told if "cannot be read" in said]
    assert len(trouble) == 1
    assert "LedgerLockedError" in trouble[0]
    assert "orders can be read again" in told


def fail_twice(run: Run, method: str) -> None:
    works, left = getattr(run, method), 1 if method == "answer" else 2

    async def looks(*args: object, **more: object) -> object:
        nonlocal left
        left -= 1
        if left >= 0:
            raise LedgerLockedError("l.db", "is locked by another program")
        return await works(*args, **more)

    setattr(run, method, looks)
