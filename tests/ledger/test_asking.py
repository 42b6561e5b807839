"""Decisions on rows of a run that another has open for writing: asked for, answered, or taken over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from m2async import RestartJob
from m2async.ledger import (
    Deed,
    ExecutionClaimedError,
    IllegalTransitionError,
    Ledger,
    RowState,
    Run,
    RunNotAnsweringError,
    RunNotFoundError,
    asking,
    carry_out_what_is_asked,
    open_for_decisions,
)
from tests.ledger.samples import planned, row_of


@pytest.fixture
async def run(ledger: Ledger) -> AsyncIterator[Run]:
    """Row 1 has two attempts in doubt, rows 2 and 3 have one; row 4 is started, and 5 was never sent."""
    async with planned(ledger, 5) as run:
        for number in range(1, 5):
            await run.intend(number, 1, 1.0)
            await (run.started(4, 1, "e-4") if number == 4 else run.unknown(number, 1, "code", "message"))
        await run.intend(1, 2, 2.0, resend=True)
        await run.unknown(1, 2, "code", "message")
        yield run


async def answering(run: Run) -> None:
    while True:
        await carry_out_what_is_asked(run, done=lambda deed: None)
        await asyncio.sleep(0)


async def test_each_decision_is_written_by_whoever_has_the_run_open(ledger: Ledger, run: Run) -> None:
    async with asyncio.TaskGroup() as tasks, open_for_decisions(ledger, "run") as decisions:
        holder = tasks.create_task(answering(run))
        assert decisions.held_by is not None
        await decisions.claim(1, 2, "e-1", "found")
        await decisions.confirm(1, 2, "alone")
        await decisions.candidates(2, ["a", "b"])
        await decisions.not_started(2, 1, "none")
        await decisions.resolve(3, 1, "e-3", "word")
        await decisions.restart(4, 1, RestartJob("e-4", "STEP1"), "again")
        holder.cancel()
    one, two, three, four, _ = await run.page()
    assert (one.state, one.execution_id, one.doubts, one.note) == (RowState.STARTED, "e-1", 0, "alone")
    assert (two.state, two.note) == (RowState.PENDING, "none")
    assert (three.state, three.execution_id, three.adopted) == (RowState.STARTED, "e-3", False)
    assert (four.state, four.request.job) == (RowState.PENDING, RestartJob("e-4", "STEP1"))
    assert await run.asked() == []


async def test_a_group_and_many_words_are_written_by_whoever_has_the_run_open(ledger: Ledger, run: Run) -> None:
    async with asyncio.TaskGroup() as tasks, open_for_decisions(ledger, "run") as decisions:
        holder = tasks.create_task(answering(run))
        await decisions.claim_together(3, [(2, 1), (3, 1)], ["e-2", "e-3"], "both")
        group = [await decisions.view.row(f"key-{number}") for number in (2, 3)]
        with pytest.raises(IllegalTransitionError, match="row 5: to call it started as e-5 after attempt 0"):
            await decisions.resolve_all([(2, 1, "e-3"), (1, 2, None), (5, 0, "e-5")], "words")
        assert [await decisions.view.row(f"key-{number}") for number in (2, 3)] == group
        await decisions.resolve_all([(2, 1, "e-3"), (1, 2, None)], "words")
        holder.cancel()
    assert [(row.state, row.execution_id, row.candidates) for row in group] == [
        (RowState.STARTED, None, ("e-2", "e-3"))
    ] * 2
    one, two, three, *_ = await run.page()
    assert [(row.state, row.execution_id, row.adopted) for row in (one, two, three)] == [
        (RowState.PENDING, None, False), (RowState.STARTED, "e-3", False), (RowState.STARTED, "e-2", True),
    ]  # fmt: skip


async def test_what_cannot_be_is_refused_as_it_would_be_here(ledger: Ledger, run: Run) -> None:
    async with asyncio.TaskGroup() as tasks, open_for_decisions(ledger, "run") as decisions:
        holder = tasks.create_task(answering(run))
        with pytest.raises(IllegalTransitionError, match="not possible for a row that is PENDING, attempts 0"):
            await decisions.not_started(5, 1, "note")
        with pytest.raises(ExecutionClaimedError) as caught:
            await decisions.resolve(3, 1, "e-4", "note")
        assert (caught.value.execution_id, caught.value.key) == ("e-4", "key-4")
        holder.cancel()
    assert (await row_of(run, 3)).state is RowState.UNKNOWN


async def test_where_the_run_is_left_before_it_was_done_the_one_who_asks_takes_over(ledger: Ledger, run: Run) -> None:
    async with open_for_decisions(ledger, "run") as decisions:
        written = asyncio.create_task(decisions.resolve(3, 1, "e-3", "word"))
        while not await run.asked():
            pass
        await run.aclose()
        await written
        assert decisions.held_by is None
        assert (await decisions.view.row("key-3")).execution_id == "e-3"
        await decisions.resolve(3, 1, None, "another word")
    async with await ledger.open_run("run") as again:
        assert (await row_of(again, 3)).state is RowState.PENDING


async def test_several_who_ask_at_once_take_over_together(ledger: Ledger, run: Run) -> None:
    async with open_for_decisions(ledger, "run") as decisions:
        words = [(1, 2, "e-1"), (2, 1, "e-2"), (3, 1, "e-3")]
        written = asyncio.gather(*(decisions.resolve(*word, "word") for word in words))
        while len(await run.asked()) < len(words):
            pass
        await run.aclose()
        await written
        assert decisions.held_by is None
        assert [(await decisions.view.row(f"key-{number}")).execution_id for number, _, _ in words] == [
            "e-1", "e-2", "e-3"
        ]  # fmt: skip


async def test_where_another_opens_the_run_meanwhile_it_is_asked_anew(ledger: Ledger, run: Run) -> None:
    async with open_for_decisions(ledger, "run") as decisions:
        written = asyncio.create_task(decisions.resolve(3, 1, "e-3", "word"))
        while not await run.asked():
            pass
        await run.aclose()
        async with await ledger.open_run("run") as other:
            done: list[Deed] = []
            while not done:
                await carry_out_what_is_asked(other, done.append)
            await written
            assert (await row_of(other, 3)).execution_id == "e-3"


async def test_what_somebody_asked_who_is_gone_is_not_done_by_whoever_opens_the_run_later(
    ledger: Ledger, run: Run
) -> None:
    async with open_for_decisions(ledger, "run") as decisions:
        asking_ = asyncio.create_task(decisions.resolve(3, 1, "e-3", "word"))
        while not await run.asked():
            pass
        asking_.cancel()
        await asyncio.wait([asking_])
    await run.aclose()
    async with await ledger.open_run("run") as later:
        assert await later.asked() == []


async def test_whoever_does_not_answer_is_not_waited_for_and_nothing_is_written_later(
    ledger: Ledger, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "_ANSWERED_WITHIN", 0.1)
    async with open_for_decisions(ledger, "run") as decisions:
        with pytest.raises(RunNotAnsweringError, match="does not answer; nothing was written"):
            await decisions.resolve(3, 1, "e-3", "word")
    done: list[Deed] = []
    await carry_out_what_is_asked(run, done.append)
    assert not done
    assert (await row_of(run, 3)).state is RowState.UNKNOWN


async def test_a_run_that_does_not_exist_is_not_made(ledger: Ledger) -> None:
    with pytest.raises(RunNotFoundError):
        async with open_for_decisions(ledger, "nosuch"):
            pass
    assert await ledger.runs() == []


async def test_an_answer_outlives_the_next_opening_of_the_run(ledger: Ledger, run: Run) -> None:
    """Whoever asked may not have read it yet, and would ask again for what was done."""
    view = await ledger.run("run")
    done, open_ = [await view.ask('{"what":"not_started","number":2,"attempt":1}') for _ in range(2)]
    await run.take_on(done)
    await run.answer(done, "{}")
    await run.aclose()
    async with await ledger.open_run("run") as again:
        assert await view.answer_to(done) == "{}"
        assert await view.answer_to(open_) is None
        assert await again.asked() == []
