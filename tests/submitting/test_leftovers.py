"""A service that was killed and started again: what it left in doubt is looked for, also where nobody asks."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import CapturingLogger

from m2async import LocalEndpoint, M2Client, ScriptJob, StartBatchJob, Started, Submitter, open_ledger
from m2async.clock import steady_time
from m2async.ledger import RowState, destination_of
from tests.campaigns.faults import really_started

APPLICATION = "carddemolocalapplication23"


def request(name: str) -> StartBatchJob:
    return StartBatchJob(APPLICATION, ScriptJob(name))


async def killed(path: Path, client: M2Client) -> None:
    """Leave a ledger as a service does that is killed: one call reached the service, one did not, one was not made."""
    async with open_ledger(path) as ledger, await ledger.open_run("default") as run:
        destination = destination_of(client)
        assert destination is not None
        await run.belong_to(destination)
        for number, name in enumerate(("ARRIVED", "LOST", "WAITED"), 1):
            await run.add(name, request(name))
            if name != "WAITED":
                await run.intend(number, 1, steady_time())
        await client.start_batch_job(request("ARRIVED"))


def events(logger: CapturingLogger) -> dict[str, dict[str, Any]]:
    return {f"{call.args[0]} {call.kwargs.get('key', '')}".strip(): call.kwargs for call in logger.calls}


async def until(logger: CapturingLogger, *names: str) -> None:
    while not events(logger).keys() >= set(names):
        await asyncio.sleep(0)


async def test_what_was_left_in_doubt_is_looked_for_and_logged_and_nothing_is_sent(
    client: M2Client, endpoint: LocalEndpoint, tmp_path: Path
) -> None:
    await killed(tmp_path / "ledger.db", client)
    logger = CapturingLogger()
    async with Submitter(client, ledger=tmp_path / "ledger.db", settle=0.1, logger=logger):
        await until(logger, "batch_job.started ARRIVED", "batch_job.not_started LOST")
    [execution] = await really_started(endpoint.url)
    told = events(logger)
    assert told["run.left_open"] == {"run": "default", "in_doubt": 2, "pending": 1}
    assert told["batch_job.started ARRIVED"]["execution_id"] == execution["executionId"]
    assert told["batch_job.started ARRIVED"]["adopted"] is True
    async with open_ledger(tmp_path / "ledger.db") as ledger:
        rows = [row.state async for row in (await ledger.run("default")).rows()]
    assert rows == [RowState.STARTED, RowState.PENDING, RowState.PENDING]


async def test_a_job_that_is_submitted_meanwhile_is_looked_for_once_and_has_its_outcome(
    client: M2Client, endpoint: LocalEndpoint, tmp_path: Path
) -> None:
    await killed(tmp_path / "ledger.db", client)
    logger = CapturingLogger()
    async with Submitter(client, ledger=tmp_path / "ledger.db", settle=0.3, logger=logger) as submitter:
        outcomes = await asyncio.gather(*(submitter.submit(request(n), key=n) for n in ("ARRIVED", "LOST", "WAITED")))
    assert all(isinstance(outcome, Started) for outcome in outcomes)
    assert [getattr(outcome, "adopted", None) for outcome in outcomes] == [True, False, False]
    assert [outcome.before for outcome in outcomes] == [True, False, False]
    listed = [execution["batchJobIdentifier"] for execution in await really_started(endpoint.url)]
    names = [each["scriptBatchJobIdentifier"]["scriptName"] for each in listed]
    assert sorted(names) == ["ARRIVED", "LOST", "WAITED"]
    assert not [name for name in events(logger) if name.startswith("batch_job.not_started")]


@pytest.mark.parametrize("on_unknown", ["hold", "resend"])
async def test_who_does_not_adopt_is_told_how_many_there_are(client: M2Client, tmp_path: Path, on_unknown: Any) -> None:
    await killed(tmp_path / "ledger.db", client)
    logger = CapturingLogger()
    async with Submitter(client, ledger=tmp_path / "ledger.db", on_unknown=on_unknown, logger=logger):
        pass
    assert events(logger).keys() == {"run.left_open"}


async def test_a_submitter_that_is_left_before_it_found_them_leaves_them_in_doubt(
    client: M2Client, tmp_path: Path
) -> None:
    await killed(tmp_path / "ledger.db", client)
    logger = CapturingLogger()
    async with Submitter(client, ledger=tmp_path / "ledger.db", settle=60, logger=logger):
        pass
    assert events(logger).keys() == {"run.left_open", "batch_job.unknown ARRIVED", "batch_job.unknown LOST"}
    async with open_ledger(tmp_path / "ledger.db") as ledger:
        counts = await (await ledger.run("default")).counts()
    assert (counts[RowState.UNKNOWN], counts[RowState.PENDING]) == (2, 1)
