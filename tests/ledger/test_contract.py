"""What every ledger does: one suite over all of them."""

from __future__ import annotations

import asyncio
import os
import platform
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from m2async import InvalidRequestError, RestartJob, ScriptJob, StartBatchJob
from m2async.clock import steady_time
from m2async.ledger import (
    ClockSetBackError,
    DuplicateKeyError,
    ExecutionClaimedError,
    HistoryEntry,
    IllegalTransitionError,
    Ledger,
    LedgerClosedError,
    LedgerError,
    ManifestChangedError,
    Orders,
    RowEvent,
    RowNotFoundError,
    RowState,
    Run,
    RunInUseError,
    RunNotFoundError,
    RunNotPlannedError,
    RunStoppedError,
    open_ledger,
)
from tests.ledger.samples import APPLICATION, JOBS, OTHER_APPLICATION, Clock, planned, request, row_of, rows, state_of

PENDING, INTENT, STARTED, REJECTED, UNKNOWN = RowState


async def in_doubt(run: Run, number: int = 1, attempt: int = 1, *, resend: bool = False) -> None:
    await run.intend(number, attempt, float(attempt), resend=resend)
    await run.unknown(number, attempt, "AnswerTimeoutError", "no answer in 30 s")


# Runs


async def test_a_new_run_is_empty_and_not_planned(ledger: Ledger) -> None:
    async with await ledger.open_run("nightly") as run:
        assert (run.info.name, run.info.planned, run.info.rows) == ("nightly", False, 0)
        assert run.info.created_at > 1_700_000_000
        assert await run.counts() == dict.fromkeys(RowState, 0)
        assert await run.page() == []


async def test_runs_are_told_with_their_counts_oldest_first(ledger: Ledger) -> None:
    for name, count in (("b", 2), ("a", 1)):
        async with planned(ledger, count, name) as run:
            await run.intend(1, 1, 1.0)
            await run.started(1, 1, f"x-{name}")
    [first, second] = await ledger.runs()
    assert (first.info.name, first.info.rows, second.info.name) == ("b", 2, "a")
    assert first.counts == {PENDING: 1, INTENT: 0, STARTED: 1, REJECTED: 0, UNKNOWN: 0}


async def test_a_run_that_there_is_not_cannot_be_read(ledger: Ledger) -> None:
    with pytest.raises(RunNotFoundError) as caught:
        await ledger.run("nightly")
    assert caught.value.run == "nightly"
    assert await ledger.runs() == []


async def test_a_run_can_be_read_while_it_is_written(ledger: Ledger) -> None:
    async with planned(ledger) as run:
        view = await ledger.run("run")
        await run.intend(2, 1, 1.0)
        assert (await view.counts())[INTENT] == 1
        assert [row.number for row in await view.page(INTENT)] == [2]


async def test_a_run_is_open_for_writing_only_once(ledger: Ledger, clock: Clock) -> None:
    before = clock.now
    async with planned(ledger):
        with pytest.raises(RunInUseError) as caught:
            await ledger.open_run("run")
        assert (caught.value.run, caught.value.pid, caught.value.host) == ("run", os.getpid(), platform.node())
        assert caught.value.since is not None
        assert caught.value.since > before
        async with await ledger.open_run("another"):
            pass
    async with await ledger.open_run("run"):
        pass


async def test_a_run_that_has_no_rows_and_no_plan_is_gone_when_it_is_closed(ledger: Ledger) -> None:
    async with planned(ledger, name="kept") as kept:
        pass
    async with await ledger.open_run("night") as run:
        with pytest.raises(DuplicateKeyError):
            await run.plan([*rows(5), *rows(1)])
        async with planned(ledger, name="meanwhile") as meanwhile:
            assert len({kept.info.id, run.info.id, meanwhile.info.id}) == 3
    with pytest.raises(RunNotFoundError):
        await ledger.run("night")
    assert [summary.info.name for summary in await ledger.runs()] == ["kept", "meanwhile"]
    assert [row.key for row in await (await ledger.run("meanwhile")).page()] == ["key-1", "key-2", "key-3"]
    async with planned(ledger, 2, "night") as run:
        assert run.info.id not in {kept.info.id, meanwhile.info.id}
        assert [row.number for row in await run.page()] == [1, 2]
    assert [summary.info.rows for summary in await ledger.runs()] == [3, 3, 2]


async def test_what_a_run_was_told_that_is_gone_is_told_to_no_other(ledger: Ledger) -> None:
    async with await ledger.open_run("night") as run:
        await run.stop()
    async with await ledger.open_run("another") as another:
        assert another.info.id == run.info.id
        assert await another.orders() == Orders()


async def test_a_plan_without_rows_and_rows_without_a_plan_are_kept(ledger: Ledger) -> None:
    async with planned(ledger, 0, "planned"):
        pass
    async with await ledger.open_run("added") as run:
        await run.add("key", request())
    for name in ("planned", "added"):
        async with await ledger.open_run(name):
            pass
    assert [summary.info.name for summary in await ledger.runs()] == ["planned", "added"]


