"""Jobs in doubt: when each is looked for, how often, and what is told of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import anyio
import pytest

from m2async.certainty.adopt import Adopted, Ambiguous, Decision, NotStarted, StartedTogether
from m2async.certainty.doubts import Doubts, write_decision
from m2async.clock import steady_time
from m2async.errors import CallError, ThrottlingException
from m2async.ledger import ForeignExecution, Ledger, LedgerClosedError, RowState, Run, open_ledger
from m2async.service import BatchJobExecution
from tests.ledger.samples import APPLICATION, OTHER_APPLICATION, planned, request

SETTLE = 0.05


class Service:
    """Lists these executions of the job that every row starts, or raises; counts the lists."""

    clock_offset = 0.0

    def __init__(self, *execution_ids: str, error: CallError | None = None) -> None:
        self.execution_ids = execution_ids
        self.error = error
        self.lists = 0

    async def list_batch_job_executions(
        self, application_id: str, /, *, started_after: datetime | None = None, started_before: datetime | None = None
    ) -> AsyncIterator[BatchJobExecution]:
        self.lists += 1
        if self.error is not None:
            raise self.error
        for execution_id in self.execution_ids:
            members = {request().job.member: request().job.to_members()}
            yield BatchJobExecution(
                application_id, execution_id, datetime.now(UTC), "Running", batch_job_identifier=members
            )


class Told:
    """What came of the jobs, and which applications could not be listed."""

    def __init__(self) -> None:
        self.decisions: dict[str, Decision] = {}
        self.failed: list[str] = []
        self.foreign: list[tuple[str, str, str, float]] = []

    async def decided(self, decisions: Sequence[tuple[str, Decision]]) -> None:
        self.decisions.update(decisions)


async def in_doubt(run: Run, count: int) -> None:
    for number in range(1, count + 1):
        await run.intend(number, 1, datetime.now(UTC).timestamp())
        await run.unknown(number, 1, "AnswerTimeoutError", "lost")


def doubts(
    service: Service,
    ledger: Ledger,
    run: Run,
    told: Told,
    looks: int = 1,
    clock: Callable[[], float] = steady_time,
) -> Doubts[str]:
    return Doubts(
        service,
        ledger,
        run,
        settle=SETTLE,
        decided=told.decided,
        foreign=lambda *execution: told.foreign.append(execution),
        listed=lambda application_id, error: told.failed.append(application_id) if error else None,
        looks=looks,
        clock=clock,
    )


async def test_one_execution_is_adopted_and_none_is_not_started() -> None:
    for listed, expected in ((("e-1",), Adopted(("e-1",))), ((), NotStarted())):
        async with open_ledger("memory:") as ledger, planned(ledger, 1) as run:
            await in_doubt(run, 1)
            told, service = Told(), Service(*listed)
            looking = doubts(service, ledger, run, told)
            looking.park("job", APPLICATION, 1)
            await looking.decide_all()
            assert told.decisions == {"job": expected}
            await write_decision(run, 1, 1, told.decisions["job"])
            row = await run.row("key-1")
            assert row.state is (RowState.STARTED if listed else RowState.PENDING)
            assert row.execution_id == (listed[0] if listed else None)


async def test_what_no_further_look_can_make_clear_is_looked_for_once() -> None:
    """All that may have started the execution is settled, so that another look would see the same."""
    async with open_ledger("memory:") as ledger, planned(ledger, 2) as run:
        await in_doubt(run, 2)
        told, service = Told(), Service("e-1")
        looking = doubts(service, ledger, run, told, looks=3)
        looking.park("one", APPLICATION, 1)
        looking.park("two", APPLICATION, 2)
        await looking.decide_all()
    assert {type(decision) for decision in told.decisions.values()} == {Ambiguous}
    assert service.lists == 1


async def test_what_another_call_under_way_may_make_clear_is_looked_for_so_often_and_the_last_word_stands() -> None:
    async with open_ledger("memory:") as ledger, planned(ledger, 3) as run:
        await in_doubt(run, 2)
        await run.intend(3, 1, datetime.now(UTC).timestamp())
        told, service = Told(), Service("e-1")
        looking = doubts(service, ledger, run, told, looks=3)
        looking.park("one", APPLICATION, 1)
        looking.park("two", APPLICATION, 2)
        await looking.decide_all()
    assert {type(decision) for decision in told.decisions.values()} == {Ambiguous}
    assert service.lists == 3


async def test_a_call_that_is_answered_once_the_look_has_ended_makes_clear_what_the_look_did_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_ledger("memory:") as ledger, planned(ledger, 2) as run:
        await in_doubt(run, 1)
        await run.intend(2, 1, datetime.now(UTC).timestamp())
        noted = run.note_foreign

        async def answered_meanwhile(executions: Sequence[ForeignExecution]) -> list[ForeignExecution]:
            if service.lists == 1:
                await run.started(2, 1, "e-1")
            return await noted(executions)

        monkeypatch.setattr(run, "note_foreign", answered_meanwhile)
        told, service = Told(), Service("e-1")
        looking = doubts(service, ledger, run, told, looks=3)
        looking.park("job", APPLICATION, 1)
        await looking.decide_all()
    assert told.decisions == {"job": NotStarted()}


async def test_a_job_is_not_decided_before_its_attempt_has_settled_and_keeps_its_candidates() -> None:
    """As where a crash dated the attempt's end by a clock that was a little ahead."""
    async with open_ledger("memory:") as ledger, planned(ledger, 1) as run:
        await in_doubt(run, 1)
        await run.candidates(1, ["e-8", "e-9"])
        ended_at = (await run.row("key-1")).ended_at
        assert ended_at is not None
        told, service = Told(), Service("e-8", "e-9")
        now = ended_at
        looking = doubts(service, ledger, run, told, clock=lambda: now)
        looking.park("job", APPLICATION, 1, ended_at=ended_at + 0.3)
        with anyio.move_on_after(0.5):
            await looking.decide_all()
        assert (told.decisions, service.lists) == ({}, 0)
        now += 1.0
        await looking.decide_all()
    assert list(told.decisions["job"].candidates) == ["e-8", "e-9"]  # type: ignore[union-attr]


