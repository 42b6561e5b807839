"""The first words of a report: never better than the run."""

from __future__ import annotations

from functools import partial
from itertools import product

from m2async.cli.hints import command
from m2async.figures.figures import JobTally
from m2async.ledger import ExecutionCount, RowState
from m2async.report.verdict import verdict
from tests.figures.test_figures import figures_of

NOTHING = JobTally().figures()
COMMAND = partial(command, ledger=None)
SUCCEEDED = ExecutionCount("Succeeded", "0", True, False, None, 5)
FAILED = ExecutionCount("Failed", "12", True, False, None, 5)
UNSEEN = ExecutionCount(None, None, False, False, None, 5)
RUNNING = ExecutionCount("Running", None, False, False, None, 5)


def test_only_a_run_whose_jobs_all_started_and_did_not_fail_is_called_good() -> None:
    for counts in product((0, 5), repeat=len(RowState)):
        by_state = dict(zip(RowState, counts, strict=True))
        for executions in (
            [SUCCEEDED],
            [FAILED],
            [RUNNING],
            [UNSEEN],
            [SUCCEEDED._replace(rows=2), FAILED._replace(rows=3)],
        ):
            ends = executions if by_state[RowState.STARTED] else []
            said = verdict(figures_of(counts=by_state, executions=ends), NOTHING, COMMAND)
            fine = sum(counts) == by_state[RowState.STARTED] > 0 and executions == [SUCCEEDED]
            assert (said.kind == "good") == fine, (by_state, executions, said)
            assert ("succeeded" in said.headline) == fine


def test_whatever_is_not_well_is_named_with_the_filter_that_shows_it() -> None:
    counts = {RowState.STARTED: 5, RowState.UNKNOWN: 1, RowState.REJECTED: 2, RowState.PENDING: 3, RowState.INTENT: 4}
    said = verdict(figures_of(counts=counts, executions=[FAILED]), NOTHING, COMMAND)
    assert {each.filter: each.what for each in said.attention} == {
        "state=unknown": "1 job unknown",
        "state=rejected": "2 jobs rejected",
        "result=failed": "5 jobs failed",
        "state=intent": "4 jobs in flight",
        "state=pending": "3 jobs pending",
    }


def test_commands_can_be_pasted_whatever_the_run_is_called() -> None:
    figures = figures_of(counts={RowState.UNKNOWN: 1})
    named = figures.__class__(
        **{name: getattr(figures, name) for name in figures.__struct_fields__ if name != "info"},
        info=figures.info.__class__(1, "a'; rm -r ~ #", None, None, True, 1, 0.0),
    )
    [attention] = verdict(named, NOTHING, COMMAND).attention
    assert attention.command == "m2async reconcile 'a'\"'\"'; rm -r ~ #'"