async def test_a_clock_that_is_behind_the_run_is_refused_while_a_job_is_in_doubt(ledger: Ledger, clock: Clock) -> None:
    async with planned(ledger, 3) as run, planned(ledger, name="another") as another:
        await run.intend(1, 1, clock())
        await run.unknown(1, 1, "AnswerTimeoutError", "")
        await run.intend(3, 1, clock())
        clock.now += 1_000.0
        await run.started(3, 1, "x3")  # later than what is in doubt, and so what tells how far the clock has been
        latest = (await row_of(run, 3)).ended_at
        await another.intend(1, 1, clock())
        await another.started(1, 1, "other")
    assert latest is not None
    clock.now = latest - 4.0
    with pytest.raises(ClockSetBackError) as caught:
        await ledger.open_run("run")
    assert (caught.value.run, caught.value.latest, caught.value.now) == ("run", latest, latest - 3.0)
    async with await ledger.open_run("another"):  # which has nothing to look for
        pass
    clock.now = latest - 3.0
    async with await ledger.open_run("run"):  # 2 s behind, which margins allow for
        pass
    clock.now = latest - 3_600.0
    async with await ledger.open_run("run", by_hand=True) as run:
        await run.not_started(1, 1, "an operator's word")
    clock.now = latest - 3_600.0
    async with await ledger.open_run("run"):
        pass


async def test_a_crash_is_not_dated_by_a_clock_that_is_behind(ledger: Ledger, clock: Clock) -> None:
    async with planned(ledger) as run:
        await run.intend(1, 1, clock())
    clock.now -= 60.0
    with pytest.raises(ClockSetBackError):
        await ledger.open_run("run")
    view = await ledger.run("run")
    assert ([row.state for row in await view.page()], await view.history(1)) == ([INTENT, PENDING, PENDING], [])
    clock.now += 60.0
    async with await ledger.open_run("run") as run:
        assert await state_of(run, 1) is UNKNOWN


async def test_what_is_closed_cannot_be_used(ledger: Ledger) -> None:
    async with planned(ledger) as run:
        pass
    with pytest.raises(LedgerClosedError):
        run.intend(1, 1, 1.0)
    with pytest.raises(LedgerClosedError):
        await run.plan(rows(3))
    with pytest.raises(LedgerClosedError):
        await run.add("key", request())
    await run.aclose()
    left = await ledger.open_run("left open")
    await left.plan(rows(1))
    await ledger.aclose()
    await ledger.aclose()
    for use in (ledger.runs(), ledger.run("run"), ledger.open_run("run"), left.counts(), ledger.open_attempts("a")):
        with pytest.raises(LedgerClosedError):
            await use


# Planning


async def test_planned_rows_come_back_in_order_with_their_requests(ledger: Ledger) -> None:
    given = [(f"key/{number} ü", request(number, job=job)) for number, job in enumerate(JOBS)]
    given.append(("bare", StartBatchJob(OTHER_APPLICATION, ScriptJob("A"), {}, "arn:aws:secretsmanager:…")))
    async with planned(ledger, given) as run:
        page = await run.page()
        assert [(row.key, row.request) for row in page] == given
        assert [row.number for row in page] == [1, 2, 3, 4, 5, 6, 7]
        assert {row.state for row in page} == {PENDING}
        assert run.info.planned
        assert run.info.rows == 7
        assert await run.row("bare") == page[-1]
        with pytest.raises(RowNotFoundError):
            await run.row("none")


async def test_a_manifest_without_rows_is_planned(ledger: Ledger) -> None:
    async with planned(ledger, 0) as run:
        assert run.info.planned
        await run.plan([])
        with pytest.raises(RowNotFoundError):
            run.intend(1, 1, 1.0)
        with pytest.raises(ManifestChangedError):
            await run.plan(rows(1))


async def test_nothing_is_sent_of_a_run_that_is_not_planned(ledger: Ledger) -> None:
    async with await ledger.open_run("run") as run:
        with pytest.raises(RunNotPlannedError):
            run.intend(1, 1, 1.0)


async def test_a_key_that_comes_twice_is_told_with_both_rows(ledger: Ledger) -> None:
    async with await ledger.open_run("run") as run:
        with pytest.raises(DuplicateKeyError) as caught:
            await run.plan([*rows(5), ("key-2", request())])
        assert (caught.value.key, caught.value.first, caught.value.second) == ("key-2", 2, 6)
        assert not run.info.planned


async def test_a_plan_that_did_not_end_is_made_anew(ledger: Ledger) -> None:
    def failing() -> Iterator[tuple[str, StartBatchJob]]:
        yield from rows(3)
        raise OSError("the manifest is gone")

    async with await ledger.open_run("run") as run:
        with pytest.raises(OSError, match="gone"):
            await run.plan(failing())
        assert (run.info.planned, run.info.rows, await run.page()) == (False, 0, [])
        await run.plan(rows(2, first=7))
        assert [row.key for row in await run.page()] == ["key-7", "key-8"]


async def test_the_same_rows_are_planned_again_in_any_order(ledger: Ledger) -> None:
    async with planned(ledger, 4) as run:
        await run.intend(1, 1, 1.0)
        await run.plan(rows(4))
        await run.plan(reversed(rows(4)))
        assert [row.key for row in await run.page()] == ["key-1", "key-2", "key-3", "key-4"]
        assert (await run.counts())[INTENT] == 1
        with pytest.raises(DuplicateKeyError) as caught:
            await run.plan([*rows(3), ("key-3", request(3)), ("key-4", request(4))])
        assert (caught.value.first, caught.value.second) == (3, 4)


async def test_other_rows_are_refused_with_what_differs(ledger: Ledger) -> None:
    async with planned(ledger, 4) as run:
        with pytest.raises(ManifestChangedError) as caught:
            await run.plan([("key-0", request()), ("key-3", request(3)), ("key-4", request(44)), ("key-9", request())])
        error = caught.value
        assert (error.added, error.removed, error.changed) == (("key-0", "key-9"), ("key-1", "key-2"), ("key-4",))
        assert len(await run.page()) == 4


