"""Doubts of one name are told apart by windows as narrow as the run's own executions show, and no further."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from m2async import FileJob, StartBatchJob
from m2async.certainty import ApplicationOfRun
from m2async.certainty.adopt import Adopted, Ambiguous, Decision, Margins, NotStarted
from m2async.certainty.reconcile import Reconciled, learn_start_times, reconcile
from m2async.certainty.start_times import Precision
from m2async.ledger import Ledger, Run, open_ledger
from tests.certainty.test_reconcile import APPLICATION, FILE, Lists, execution


class Night:
    """A run with a row a tenth of a second, all of one name; some answers are lost."""

    def __init__(self, ledger: Ledger, run: Run, clock: list[float]) -> None:
        self.client = Lists([])
        self.of = ApplicationOfRun(self.client, ledger, run, APPLICATION, Margins(), precision=Precision())
        self._run = run
        self._clock = clock
        self._began = clock[0]
        self._rows = 0

    async def send(
        self,
        at: float,
        *,
        started: float | None = 0.01,
        lost: bool = False,
        by_service: bool = True,
        is_under_way: bool = False,
    ) -> int:
        """Send a row at a time, which may be started so much later; the exchange takes 20 ms, if it has ended."""
        self._rows += 1
        self._clock[0] = self._began + at
        row = await self._run.add(f"row-{self._rows}", StartBatchJob(APPLICATION, FileJob("POSTTRAN.jcl")))
        await self._run.intend(row.number, 1, self._began + at)
        if started is not None:
            self.client.executions.append(execution(f"e-{row.number}", FILE, self._began + at + started))
        self._clock[0] += 0.02
        if is_under_way:
            return row.number
        if lost:
            await self._run.unknown(row.number, 1, "ConnectionLostError", "", ended_by_service=by_service)
        else:
            await self._run.started(row.number, 1, f"e-{row.number}")
        return row.number

    async def decided(self, *numbers: int) -> list[Decision]:
        found = await self._look(numbers, 60.0)
        return [found.decisions[number] for number in numbers]

    async def may_change(self, *numbers: int, at: float) -> bool:
        """Whether another look than one at this time may see more."""
        return (await self._look(numbers, at)).may_change

    async def _look(self, numbers: Sequence[int], at: float) -> Reconciled:
        self._clock[0] = self._began + at
        return await reconcile(self.client, self.of, settled_before=self._clock[0] - 5, wanted=numbers)


@asynccontextmanager
async def night() -> AsyncIterator[Night]:
    clock = [time.time()]
    async with open_ledger("memory:", clock=lambda: clock[0]) as ledger, await ledger.open_run("run") as run:
        yield Night(ledger, run, clock)


async def test_of_two_doubts_that_are_apart_the_one_is_adopted_and_the_other_was_not_started() -> None:
    async with night() as run:
        for tenth in range(20):
            await run.send(tenth / 10)
        one = await run.send(2.0, lost=True)
        for tenth in range(24, 34):
            await run.send(tenth / 10)
        other = await run.send(3.4, started=None, lost=True)
        for tenth in range(38, 60):
            await run.send(tenth / 10)
        assert await run.decided(one, other) == [Adopted((f"e-{one}",)), NotStarted()]


@pytest.mark.parametrize("why", ["touching", "the client gave up", "few witnesses", "none sent later"])
async def test_where_windows_may_touch_they_stay_ambiguous(why: str) -> None:
    async with night() as run:
        for tenth in range(2 if why == "few witnesses" else 20):
            await run.send(tenth / 10)
        by_service = why != "the client gave up"
        one = await run.send(2.0, started=None, lost=True, by_service=by_service)
        other = await run.send(2.05 if why == "touching" else 3.4, lost=True, by_service=by_service)
        for tenth in range(38, {"none sent later": 38, "few witnesses": 48}.get(why, 60)):
            await run.send(tenth / 10)
        for decision in await run.decided(one, other):
            assert isinstance(decision, Ambiguous)
            assert list(decision.candidates) == [f"e-{other}"]


async def test_an_execution_outside_of_its_window_leaves_its_row_unknown_and_no_narrow_window_holds() -> None:
    async with night() as run:
        for tenth in range(20):
            await run.send(tenth / 10)
        late = await run.send(2.0, started=1.0, lost=True)
        for tenth in range(24, 60):
            await run.send(tenth / 10)
        [decision] = await run.decided(late)
        assert isinstance(decision, Ambiguous)
        assert list(decision.candidates) == [f"e-{late}"]
        assert run.of.precision.is_refuted


@pytest.mark.parametrize("is_under_way", [True, False], ids=["under way", "given up by the client"])
async def test_an_execution_that_only_another_s_wide_window_explains_is_nobody_s_for_sure(is_under_way: bool) -> None:
    async with night() as run:
        for tenth in range(20):
            await run.send(tenth / 10)
        other = await run.send(2.0, started=None, lost=True, by_service=False, is_under_way=is_under_way)
        late = await run.send(2.2, started=0.6, lost=True)
        for tenth in range(36, 66):
            await run.send(tenth / 10)
        for decision in await run.decided(*([late] if is_under_way else [late, other])):
            assert isinstance(decision, Ambiguous)
            assert list(decision.candidates) == [f"e-{late}"]


@pytest.mark.parametrize("given_up_first", [True, False])
async def test_a_prompt_start_of_what_the_client_gave_up_is_its_own_and_no_late_one_of_another(
    given_up_first: bool,
) -> None:
    async with night() as run:
        for tenth in range(20):
            await run.send(tenth / 10)
        if given_up_first:
            given_up = await run.send(2.0, lost=True, by_service=False)
            closed = await run.send(2.6, started=None, lost=True)
        else:
            closed = await run.send(2.0, started=None, lost=True)
            given_up = await run.send(2.6, lost=True, by_service=False)
        for tenth in range(36, 66):
            await run.send(tenth / 10)
        assert await run.decided(given_up, closed) == [Adopted((f"e-{given_up}",)), NotStarted()]


@pytest.mark.parametrize("other_comes", ["first", "last"])
async def test_one_that_was_not_started_is_told_from_one_with_no_witness_before_or_behind_it(other_comes: str) -> None:
    """That one has started its job as soon as others do: else a run's first and last doubts would hold all up."""
    async with night() as run:
        if other_comes == "first":
            other = await run.send(0.0, lost=True)
        for tenth in range(4, 24):
            await run.send(tenth / 10)
        one = await run.send(2.4, started=None, lost=True)
        for tenth in range(28, 40):
            await run.send(tenth / 10)
        if other_comes == "last":
            other = await run.send(4.4, lost=True)
        assert await run.decided(one, other) == [NotStarted(), Adopted((f"e-{other}",))]


