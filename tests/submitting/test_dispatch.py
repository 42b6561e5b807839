from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest

from m2async import Rejected, ScriptJob, StartBatchJob, Started, Tracker, Unknown
from m2async.errors import AnswerTimeoutError, NotSentError
from m2async.ledger import Ledger, LedgerRow, Observation, RowState, Run, open_ledger
from m2async.service.results import Judgement, Result
from m2async.submitting import dispatch as dispatching
from m2async.submitting.dispatch import Dispatch
from tests.simulated import Simulation, definitions
from tests.simulated import planned as simulated_rows

SUCCESS = Judgement(Result.SUCCESS, "Succeeded with return code 0")
FAILURE = Judgement(Result.FAILURE, "ended as Failed with return code 8")


@pytest.fixture(params=["memory", "sqlite"])
async def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ledger]:
    async with open_ledger("memory:" if request.param == "memory" else tmp_path / "ledger.db") as ledger:
        yield ledger


@asynccontextmanager
async def planned(
    ledger: Ledger, keys: Iterable[str], after: Mapping[str, Sequence[str]] | None = None
) -> AsyncIterator[Run]:
    """A run of these rows; the application of each is its key's first character."""
    async with await ledger.open_run("run") as run:
        await run.plan([(key, StartBatchJob(key[0], ScriptJob(key))) for key in keys], after=after)
        yield run


async def start(run: Run, key: str, status: str | None = None, return_code: str | None = None) -> None:
    """Have a row started, and seen to have ended."""
    row = await run.row(key)
    await run.intend(row.number, 1, 1.0)
    await run.started(row.number, 1, f"e-{key}")
    if status is not None:
        await run.observe([Observation(row.number, f"e-{key}", status, return_code, 1.0, 2.0, ended=True)])


def outcome(row: LedgerRow) -> Started:
    return Started(key=row.key, request=row.request, attempts=1, execution_id=f"e-{row.key}")


class Rows:
    """Takes what a dispatch gives as far as it does so without further news."""

    def __init__(self, dispatch: Dispatch) -> None:
        self.rows: list[LedgerRow] = []
        self._news = dispatch._news
        self._task = asyncio.create_task(self._take(dispatch))

    async def _take(self, dispatch: Dispatch) -> None:
        async for row in dispatch.rows():
            self.rows.append(row)
            dispatch.ended(outcome(row))

    async def new(self) -> list[str]:
        while not self._task.done() and (self._news.is_set() or not self._news._waiters):
            await asyncio.sleep(0)  # until it waits for news, or the rows have ended
        if self._task.done():
            self._task.result()
        keys, self.rows = [row.key for row in self.rows], []
        return keys

    def done(self) -> bool:
        return self._task.done()


async def test_rows_come_once_those_before_them_have_succeeded(ledger: Ledger) -> None:
    after = {"a-last": ["a-left", "a-right"], "a-left": ["a-first"], "a-right": ["a-first"]}
    async with planned(ledger, ["a-last", "a-left", "a-right", "a-first", "b"], after) as run:
        dispatch = await Dispatch.open(run, await run.dependencies())
        rows = Rows(dispatch)
        assert await rows.new() == ["a-first", "b"]
        dispatch.judged("a-first", Judgement(Result.OPEN, "Running"))
        assert await rows.new() == []
        dispatch.judged("a-first", SUCCESS)
        assert await rows.new() == ["a-left", "a-right"]
        dispatch.judged("a-right", SUCCESS)
        assert await rows.new() == []
        dispatch.judged("a-left", SUCCESS)
        assert await rows.new() == ["a-last"]
        assert rows.done()


async def test_what_a_crash_left_in_doubt_comes_first_and_has_its_place_in_the_application(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatching, "_BACKLOG", 2)  # so that rows without room before it do not keep it from coming
    keys = ["a0", "a1", "a2", "b", "a-lost", "a-started", "a3"]
    async with planned(ledger, keys) as run:
        await start(run, "a-started")
        row = await run.row("a-lost")
        await run.intend(row.number, 1, 1.0)
        await run.unknown(row.number, 1, "Crash", "the process ended")
        dispatch = await Dispatch.open(run, {}, max_running=2)
        given = dispatch.rows()
        assert [(await anext(given)).key for _ in range(2)] == ["a-lost", "b"]
        waiting = asyncio.ensure_future(anext(given))
        await asyncio.wait({waiting}, timeout=0.1)
        assert not waiting.done()
        dispatch.ended(outcome(row))
        dispatch.judged("a-started", SUCCESS)
        assert (await waiting).key == "a0"
        dispatch.judged("a-lost", FAILURE)
        assert (await anext(given)).key == "a1"
        await given.aclose()


async def test_what_was_in_doubt_and_is_called_not_started_meanwhile_comes_all_the_same(ledger: Ledger) -> None:
    async with planned(ledger, ["a", "b"]) as run:
        for number in (1, 2):
            await run.intend(number, 1, 1.0)
            await run.unknown(number, 1, "AnswerTimeoutError", "lost")
        dispatch = await Dispatch.open(run, {}, max_running=2)
        await run.not_started(1, 1, "an operator's word")
        assert [row.key async for row in dispatch.rows()] == ["b", "a"]


