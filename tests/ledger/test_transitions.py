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
    ChangeKind,
    ExecutionClaimedError,
    IllegalTransitionError,
    Ledger,
    Observation,
    RowChange,
    RowEvent,
    RowState,
    Run,
    open_ledger,
)
from m2async.ledger.states import Standing, follow
from m2async.service.requests import RestartJob
from tests.ledger.samples import APPLICATION, Clock, request, rows

ROWS = 4
OFTEN = (
    RowEvent.INTEND, RowEvent.INTEND, RowEvent.INTEND, RowEvent.UNKNOWN, RowEvent.UNKNOWN, RowEvent.RESEND,
    RowEvent.CONFIRMED, RowEvent.CLAIMED, RowEvent.GROUPED, RowEvent.TAKEN_BACK, RowEvent.TAKEN_BACK,
)  # fmt: skip
"""What few rows allow, and what leads there."""


@dataclass(eq=False)
class Group:
    """Rows that were started together, and all their executions; none of it is told anew once one was restarted."""

    rows: set[int]
    executions: set[str]
    is_final: bool = False


@dataclass
class Row:
    """What the model knows of a row."""

    state: str = "pending"
    attempts: int = 0
    doubts: set[int] = field(default_factory=set)
    execution: str | None = None
    settled: set[int] = field(default_factory=set, compare=False)  # whose doubt was decided, and can be again
    seen: tuple[str | None, str] | None = field(default=None, compare=False)
    group: Group | None = field(default=None, compare=False)


class Step(NamedTuple):
    """What to do, and what to choose by."""

    event: RowEvent | None  # None to look at an execution
    pick: int  # of a row
    off: int  # added to the attempt that would be right
    execution: str
    ended: bool