@pytest.mark.parametrize("other_comes", ["first", "last"])
async def test_a_start_later_than_others_is_nobody_s_for_sure_although_one_without_a_witness_may_explain_it(
    other_comes: str,
) -> None:
    async with night() as run:
        if other_comes == "first":
            other = await run.send(0.0, started=None, lost=True)
        for tenth in range(4, 24):
            await run.send(tenth / 10)
        late = await run.send(2.4, started=1.0, lost=True)
        for tenth in range(28, 40):
            await run.send(tenth / 10)
        if other_comes == "last":
            other = await run.send(4.4, started=None, lost=True)
        for decision in await run.decided(late, other):
            assert isinstance(decision, Ambiguous)
            assert list(decision.candidates) == [f"e-{late}"]


async def test_another_look_may_see_more_as_long_as_nothing_was_sent_and_answered_after_a_lost_answer() -> None:
    async with night() as run:
        for tenth in range(30):
            await run.send(tenth / 10)
        one = await run.send(3.1, started=None, lost=True)
        other = await run.send(3.6, lost=True)
        assert [await run.may_change(one, other, at=at) for at in (9.0, 60.0)] == [True, False]
        await run.send(14.0)
        assert not await run.may_change(one, other, at=20.0)
        assert await run.decided(one, other) == [NotStarted(), Adopted((f"e-{other}",))]


async def test_start_times_are_learned_before_anything_is_in_doubt() -> None:
    async with night() as run:
        for tenth in range(30):
            await run.send(tenth / 10)
        of = run.of
        recent = ApplicationOfRun(
            of.client, of.ledger, of.run, of.id, of.margins, precision=of.precision, recent=(29, 30)
        )
        await learn_start_times(run.client, recent)
        assert of.precision.bounds is not None
        assert of.precision.bounds.apart < 0.5
        assert len(run.client.windows) == 1
