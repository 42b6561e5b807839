"""Cancelling executions of a run: what the endpoint then says of them, and what is told of each."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from m2async import LocalEndpoint, M2Client, ScriptJob, StartBatchJob, Submitter
from m2async.errors import AuthenticationException, CallError
from m2async.following.cancel import cancel_executions
from m2async.following.tracker import Tracker
from m2async.ledger import Ledger, TrackedExecution, open_ledger
from m2async.local import load_definitions
from m2async.pacing import Calls

APPLICATION = "carddemolocalapplication23"


@pytest.fixture
async def endpoint(tmp_path: Path) -> AsyncIterator[LocalEndpoint]:
    """An endpoint with a job that runs for ten minutes and one that ends at once."""
    jobs = [
        {"file": f"{name}.jcl", "jobName": name, "seconds": seconds, "returnCode": 0, "steps": [{"step": "STEP1"}]}
        for name, seconds in (("LONG", 600.0), ("SHORT", 0.01))
    ]
    path = tmp_path / "definitions.json"
    path.write_text(json.dumps({"jobs": jobs}))
    async with LocalEndpoint(seed=1, definitions=load_definitions(path)) as endpoint:
        yield endpoint


async def submit(client: M2Client, ledger: Ledger, *names: str) -> None:
    async with Submitter(client, rate=1000, burst=10, ledger=ledger, run="night") as submitter:
        for number, name in enumerate(names):
            await submitter.submit(StartBatchJob(APPLICATION, ScriptJob(name)), key=f"{name}-{number}")


async def ended(client: M2Client, execution: TrackedExecution) -> str:
    """Wait until the service says that an execution has ended."""
    while not (now := await client.get_batch_job_execution(APPLICATION, execution.execution_id)).is_terminal:
        pass
    return now.status


def quietly(error: CallError, seconds: float) -> None:
    pass


async def test_what_runs_is_cancelled_and_what_has_ended_is_told_so(client: M2Client, tmp_path: Path) -> None:
    async with open_ledger(tmp_path / "ledger.db") as ledger:
        await submit(client, ledger, "LONG", "SHORT", "LONG", "SHORT")
        view = await ledger.run("night")
        executions = [execution async for execution in view.all_executions()]
        for short in executions[1::2]:
            assert await ended(client, short) == "Succeeded"
        calls = Calls(1000, quietly)
        first = [end async for end in cancel_executions(client, calls, view, executions)]
        assert [(end.key, end.outcome, end.reason) for end in first] == [
            ("LONG-0", "cancelling", ""),
            ("SHORT-1", "had ended", "as Succeeded"),  # the service says so: the ledger did not know
            ("LONG-2", "cancelling", ""),
            ("SHORT-3", "had ended", "as Succeeded"),
        ]
        assert [await ended(client, execution) for execution in executions[::2]] == ["Cancelled"] * 2
        async with Tracker(client, ledger, view) as tracker:
            await tracker.refresh()
        known = [execution async for execution in view.all_executions()]
        again = [end async for end in cancel_executions(client, calls, view, known)]
        assert [(end.outcome, end.reason) for end in again] == [
            ("had ended", execution.judgement.reason) for execution in known
        ]


async def test_an_id_that_no_service_can_have_given_keeps_no_other_from_it(client: M2Client, tmp_path: Path) -> None:
    async with open_ledger(tmp_path / "ledger.db") as ledger:
        await submit(client, ledger, "LONG", "LONG")
        view = await ledger.run("night")
        first, second = [execution async for execution in view.all_executions()]
        executions = [replace(first, execution_id="id with space"), second]
        ends = [end async for end in cancel_executions(client, Calls(1000, quietly), view, executions)]
        assert [end.outcome for end in ends] == ["not cancelled", "cancelling"]
        assert "no white space" in ends[0].reason
        assert await ended(client, second) == "Cancelled"


async def test_one_that_cannot_be_cancelled_keeps_no_other_from_it(client: M2Client, tmp_path: Path) -> None:
    async with open_ledger(tmp_path / "ledger.db") as ledger:
        await submit(client, ledger, "LONG", "LONG")
        view = await ledger.run("night")
        async with LocalEndpoint(definitions=load_definitions(tmp_path / "definitions.json")) as other:
            async with M2Client(**other.client_settings()) as stranger:
                executions = [execution async for execution in view.all_executions()]
                ends = [e async for e in cancel_executions(stranger, Calls(1000, quietly), view, executions)]
        assert [(end.outcome, end.reason.partition(":")[0]) for end in ends] == [
            ("not cancelled", "ResourceNotFoundException")
        ] * 2


async def test_what_every_call_would_meet_ends_it(client: M2Client, tmp_path: Path, endpoint: LocalEndpoint) -> None:
    async with open_ledger(tmp_path / "ledger.db") as ledger:
        await submit(client, ledger, "LONG", "LONG")
        view = await ledger.run("night")
        executions = [execution async for execution in view.all_executions()]
        wrong = endpoint.client_settings()
        wrong["session"].set_credentials("local", "wrong")
        async with M2Client(**wrong) as stranger:
            with pytest.raises(AuthenticationException):
                async for _ in cancel_executions(stranger, Calls(1000, quietly), view, executions):
                    pass
        assert (await client.get_batch_job_execution(APPLICATION, executions[0].execution_id)).status != "Cancelled"


async def test_an_id_that_can_be_none_keeps_no_other_from_being_cancelled(client: M2Client, tmp_path: Path) -> None:
    async with open_ledger(tmp_path / "ledger.db") as ledger:
        await submit(client, ledger, "LONG", "LONG")
        view = await ledger.run("night")
        first, second = [execution async for execution in view.all_executions()]
        of_old = replace(first, execution_id="id with space")  # as an earlier version took it
        told = [end async for end in cancel_executions(client, Calls(1000, quietly), view, [of_old, second])]
    assert [each.outcome for each in told] == ["not cancelled", "cancelling"]
    assert "must have 1 to 80 characters and no white space" in told[0].reason
