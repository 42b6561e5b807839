from __future__ import annotations

import asyncio

import msgspec

from m2async import LocalEndpoint, M2Client, RestartJob, ScriptJob, StartBatchJob, Started, Submitter, open_ledger
from m2async.ledger import LedgerRow, canonical_identifier
from m2async.ledger.asking import Deed
from m2async.submitting import Steering
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
