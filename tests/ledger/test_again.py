"""Rows that are given again: which runs had them, what differs, and a run that takes them over, in every ledger."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from m2async import StartBatchJob
from m2async.ledger import (
    ChangeKind,
    DuplicateKeyError,
    IllegalTransitionError,
    Ledger,
    RowChange,
    RowNotFoundError,
    RowState,
    Run,
    destination_of,
    open_ledger,
)
from m2async.service import RowNumber
from m2async.service.requests import RestartJob
from tests.ledger.samples import planned, request, rows, state_of

ADDED, REMOVED, CHANGED = ChangeKind
Rows = Sequence[tuple[str, StartBatchJob]]


def numbered(*names: int) -> Rows:
    """Rows without keys, each with this request."""
    return [(RowNumber(number), request(name)) for number, name in enumerate(names, 1)]


async def different(run: Run, given: Iterable[tuple[str, StartBatchJob]]) -> Mapping[RowChange, Sequence[str]]:
    await run.give(given)
    return (await run.differences(run, rehearsal=False)).keys


async def amended(run: Run, given: Iterable[tuple[str, StartBatchJob]]) -> None:
    await different(run, given)
    await run.amend(run)


async def start(run: Run, *numbers: int) -> None:
    for number in numbers:
        await run.intend(number, 1, 1.0)
        await run.started(number, 1, f"e-{run.info.name}-{number}")


def change(
    kind: ChangeKind, *, may_have_started: bool = False, elsewhere: bool = False, numbered: bool = False
) -> RowChange:
    return RowChange(kind, may_have_started, elsewhere, numbered)


# What differs


async def test_rows_with_keys_are_the_same_if_key_and_request_are(ledger: Ledger) -> None:
    async with planned(ledger, 3) as run:
        await start(run, 2)
        assert await different(run, reversed(rows(3))) == {}
        assert await different(run, [("key-1", request(9)), ("key-2", request(9)), ("new", request(3))]) == {
            change(ADDED): ["new"],
            change(REMOVED): ["key-3"],
            change(CHANGED): ["key-1"],
            change(CHANGED, may_have_started=True): ["key-2"],
        }


async def test_rows_without_keys_are_counted_by_request_wherever_they_stand(ledger: Ledger) -> None:
    async with planned(ledger, numbered(1, 2, 2, 3)) as run:
        assert await different(run, numbered(3, 2, 1, 2)) == {}
        assert await different(run, numbered(0, 1, 2, 2, 3)) == {change(ADDED, numbered=True): ["1"]}
        assert await different(run, numbered(1, 2, 2, 2, 3)) == {change(ADDED, numbered=True): ["4"]}
        assert await different(run, numbered(1, 2, 3)) == {change(REMOVED, numbered=True): ["3"]}


@pytest.mark.parametrize("had_keys", [True, False])
async def test_keys_that_are_given_or_left_out_later_make_no_new_rows(ledger: Ledger, *, had_keys: bool) -> None:
    with_keys, without = rows(3), numbered(1, 2, 3)
    async with planned(ledger, with_keys if had_keys else without, "one") as run:
        await start(run, 1, 2, 3)
        assert await different(run, reversed(without if had_keys else with_keys)) == {}
    async with await ledger.open_run("two") as run:
        await run.give(without if had_keys else with_keys)
        assert [(info.name, count) for info, count in await run.kin(rehearsal=False)] == [("one", 3)]


async def test_of_equal_rows_those_that_may_have_started_stay(ledger: Ledger) -> None:
    async with planned(ledger, numbered(1, 1, 1)) as run:
        await start(run, 3)
        assert await different(run, numbered(1)) == {change(REMOVED, numbered=True): ["1", "2"]}
        await run.amend(run)
        assert [(row.number, row.state) for row in await run.page()] == [(3, RowState.STARTED)]


async def test_a_row_that_was_restarted_is_the_one_that_it_was_planned_as(ledger: Ledger) -> None:
    async with planned(ledger, 2) as run:
        await start(run, 1, 2)
        await run.restart(1, 1, RestartJob("e-run-1", "STEP1"), "note")
        assert await state_of(run, 1) is RowState.PENDING
        assert await different(run, rows(2)) == {}
        changed = change(CHANGED, may_have_started=True)
        assert await different(run, [("key-1", request(9)), *rows(1, first=2)]) == {changed: ["key-1"]}


async def test_another_order_is_a_difference_of_its_row(ledger: Ledger) -> None:
    async with await ledger.open_run("run") as run:
        await run.plan(rows(3), after={"key-3": ["key-1"]})
        await run.give(reversed(rows(3)), after={"key-3": ["key-1"]})
        assert not await run.differences(run)
        await run.give(rows(3), after={"key-3": ["key-2"]})
        assert (await run.differences(run)).keys == {change(CHANGED): ["key-3"]}
        await run.amend(run)
        assert await run.dependencies() == {"key-3": ["key-2"]}


# Which run


async def test_the_run_that_most_of_the_rows_were_in_last_comes_first(ledger: Ledger) -> None:
    for name, given in (("old", rows(4)), ("once more", rows(4)), ("part", rows(2, first=4)), ("other", numbered(8))):
        async with planned(ledger, given, name):
            pass
    async with await ledger.open_run("given") as run:
        await run.give([*rows(4), ("mended", request(7))])
        assert [(info.name, count) for info, count in await run.kin(rehearsal=False)] == [("once more", 3), ("part", 1)]
        await run.give(rows(3, first=40))
        assert await run.kin(rehearsal=False) == []


async def test_rows_of_plans_that_were_not_finished_belong_to_no_run(ledger: Ledger) -> None:
    async with await ledger.open_run("left") as left, await ledger.open_run("given") as run:
        await left.give(rows(3))
        await run.give(rows(3))
        assert await run.kin(rehearsal=False) == []
    assert await ledger.runs() == []


async def test_what_another_run_has_is_said_and_left_to_it(ledger: Ledger) -> None:
    async with planned(ledger, rows(3, first=2), "other") as other:
        await start(other, 1)
        await other.intend(2, 1, 1.0)
        await other.unknown(2, 1, "code", "message")
    async with planned(ledger, 1) as run:
        assert await different(run, rows(4)) == {
            change(ADDED, elsewhere=True): ["key-2", "key-3", "key-4"],
        }
        await run.amend(run)
        assert [row.key for row in await run.page()] == ["key-1"]
        assert (run.info.jobs, sum((await run.counts()).values())) == (1, 1)
    async with await ledger.open_run("other") as other:
        await amended(other, rows(2, first=2))
        assert [row.key for row in await other.page()] == ["key-2", "key-3"]
    async with await ledger.open_run("run") as run:  # the other one has no key-4 any more
        assert await different(run, rows(4)) == {
            change(ADDED): ["key-4"],
            change(ADDED, elsewhere=True): ["key-2", "key-3"],
        }
        await run.amend(run)
        assert [row.key for row in await run.page()] == ["key-1", "key-4"]


async def test_what_comes_after_a_row_that_is_left_to_another_run_still_does(ledger: Ledger) -> None:
    async with planned(ledger, rows(1, first=2), "other") as other:
        await start(other, 1)
    async with planned(ledger, 1) as run:
        await run.give(rows(3), after={"key-3": ["key-2"]})
        await run.differences(run, rehearsal=False)
        await run.amend(run)
        assert await run.dependencies() == {"key-3": ["key-2"]}
        assert [row.key for row in await run.page()] == ["key-1", "key-3"]


@pytest.mark.parametrize(
    ("before", "given", "name"),
    [
        ([("4", request(1)), *rows(2, first=2)], numbered(1, 2, 3, 9), "4"),
        (numbered(1, 2), [*rows(2), ("2", request(3))], "2"),
        (numbered(1), [*numbered(9), ("key", request(1)), ("2", request(4))], "2"),
    ],
)
async def test_a_number_that_is_the_key_of_another_row_is_refused_and_nothing_is_taken_over(
    ledger: Ledger, before: Rows, given: Rows, name: str
) -> None:
    async with planned(ledger, before) as run:
        rows_before = await run.page()
        await different(run, given)
        with pytest.raises(DuplicateKeyError) as raised:
            await run.amend(run)
        assert raised.value.key == name
        assert await run.page() == rows_before


async def test_rehearsals_do_not_count_for_real_runs_nor_the_reverse(ledger: Ledger) -> None:
    class Client:
        endpoint_url, region_name, is_rehearsal = "http://127.0.0.1", "us-east-1", True

    rehearsed = destination_of(Client())
    assert rehearsed is not None
    async with planned(ledger, 2, "rehearsed") as run:
        await run.belong_to(rehearsed)
        await start(run, 1, 2)
    async with await ledger.open_run("given") as run:
        await run.give(rows(2))
        assert await run.kin(rehearsal=False) == []
        assert [info.name for info, _ in await run.kin(rehearsal=True)] == ["rehearsed"]


async def test_the_last_run_of_a_digest_is_found(ledger: Ledger) -> None:
    for name, digest in (("one", "a"), ("two", "a"), ("three", "b")):
        async with await ledger.open_run(name, digest=digest) as run:
            await run.plan(rows(1))
    async with await ledger.open_run("unplanned", digest="a"):
        pass
    found = await ledger.last_of("a")
    assert found is not None
    assert found.name == "two"
    assert await ledger.last_of("c") is None


# Taking them over


async def test_what_is_added_follows_and_what_is_mended_stands_where_it_was(ledger: Ledger) -> None:
    async with await ledger.open_run("run", manifest="old.csv", digest="old") as run:
        await run.plan(rows(3))
        await run.intend(2, 1, 1.0)
        await run.rejected(2, 1, "code", "message")
    async with await ledger.open_run("run", manifest="new.csv", digest="new") as run:
        await amended(run, [("new", request(9)), ("key-2", request(22)), *rows(1, first=1), *rows(1, first=3)])
        page = await run.page()
        assert [(row.number, row.key, row.request) for row in page] == [
            (1, "key-1", request(1)), (2, "key-2", request(22)), (3, "key-3", request(3)), (4, "new", request(9)),
        ]  # fmt: skip
        assert {row.state for row in page} == {RowState.PENDING}
        assert (run.info.manifest, run.info.digest, run.info.jobs) == ("new.csv", "new", 4)
        await run.intend(2, 2, 1.0)
        await run.started(2, 2, "e-2")
        assert await different(run, [*rows(1), ("key-2", request(22)), *rows(1, first=3), ("new", request(9))]) == {}


async def test_what_is_removed_is_no_row_any_more_until_it_is_given_again(ledger: Ledger) -> None:
    async with planned(ledger, 3) as run:
        await run.intend(1, 1, 1.0)
        await run.rejected(1, 1, "code", "message")
        await amended(run, rows(1, first=3))
        assert [row.key for row in await run.page()] == ["key-3"]
        assert (run.info.jobs, sum((await run.counts()).values())) == (1, 1)
        with pytest.raises(RowNotFoundError):
            await run.row("key-1")
        assert await different(run, rows(1, first=3)) == {}
        given = [("key-1", request(1)), ("key-2", request(22)), ("key-3", request(3))]
        assert await different(run, given) == {change(ADDED): ["key-1"], change(CHANGED): ["key-2"]}
        await run.amend(run)
        assert [(row.key, row.request) for row in await run.page()] == given
        assert (await run.counts())[RowState.REJECTED] == 1


@pytest.mark.parametrize("deed", ["removed", "changed"])
async def test_what_may_have_started_is_looked_for_and_sent_no_more(ledger: Ledger, deed: str) -> None:
    async with planned(ledger, 3) as run:
        for number in (1, 2):
            await run.intend(number, 1, 1.0)
            await run.unknown(number, 1, "code", "message")
        others = [("key-1", request(9)), ("key-2", request(9))] if deed == "changed" else []
        await amended(run, [*others, *rows(1, first=3)])
        assert [row.state for row in await run.page()] == [RowState.UNKNOWN, RowState.UNKNOWN, RowState.PENDING]
        with pytest.raises(IllegalTransitionError):
            await run.intend(1, 2, 1.0, resend=True)
        await run.claim(1, 1, "e-1", "note")
        await run.not_started(2, 1, "note")
        assert [(row.key, row.state) for row in await run.page()] == [
            ("key-1", RowState.STARTED), ("key-3", RowState.PENDING),
        ]  # fmt: skip
        with pytest.raises(IllegalTransitionError):
            await run.intend(2, 2, 1.0)
        with pytest.raises(IllegalTransitionError):
            await run.restart(1, 1, RestartJob("e-1", "STEP1"), "note")
        assert (await run.counts())[RowState.PENDING] == 1
        await amended(run, [*rows(2), *rows(1, first=3)])
        assert [row.request for row in await run.page()] == [request(1), request(2), request(3)]
        await run.intend(2, 2, 1.0)


async def test_the_order_of_rows_without_keys_goes_with_them(ledger: Ledger) -> None:
    async with await ledger.open_run("run") as run:
        await run.plan(numbered(1, 2, 3), after={"2": ["1"]})
        await run.give(numbered(9, 1, 2, 3), after={"3": ["2"], "4": ["1"]})
        assert (await run.differences(run)).keys == {
            change(ADDED, numbered=True): ["1"], change(CHANGED, numbered=True): ["4"],
        }  # fmt: skip
        await run.amend(run)
        assert [(row.key, row.request) for row in await run.page()] == [
            ("1", request(1)), ("2", request(2)), ("3", request(3)), ("4", request(9)),
        ]  # fmt: skip
        assert await run.dependencies() == {"2": ["1"], "3": ["4"]}


async def test_rows_that_were_given_in_vain_are_gone_with_the_run(path: Path) -> None:
    async with open_ledger(path) as ledger:
        async with planned(ledger, 3) as run:
            assert await different(run, rows(5)) == {change(ADDED): ["key-4", "key-5"]}
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM jobs").fetchone() == (3,)


async def test_a_ledger_of_before_knows_its_rows(path: Path) -> None:
    async with open_ledger(path) as ledger:
        async with planned(ledger, 3, "with keys") as run:
            await start(run, 1)
            await run.restart(1, 1, RestartJob("e-1", "STEP1"), "note")
        async with planned(ledger, numbered(7, 8), "without"):
            pass
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE jobs SET request = NULL, named = NULL")
    async with open_ledger(path) as ledger, await ledger.open_run("given") as given:
        for again, name in ((rows(3), "with keys"), (numbered(8, 7), "without")):
            await given.give(again)
            assert [(info.name, count) for info, count in await given.kin(rehearsal=False)] == [(name, len(again))]
            async with await ledger.open_run(name) as run:
                assert not await run.differences(given)


async def test_of_two_that_come_at_once_one_sees_the_other(ledger: Ledger) -> None:
    async with await ledger.open_run("one") as one, await ledger.open_run("two") as two:
        for run in (one, two):
            await run.give(rows(2))
            assert await run.kin(rehearsal=False) == []
        assert await one.amend(one)
        assert not await two.amend(two)
        assert [info.name for info, _ in await two.kin(rehearsal=False)] == ["one"]
        await different(one, rows(3))
        async with planned(ledger, rows(1, first=3), "three") as three:
            await start(three, 1)
        assert not await one.amend(one)
        assert await different(one, rows(3)) == {change(ADDED, elsewhere=True): ["key-3"]}
