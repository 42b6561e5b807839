"""Jobs without keys, known by their requests: counted within a pass, in every ledger."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import pytest

from m2async import RestartJob
from m2async.ledger import Ledger, LedgerRow, ManifestChangedError, RowState, Run, open_ledger
from m2async.service import RowNumber
from tests.ledger.samples import planned, request


class Pass:
    """What a pass is known by."""


async def given(run: Run, names: Iterable[int], among: Pass | None = None) -> list[LedgerRow]:
    """Give jobs without keys, each with this request, in a pass; all at once, so that they are written together."""
    among = among or Pass()
    jobs = [run.add_unnamed(str(number), request(name), among) for number, name in enumerate(names, 1)]
    return await asyncio.gather(*jobs)


async def numbers(run: Run, *names: int) -> list[int]:
    return [row.number for row in await given(run, names)]


async def started(run: Run, *which: int) -> None:
    for number in which:
        await run.intend(number, 1, 1.0)
        await run.started(number, 1, f"e-{number}")


async def test_a_job_without_a_key_is_the_row_of_its_request_whatever_its_place(ledger: Ledger) -> None:
    async with await ledger.open_run("run") as run:
        assert [(row.number, row.key) for row in await given(run, [1, 2, 3])] == [(1, "1"), (2, "2"), (3, "3")]
        await started(run, 2)
    async with await ledger.open_run("run") as run:
        rows = await given(run, [3, 2, 4, 1])
        assert [(row.number, row.key, row.request) for row in rows] == [
            (3, "3", request(3)), (2, "2", request(2)), (4, "4", request(4)), (1, "1", request(1)),
        ]  # fmt: skip
        assert [row.execution_id for row in rows] == [None, "e-2", None, None]
        assert run.info.rows == 4


async def test_jobs_that_were_started_together_are_given_again_with_the_group_and_no_execution_of_their_own(
    ledger: Ledger,
) -> None:
    async with await ledger.open_run("run") as run:
        for row in await given(run, [1, 2]):
            await run.intend(row.number, 1, 1.0)
            await run.unknown(row.number, 1, "ConnectionLostError", "lost")
        await run.claim_together(1, [(1, 1), (2, 1)], ["e-1", "e-2"], "two of two")
        for row in await given(run, [1, 2]):
            assert (row.state, row.execution_id, row.candidates) == (RowState.STARTED, None, ("e-1", "e-2"))


async def test_equal_requests_are_counted_within_a_pass(ledger: Ledger) -> None:
    async with await ledger.open_run("run") as run:
        assert await numbers(run, 1, 1, 2, 1) == [1, 2, 3, 4]
        assert await numbers(run, 1) == [1]
        assert await numbers(run, 2, 1, 1, 1, 1, 2) == [3, 1, 2, 4, 5, 6]
        one, other = Pass(), Pass()
        assert [row.number for row in await given(run, [1, 1], one)] == [1, 2]
        assert [row.number for row in await given(run, [1, 2], other)] == [1, 3]
        assert [row.number for row in await given(run, [1, 2], one)] == [4, 3]


async def test_passes_side_by_side_have_the_same_rows(ledger: Ledger) -> None:
    async with await ledger.open_run("run") as run:
        both = await asyncio.gather(*(given(run, [1, 1, 2, 3]) for _ in range(5)))
        assert {tuple(sorted(row.number for row in rows)) for rows in both} == {(1, 2, 3, 4)}
        assert run.info.rows == 4


async def test_many_equal_requests_are_many_rows(ledger: Ledger) -> None:
    async with await ledger.open_run("run") as run:
        for _ in range(2):
            among = Pass()
            found = [row.number for _ in range(10) for row in await given(run, [1] * 200, among)]
            assert found == list(range(1, 2_001))


async def test_a_number_that_is_a_given_key_is_no_key_of_a_job_without_one(ledger: Ledger) -> None:
    async with await ledger.open_run("run") as run:
        for key in ("2", "2-2", "3"):
            await run.add(key, request(9))
        await run.add("5", request(9))
        rows = await given(run, [1, 2, 9])
        assert [(row.number, row.key) for row in rows] == [(5, "5-2"), (6, "6"), (7, "7")]
        assert [(row.number, row.key) for row in await given(run, [9, 2, 1])] == [(7, "7"), (6, "6"), (5, "5-2")]
        assert (await run.add("5", request(9))).number == 4
        with pytest.raises(ManifestChangedError) as caught:
            await run.add("6", request(9))
        assert caught.value.changed == ("6",)


async def test_jobs_with_and_without_keys_are_added_together(ledger: Ledger) -> None:
    async with await ledger.open_run("run") as run:
        for _ in range(2):
            among = Pass()
            jobs = [
                run.add("a", request(1)), run.add_unnamed("2", request(1), among), run.add("2", request(2)),
                run.add_unnamed("4", request(1), among), run.add("b", request(3)),
            ]  # fmt: skip
            rows = await asyncio.gather(*jobs, return_exceptions=True)
            assert [row.key if isinstance(row, LedgerRow) else type(row) for row in rows] == [
                "a", "2", ManifestChangedError, "3", "b",
            ]  # fmt: skip
        assert [row.key for row in await run.page()] == ["a", "2", "3", "b"]


async def test_what_was_restarted_is_still_the_row_of_its_first_request(ledger: Ledger) -> None:
    async with await ledger.open_run("run") as run:
        await given(run, [1, 2])
        await started(run, 1)
        await run.restart(1, 1, RestartJob("e-1", "STEP1"), "note")
        [row] = await given(run, [1])
        assert (row.number, row.state, row.request.job) == (1, RowState.PENDING, RestartJob("e-1", "STEP1"))


async def test_in_a_planned_run_they_are_the_manifests_rows_without_keys(ledger: Ledger) -> None:
    manifest = [(RowNumber(1), request(1)), ("a", request(2)), (RowNumber(3), request(1)), (RowNumber(4), request(4))]
    async with planned(ledger, manifest) as run:
        assert await numbers(run, 4, 1, 1) == [4, 1, 3]
        for names in ([1, 1, 1], [2], [9]):
            with pytest.raises(ManifestChangedError) as caught:
                await given(run, names)
            assert caught.value.added == (str(len(names)),)
        await run.give([manifest[0], manifest[1], (RowNumber(3), request(5))])
        await run.differences(run, rehearsal=False)
        await run.amend(run)
        with pytest.raises(ManifestChangedError):  # one of the two was left out, and had not started
            await given(run, [1, 1])
        assert await numbers(run, 5, 1) == [5, 1]


async def test_rows_of_an_older_version_are_known_by_their_requests(path: Path) -> None:
    async with open_ledger(path) as ledger, await ledger.open_run("run") as run:
        for number in (1, 2, 3):
            await run.add(str(number), request(number))
        await run.add("own", request(4))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE jobs SET request = NULL, named = NULL")
        connection.commit()
    async with open_ledger(path) as ledger, await ledger.open_run("run") as run:
        assert await numbers(run, 3, 1, 4, 2) == [3, 1, 5, 2]


async def test_what_a_pass_had_is_forgotten_once_it_has_ended(path: Path) -> None:
    def counted(run: Run) -> int:
        def ask(batches: object) -> int:
            with batches.aside() as connection:  # type: ignore[attr-defined]
                return int(connection.execute("SELECT count(*) FROM temp.counted").fetchone()[0])

        return run.in_turn(ask)  # type: ignore[attr-defined, no-any-return]

    async with open_ledger(path) as ledger, await ledger.open_run("run") as run:
        for _ in range(3):
            await numbers(run, *range(100))
            gc.collect()
        assert await counted(run) == 100  # type: ignore[misc]