async def test_rows_with_a_known_digest_are_not_read(ledger: Ledger) -> None:
    def unread() -> Iterator[tuple[str, StartBatchJob]]:
        yield rows(1)[0]
        raise AssertionError("was read")

    async with await ledger.open_run("run", manifest="nightly.csv", digest="abc") as run:
        await run.plan(rows(2))
        await run.plan(unread())
    async with await ledger.open_run("run", digest="abc") as run:
        await run.plan(unread())
        assert (run.info.manifest, run.info.digest) == ("nightly.csv", "abc")
    async with await ledger.open_run("run", manifest="copy.csv", digest="def") as run:
        with pytest.raises(AssertionError, match="was read"):
            await run.plan(unread())
        await run.plan(rows(2))
        assert (run.info.manifest, run.info.digest) == ("copy.csv", "def")
    async with await ledger.open_run("run") as run:
        with pytest.raises(AssertionError, match="was read"):
            await run.plan(unread())


async def test_rows_are_added_one_by_one_where_there_is_no_manifest(ledger: Ledger) -> None:
    async with await ledger.open_run("service") as run:
        added = await asyncio.gather(*(run.add(key, request()) for key in ("a", "b", "a")))
        assert [row.number for row in added] == [1, 2, 1]
        await run.intend(2, 1, 1.0)
        assert (await run.add("b", request())).state is INTENT
        assert (await run.add("c", request(3))).number == 3
        with pytest.raises(ManifestChangedError) as caught:
            await run.add("b", request(2))
        assert caught.value.changed == ("b",)
        assert run.info.rows == 3
    async with await ledger.open_run("service") as run:
        assert (await run.add("d", request())).number == 4
        assert [row.key for row in await run.page()] == ["a", "b", "c", "d"]
        assert await state_of(run, 2) is UNKNOWN


async def test_added_rows_follow_on_no_unfinished_plan(ledger: Ledger) -> None:
    async with await ledger.open_run("run") as run:
        with pytest.raises(DuplicateKeyError):
            await run.plan([*rows(5), *rows(1)])
        assert (await run.add("key-4", request(44))).number == 1
        assert [row.request for row in await run.page()] == [request(44)]


async def test_a_planned_run_takes_no_further_rows(ledger: Ledger) -> None:
    async with planned(ledger) as run:
        assert (await run.add("key-2", request(2))).number == 2
        with pytest.raises(ManifestChangedError) as caught:
            await run.add("key-9", request(9))
        assert caught.value.added == ("key-9",)
        with pytest.raises(ManifestChangedError) as caught:
            await run.add("key-2", request(3))
        assert caught.value.changed == ("key-2",)


@pytest.mark.parametrize("key", ["", "a\nb", "\ud800", "a\0", "k" * 513])
async def test_a_key_that_no_manifest_would_take_is_refused(ledger: Ledger, key: str) -> None:
    async with await ledger.open_run("run") as run:
        with pytest.raises(InvalidRequestError):
            await run.add(key, request())


# Attempts


async def test_a_job_that_starts_at_once(ledger: Ledger) -> None:
    async with planned(ledger) as run:
        await run.intend(2, 1, 1_700_000_000.123456)
        row = await row_of(run, 2)
        assert (row.state, row.attempts, row.sent_at, row.ended_at) == (INTENT, 1, 1_700_000_000.123456, None)
        await run.started(2, 1, "execution", "request")
        row = await row_of(run, 2)
        assert (row.state, row.execution_id, row.request_id, row.adopted) == (STARTED, "execution", "request", False)
        assert (row.attempts, row.doubts, row.error_code, row.error_message) == (1, 0, None, None)
        assert row.ended_at is not None
        assert await run.history(2) == []
        assert [row.number for row in await run.page(PENDING)] == [1, 3]


async def test_a_refused_attempt_leaves_the_row_pending_and_stands_in_its_history(ledger: Ledger) -> None:
    async with planned(ledger) as run:
        await run.intend(1, 1, 5.0)
        await run.refused(1, 1, "ThrottlingException", "slow down", "request")
        row = await row_of(run, 1)
        assert (row.state, row.attempts, row.error_code) == (PENDING, 1, "ThrottlingException")
        await run.intend(1, 2, 6.0)
        await run.started(1, 2, "execution")
        row = await row_of(run, 1)
        assert (row.state, row.attempts, row.error_code, row.request_id) == (STARTED, 2, None, None)
        [entry] = await run.history(1)
        assert entry == HistoryEntry(
            1, RowEvent.REFUSED, 5.0, entry.ended_at, "ThrottlingException", "slow down", "request"
        )  # fmt: skip


async def test_a_rejected_row_is_tried_again_only_on_somebodys_word(ledger: Ledger) -> None:
    async with planned(ledger) as run:
        await run.intend(1, 1, 1.0)
        await run.rejected(1, 1, "ValidationException", "no such script")
        assert await state_of(run, 1) is REJECTED
        with pytest.raises(IllegalTransitionError):
            await run.intend(1, 2, 1.0)
        await run.retry(1, 1, "ops: the script is there now")
        row = await row_of(run, 1)
        assert (row.state, row.note) == (PENDING, "ops: the script is there now")
        await run.intend(1, 2, 1.0)
        assert [entry.event for entry in await run.history(1)] == [RowEvent.REJECTED, RowEvent.RETRY]


