"""`m2async reconcile` beside a process that looks for the same jobs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, cast

import pytest

from m2async import (
    AccessDeniedException,
    CallError,
    LocalEndpoint,
    M2Client,
    NotSentError,
    ScriptJob,
    StartBatchJob,
    ThrottlingException,
)
from m2async.cli.progress import Waiting
from m2async.cli.reconcile import _look_for, _wait_till_listed
from m2async.clock import steady_time
from m2async.ledger import Ledger, RowState, open_for_decisions, open_ledger
from m2async.service import ExecutionsPage

APPLICATION = "carddemolocalapplication23"


class Busy(M2Client):
    """A client whose first lists of an application fail."""

    failures: dict[str, list[CallError]]
    lists: Counter[str]

    async def get_batch_job_executions_page(self, application_id: str, **asked: Any) -> ExecutionsPage:
        self.lists[application_id] += 1
        if self.failures.get(application_id):
            raise self.failures[application_id].pop()
        return await super().get_batch_job_executions_page(application_id, **asked)


def refusal(kind: type[ThrottlingException | AccessDeniedException], status: int) -> CallError:
    return kind("no", code=kind.__name__, http_status=status)


@pytest.mark.parametrize("is_denied", [False, True])
async def test_lists_that_fail_in_passing_are_asked_for_again_and_no_application_keeps_another_from_being_decided(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], is_denied: bool
) -> None:
    one, other = "app1", "app2"
    async with LocalEndpoint(extra_applications=[one, other]) as endpoint, open_ledger(tmp_path / "l.db") as ledger:
        client = Busy(**endpoint.client_settings())
        denied = [refusal(AccessDeniedException, 403)] * 9 if is_denied else []
        client.lists = Counter()
        client.failures = {one: denied, other: [refusal(ThrottlingException, 429), NotSentError("no connection")]}
        async with client, await ledger.open_run("night") as run:
            jobs = [StartBatchJob(application, ScriptJob("JOB")) for application in (one, other)]
            await run.plan([(job.application_id, job) for job in jobs])
            for number, job in enumerate(jobs, 1):
                await run.intend(number, 1, steady_time())
                await client.start_batch_job(job)
                await run.unknown(number, 1, "AnswerTimeoutError", "no answer")
            await run.aclose()
            async with open_for_decisions(ledger, "night") as opened:
                unknown = [row async for row in opened.view.rows(RowState.UNKNOWN)]
                await _wait_till_listed(unknown, ledger, opened, 0.2)
                looking = _look_for(unknown, client, ledger, opened, 0.2, Waiting("", 2))
                if is_denied:
                    with pytest.raises(AccessDeniedException):
                        await looking
                else:
                    await looking
                states = [row.state async for row in opened.view.rows()]
    assert states == [RowState.UNKNOWN if is_denied else RowState.STARTED, RowState.STARTED]
    assert client.lists[one] == 1 or not is_denied
    assert client.lists[other] > 2
    assert ("application app1 cannot be listed: the permission" in capsys.readouterr().err) is is_denied


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
