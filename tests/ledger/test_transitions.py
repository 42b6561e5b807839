"""Random writes, closings and crashes of the process's kind, against a model of a few lines and the table of states."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from m2async.ledger import (
    Event,
    ExecutionClaimedError,
    IllegalTransitionError,
    Ledger,
    Observation,
    RowState,
    Run,
    open_ledger,
)
from m2async.ledger.states import Standing, follow
from m2async.service.requests import RestartJob
from tests.ledger.samples import APPLICATION, Clock, rows

ROWS = 4
numbers = st.integers(1, ROWS)
attempts = st.sampled_from([0, 0, 0, 0, 0, -1, 1])  # added to the attempt that would be right
executions = st.sampled_from("ABCDEFGH")


@dataclass
class Row:
    """What the model knows of a row."""

    state: str = "pending"
    attempts: int = 0
    doubts: set[int] = field(default_factory=set)
    execution: str | None = None
    seen: tuple[str | None, str] | None = field(default=None, compare=False)


class Transitions(RuleBasedStateMachine):
    address: Callable[[str], str | Path]

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.directory = tempfile.TemporaryDirectory()
        self.former: set[str] = set()  # executions that were restarted
        self.model = {number: Row() for number in range(1, ROWS + 1)}
        self.standings = {number: Standing(RowState.PENDING, 0) for number in self.model}  # by the table
        self.contexts = open_ledger(type(self).address(self.directory.name), clock=Clock())
        self.ledger: Ledger = self.runner.run(self.contexts.__aenter__())
        self.run_: Run = self.runner.run(self.ledger.open_run("run"))
        self.runner.run(self.run_.plan(rows(ROWS)))

    def teardown(self) -> None:
        self.runner.run(self.contexts.__aexit__(None, None, None))
        self.runner.close()
        self.directory.cleanup()

    def write(self, number: int, event: Event, make: Callable[[], Awaitable[None]], *, fits: bool, legal: bool) -> bool:
        """Make a write, and see that it fails exactly where it is not legal.

        It is, if it `fits` the row's attempts, where the table allows the event.
        """

        async def wait() -> None:
            await make()

        after = follow(self.standings[number], event)
        assert (fits and after is not None) == legal
        try:
            self.runner.run(wait())
        except (IllegalTransitionError, ExecutionClaimedError):
            assert not legal
            return False
        assert legal
        assert after is not None
        self.standings[number] = after
        return True

    @initialize()
    def begin(self) -> None:
        """Begin with rows that nothing happened to."""

    @rule(number=numbers, off=attempts, resend=st.booleans())
    def intend(self, number: int, off: int, resend: bool) -> None:
        row = self.model[number]
        attempt = row.attempts + 1 + off
        event, state = (Event.RESEND, "unknown") if resend else (Event.INTEND, "pending")
        write = partial(self.run_.intend, number, attempt, 1.0, resend=resend)
        if self.write(number, event, write, fits=off == 0, legal=off == 0 and row.state == state):
            row.state, row.attempts = "intent", attempt

    @rule(number=numbers, off=attempts)
    def started(self, number: int, off: int) -> None:
        row = self.model[number]
        legal = off == 0 and row.state == "intent"
        execution = f"own-{number}-{row.attempts}"
        write = partial(self.run_.started, number, row.attempts + off, execution)
        if self.write(number, Event.STARTED, write, fits=off == 0, legal=legal):
            row.state, row.execution = "started", execution

    @rule(number=numbers, off=attempts, rejected=st.booleans())
    def not_this_time(self, number: int, off: int, rejected: bool) -> None:
        row = self.model[number]
        event, write = (Event.REJECTED, self.run_.rejected) if rejected else (Event.REFUSED, self.run_.refused)
        made = partial(write, number, row.attempts + off, "code", "message")
        if self.write(number, event, made, fits=off == 0, legal=off == 0 and row.state == "intent"):
            row.state = "unknown" if row.doubts else "rejected" if rejected else "pending"

    @rule(number=numbers, off=attempts)
    def unknown(self, number: int, off: int) -> None:
        row = self.model[number]
        legal = off == 0 and row.state == "intent"
        write = partial(self.run_.unknown, number, row.attempts + off, "code", "message")
        if self.write(number, Event.UNKNOWN, write, fits=off == 0, legal=legal):
            row.state = "unknown"
            row.doubts.add(row.attempts)

    @rule(number=numbers, attempt=st.integers(1, 4), execution=executions)
    def claim(self, number: int, attempt: int, execution: str) -> None:
        row = self.model[number]
        free = execution not in {row.execution for row in self.model.values()} | self.former
        fits = attempt in row.doubts and free
        write = partial(self.run_.claim, number, attempt, execution, "note")
        if self.write(number, Event.CLAIMED, write, fits=fits, legal=fits and row.state == "unknown"):
            row.state, row.execution = "started", execution
            row.doubts.discard(attempt)

    @rule(number=numbers, off=attempts)
    def not_started(self, number: int, off: int) -> None:
        row = self.model[number]
        write = partial(self.run_.not_started, number, row.attempts + off, "note")
        if self.write(number, Event.NOT_STARTED, write, fits=off == 0, legal=off == 0 and row.state == "unknown"):
            row.state = "pending"
            row.doubts.clear()

    @rule(number=numbers, off=attempts)
    def retry(self, number: int, off: int) -> None:
        row = self.model[number]
        write = partial(self.run_.retry, number, row.attempts + off, "note")
        if self.write(number, Event.RETRY, write, fits=off == 0, legal=off == 0 and row.state == "rejected"):
            row.state = "pending"

    @rule(number=numbers, off=attempts)
    def give_up(self, number: int, off: int) -> None:
        row = self.model[number]
        fits = off == 0 and row.attempts > 0
        write = partial(self.run_.give_up, number, row.attempts + off, "note")
        if self.write(number, Event.GIVEN_UP, write, fits=fits, legal=fits and row.state == "pending"):
            row.state = "rejected"

    @rule(number=numbers, off=attempts)
    def restart(self, number: int, off: int) -> None:
        row = self.model[number]
        legal = off == 0 and row.state == "started" and not row.doubts
        job = RestartJob(row.execution or "none", "STEP1")
        write = partial(self.run_.restart, number, row.attempts + off, job, "note")
        if self.write(number, Event.RESTART, write, fits=off == 0, legal=legal):
            assert row.execution is not None
            self.former.add(row.execution)
            row.state, row.execution = "pending", None

    @rule(number=numbers, execution=executions, status=st.sampled_from(["Running", "Failed"]))
    def observe(self, number: int, execution: str, status: str) -> None:
        row = self.model[number]
        ended = status == "Failed"
        for given in {execution, row.execution or execution}:
            seen = Observation(number, given, status, None, None, None, ended)
            self.runner.run(self.run_.observe([seen]))
        if row.state == "started" and (row.seen is None or row.seen[0] != row.execution or row.seen[1] != "Failed"):
            row.seen = (row.execution, status)

    @rule()
    def leave_and_open_again(self) -> None:
        self.runner.run(self.run_.aclose())
        self.run_ = self.runner.run(self.ledger.open_run("run"))
        for number, row in self.model.items():
            if row.state == "intent":
                row.state = "unknown"
                row.doubts.add(row.attempts)
                crashed = follow(self.standings[number], Event.CRASH)
                assert crashed is not None
                self.standings[number] = crashed

    @invariant()
    def the_ledger_says_what_the_model_says(self) -> None:
        async def told() -> dict[int, Row]:
            told = {
                row.number: Row(row.state.label, row.attempts, set(), row.execution_id)
                for row in await self.run_.page()
            }
            for attempt in await self.ledger.open_attempts(APPLICATION):
                if attempt.ended_at is not None:
                    told[attempt.number].doubts.add(attempt.attempt)
            for row in await self.run_.page():
                assert row.doubts == len(told[row.number].doubts)
                assert Standing(row.state, row.doubts) == self.standings[row.number]
            counts = await self.run_.counts()
            states = [row.state for row in told.values()]
            assert counts == {state: states.count(state.label) for state in RowState}
            tracked = {seen.number: (seen.execution_id, seen.status) async for seen in self.run_.all_executions()}
            assert tracked == {
                number: row.seen if row.seen is not None and row.seen[0] == row.execution else (row.execution, None)
                for number, row in self.model.items()
                if row.state == "started"
            }
            assert await self.ledger.claimed(APPLICATION, self.former) == self.former
            return told

        assert self.runner.run(told()) == self.model


class InMemory(Transitions):
    @staticmethod
    def address(directory: str) -> str:
        return "memory:"


class InFile(Transitions):
    @staticmethod
    def address(directory: str) -> Path:
        return Path(directory, "ledger.db")


@pytest.mark.parametrize(("machine", "examples"), [(InMemory, 100), (InFile, 50)])
def test_whatever_happens_the_ledger_follows_the_table(machine: type[Transitions], examples: int) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