async def test_a_crash_leaves_what_was_under_way_in_doubt(ledger: Ledger) -> None:
    async with planned(ledger, 4) as run:
        await run.intend(2, 1, 7.0)
        await run.intend(3, 1, 8.0)
        await run.started(3, 1, "execution")
        await run.intend(4, 1, 9.0)
        await run.refused(4, 1, "ThrottlingException", "")
        await run.intend(4, 2, 9.5)
    async with await ledger.open_run("run") as run:
        assert [row.state for row in await run.page()] == [PENDING, UNKNOWN, STARTED, UNKNOWN]
        row = await row_of(run, 2)
        assert (row.error_code, row.attempts, row.doubts, row.sent_at) == ("Crash", 1, 1, 7.0)
        [entry] = await run.history(2)
        assert (entry.event, entry.attempt, entry.sent_at, entry.open) == (RowEvent.CRASH, 1, 7.0, True)
        assert [entry.event for entry in await run.history(4)] == [RowEvent.REFUSED, RowEvent.CRASH]
    async with await ledger.open_run("run") as run:
        assert (await row_of(run, 2)).doubts == 1
        assert len(await run.history(2)) == 1


@pytest.mark.parametrize("end", ["refused", "rejected"])
async def test_a_resend_does_not_hide_the_earlier_doubt(ledger: Ledger, end: str) -> None:
    async with planned(ledger) as run:
        await in_doubt(run)
        await run.intend(1, 2, 2.0, resend=True)
        await getattr(run, end)(1, 2, "ValidationException", "later")
        row = await row_of(run, 1)
        assert (row.state, row.doubts, row.attempts, row.error_code) == (UNKNOWN, 1, 2, "AnswerTimeoutError")
        assert [entry.error_code for entry in await run.history(1)] == ["AnswerTimeoutError", "ValidationException"]
        assert [entry.open for entry in await run.history(1)] == [True, False]


async def test_a_start_after_a_resend_keeps_the_earlier_attempt_open(ledger: Ledger) -> None:
    async with planned(ledger) as run:
        await in_doubt(run)
        await run.intend(1, 2, 2.0, resend=True)
        await run.started(1, 2, "second")
        row = await row_of(run, 1)
        assert (row.state, row.doubts, row.error_code) == (STARTED, 1, None)
        [attempt] = await ledger.open_attempts(APPLICATION)
        assert (attempt.attempt, attempt.state, attempt.sent_at) == (1, STARTED, 1.0)
        await run.candidates(1, ["first"])
        assert (await row_of(run, 1)).candidates == ("first",)


Write = Callable[[Run], Awaitable[None]]


@pytest.mark.parametrize(
    ("make", "write"),
    [
        pytest.param(None, lambda run: run.intend(1, 2, 1.0), id="the second attempt first"),
        pytest.param(None, lambda run: run.intend(1, 0, 1.0), id="attempt 0"),
        pytest.param(None, lambda run: run.intend(1, 1, 1.0, resend=True), id="resend without a doubt"),
        pytest.param(None, lambda run: run.started(1, 1, "x"), id="an end without an intent"),
        pytest.param(None, lambda run: run.claim(1, 1, "x", "note"), id="a claim without a doubt"),
        pytest.param(None, lambda run: run.candidates(1, ["x"]), id="candidates without a doubt"),
        pytest.param("intend", lambda run: run.intend(1, 1, 1.0), id="the same intent twice"),
        pytest.param("intend", lambda run: run.intend(1, 2, 1.0), id="an intent during an attempt"),
        pytest.param("intend", lambda run: run.started(1, 2, "x"), id="the end of another attempt"),
        pytest.param("intend", lambda run: run.claim(1, 1, "x", "note"), id="a claim during an attempt"),
        pytest.param("intend", lambda run: run.not_started(1, 1, "note"), id="not started during an attempt"),
        pytest.param("intend", lambda run: run.retry(1, 1, "note"), id="a retry during an attempt"),
        pytest.param("started", lambda run: run.intend(1, 2, 1.0), id="an intent after a start"),
        pytest.param("started", lambda run: run.intend(1, 2, 1.0, resend=True), id="a resend after a start"),
        pytest.param("started", lambda run: run.started(1, 1, "y"), id="a second start"),
        pytest.param("started", lambda run: run.unknown(1, 1, "x", "y"), id="a doubt after a start"),
        pytest.param("started", lambda run: run.not_started(1, 1, "note"), id="not started after a start"),
        pytest.param("started", lambda run: run.retry(1, 1, "note"), id="a retry after a start"),
        pytest.param("started", lambda run: run.candidates(1, ["x"]), id="candidates after a start"),
        pytest.param("resent", lambda run: run.claim(1, 1, "x", "note"), id="a claim during a later attempt"),
        pytest.param("resent", lambda run: run.not_started(1, 2, "note"), id="not started during a later attempt"),
        pytest.param("twice", lambda run: run.claim(1, 1, "x", "note"), id="a claim after a later start"),
        pytest.param("twice", lambda run: run.not_started(1, 2, "note"), id="not started after a later start"),
        pytest.param("unknown", lambda run: run.intend(1, 2, 1.0), id="an intent in doubt without resend"),
        pytest.param("unknown", lambda run: run.intend(1, 1, 1.0, resend=True), id="a resend of the same attempt"),
        pytest.param("unknown", lambda run: run.started(1, 1, "x"), id="an answer after a doubt"),
        pytest.param("unknown", lambda run: run.claim(1, 2, "x", "note"), id="a claim of another attempt"),
        pytest.param("unknown", lambda run: run.not_started(1, 2, "note"), id="not started of another attempt"),
        pytest.param("unknown", lambda run: run.retry(1, 1, "note"), id="a retry in doubt"),
        pytest.param("rejected", lambda run: run.retry(1, 2, "note"), id="a retry of another attempt"),
        pytest.param("rejected", lambda run: run.not_started(1, 1, "note"), id="not started after a rejection"),
    ],
)
async def test_what_the_table_does_not_allow_is_an_error_and_changes_nothing(
    ledger: Ledger, make: str | None, write: Write
) -> None:
    async with planned(ledger) as run:
        if make is not None:
            await run.intend(1, 1, 1.0)
        match make:
            case "started":
                await run.started(1, 1, "execution")
            case "rejected" | "unknown":
                await getattr(run, make)(1, 1, "code", "message")
            case "resent" | "twice":
                await run.unknown(1, 1, "code", "message")
                await run.intend(1, 2, 2.0, resend=True)
                if make == "twice":
                    await run.started(1, 2, "execution")
        before, history = await row_of(run, 1), await run.history(1)
        with pytest.raises(IllegalTransitionError) as caught:
            await write(run)
        assert (caught.value.run, caught.value.number) == ("run", 1)
        assert before.state.name in str(caught.value)
        assert (await row_of(run, 1), await run.history(1)) == (before, history)


