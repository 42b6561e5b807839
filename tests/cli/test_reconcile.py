"""`m2async reconcile` beside a process that looks for the same jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from m2async import LocalEndpoint, M2Client, ScriptJob, StartBatchJob
from m2async.cli.progress import Waiting
from m2async.cli.reconcile import _look_for, _wait_till_listed
from m2async.clock import steady_time
from m2async.ledger import Ledger, RowState, open_for_decisions, open_ledger

APPLICATION = "carddemolocalapplication23"


class SlowerThanAnother:
    """A ledger whose run another process decides once it was told here what is claimed."""

    def __init__(self, ledger: Ledger, claim: Any) -> None:
        self._ledger = ledger
        self._claim = claim

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    async def claimed(self, *asked: Any) -> set[str]:
        claimed = await self._ledger.claimed(*asked)
        await self._claim()
        return claimed


async def test_what_another_process_decides_first_stands_and_the_rest_is_decided(
    tmp_path: Path, endpoint: LocalEndpoint, client: M2Client
) -> None:
    jobs = [StartBatchJob(APPLICATION, ScriptJob(name)) for name in ("FIRST", "SECOND")]
    async with open_ledger(tmp_path / "ledger.db") as ledger:
        async with await ledger.open_run("night") as run:
            await run.plan([(job.job.name, job) for job in jobs])
            started = []
            for number, job in enumerate(jobs, 1):
                await run.intend(number, 1, steady_time())
                started.append((await client.start_batch_job(job)).execution_id)
                await run.unknown(number, 1, "AnswerTimeoutError", "no answer")
        async with open_for_decisions(ledger, "night") as opened:
            unknown = [row async for row in opened.view.rows(RowState.UNKNOWN)]

            async def claim() -> None:
                if (await opened.view.row("FIRST")).state is RowState.UNKNOWN:
                    await opened.claim(1, 1, started[0], "by the other")

            beaten = cast("Ledger", SlowerThanAnother(ledger, claim))
            await _wait_till_listed(unknown, ledger, opened, 0.2)
            await _look_for(unknown, client, beaten, opened, 0.2, Waiting("", 2))
            rows = [row async for row in opened.view.rows()]
    assert [(row.state, row.execution_id) for row in rows] == [(RowState.STARTED, id_) for id_ in started]
    assert rows[0].note == "by the other"
