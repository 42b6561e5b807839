from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest

from m2async import FileJob, LocalEndpoint, M2Client, RetryPolicy, ScriptJob, StartBatchJob, Started, Submitter, Unknown
from m2async.certainty.adopt import Adopted, Ambiguous, Margins, NotStarted
from m2async.certainty.reconcile import reconcile
from m2async.ledger import Ledger, Run, open_ledger
from m2async.service.responses import BatchJobExecution

APPLICATION = "carddemolocalapplication23"
FAULTS = {"500": 0.1, "drop-before-accept": 0.1, "accept-then-500": 0.1, "accept-then-drop": 0.1}


async def really_started(endpoint: LocalEndpoint) -> dict[str, str]:
    async with aiohttp.ClientSession() as session, session.get(f"{endpoint.url}/_local/executions") as answer:
        return {e["executionId"]: e["jobParams"]["NUMBER"] for e in (await answer.json())["executions"]}


@pytest.mark.parametrize("ahead", [0.0, 100.0, -100.0])
async def test_jobs_whose_answer_was_lost_are_found_whatever_the_service_s_clock_says(ahead: float) -> None:
    async with LocalEndpoint(faults=FAULTS, seed=5, clock=lambda: time.time() + ahead) as endpoint:
        requests = [(str(n), StartBatchJob(APPLICATION, ScriptJob(f"JOB{n}"), {"NUMBER": str(n)})) for n in range(120)]
        async with (
            M2Client(**endpoint.client_settings()) as client,
            Submitter(client, ledger="memory:", settle=0.2, retry=RetryPolicy(resends=50)) as submitter,
        ):
            ended = [outcome async for outcome in submitter.submit_many(requests)]
        executions = await really_started(endpoint)
    assert {type(outcome) for outcome in ended} == {Started}
    assert len(executions) == 120
    for outcome in ended:
        assert isinstance(outcome, Started)
        assert executions[outcome.execution_id] == outcome.key
    assert Counter(outcome.adopted for outcome in ended if isinstance(outcome, Started))[True] > 10


async def test_a_job_that_surely_did_not_start_and_was_sent_often_enough_is_rejected_in_the_ledger_too() -> None:
    requests = [(str(n), StartBatchJob(APPLICATION, ScriptJob(f"JOB{n}"), {"NUMBER": str(n)})) for n in range(40)]
    async with (
        LocalEndpoint(faults={"500": 0.5}, seed=5) as endpoint,
        M2Client(**endpoint.client_settings()) as client,
        open_ledger("memory:") as ledger,
        await ledger.open_run("run") as run,
    ):
        async with Submitter(client, ledger=ledger, run=run, settle=0.2, retry=RetryPolicy(resends=0)) as submitter:
            ended = {outcome.key: outcome.state async for outcome in submitter.submit_many(requests)}
        written = {row.key: row.state.label async for row in run.rows()}
        executions = await really_started(endpoint)
    assert written == ended
    assert set(ended.values()) == {"started", "rejected"}
    assert set(executions.values()) == {key for key, state in ended.items() if state == "started"}


@dataclass
class Lists:
    """Lists what it is told to."""

    executions: list[BatchJobExecution]
    clock_offset: float | None = 0.0
    windows: list[Any] = field(default_factory=list)

    async def list_batch_job_executions(
        self, application_id: str, /, *, started_after: datetime | None = None, started_before: datetime | None = None
    ) -> AsyncIterator[BatchJobExecution]:
        self.windows.append((started_after, started_before))
        for execution in self.executions:
            yield execution


def execution(execution_id: str, identifier: dict[str, Any] | None, start: float) -> BatchJobExecution:
    when = datetime.fromtimestamp(start, UTC)
    return BatchJobExecution(APPLICATION, execution_id, when, "Running", batch_job_identifier=identifier)


async def in_doubt(ledger: Ledger, at: float) -> Run:
    """A run with one job that was sent at a time, and whose answer was lost."""
    run = await ledger.open_run("run")
    row = await run.add("a", StartBatchJob(APPLICATION, FileJob("POSTTRAN.jcl")))
    await run.intend(row.number, 1, at)
    await run.unknown(row.number, 1, "ConnectionLostError", "lost")
    return run


FILE = {"fileBatchJobIdentifier": {"fileName": "POSTTRAN.jcl"}}
OTHER_FORM = {"fileBatchJobIdentifier": {"fileName": "POSTTRAN"}}
OTHER_JOB = {"scriptBatchJobIdentifier": {"scriptName": "INTCALC"}}


@pytest.mark.parametrize(
    ("listed", "echoes", "kind"),
    [
        (FILE, {}, Adopted),
        # The service lists jobs in another form than they were sent in, as far as anybody knows.
        (OTHER_FORM, {}, Ambiguous),
        # It was seen to list a job as it was sent: then what is listed is another job.
        (OTHER_JOB, {"known": ScriptJob("KNOWN")}, NotStarted),
        (None, {"known": ScriptJob("KNOWN")}, Ambiguous),
    ],
)
async def test_not_started_is_said_only_where_jobs_are_listed_as_they_were_sent(
    listed: dict[str, Any] | None, echoes: dict[str, Any], kind: type
) -> None:
    now = time.time()
    known = execution("known", {"scriptBatchJobIdentifier": {"scriptName": "KNOWN"}}, now - 30)
    client = Lists([execution("e", listed, now - 29), known])
    async with open_ledger("memory:") as ledger, await in_doubt(ledger, now - 30) as run:
        decisions = await reconcile(
            client,
            ledger,
            APPLICATION,
            settled_before=now + 60,
            margins=Margins(),
            wanted={(run.info.id, 1)},
            echoes=echoes,
        )
    assert {type(decision) for decision in decisions.values()} == {kind}


async def test_an_attempt_that_is_too_young_is_not_decided() -> None:
    now = time.time()
    async with open_ledger("memory:") as ledger, await in_doubt(ledger, now) as run:
        client = Lists([])
        wanted = {(run.info.id, 1)}
        decisions = await reconcile(
            client, ledger, APPLICATION, settled_before=now - 5, margins=Margins(), wanted=wanted, echoes={}
        )
    assert decisions == {}
    assert client.windows == []


async def test_what_cannot_be_told_is_unknown_with_its_candidates() -> None:
    async with LocalEndpoint(faults={"accept-then-500": 1.0}, seed=5) as endpoint:
        same = [(str(n), StartBatchJob(APPLICATION, ScriptJob("SAME"), {"NUMBER": str(n)})) for n in range(3)]
        async with (
            M2Client(**endpoint.client_settings()) as client,
            Submitter(client, ledger="memory:", settle=0.1) as submitter,
        ):
            ended = [outcome async for outcome in submitter.submit_many(same)]
        executions = await really_started(endpoint)
    assert len(executions) == 3  # nothing was sent again
    for outcome in ended:
        assert isinstance(outcome, Unknown)
        assert set(outcome.candidates) == set(executions)
