from __future__ import annotations

from pathlib import Path

from m2async.figures.figures import Phase
from m2async.figures.looks import Looks, Rhythm, glance
from m2async.ledger import Observation, RowState, open_ledger
from tests.dashboard.test_server import add_run, job


async def test_troubles_are_told_the_latest_first_with_their_reasons(tmp_path: Path) -> None:
    times = iter(range(1_700_000_000, 1_700_001_000))
    async with open_ledger(tmp_path / "ledger.db", clock=lambda: float(next(times))) as ledger:
        async with await ledger.open_run("night") as run:
            await run.plan((f"row-{n}", job()) for n in range(4))
            looks = Looks(run)
            assert (await looks.look()).in_trouble == 0
            for number in (3, 1, 2):
                await run.intend(number, 1, float(next(times)))
            await run.unknown(3, 1, "AnswerTimeoutError", "no answer")
            await run.rejected(1, 1, "ValidationException", "no such job")
            await run.started(2, 1, "execution")
            [latest, before] = (await looks.look()).troubles
            assert (latest.key, latest.what, latest.reason) == ("row-0", "rejected", "ValidationException: no such job")
            assert (before.key, before.what, before.reason) == ("row-2", "unknown", "AnswerTimeoutError: no answer")
            assert latest.at > before.at
            end = 1_700_000_900.0
            await run.observe([Observation(2, "execution", "Failed", "12", end - 1, end, ended=True)])
        look = await looks.look()  # at once, since the run is not in progress any more
        assert (look.in_trouble, look.troubles[0].key, look.troubles[0].what) == (3, "row-1", "failed")
        assert look.troubles[0].reason == "ended as Failed with return code 12"


async def test_troubles_are_not_read_again_while_they_are_the_same(tmp_path: Path) -> None:
    async with open_ledger(tmp_path / "ledger.db") as ledger, await ledger.open_run("night") as run:
        await run.plan([("row", job())])
        await run.intend(1, 1, 1_700_000_000.0)
        await run.rejected(1, 1, "ValidationException", "no such job")
        looks = Looks(run)
        first = await looks.look()
        assert (await looks.look()).troubles is first.troubles


async def test_reading_troubles_again_waits_ten_times_what_it_cost(tmp_path: Path) -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += 1.0  # each reading of the troubles takes a second
        return now[0]

    async with open_ledger(tmp_path / "ledger.db") as ledger, await ledger.open_run("night") as run:
        await run.plan((f"row-{n}", job()) for n in range(2))
        looks = Looks(run, clock)
        for number in (1, 2):
            await run.intend(number, 1, 1_700_000_000.0)
            await run.rejected(number, 1, "ValidationException", "no such job")
            look = await looks.look()
        assert (look.in_trouble, len(look.troubles)) == (2, 1)
        now[0] += 10.0
        assert len((await looks.look()).troubles) == 2


def test_looking_takes_a_tenth_of_the_time_at_most_but_for_the_first_time() -> None:
    rhythm = Rhythm()
    assert [rhythm.wait_after(cost) for cost in (5.0, 0.0, 0.01, 0.1, 2.0)] == [1.0, 1.0, 1.0, 1.0, 20.0]


async def test_a_glance_at_all_runs_shows_the_latest_first_and_how_each_stands(tmp_path: Path) -> None:
    async with open_ledger(tmp_path / "ledger.db") as ledger:
        await add_run(ledger, "old")
        async with await ledger.open_run("new") as run:
            await run.plan([("row", job())])
            await run.set_paused(True)
            [new, old] = await glance(ledger)
    assert (new.info.name, new.phase, new.orders.paused) == ("new", Phase.STARTING, True)
    assert (old.info.name, old.phase, old.counts[RowState.PENDING]) == ("old", Phase.STOPPED, 1)
