"""Jobs in doubt: when each is looked for, how often, and what is told of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

import anyio
import pytest

from m2async.certainty.adopt import Adopted, Ambiguous, Decision, NotStarted
from m2async.certainty.doubts import Doubts, write_decision
from m2async.errors import CallError, ThrottlingException
from m2async.ledger import Ledger, RowState, Run, open_ledger
from m2async.service import BatchJobExecution
from tests.ledger.samples import APPLICATION, planned, request

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

    async def decided(self, decisions: Sequence[tuple[str, Decision]]) -> None:
        self.decisions.update(decisions)


async def in_doubt(run: Run, count: int) -> None:
    for number in range(1, count + 1):
        await run.intend(number, 1, datetime.now(UTC).timestamp())
        await run.unknown(number, 1, "AnswerTimeoutError", "lost")


def doubts(service: Service, ledger: Ledger, run: Run, told: Told, looks: int = 1) -> Doubts[str]:
    return Doubts(
        service,
        ledger,
        run.info.id,
        settle=SETTLE,
        decided=told.decided,
        failed=lambda application_id, _: told.failed.append(application_id),
        looks=looks,
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


async def test_what_is_ambiguous_is_looked_for_so_often_and_the_last_word_stands() -> None:
    async with open_ledger("memory:") as ledger, planned(ledger, 2) as run:
        await in_doubt(run, 2)
        told, service = Told(), Service("e-1")
        looking = doubts(service, ledger, run, told, looks=3)
        looking.park("one", APPLICATION, 1)
        looking.park("two", APPLICATION, 2)
        await looking.decide_all()
    assert {type(decision) for decision in told.decisions.values()} == {Ambiguous}
    assert service.lists == 3


async def test_a_job_is_not_decided_before_its_attempt_has_settled_and_keeps_its_candidates() -> None:
    """As where a crash dated the attempt's end by a clock that was a little ahead."""
    async with open_ledger("memory:") as ledger, planned(ledger, 1) as run:
        await in_doubt(run, 1)
        await run.candidates(1, ["e-8", "e-9"])
        ended_at = (await run.row("key-1")).ended_at
        assert ended_at is not None
        told, service = Told(), Service("e-8", "e-9")
        looking = doubts(service, ledger, run, told)
        looking.park("job", APPLICATION, 1, ended_at=ended_at + 0.3)
        with anyio.move_on_after(0.1):
            await looking.decide_all()
        assert (told.decisions, service.lists) == ({}, 0)
        await looking.decide_all()
    assert list(told.decisions["job"].candidates) == ["e-8", "e-9"]  # type: ignore[union-attr]


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

    def raising(_: str, failure: CallError) -> None:
        raise failure

    async with open_ledger("memory:") as ledger, planned(ledger, 1) as run:
        await in_doubt(run, 1)
        told = Told()
        looking = Doubts[str](
            Service(error=error), ledger, run.info.id, settle=0.0, decided=told.decided, failed=raising
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
