"""Figures of runs, against what the rows and their histories say one by one."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m2async.figures.figures import AnswerStretch, JobTally, Phase, RunFigures, duration_of, is_throttle, read_figures
from m2async.ledger import (
    ExecutionCount,
    LedgerRow,
    Orders,
    RowEvent,
    RowState,
    RunInfo,
    RunView,
    TrackedExecution,
    open_ledger,
)
from m2async.service.requests import RestartJob, ScriptJob, StartBatchJob
from m2async.service.results import Result
from tests.report.nights import APPLICATION, BEGAN, Written, real_night


async def answers(view: RunView) -> Counter[str]:
    """What became of every attempt, told row by row."""
    told: Counter[str] = Counter()
    async for row, _ in view.jobs():
        told["started"] += row.state is RowState.STARTED and not row.adopted
        for entry in await view.history(row.number):
            match entry.event:
                case RowEvent.UNKNOWN | RowEvent.CRASH:
                    told["unknown"] += 1
                case RowEvent.REFUSED | RowEvent.REJECTED:
                    told["throttled" if is_throttle(entry.error_code) else "refused"] += 1
                case _:
                    pass
    return +told


async def test_a_real_night_in_figures_is_what_its_rows_say(tmp_path: Path) -> None:
    async with open_ledger(tmp_path / "ledger.db") as ledger:
        view = await real_night(tmp_path, ledger)
        figures, told = await read_figures(view), await answers(view)
        tally = JobTally()
        rows = [(row, execution) async for row, execution in view.jobs()]
        for row, execution in rows:
            tally.add(row, execution)
    jobs = tally.figures()
    assert told["throttled"] > 10
    assert told["unknown"] > 1
    found = Counter[str]()
    for stretch in figures.stretches:
        found.update({name: getattr(stretch, name) for name in ("started", "throttled", "refused", "unknown")})
    assert +found == told
    assert figures.answered == told.total() == sum(row.attempts for row, _ in rows)
    assert figures.throttled == told["throttled"]
    assert jobs.sent_again == sum(row.attempts - 1 for row, _ in rows)
    assert {code.code: code.attempts for code in figures.codes} == {
        "ThrottlingException": told["throttled"],
        "InternalServerException": told["unknown"],
    }
    assert {code.code: code.surely_not_started for code in figures.codes}["InternalServerException"] is False
    assert figures.latency is not None
    assert figures.latency.count == told.total()
    assert figures.phase is Phase.ENDED
    assert (figures.rate, figures.remaining) == (None, None)
    failed = [row.number for row, execution in rows if execution and execution.judgement.result is Result.FAILURE]
    assert (jobs.failed_jobs, [each.number for each in jobs.failed]) == (len(failed), failed[:20])
    assert figures.results[Result.FAILURE] == len(failed) > 0
    by_name = {each.name: (each.jobs, each.started, each.failed) for each in jobs.names}
    assert by_name["BAD"][0] == 20
    assert sum(jobs for jobs, _, _ in by_name.values()) == 200
    assert by_name["BAD"][2] == len(failed)


async def test_a_run_in_progress_tells_its_rate_and_when_the_rest_is_sent(tmp_path: Path) -> None:
    written = Written()
    written.now = time.time() - 20.5
    async with (
        open_ledger(tmp_path / "ledger.db", clock=written.clock) as ledger,
        await ledger.open_run("night") as run,
    ):
        await written.plan(run, 2_000)
        await written.go(run, 1, 800)  # 50 a second, or somewhat less with the time that answers take
        figures = await read_figures(await ledger.run("night"))
    assert figures.phase is Phase.STARTING
    assert figures.rate is not None
    assert figures.mean_rate is not None
    assert figures.remaining is not None
    assert 25 < figures.mean_rate < 50
    assert 0 < figures.rate < 50
    assert figures.remaining == pytest.approx(1_200 / figures.rate)


def figures_of(**given: object) -> RunFigures:
    rows = dict.fromkeys(RowState, 0) | given.pop("counts", {})  # type: ignore[operator]
    fields = {
        "info": RunInfo(1, "night", None, None, True, sum(rows.values()), BEGAN), "read_at": BEGAN + 100,
        "in_use": False, "orders": Orders(), "counts": rows, "executions": [], "began": BEGAN, "ended": BEGAN + 10,
        "width": 1.0, "stretches": [], "codes": [], "latency": None, "curve": [], **given,
    }  # fmt: skip
    return RunFigures(**fields)


@pytest.mark.parametrize(
    ("phase", "counts", "executions", "in_use"),
    [
        (Phase.EMPTY, {}, [], False),
        (Phase.STARTING, {RowState.STARTED: 5}, [], True),
        (Phase.STOPPED, {RowState.STARTED: 5, RowState.PENDING: 1}, [], False),
        (Phase.STOPPED, {RowState.STARTED: 5, RowState.INTENT: 1}, [], False),
        (Phase.RUNNING, {RowState.STARTED: 5}, [ExecutionCount("Running", None, False, False, None, 5)], False),
        (Phase.ENDED, {RowState.STARTED: 5}, [ExecutionCount("Failed", "8", True, False, None, 5)], False),
        (Phase.ENDED, {RowState.REJECTED: 5}, [], False),
    ],
)
def test_how_far_a_run_is(
    phase: Phase, counts: dict[RowState, int], executions: list[ExecutionCount], in_use: bool
) -> None:
    assert figures_of(counts=counts, executions=executions, in_use=in_use).phase is phase


@given(st.lists(st.integers(0, 100), min_size=1, max_size=60), st.sampled_from([1.0, 5.0, 60.0]), st.floats(0, 30))
def test_the_current_rate_is_never_above_the_busiest_stretch_of_late(
    started: list[int], width: float, since_last: float
) -> None:
    stretches = [AnswerStretch(BEGAN + place * width, started=count) for place, count in enumerate(started)]
    read_at = BEGAN + len(started) * width + since_last
    figures = figures_of(in_use=True, stretches=stretches, width=width, read_at=read_at)
    assert figures.rate is not None
    assert 0 <= figures.rate <= figures.peak_rate * (1 + 1e-9)
    if since_last > max(10.0, 2 * width):
        assert figures.rate == 0
        assert figures.remaining is None


# Every row


def row(number: int, name: str) -> LedgerRow:
    return LedgerRow(number, f"key-{number}", StartBatchJob(APPLICATION, ScriptJob(name)), RowState.STARTED, 1)


def execution(number: int, seconds: float | None) -> TrackedExecution:
    end = None if seconds is None else BEGAN + seconds
    return TrackedExecution(
        number, f"key-{number}", APPLICATION, ScriptJob("A"), f"id-{number}", 1, False, BEGAN, "Succeeded", "0",
        BEGAN, end, ended=True,
    )  # fmt: skip


@given(st.lists(st.tuples(st.sampled_from("ABC"), st.one_of(st.none(), st.integers(0, 100_000))), max_size=60))
def test_durations_and_the_longest_are_those_of_a_sorted_list(given_: list[tuple[str, int | None]]) -> None:
    tally = JobTally()
    for number, (name, seconds) in enumerate(given_, 1):
        tally.add(row(number, name), execution(number, seconds))
    figures = tally.figures()
    ordered = sorted(seconds for _, seconds in given_ if seconds is not None)
    assert [duration_of(each) for each in figures.longest] == ordered[::-1][:20]
    if not ordered:
        assert figures.durations is None
        return
    assert figures.durations is not None
    for share, value in ((0.5, figures.durations.p50), (0.9, figures.durations.p90), (0.99, figures.durations.p99)):
        assert value in ordered
        assert sum(each <= value for each in ordered) >= share * len(ordered)
        assert sum(each < value for each in ordered) < share * len(ordered)
    assert figures.durations.max == ordered[-1]


def test_the_longest_are_found_wherever_they_stand() -> None:
    tally = JobTally()
    for number in range(1, 1_001):
        tally.add(row(number, "A"), execution(number, number * 617 % 1_009))
    ordered = sorted((number * 617 % 1_009 for number in range(1, 1_001)), reverse=True)
    assert [duration_of(each) for each in tally.figures().longest] == ordered[:20]


def test_jobs_of_many_names_are_summed_up_by_the_most_frequent_and_restarts_together() -> None:
    tally = JobTally()
    for number in range(1, 101):
        tally.add(row(number, f"N{number % 50}"), None)
    for number in range(101, 104):
        job = RestartJob("2345672345672345672345672a", f"STEP{number}")
        tally.add(LedgerRow(number, f"key-{number}", StartBatchJob(APPLICATION, job)), None)
    figures = tally.figures()
    assert (len(figures.names), figures.distinct_names) == (20, 51)
    assert (figures.names[0].name, figures.names[0].jobs) == ("restarts", 3)


async def test_figures_of_many_rows_cost_a_small_part_of_reading_them(tmp_path: Path) -> None:
    async def cost(reading: Callable[[], Awaitable[object]]) -> float:
        began = time.process_time()
        await reading()
        return time.process_time() - began

    async def every_row() -> int:
        return len([row.number async for row in view.rows()])

    written = Written()
    async with open_ledger(tmp_path / "ledger.db", clock=written.clock) as ledger:
        async with await ledger.open_run("night") as run:
            await written.plan(run, 20_000)
            await written.go(run, 1, 20_000, rate=500)
        view = await ledger.run("night")
        figures = min([await cost(lambda: read_figures(view)) for _ in range(3)])
        rows = min([await cost(every_row) for _ in range(3)])
    assert figures < rows / 2