async def test_rows_behind_a_failure_are_held_with_the_way_to_it(ledger: Ledger) -> None:
    after = {"b": ["a"], "c": ["b"], "d": ["x"], "e": ["y"]}
    async with planned(ledger, ["a", "b", "c", "d", "e", "x", "y"], after) as run:
        dispatch = await Dispatch.open(run, await run.dependencies())
        rows = dispatch.rows()
        given = {row.key: row for row in [await anext(rows) for _ in range(3)]}
        assert given.keys() == {"a", "x", "y"}
        refused = Rejected(key="x", request=given["x"].request, attempts=1, error=NotSentError("no"))
        doubted = Unknown(key="y", request=given["y"].request, attempts=1, error=AnswerTimeoutError("no answer"))
        for ended in (outcome(given["a"]), refused, doubted):
            dispatch.ended(ended)
        dispatch.judged("a", FAILURE)
        assert [row.key async for row in rows] == []
        assert {key: dispatch.held(await run.row(key)) for key in "bcde"} == {
            "b": "a (ended as Failed with return code 8) -> b",
            "c": "a (ended as Failed with return code 8) -> b -> c",
            "d": "x (was not started: NotSentError) -> d",
            "e": "y (may or may not have been started: AnswerTimeoutError) -> e",
        }


async def test_a_run_is_gone_on_with_where_it_stands(ledger: Ledger) -> None:
    after = {"a2": ["a1"], "b2": ["b1"], "c2": ["c1"]}
    async with planned(ledger, ["a1", "b1", "c1", "a2", "b2", "c2"], after) as run:
        await start(run, "a1", "Succeeded", "0")
        await start(run, "b1", "Failed", "8")
        await start(run, "c1")
        dispatch = await Dispatch.open(run, await run.dependencies())
        rows = Rows(dispatch)
        assert await rows.new() == ["a2"]
        assert not rows.done()
        dispatch.judged("c1", SUCCESS)
        assert await rows.new() == ["c2"]
        assert rows.done()
        assert dispatch.held(await run.row("b2")) == "b1 (ended as Failed with return code 8) -> b2"


async def test_no_more_than_so_many_executions_of_an_application_are_in_progress(ledger: Ledger) -> None:
    keys = [f"{'ab'[number % 7 == 0]}{number}" for number in range(1_700)]
    draw = random.Random(1)
    async with planned(ledger, keys) as run:
        for key in keys[:2]:
            await start(run, key)
        dispatch = await Dispatch.open(run, {}, max_running=5)
        running = set(keys[:2])
        given: list[str] = []
        async for row in dispatch.rows():
            given.append(row.key)
            running.add(row.key)
            assert max(Counter(key[0] for key in running).values()) <= 5
            dispatch.ended(outcome(row))
            if max(Counter(key[0] for key in running).values()) == 5:
                ended = draw.choice([key for key in sorted(running) if draw.random() < 0.5] or sorted(running))
                running.discard(ended)
                dispatch.judged(ended, draw.choice([SUCCESS, FAILURE]))
            for key in [key for key in sorted(running) if draw.random() < 0.2]:
                running.discard(key)
                dispatch.judged(key, SUCCESS)
        assert sorted(given) == sorted(keys[2:])


async def test_jobs_that_may_be_in_progress_take_their_place_and_the_rest_is_told_why(ledger: Ledger) -> None:
    async with planned(ledger, ["a1", "a2", "b1"]) as run:
        dispatch = await Dispatch.open(run, {}, max_running=1)
        rows = dispatch.rows()
        first, other = await anext(rows), await anext(rows)
        dispatch.ended(Unknown(key=first.key, request=first.request, attempts=1, error=AnswerTimeoutError("late")))
        dispatch.ended(outcome(other))
        dispatch.judged(other.key, SUCCESS)
        assert [row.key async for row in rows] == []
        left = await run.row("a2")
        assert left.state is RowState.PENDING
        assert dispatch.held(left).startswith("1 executions of a may be in progress, and of some it is not known")


async def test_of_hundreds_of_jobs_the_endpoint_never_sees_a_sixth_in_progress(ledger: Ledger) -> None:
    draw = random.Random(1)
    jobs = [(draw.uniform(1, 100), draw.choice([0, 0, 0, 8])) for _ in range(50)]
    simulation = Simulation(definitions(*jobs))
    submitting = True

    async def more() -> bool:
        return submitting

    async with simulated_rows(ledger, 200, len(jobs)) as run, simulation.client() as client:
        dispatch = await Dispatch.open(run, {}, max_running=5)
        settings: dict[str, Any] = {"sleep": simulation.sleep, "clock": lambda: simulation.now}
        tracker = Tracker(client, ledger, run, rate=10_000, burst=10_000, more=more, **settings)

        async def track() -> None:
            async with tracker:
                async for change in tracker:
                    dispatch.judged(change.key, change.judgement)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(track())
            async for row in dispatch.rows():
                await run.intend(row.number, 1, simulation.now)
                await run.started(row.number, 1, simulation.service.start(row.request))
                dispatch.ended(outcome(row))
            submitting = False
    listed = simulation.service.everything_started()
    assert len(listed) == 200
    moments = sorted(
        moment for execution in listed for moment in ((execution["startTime"], 1), (execution["endTime"], -1))
    )
    at_once = list(accumulate(change for _, change in moments))
    assert 1 < max(at_once) <= 5  # simulated time goes on while rows are written


async def test_an_end_that_another_process_saw_first_is_found_in_the_ledger(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("m2async.submitting.dispatch._LOOK_AGAIN", 0.01)
    async with planned(ledger, ["a", "b"], {"b": ["a"]}) as run:
        dispatch = await Dispatch.open(run, await run.dependencies())
        rows = dispatch.rows()
        dispatch.ended(outcome(await anext(rows)))
        await start(run, "a", "Succeeded", "0")
        assert [row.key async for row in rows] == ["b"]