async def test_of_writes_made_at_once_only_the_illegal_fail(ledger: Ledger) -> None:
    async with planned(ledger, 6) as run:
        await run.intend(2, 1, 1.0)
        results = await asyncio.gather(
            run.intend(1, 1, 1.0),
            run.intend(2, 1, 1.0),
            run.started(3, 1, "x3"),
            run.started(2, 1, "x2"),
            run.claim(4, 1, "x4", "note"),
            run.intend(5, 1, 1.0),
            run.started(5, 1, "x5"),
            run.intend(5, 2, 1.0),
            run.started(6, 1, "x6"),
            run.intend(6, 1, 1.0),
            return_exceptions=True,
        )
        assert [type(result) for result in results] == [
            type(None), IllegalTransitionError, IllegalTransitionError, type(None),
            IllegalTransitionError, type(None), type(None), IllegalTransitionError,
            IllegalTransitionError, type(None),
        ]  # fmt: skip
        states = [row.state for row in await run.page()]
        assert states == [INTENT, STARTED, PENDING, PENDING, STARTED, INTENT]


async def test_rows_that_there_are_not_cannot_be_written(ledger: Ledger) -> None:
    async with planned(ledger) as run:
        for number in (0, 4, -1):
            with pytest.raises(RowNotFoundError):
                run.intend(number, 1, 1.0)
            with pytest.raises(RowNotFoundError):
                run.claim(number, 1, "x", "note")


async def test_texts_that_a_database_cannot_hold_are_mended(ledger: Ledger) -> None:
    async with planned(ledger) as run:
        await run.intend(1, 1, 1.0)
        await run.unknown(1, 1, "Code", "half \ud800 a pair\0, 'quoted' \"and\" ünïcode", "request\0")
        row = await row_of(run, 1)
        assert row.error_message == "half ? a pair\N{REPLACEMENT CHARACTER}, 'quoted' \"and\" ünïcode"
        assert row.request_id == "request\N{REPLACEMENT CHARACTER}"


