"""Random writes, closings and crashes of the process's kind, against a model of a few lines and the table of states."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pytest

from m2async.ledger import (
    ExecutionClaimedError,
    IllegalTransitionError,
    Ledger,
    Observation,
    RowEvent,
    RowState,
    Run,
    open_ledger,
)
from m2async.ledger.states import Standing, follow
from m2async.service.requests import RestartJob
from tests.ledger.samples import APPLICATION, Clock, rows

ROWS = 4


@dataclass
class Row:
    """What the model knows of a row."""

    state: str = "pending"
    attempts: int = 0
    doubts: set[int] = field(default_factory=set)
    execution: str | None = None
    seen: tuple[str | None, str] | None = field(default=None, compare=False)


class Step(NamedTuple):
    """What to do, and what to choose by."""

    event: RowEvent | None  # None to look at an execution
    pick: int  # of a row
    off: int  # added to the attempt that would be right
    execution: str
    ended: bool


def random_step(chance: Random) -> Step:
    return Step(
        event=chance.choice([*RowEvent, RowEvent.INTEND, RowEvent.INTEND, None]),
        pick=chance.randrange(10),
        off=chance.choice([0, 0, 0, 0, 0, 0, 0, 0, -1, 1]),
        execution=chance.choice("ABCDEFGH"),
        ended=chance.random() < 0.5,
    )


class Walk:
    """A run, and what the model and the table say of it."""

    def __init__(self, ledger: Ledger, run: Run) -> None:
        self.ledger = ledger
        self.run = run
        self.model = {number: Row() for number in range(1, ROWS + 1)}
        self.by_the_table = {number: Standing(RowState.PENDING, 0) for number in self.model}
        self.former: set[str] = set()  # executions that were restarted
        self.made: Counter[RowEvent] = Counter()

    def row_in(self, state: str, pick: int) -> int:
        """Give a row that is in this state, if there is one; now and then, any."""
        fitting = [number for number, row in self.model.items() if row.state == state]
        numbers = list(self.model) if pick == 9 or not fitting else fitting
        return numbers[pick % len(numbers)]

    async def take(self, step: Step) -> None:
        match step.event:
            case None:
                await self.observe(step)
            case RowEvent.CRASH:
                await self.leave_and_open_again()
            case RowEvent.INTEND | RowEvent.RESEND:
                await self.intend(step, step.event)
            case RowEvent.STARTED | RowEvent.REFUSED | RowEvent.REJECTED | RowEvent.UNKNOWN:
                await self.end(step, step.event)
            case RowEvent.CLAIMED:
                await self.claim(step)
            case RowEvent.NOT_STARTED | RowEvent.RETRY | RowEvent.GIVEN_UP:
                await self.decide(step, step.event)
            case RowEvent.RESTART:
                await self.restart(step)

    async def write(self, number: int, event: RowEvent, write: Callable[[], Any], *, fits: bool, allowed: bool) -> bool:
        """Make a write, and see that it fails exactly where it should.

        The model says whether the row's state has it `allowed`, as the table must; `fits` is whatever else must be so.
        """
        after = follow(self.by_the_table[number], event)
        if fits:
            assert (after is not None) == allowed
        try:
            await write()
        except (IllegalTransitionError, ExecutionClaimedError):
            assert not (fits and allowed)
            return False
        assert fits
        assert after is not None
        self.by_the_table[number] = after
        self.made[event] += 1
        return True

    async def intend(self, step: Step, event: RowEvent) -> None:
        state = "pending" if event is RowEvent.INTEND else "unknown"
        row = self.model[number := self.row_in(state, step.pick)]
        attempt = row.attempts + 1 + step.off
        write = partial(self.run.intend, number, attempt, 1.0, resend=event is RowEvent.RESEND)
        if await self.write(number, event, write, fits=step.off == 0, allowed=row.state == state):
            row.state, row.attempts = "intent", attempt

    async def end(self, step: Step, event: RowEvent) -> None:
        row = self.model[number := self.row_in("intent", step.pick)]
        execution = f"own-{number}-{row.attempts}"
        words = (execution,) if event is RowEvent.STARTED else ("code", "message")
        write = partial(getattr(self.run, event.name.lower()), number, row.attempts + step.off, *words)
        if not await self.write(number, event, write, fits=step.off == 0, allowed=row.state == "intent"):
            return
        if event is RowEvent.STARTED:
            row.state, row.execution = "started", execution
        elif event is RowEvent.UNKNOWN:
            row.state = "unknown"
            row.doubts.add(row.attempts)
        else:
            row.state = "unknown" if row.doubts else "rejected" if event is RowEvent.REJECTED else "pending"

    async def claim(self, step: Step) -> None:
        row = self.model[number := self.row_in("unknown", step.pick)]
        attempt = min(row.doubts, default=row.attempts) + step.off
        free = step.execution not in {row.execution for row in self.model.values()} | self.former
        fits = attempt in row.doubts and free
        write = partial(self.run.claim, number, attempt, step.execution, "note")
        if await self.write(number, RowEvent.CLAIMED, write, fits=fits, allowed=row.state == "unknown"):
            row.state, row.execution = "started", step.execution
            row.doubts.discard(attempt)

    async def decide(self, step: Step, event: RowEvent) -> None:
        state, after = {
            RowEvent.NOT_STARTED: ("unknown", "pending"),
            RowEvent.RETRY: ("rejected", "pending"),
            RowEvent.GIVEN_UP: ("pending", "rejected"),
        }[event]
        row = self.model[number := self.row_in(state, step.pick)]
        decision = self.run.give_up if event is RowEvent.GIVEN_UP else getattr(self.run, event.name.lower())
        fits = step.off == 0 and row.attempts > 0
        write = partial(decision, number, row.attempts + step.off, "note")
        if await self.write(number, event, write, fits=fits, allowed=row.state == state):
            row.state = after
            row.doubts.clear()

    async def restart(self, step: Step) -> None:
        row = self.model[number := self.row_in("started", step.pick)]
        job = RestartJob(row.execution or "none", "STEP1")
        write = partial(self.run.restart, number, row.attempts + step.off, job, "note")
        allowed = row.state == "started" and not row.doubts
        if await self.write(number, RowEvent.RESTART, write, fits=step.off == 0, allowed=allowed):
            assert row.execution is not None
            self.former.add(row.execution)
            row.state, row.execution = "pending", None

    async def observe(self, step: Step) -> None:
        row = self.model[number := self.row_in("started", step.pick)]
        status = "Failed" if step.ended else "Running"
        for execution in {step.execution, row.execution or step.execution}:
            await self.run.observe([Observation(number, execution, status, None, None, None, step.ended)])
        if row.state == "started" and (row.seen is None or row.seen[0] != row.execution or row.seen[1] != "Failed"):
            row.seen = (row.execution, status)

    async def leave_and_open_again(self) -> None:
        await self.run.aclose()
        self.run = await self.ledger.open_run("run")
        for number, row in self.model.items():
            if row.state == "intent":
                row.state = "unknown"
                row.doubts.add(row.attempts)
                after = follow(self.by_the_table[number], RowEvent.CRASH)
                assert after is not None
                self.by_the_table[number] = after
                self.made[RowEvent.CRASH] += 1

    async def see_that_the_ledger_says_the_same(self) -> None:
        page = await self.run.page()
        told = {row.number: Row(row.state.label, row.attempts, set(), row.execution_id) for row in page}
        for attempt in await self.ledger.open_attempts(APPLICATION):
            if attempt.ended_at is not None:
                told[attempt.number].doubts.add(attempt.attempt)
        assert told == self.model
        assert {row.number: Standing(row.state, row.doubts) for row in page} == self.by_the_table
        assert {row.number: row.doubts for row in page} == {number: len(row.doubts) for number, row in told.items()}
        assert await self.run.counts() == {state: sum(row.state is state for row in page) for state in RowState}
        tracked = {seen.number: (seen.execution_id, seen.status) async for seen in self.run.all_executions()}
        assert tracked == {
            number: row.seen if row.seen is not None and row.seen[0] == row.execution else (row.execution, None)
            for number, row in self.model.items()
            if row.state == "started"
        }
        assert await self.ledger.claimed(APPLICATION, self.former) == self.former


@pytest.mark.parametrize("kind", ["memory", "file"])
async def test_whatever_happens_the_ledger_follows_the_table(kind: str, tmp_path: Path) -> None:
    made: Counter[RowEvent] = Counter()
    for seed in range(40):
        chance = Random(seed)
        address = "memory:" if kind == "memory" else tmp_path / f"{seed}.db"
        async with open_ledger(address, clock=Clock()) as ledger:
            run = await ledger.open_run("run")
            await run.plan(rows(ROWS))
            walk = Walk(ledger, run)
            for _ in range(60):
                await walk.take(random_step(chance))
                await walk.see_that_the_ledger_says_the_same()
            made += walk.made
    assert made.keys() == set(RowEvent)  # so none of them was seen to fail only