def random_step(chance: Random) -> Step:
    return Step(
        event=chance.choice([*RowEvent, *OFTEN, None]),
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
        self.restarted: set[int] = set()
        self.requests = {number: number for number in self.model}
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
            case RowEvent.STARTED | RowEvent.REFUSED | RowEvent.REJECTED | RowEvent.UNKNOWN | RowEvent.WITHDRAWN:
                await self.end(step, step.event)
            case RowEvent.CLAIMED:
                await self.claim(step)
            case RowEvent.GROUPED:
                await self.claim_together(step)
            case RowEvent.NOT_STARTED | RowEvent.RETRY | RowEvent.GIVEN_UP:
                await self.decide(step, step.event)
            case RowEvent.RESTART:
                await self.restart(step)
            case RowEvent.CONFIRMED:
                await self.confirm(step)
            case RowEvent.TAKEN_BACK:
                await self.resolve(step)
            case RowEvent.AMENDED:
                await self.amend(step)

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
        if event is not RowEvent.WITHDRAWN:
            row.settled.clear()
        if event is RowEvent.STARTED:
            self.has_started(row, execution)
        elif event is RowEvent.UNKNOWN:
            row.state = "unknown"
            row.doubts.add(row.attempts)
        else:
            row.state = "unknown" if row.doubts else "rejected" if event is RowEvent.REJECTED else "pending"
            row.attempts -= event is RowEvent.WITHDRAWN

    def has_started(self, row: Row, execution: str) -> None:
        row.state = "started"
        if row.group is None:
            row.execution = execution
        else:  # a restart of one of the group's is one of the group's
            row.group.executions.add(execution)

    def held(self, *, but: Row | None = None) -> set[str | None]:
        """The executions that rows have, or their groups."""
        ofs = [row for row in self.model.values() if row is not but]
        in_groups = {execution for row in ofs if row.group for execution in row.group.executions}
        return {*(row.execution for row in ofs), *self.former, *in_groups}

    async def claim_together(self, step: Step) -> None:
        """Give executions to two rows; two of the same row, or twice the same execution, do not go."""
        unknown = [number for number, row in self.model.items() if row.state == "unknown"] or list(self.model)
        numbers = [unknown[step.pick % len(unknown)], unknown[step.pick // 2 % len(unknown)]]
        executions = [step.execution, "ABCDEFGH"[step.pick % 8]]
        given = [self.model[number] for number in numbers]
        pairs = [(number, max(row.doubts, default=row.attempts)) for number, row in zip(numbers, given, strict=True)]
        pairs[-1] = (pairs[-1][0], pairs[-1][1] + step.off)
        allowed = (
            len(set(numbers)) == len(set(executions)) == 2
            and not {*executions} & self.held()
            and all(row.state == "unknown" and len(row.doubts) == 1 and not row.group for row in given)
            and step.off == 0
        )
        stands = given[0].group is not None and given[0].state == "started"
        try:
            await self.run.claim_together(numbers[0], pairs, executions, "note")
        except (IllegalTransitionError, ExecutionClaimedError):
            assert not allowed
            return
        if stands:
            return
        assert allowed
        group = Group(set(numbers), set(executions))
        for number, row in zip(numbers, given, strict=True):
            after = follow(self.by_the_table[number], RowEvent.GROUPED)
            assert after is not None
            self.by_the_table[number] = after
            row.state, row.group, row.settled, row.doubts = "started", group, row.doubts, set()
        self.made[RowEvent.GROUPED] += 1

    async def claim(self, step: Step) -> None:
        row = self.model[number := self.row_in("unknown", step.pick)]
        attempt = min(row.doubts, default=row.attempts) + step.off
        free = step.execution not in self.held()
        fits = attempt in row.doubts and free
        write = partial(self.run.claim, number, attempt, step.execution, "note")
        if await self.write(number, RowEvent.CLAIMED, write, fits=fits, allowed=row.state == "unknown"):
            self.has_started(row, step.execution)
            row.doubts.discard(attempt)
            row.settled = {attempt}

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
            if event is RowEvent.NOT_STARTED:
                row.settled, row.doubts = row.doubts, set()

    async def confirm(self, step: Step) -> None:
        row = self.model[number := self.row_in("started", step.pick)]
        write = partial(self.run.confirm, number, row.attempts + step.off, "note")
        allowed = row.state == "started" and bool(row.doubts)
        if await self.write(number, RowEvent.CONFIRMED, write, fits=step.off == 0, allowed=allowed):
            row.settled |= row.doubts if row.settled else set()
            row.doubts.clear()

    async def resolve(self, step: Step) -> None:
        """Say what became of a row, as an operator: in some states, and in any if something was decided before."""
        row = self.model[number := self.row_in(["unknown", "started", "pending", "rejected"][step.pick % 4], step.pick)]
        word = None if step.ended else row.execution if step.execution < "D" else step.execution
        if row.group is not None and row.state == "started":
            await self.resolve_of_group(step, number, row, row.group)
            return
        allowed = step.off == 0 and (row.state == "unknown" or (row.state != "intent" and bool(row.settled)))
        expected: list[RowEvent] = []
        if row.state == "started" and word == row.execution:
            allowed = step.off == 0
            expected = [RowEvent.CONFIRMED] if row.doubts else []
        elif not (word is None and row.state in {"pending", "rejected"}):
            allowed &= word is None or word not in self.held(but=row)
            expected = [RowEvent.TAKEN_BACK] if row.state != "unknown" else []
            expected += [RowEvent.NOT_STARTED] if word is None else [RowEvent.CLAIMED]
            expected += [RowEvent.CONFIRMED] if word and len(row.doubts | row.settled) > 1 else []
        before = await self.run.history(number)
        try:
            await self.run.resolve(number, row.attempts + step.off, word, "a word")
        except (IllegalTransitionError, ExecutionClaimedError):
            assert not allowed
            return
        assert allowed
        assert [entry.event for entry in (await self.run.history(number))[len(before) :]] == expected
        for event in expected:
            after = follow(self.by_the_table[number], event)
            assert after is not None
            self.by_the_table[number] = after
            self.made[event] += 1
        if expected[:1] == [RowEvent.CONFIRMED]:
            row.settled |= row.doubts if row.settled else set()
        elif expected:
            row.state, row.execution = "pending", None
            if word is not None:
                self.has_started(row, word)
            row.settled |= row.doubts
        if expected:
            row.doubts = set()

    async def resolve_of_group(self, step: Step, number: int, row: Row, group: Group) -> None:
        """Say which of its group's executions is a row's own; or that none is, which takes the group back."""
        ids = sorted(group.executions)
        word = None if step.ended else ids[step.pick % len(ids)] if step.execution < "D" else step.execution
        is_own = word in group.executions
        allowed = step.off == 0 and not group.is_final and (is_own or word is None or word not in self.held(but=row))
        try:
            await self.run.resolve(number, row.attempts + step.off, word, "a word")
        except (IllegalTransitionError, ExecutionClaimedError):
            assert not allowed
            return
        assert allowed
        taken_back = list(group.rows)
        if is_own:
            assert word is not None
            group.rows.discard(number)
            group.executions.discard(word)
            taken_back = [number, *(group.rows if len(group.rows) == 1 else ())]
        for other in taken_back:
            self.model[other].group = None
            follows = [RowEvent.TAKEN_BACK, *([RowEvent.CLAIMED] if is_own else [])]
            follows += [] if is_own or other != number else [RowEvent.CLAIMED if word else RowEvent.NOT_STARTED]
            for event in follows:
                after = follow(self.by_the_table[other], event)
                assert after is not None
                self.by_the_table[other] = after
                self.made[event] += 1
            history = await self.run.history(other)
            assert [entry.event for entry in history[-len(follows) :]] == follows
            if is_own:
                self.model[other].execution = word if other == number else next(iter(group.executions))
            elif other != number:
                self.model[other].state = "unknown"
                self.model[other].doubts, self.model[other].settled = self.model[other].settled, set()
                assert (await self.run.page(after=other - 1, limit=1))[0].candidates == tuple(ids)
            else:
                row.state, row.execution = ("started", word) if word else ("pending", None)

    async def restart(self, step: Step) -> None:
        row = self.model[number := self.row_in("started", step.pick)]
        [its] = [each.execution_id for each in await self.run.executions(number, number)] or ["none"]
        job = RestartJob(its, "STEP1")
        write = partial(self.run.restart, number, row.attempts + step.off, job, "note")
        allowed = row.state == "started" and not row.doubts
        if await self.write(number, RowEvent.RESTART, write, fits=step.off == 0, allowed=allowed):
            assert row.execution == its or (row.group and its in row.group.executions)
            self.former.add(its)
            if row.group is not None:
                row.group.executions.discard(its)
                row.group.is_final = True
            self.restarted.add(number)
            row.state, row.execution = "pending", None
            row.settled.clear()

    async def amend(self, step: Step) -> None:
        """Give the rows again, one of them with another request; of what may have started, only look at it."""
        row = self.model[number := self.row_in(["pending", "rejected"][step.pick % 2], step.pick)]
        given = self.requests | {number: self.requests[number] + ROWS}
        await self.run.give([(f"key-{key}", request(named)) for key, named in reversed(given.items())])
        differences = await self.run.differences(self.run)
        started = row.state not in {"pending", "rejected"} or number in self.restarted
        assert differences.counts == {RowChange(ChangeKind.CHANGED, started, elsewhere=False, numbered=False): 1}
        if started:
            return
        await self.run.amend(self.run)
        assert (await self.run.row(f"key-{number}")).request == request(given[number])
        self.requests, row.state = given, "pending"
        row.settled.clear()
        after = follow(self.by_the_table[number], RowEvent.AMENDED)
        assert after is not None
        self.by_the_table[number] = after
        if row.attempts:
            assert (await self.run.history(number))[-1].event is RowEvent.AMENDED
            self.made[RowEvent.AMENDED] += 1

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
                row.settled.clear()
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
        standings = {number: standing._replace(settled=0) for number, standing in self.by_the_table.items()}
        assert {row.number: Standing(row.state, row.doubts) for row in page} == standings
        assert {row.number: row.doubts for row in page} == {number: len(row.doubts) for number, row in told.items()}
        assert await self.run.counts() == {state: sum(row.state is state for row in page) for state in RowState}
        for group in {row.group for row in self.model.values() if row.group is not None}:
            its = {seen.number: seen async for seen in self.run.all_executions() if seen.number in group.rows}
            assert {seen.execution_id for seen in its.values()} == group.executions
            assert {row.candidates for row in page if row.number in its} <= {tuple(sorted(group.executions))}
            assert {seen.candidates for seen in its.values()} <= {tuple(sorted(group.executions))}
            assert await self.ledger.claimed(APPLICATION, group.executions) == group.executions
        tracked = {
            seen.number: (seen.execution_id, seen.status) async for seen in self.run.all_executions() if not seen.ends
        }
        assert tracked == {
            number: row.seen if row.seen is not None and row.seen[0] == row.execution else (row.execution, None)
            for number, row in self.model.items()
            if row.state == "started" and row.group is None
        }
        assert await self.ledger.claimed(APPLICATION, self.former) == self.former


@pytest.mark.parametrize("kind", ["memory", "file"])
async def test_whatever_happens_the_ledger_follows_the_table(kind: str, tmp_path: Path) -> None:
    made: Counter[RowEvent] = Counter()
    for seed in range(50):
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
    assert made.keys() == set(RowEvent), made  # so none of them was seen to fail only