async def test_a_write_whose_caller_is_cancelled_is_made(ledger: Ledger) -> None:
    async with planned(ledger, 20) as run:

        async def caller(number: int) -> None:
            await run.intend(number, 1, 1.0)
            await asyncio.get_running_loop().create_future()

        tasks = [asyncio.create_task(caller(number)) for number in range(1, 21)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert (await (await ledger.run("run")).counts())[INTENT] == 20


# Decisions


async def test_an_execution_that_was_found_is_claimed_and_marked_as_inferred(ledger: Ledger) -> None:
    async with planned(ledger) as run:
        await in_doubt(run)
        await run.candidates(1, ["x1", "x2"])
        assert (await row_of(run, 1)).candidates == ("x1", "x2")
        await run.claim(1, 1, "x1", "one clear match")
        row = await row_of(run, 1)
        assert (row.state, row.execution_id, row.adopted, row.doubts) == (STARTED, "x1", True, 0)
        assert (row.candidates, row.note, row.error_code) == ((), "one clear match", None)
        [doubt, claim] = await run.history(1)
        assert (doubt.event, doubt.open) == (RowEvent.UNKNOWN, False)
        assert (claim.event, claim.attempt, claim.execution_id, claim.note) == (
            RowEvent.CLAIMED, 1, "x1", "one clear match",
        )  # fmt: skip
        assert await ledger.open_attempts(APPLICATION) == []


async def test_an_operators_word_is_not_marked_as_inferred(ledger: Ledger) -> None:
    async with planned(ledger) as run:
        await in_doubt(run)
        await run.claim(1, 1, "x1", "ops: seen in the console", inferred=False)
        row = await row_of(run, 1)
        assert (row.state, row.adopted, row.note) == (STARTED, False, "ops: seen in the console")


async def test_no_execution_belongs_to_two_rows(ledger: Ledger) -> None:
    async with planned(ledger, name="first") as first, planned(ledger, name="second") as second:
        await first.intend(3, 1, 1.0)
        await first.started(3, 1, "x")
        await in_doubt(second)
        with pytest.raises(ExecutionClaimedError) as caught:
            await second.claim(1, 1, "x", "note")
        assert (caught.value.execution_id, caught.value.run, caught.value.key) == ("x", "first", "key-3")
        assert await state_of(second, 1) is UNKNOWN
        await in_doubt(second, 2)
        results = await asyncio.gather(
            second.claim(1, 1, "y", "note"), second.claim(2, 1, "y", "note"), return_exceptions=True
        )
        assert [type(result) for result in results] == [type(None), ExecutionClaimedError]


async def test_a_claim_for_one_of_two_doubts_leaves_the_other_open(ledger: Ledger) -> None:
    async with planned(ledger) as run:
        await in_doubt(run)
        await in_doubt(run, attempt=2, resend=True)
        assert [attempt.attempt for attempt in await ledger.open_attempts(APPLICATION)] == [1, 2]
        await run.claim(1, 1, "x1", "note")
        row = await row_of(run, 1)
        assert (row.state, row.doubts, row.execution_id) == (STARTED, 1, "x1")
        [attempt] = await ledger.open_attempts(APPLICATION)
        assert (attempt.attempt, attempt.state) == (2, STARTED)


async def test_a_word_given_in_error_is_replaced_by_another_and_the_history_has_both(ledger: Ledger) -> None:
    async with planned(ledger) as run:
        await in_doubt(run)
        for word in ("wrong", None, "right", "right"):  # the word that stands can be said again
            await run.resolve(1, 1, word, f"says {word}")
        row = await row_of(run, 1)
        assert (row.state, row.execution_id, row.adopted, row.doubts) == (STARTED, "right", False, 0)
        assert row.error_code is None
        assert [(entry.event, entry.execution_id) for entry in await run.history(1)] == [
            (RowEvent.UNKNOWN, None),
            (RowEvent.CLAIMED, "wrong"),
            (RowEvent.TAKEN_BACK, None),
            (RowEvent.NOT_STARTED, None),
            (RowEvent.TAKEN_BACK, None),
            (RowEvent.CLAIMED, "right"),
        ]
        assert await ledger.claimed(APPLICATION, {"wrong", "right"}) == {"right"}
        assert await ledger.open_attempts(APPLICATION) == []


async def test_a_word_that_cannot_be_leaves_the_one_that_was_given(ledger: Ledger) -> None:
    async with planned(ledger) as run:
        await run.intend(2, 1, 1.0)
        await run.started(2, 1, "of another")
        await in_doubt(run)
        await run.resolve(1, 1, "first", "note")
        before = await row_of(run, 1), await run.history(1)
        with pytest.raises(ExecutionClaimedError):
            await run.resolve(1, 1, "of another", "note")
        assert (await row_of(run, 1), await run.history(1)) == before


async def test_once_a_job_was_sent_again_its_word_stands(ledger: Ledger) -> None:
    async with planned(ledger) as run:
        await in_doubt(run)
        await run.resolve(1, 1, None, "note")
        await run.intend(1, 2, 2.0)
        for attempt in (1, 2):
            with pytest.raises(IllegalTransitionError):
                await run.resolve(1, attempt, "x", "note")
        await run.refused(1, 2, "ThrottlingException", "slow")
        with pytest.raises(IllegalTransitionError):
            await run.resolve(1, 2, "x", "note")


async def test_what_was_found_can_be_corrected_by_an_operator_also_after_it_was_given_up(ledger: Ledger) -> None:
    async with planned(ledger) as run:
        await in_doubt(run)
        await run.claim(1, 1, "found", "the only one")
        await in_doubt(run, 2)
        await run.not_started(2, 1, "none")
        await run.give_up(2, 1, "too often")
        await run.resolve(1, 1, "seen", "note")
        await run.resolve(2, 1, "seen too", "note")
        assert [(row.state, row.execution_id) for row in await run.page(limit=2)] == [
            (STARTED, "seen"),
            (STARTED, "seen too"),
        ]


async def test_a_row_with_an_earlier_attempt_in_doubt_is_resolved_as_its_one_execution(ledger: Ledger) -> None:
    async with planned(ledger) as run:
        for number in (1, 2):
            await in_doubt(run, number)
            await in_doubt(run, number, attempt=2, resend=True)
        await run.resolve(1, 2, "x1", "note")
        await run.intend(2, 3, 3.0, resend=True)
        await run.started(2, 3, "x2")
        assert (await row_of(run, 2)).doubts == 2
        await run.resolve(2, 3, "x2", "note")
        assert [(row.execution_id, row.doubts) for row in await run.page(limit=2)] == [("x1", 0), ("x2", 0)]
        assert await ledger.open_attempts(APPLICATION) == []
        await run.restart(2, 3, RestartJob("x2", "STEP1"), "note")


async def test_a_row_that_was_not_started_may_be_sent_again(ledger: Ledger) -> None:
    async with planned(ledger) as run:
        await in_doubt(run)
        await in_doubt(run, attempt=2, resend=True)
        await run.candidates(1, ["x1"])
        await run.not_started(1, 2, "none after 5 s")
        row = await row_of(run, 1)
        assert (row.state, row.doubts, row.candidates, row.note) == (PENDING, 0, (), "none after 5 s")
        assert await ledger.open_attempts(APPLICATION) == []
        await run.intend(1, 3, 3.0)
        await run.rejected(1, 3, "ValidationException", "no")
        assert await state_of(run, 1) is REJECTED
        events = [entry.event for entry in await run.history(1)]
        assert events == [RowEvent.UNKNOWN, RowEvent.UNKNOWN, RowEvent.NOT_STARTED, RowEvent.REJECTED]


async def test_a_row_that_was_tried_often_enough_is_rejected_with_its_last_error(ledger: Ledger) -> None:
    async with planned(ledger) as run:
        await run.intend(1, 1, 1.0)
        await run.refused(1, 1, "ThrottlingException", "slow down")
        await run.give_up(1, 1, "tried for 600 s")
        row = await row_of(run, 1)
        assert (row.state, row.error_code, row.note) == (REJECTED, "ThrottlingException", "tried for 600 s")
        with pytest.raises(IllegalTransitionError, match="to give up after attempt 1"):
            await run.give_up(1, 1, "again")
        with pytest.raises(IllegalTransitionError, match="to give up after attempt 0"):
            await run.give_up(2, 0, "never sent")
        await run.retry(1, 1, "submitted again")
        events = [entry.event for entry in await run.history(1)]
        assert events == [RowEvent.REFUSED, RowEvent.GIVEN_UP, RowEvent.RETRY]


async def test_a_run_in_progress_is_told_its_pace_to_pause_and_to_stop(ledger: Ledger) -> None:
    async with planned(ledger) as run:
        view = await ledger.run("run")
        assert await run.orders() == Orders()
        await view.set_pace(80, 1)
        assert await run.orders() == Orders(80, 1)
        await view.set_paused(True)
        await view.set_pace(0.5, 20)
        paused = await run.orders()
        assert paused.at is not None
        assert paused == await view.orders() == Orders(0.5, 20, paused=True, at=paused.at)
        await view.set_paused(False)
        await view.stop()
        stopped = await run.orders()
        assert stopped.at is not None
        assert stopped == Orders(0.5, 20, stopped=True, at=stopped.at)
        assert stopped.at > paused.at
        await view.set_paused(True)
        await view.stop()
        assert await run.orders() == Orders(0.5, 20, paused=True, stopped=True, at=stopped.at)
        await view.set_paused(False)
        taken_back = await run.orders()
        assert (taken_back.paused, taken_back.stopped) == (False, False)
        async with planned(ledger, name="other") as other:
            assert await other.orders() == Orders()


async def test_a_pause_stays_when_the_run_is_opened_again_and_a_pace_does_not(ledger: Ledger) -> None:
    async with planned(ledger):
        view = await ledger.run("run")
        await view.set_pace(80, 1)
        await view.set_paused(True)
    async with planned(ledger) as run:
        orders = await run.orders()
        assert (orders.rate, orders.burst, orders.paused) == (None, None, True)


async def test_a_run_that_was_stopped_is_opened_to_be_sent_once_that_is_taken_back(ledger: Ledger) -> None:
    async with planned(ledger) as run:
        await run.intend(1, 1, 1.0)
        await run.stop()
    view = await ledger.run("run")
    for _ in range(2):
        with pytest.raises(RunStoppedError, match="m2async unpause takes that back") as caught:
            await ledger.open_run("run")
        assert caught.value.at == (await view.orders()).at
    assert (await view.row("key-1")).state is INTENT
    async with await ledger.open_run("run", to_send=False) as run:
        assert await state_of(run, 1) is UNKNOWN
        assert (await run.orders()).stopped
    await view.set_paused(False)
    async with await ledger.open_run("run") as run:
        assert not (await run.orders()).stopped


# Reading


async def test_open_attempts_are_told_with_all_that_matching_needs(ledger: Ledger) -> None:
    given = [("other", request(1, OTHER_APPLICATION)), ("file", request(2, job=JOBS[2])), ("idle", request(3))]
    async with planned(ledger, given, "one") as one, planned(ledger, 2, "two") as two:
        await in_doubt(one, 1)
        await one.intend(2, 1, 20.0)
        await two.intend(2, 1, 10.0)
        await two.unknown(2, 1, "ConnectionLostError", "")
        first, second = await ledger.open_attempts(APPLICATION)
        assert (first.run, first.number, first.key, first.attempt, first.state) == ("one", 2, "file", 1, INTENT)
        assert (first.application_id, first.job, first.sent_at, first.ended_at) == (APPLICATION, JOBS[2], 20.0, None)
        assert first.identifier == '{"fileBatchJobIdentifier":{"fileName":"POSTTRAN.jcl","folderPath":"jcl/ü"}}'
        assert (second.run, second.key, second.state, second.sent_at) == ("two", "key-2", UNKNOWN, 10.0)
        assert second.ended_at is not None
        assert second.run_id == two.info.id
        assert [attempt.key for attempt in await ledger.open_attempts(OTHER_APPLICATION)] == ["other"]


@pytest.mark.parametrize("where", ["memory", "sqlite"])
async def test_it_is_told_of_an_attempt_whether_the_service_ended_it_and_when_by_the_uptime(
    path: Path, where: str
) -> None:
    now = steady_time()
    async with open_ledger("memory:" if where == "memory" else path) as ledger:
        async with planned(ledger, 4) as run:
            for number in range(1, 5):
                await run.intend(number, 1, now + number)
            await run.unknown(1, 1, "ConnectionLostError", "", ended_by_service=True)
            await run.unknown(2, 1, "AnswerTimeoutError", "")
            await run.started(3, 1, "x")
            [answered] = await run.answered_near(APPLICATION, 3, 0)
        async with await ledger.open_run(run.info.name, by_hand=True):  # what was under way crashed
            by_service, timed_out, crashed = await ledger.open_attempts(APPLICATION)
    assert [each.ended_by_service for each in (by_service, timed_out, crashed)] == [True, False, False]
    uptimes = [each.uptimes for each in (by_service, timed_out, answered, crashed) if each.uptimes is not None]
    assert len(uptimes) == 4
    assert len({each.boot for each in uptimes}) == 1  # also over the end of a process
    assert [each.sent - uptimes[0].sent for each in uptimes] == pytest.approx([0, 1, 2, 3], abs=1e-3)
    assert None not in {each.ended for each in uptimes}


async def test_claimed_executions_are_those_of_the_application_in_any_run(ledger: Ledger) -> None:
    given = [("other", request(1, OTHER_APPLICATION)), *rows(2)]
    async with planned(ledger, given, "one") as one:
        for number in (1, 2):
            await one.intend(number, 1, 1.0)
            await one.started(number, 1, f"x{number}")
    async with planned(ledger, 1, "two") as two:
        await in_doubt(two)
        assert await ledger.claimed(APPLICATION, ["x1", "x2", "y"]) == {"x2"}
        await two.claim(1, 1, "y", "note")
        assert await ledger.claimed(APPLICATION, ["x1", "x2", "y", "it's"]) == {"x2", "y"}
        assert await ledger.claimed(APPLICATION, []) == set()
        assert await ledger.claimed(APPLICATION, [f"none-{number}" for number in range(2_000)]) == set()


async def test_pages_go_through_a_run_by_state(ledger: Ledger) -> None:
    async with planned(ledger, 30) as run:
        for number in range(1, 31):
            if number % 3:
                await run.intend(number, 1, 1.0)
                if number % 3 == 1:
                    await run.started(number, 1, f"x{number}")
        first = await run.page(INTENT, PENDING, limit=5)
        assert [row.number for row in first] == [2, 3, 5, 6, 8]
        second = await run.page(INTENT, PENDING, after=8, limit=5)
        assert [row.number for row in second] == [9, 11, 12, 14, 15]
        assert [row.number for row in await run.page(INTENT, after=26)] == [29]
        assert len(await run.page(STARTED)) == 10
        assert await run.page(REJECTED) == []
        assert await run.page(after=30) == []


async def test_all_rows_are_iterated_over_page_by_page(ledger: Ledger) -> None:
    async with planned(ledger, 1_203) as run:
        numbers = []
        async for row in run.rows(PENDING):
            numbers.append(row.number)
            await run.intend(row.number, 1, 1.0)
        assert numbers == list(range(1, 1_204))
        assert [row async for row in run.rows(PENDING)] == []
        assert len([row async for row in run.rows(after=1_000)]) == 203


async def test_errors_name_the_ledger(ledger: Ledger) -> None:
    with pytest.raises(LedgerError) as caught:
        await ledger.run("none")
    assert caught.value.ledger == ledger.address
    assert ledger.address in str(caught.value)
    assert caught.value.code == "RunNotFoundError"


# Rows that were started together


async def together(run: Run, count: int = 2) -> list[str]:
    """Rows that were started as so many executions."""
    for number in range(1, count + 1):
        await in_doubt(run, number)
    ids = [f"e-{number}" for number in range(1, count + 1)]
    await run.claim_together(1, [(number, 1) for number in range(1, count + 1)], ids, "as many")
    return ids


async def test_rows_that_were_started_together_hold_all_executions_and_none_is_one_s_own(ledger: Ledger) -> None:
    async with planned(ledger) as run:
        ids = await together(run)
        for row in await run.page(STARTED):
            assert (row.execution_id, row.candidates, row.adopted, row.doubts) == (None, tuple(ids), True, 0)
            assert [(e.event, e.execution_id) for e in await run.history(row.number)][1:] == [(RowEvent.GROUPED, None)]
        assert await ledger.claimed(APPLICATION, [*ids, "e-9"]) == set(ids)
        assert await ledger.open_attempts(APPLICATION) == []
        assert await run.answered_near(APPLICATION, 1, 100) == []
        await in_doubt(run, 3)
        with pytest.raises(ExecutionClaimedError):
            await run.claim(3, 1, "e-2", "another row")
        await run.claim_together(2, [(1, 1), (2, 1)], ids, "the same again")
        assert len(await run.history(2)) == 2


@pytest.mark.parametrize(
    ("rows_", "ids"),
    [
        ([(1, 1), (2, 1)], ["e-1"]),
        ([(1, 1), (1, 1)], ["e-1", "e-2"]),
        ([(1, 1), (2, 1)], ["e-1", "e-1"]),
        ([(1, 1), (2, 2)], ["e-1", "e-2"]),
        ([(1, 1), (3, 0)], ["e-1", "e-2"]),
        ([(1, 1), (2, 1)], ["e-1", "taken"]),
    ],
)
async def test_what_is_not_so_of_one_of_them_is_written_of_none(
    ledger: Ledger, rows_: list[tuple[int, int]], ids: list[str]
) -> None:
    async with planned(ledger, 4) as run:
        await in_doubt(run, 1)
        await in_doubt(run, 2)
        await run.intend(4, 1, 1.0)
        await run.started(4, 1, "taken")
        before = await run.page()
        with pytest.raises((IllegalTransitionError, ExecutionClaimedError)):
            await run.claim_together(1, rows_, ids, "note")
        assert await run.page() == before
        assert len(await run.history(1)) == 1


async def test_an_answer_that_comes_late_does_not_break_a_group(ledger: Ledger) -> None:
    async with planned(ledger) as run:
        await together(run)
        before = await run.page()
        with pytest.raises(IllegalTransitionError):
            await run.started(1, 1, "e-2")
        assert await run.page() == before


async def test_words_that_exchange_executions_are_taken_and_one_that_is_another_s_takes_none(ledger: Ledger) -> None:
    async with planned(ledger) as run:
        for number in (1, 2, 3):
            await in_doubt(run, number)
            await run.resolve(number, 1, f"e-{number}", "a word")
        await run.resolve_all([(1, 1, "e-2"), (2, 1, "e-1")], "words")
        before = await run.page()
        assert [row.execution_id for row in before] == ["e-2", "e-1", "e-3"]
        with pytest.raises(ExecutionClaimedError):
            await run.resolve_all([(2, 1, None), (1, 1, "e-3")], "words")
        assert await run.page() == before