async def test_an_end_that_another_clock_put_hours_ahead_holds_nobody_up() -> None:
    async with open_ledger("memory:") as ledger, planned(ledger, 2) as run:
        await in_doubt(run, 2)
        told = Told()
        looking = doubts(Service(), ledger, run, told)
        looking.park("by another clock", APPLICATION, 1, ended_at=datetime.now(UTC).timestamp() + 7_200)
        looking.park("just now", APPLICATION, 2)
        await looking.decide_all()
    assert told.decisions == {"by another clock": NotStarted(), "just now": NotStarted()}


async def test_an_application_that_cannot_be_listed_is_told_and_decides_nothing() -> None:
    error = ThrottlingException("slow", code="ThrottlingException", http_status=429)
    async with open_ledger("memory:") as ledger, planned(ledger, 1) as run:
        await in_doubt(run, 1)
        told = Told()
        looking = doubts(Service(error=error), ledger, run, told, looks=2)
        looking.park("job", APPLICATION, 1)
        await looking.decide_all()
    assert told.failed == [APPLICATION] * 2
    assert told.decisions == {"job": Ambiguous((), surely_started=False)}


async def test_jobs_that_are_taken_back_are_not_looked_for() -> None:
    async with open_ledger("memory:") as ledger, planned(ledger, 1) as run:
        await in_doubt(run, 1)
        told, service = Told(), Service("e-1")
        looking = doubts(service, ledger, run, told)
        looking.park("job", APPLICATION, 1)
        assert looking.take_all() == ["job"]
        await looking.decide_all()
        assert (told.decisions, service.lists) == ({}, 0)


async def test_what_whoever_is_told_of_a_failure_raises_ends_the_looking() -> None:
    error = ThrottlingException("slow", code="ThrottlingException", http_status=429)

    def raising(_: str, failure: CallError | None) -> None:
        assert failure is not None
        raise failure

    async with open_ledger("memory:") as ledger, planned(ledger, 1) as run:
        await in_doubt(run, 1)
        told = Told()
        looking = Doubts[str](
            Service(error=error), ledger, run, settle=0.0, decided=told.decided, listed=raising, foreign=print
        )
        looking.park("job", APPLICATION, 1)
        with pytest.raises(ThrottlingException):
            await looking.decide_all()
    assert told.decisions == {}


async def test_what_could_not_be_looked_for_keeps_the_candidates_of_before() -> None:
    async with open_ledger("memory:") as ledger, planned(ledger, 1) as run:
        await in_doubt(run, 1)
        await run.candidates(1, ["e-8", "e-9"])
        await write_decision(run, 1, 1, Ambiguous((), surely_started=False))
        assert (await run.row("key-1")).candidates == ("e-8", "e-9")
        await write_decision(run, 1, 1, Ambiguous(("e-9",), surely_started=False))
        assert (await run.row("key-1")).candidates == ("e-9",)


