"""Opening a run again with a client of which it is not known where it sends."""

from __future__ import annotations

import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest

from m2async import (
    LocalEndpoint,
    M2Client,
    ScriptJob,
    SentElsewhereError,
    StartBatchJob,
    StartBatchJobResponse,
    Submitter,
    Unknown,
    open_ledger,
)
from m2async.ledger import destination_of
from tests.certainty.test_reconcile import really_started
from tests.ledger.samples import APPLICATION

ROWS = [(f"row-{n}", StartBatchJob(APPLICATION, ScriptJob(f"JOB{n}"), {"NUMBER": str(n)})) for n in range(3)]


class Wrapped:
    """A client that does not say where it sends."""

    def __init__(self, client: M2Client) -> None:
        self._client = client

    @property
    def clock_offset(self) -> float | None:
        return self._client.clock_offset

    def list_batch_job_executions(self, *asked: Any, **window: Any) -> Any:
        return self._client.list_batch_job_executions(*asked, **window)

    def start_batch_job(self, request: StartBatchJob, /) -> Awaitable[StartBatchJobResponse]:
        return self._client.start_batch_job(request)


async def killed(path: Path, client: M2Client, *, says_where: bool) -> None:
    """Start every row, and leave before any answer is written."""
    async with open_ledger(path) as ledger, await ledger.open_run("night") as run:
        await run.plan(ROWS)
        destination = destination_of(client)
        assert destination is not None
        if says_where:
            await run.belong_to(destination)
        for number, (_, request) in enumerate(ROWS, 1):
            await run.intend(number, 1, time.time())
            await client.start_batch_job(request)


@pytest.mark.parametrize("says_where", [True, False])
async def test_what_was_sent_before_is_left_open_by_a_client_that_does_not_say_where_it_sends(
    tmp_path: Path, endpoint: LocalEndpoint, client: M2Client, says_where: bool
) -> None:
    await killed(tmp_path / "ledger.db", client, says_where=says_where)
    async with (
        LocalEndpoint(seed=9) as elsewhere,
        M2Client(**elsewhere.client_settings()) as other,
        Submitter(Wrapped(other), ledger=tmp_path / "ledger.db", run="night", settle=0.1) as submitter,
    ):
        assert "3 jobs in doubt stay unknown" in "".join(submitter.warnings)
        outcomes = [outcome async for outcome in submitter.submit_many(ROWS)]
        assert {type(outcome) for outcome in outcomes} == {Unknown}
        assert await really_started(elsewhere) == {}
    assert len(await really_started(endpoint)) == 3


async def test_where_a_run_was_sent_is_not_assumed_while_jobs_are_in_doubt(
    tmp_path: Path, endpoint: LocalEndpoint, client: M2Client
) -> None:
    """As in a ledger of a version that did not write it down."""
    await killed(tmp_path / "ledger.db", client, says_where=False)
    async with LocalEndpoint(seed=9) as elsewhere, M2Client(**elsewhere.client_settings()) as other:
        with pytest.raises(SentElsewhereError, match="3 of its jobs may have been started there") as caught:
            await Submitter(other, ledger=tmp_path / "ledger.db", run="night").__aenter__()
        assert caught.value.sent_to is None
        assert await really_started(elsewhere) == {}
    async with open_ledger(tmp_path / "ledger.db") as ledger, await ledger.open_run("night") as run:
        destination = destination_of(client)
        assert destination is not None
        assert "now assumed" in (await run.belong_to(destination, moved=True) or "")
    async with Submitter(client, ledger=tmp_path / "ledger.db", run="night", settle=0.1) as submitter:
        outcomes = [outcome async for outcome in submitter.submit_many(ROWS)]
    assert {outcome.state for outcome in outcomes} == {"started"}
    assert len(await really_started(endpoint)) == 3
