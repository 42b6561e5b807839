"""A host may have set its loop to begin tasks at once, as Python 3.12 and later can; before, it is as any other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from m2async import LocalEndpoint, M2Client, ScriptJob, StartBatchJob, Submitter


@pytest.fixture(autouse=True)
async def eager() -> AsyncIterator[None]:
    loop = asyncio.get_running_loop()
    loop.set_task_factory(getattr(asyncio, "eager_task_factory", None))
    yield
    loop.set_task_factory(None)


async def test_every_job_is_started_once() -> None:
    async with LocalEndpoint(rate=500, burst=20, seed=1, faults={"accept-then-500": 0.1}) as endpoint:
        [application] = endpoint.application_ids
        jobs = [(f"K{number}", StartBatchJob(application, ScriptJob("POSTTRAN"))) for number in range(100)]
        async with (
            M2Client(**endpoint.client_settings()) as client,
            Submitter(client, adaptive=True, ledger="memory:", settle=0.1) as submitter,
        ):
            outcomes = [outcome async for outcome in submitter.submit_many(jobs)]
            listed = [each async for each in client.list_batch_job_executions(application)]
    assert {outcome.state for outcome in outcomes} <= {"started", "unknown"}
    assert len(outcomes) == len(listed) == 100