async def test_jobs_that_become_due_at_different_moments_are_told_together_and_written_at_once() -> None:
    """The first is looked for while the second is too young to be decided, and waits for its next look."""
    async with open_ledger("memory:") as ledger, planned(ledger, 2) as run:
        await in_doubt(run, 2)
        told, service = Told(), Service("e-1", "e-2")
        looking = Doubts[str](
            service, ledger, run, settle=0.5, decided=told.decided, foreign=print, listed=lambda *_: None
        )
        [_, last] = [row.ended_at or 0.0 for row in await run.page()]
        looking.park("one", APPLICATION, 1, ended_at=last - 0.3)
        looking.park("two", APPLICATION, 2, ended_at=last + 0.05)
        await looking.decide_all()
        both = StartedTogether(((1, 1), (2, 1)), ("e-1", "e-2"))
        assert told.decisions == {"one": both, "two": both}
        await write_decision(run, 1, 1, both)
        rows = await run.page()
        assert [(row.state, row.execution_id, row.candidates) for row in rows] == [
            (RowState.STARTED, None, ("e-1", "e-2"))
        ] * 2
        await write_decision(run, 2, 1, both)
        assert await run.page() == rows


async def test_jobs_whose_attempts_have_settled_are_told_together_though_one_is_not_due_yet() -> None:
    async with open_ledger("memory:") as ledger, planned(ledger, 2) as run:
        await in_doubt(run, 2)
        told, service = Told(), Service("e-1", "e-2")
        looking = doubts(service, ledger, run, told, looks=3)
        looking.park("one", APPLICATION, 1)
        looking.park("two", APPLICATION, 2, ended_at=steady_time() + 1.0)  # it was set aside a while after its end
        await looking.decide_all()
    assert {type(decision) for decision in told.decisions.values()} == {StartedTogether}
    assert (len(told.decisions), service.lists) == (2, 1)


@pytest.mark.parametrize("is_first", [True, False])
async def test_no_application_waits_for_the_list_of_another_that_hangs(is_first: bool) -> None:
    class Hangs(Service):
        async def list_batch_job_executions(self, application_id: str, /, **window: Any) -> AsyncIterator[Any]:
            if application_id == OTHER_APPLICATION:
                self.lists += 1
                await hangs_until.wait()
            async for execution in super().list_batch_job_executions(application_id, **window):
                yield execution

    hangs_until = asyncio.Event()
    applications = (OTHER_APPLICATION, APPLICATION) if is_first else (APPLICATION, OTHER_APPLICATION)
    rows = [(f"key-{number}", request(number, applications[number % 2])) for number in range(4)]
    async with open_ledger("memory:") as ledger, planned(ledger, rows) as run:
        await in_doubt(run, 4)
        told, service = Told(), Hangs()
        looking = doubts(service, ledger, run, told)
        running = asyncio.create_task(looking.run())
        for number, (key, job) in enumerate(rows[:2], 1):
            looking.park(key, job.application_id, number)
        quick = {key for key, job in rows if job.application_id == APPLICATION}
        while len(told.decisions) < 1:
            await asyncio.sleep(0)
        for number, (key, job) in enumerate(rows[2:], 3):
            looking.park(key, job.application_id, number)
        while len(told.decisions) < 2:
            await asyncio.sleep(0)
        assert told.decisions == dict.fromkeys(quick, NotStarted())
        assert service.lists > 0
        hangs_until.set()
        while len(told.decisions) < 4:
            await asyncio.sleep(0)
        running.cancel()


async def test_what_ends_the_looking_at_one_application_ends_it_as_it_is() -> None:
    async with open_ledger("memory:") as ledger:
        rows = [("one", request(1)), ("other", request(2, OTHER_APPLICATION))]
        async with planned(ledger, rows) as run:
            await in_doubt(run, 2)
            looking = doubts(Service(), ledger, run, Told())
            looking.park("one", APPLICATION, 1)
            looking.park("other", OTHER_APPLICATION, 2)
            running = asyncio.create_task(looking.run())
        await ledger.aclose()
        with pytest.raises(LedgerClosedError):
            await running
        assert asyncio.all_tasks() == {asyncio.current_task()}
