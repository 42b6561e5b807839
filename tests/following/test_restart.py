from __future__ import annotations

import pytest

from m2async import LocalEndpoint, M2Client, ScriptJob, StartBatchJob, Started, Submitter
from m2async.following.restart import NoRestartPointError, restart_job
from m2async.ledger import RowState, open_ledger
from m2async.service.requests import RestartJob
from m2async.service.responses import JobStep


def steps(*codes: str | None) -> list[JobStep]:
    return [JobStep(number, f"STEP{number}", step_cond_code=code) for number, code in enumerate(codes, 1)]


@pytest.mark.parametrize(
    ("codes", "max_rc", "step"),
    [
        (("0", "12", None), None, "STEP2"),
        (("0", "4", "8"), 4, "STEP3"),
        (("0", "0000", None), None, "STEP3"),
        (("0", "S0C7", "0"), 8, "STEP2"),
        (("0", "", "0"), 8, "STEP2"),
        (("-1", "0"), None, "STEP1"),
    ],
)
def test_it_is_restarted_from_the_first_step_that_did_not_end_well(
    codes: tuple[str | None, ...], max_rc: int | None, step: str
) -> None:
    assert restart_job("e-1", steps(*codes), None, max_rc) == RestartJob("e-1", step)


@pytest.mark.parametrize("codes", [(), ("0", "0"), (None, None)])
def test_where_nothing_says_which_step_failed_none_is_guessed(codes: tuple[str | None, ...]) -> None:
    with pytest.raises(NoRestartPointError):
        restart_job("e-1", steps(*codes), None, None)


def test_a_step_of_a_procedure_is_named_with_it() -> None:
    given = [JobStep(1, "RUN", 1, "SORT", "0"), JobStep(1, "RUN", 2, "LOAD", "12")]
    assert restart_job("e-1", given, None, None) == RestartJob("e-1", "RUN", "LOAD")
    assert restart_job("e-1", given, "RUN.LOAD", None) == RestartJob("e-1", "RUN", "LOAD")
    assert restart_job("e-1", given, "RUN", None) == RestartJob("e-1", "RUN", "SORT")


def test_a_step_that_is_not_there_or_cannot_be_restarted_is_refused_and_the_others_are_named() -> None:
    given = [JobStep(1, "ONE", step_cond_code="12", step_restartable=False), JobStep(2, "TWO", step_restartable=True)]
    with pytest.raises(NoRestartPointError, match="no step THREE; those that can be restarted: TWO"):
        restart_job("e-1", given, "THREE", None)
    for asked in ("ONE", None):
        with pytest.raises(NoRestartPointError, match="ONE cannot be restarted; those that can: TWO"):
            restart_job("e-1", given, asked, None)


async def test_a_restart_whose_answer_was_lost_is_found_by_what_it_restarted() -> None:
    """Beside it, somebody starts the same job anew: that is not taken for the restart."""
    request = StartBatchJob("carddemolocalapplication23", ScriptJob("POSTTRAN"))
    async with LocalEndpoint(faults={"accept-then-500": 1.0}, seed=1) as endpoint, open_ledger("memory:") as ledger:
        service = endpoint._routes._service
        async with M2Client(**endpoint.client_settings()) as client, await ledger.open_run("night") as run:
            await run.plan([("row", request)])
            await run.intend(1, 1, 1.0)
            await run.started(1, 1, first := service.start(request))
            await run.restart(1, 1, RestartJob(first, "STEP15"), "an operator's word")
            service.start(request)
            async with Submitter(client, ledger=ledger, run=run, settle=0.2) as submitter:
                [outcome] = [outcome async for outcome in submitter.submit_many(run.rows(RowState.PENDING))]
        listed = service.everything_started()
    assert isinstance(outcome, Started)
    assert (outcome.adopted, outcome.attempts) == (True, 2)
    restarts = [e for e in listed if "restartBatchJobIdentifier" in e["batchJobIdentifier"]]
    assert [e["executionId"] for e in restarts] == [outcome.execution_id]
    assert len(listed) == 3
