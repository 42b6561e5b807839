"""What only a ledger in memory promises; of one in a file, test_ledger.py and test_faults.py tell."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from m2async.ledger import RowState, RunInUseError, open_ledger
from tests.ledger.samples import APPLICATION, files_in, planned


def files_open() -> list[str]:
    """Give the files that this process has open, also those that have no name any more."""
    return sorted(str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_file())


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no /proc to see open files in")
async def test_nothing_of_it_is_on_any_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SQLITE_TMPDIR", "TMPDIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.chdir(tmp_path)
    before = files_open()
    async with open_ledger("memory:") as ledger, planned(ledger, 20_000) as run:
        await asyncio.gather(*(run.intend(number, 1, 1.0) for number in range(1, 20_001)))
        await ledger.claimed(APPLICATION, [])  # makes an index, for which SQLite sorts
        assert files_open() == before
        assert files_in(tmp_path) == set()
    assert files_in(tmp_path) == set()


async def test_it_is_read_while_it_is_written() -> None:
    async with open_ledger("memory:") as ledger, planned(ledger, 640) as run:
        view = await ledger.run("run")

        async def write(first: int) -> None:
            for number in range(first, first + 10):
                await run.intend(number, 1, 1.0)
                await run.started(number, 1, f"x{number}")

        async def read() -> None:
            while (counts := await view.counts())[RowState.STARTED] < 640:
                assert sum(counts.values()) == 640
                seen.append(counts[RowState.STARTED])

        seen: list[int] = []
        await asyncio.gather(read(), *(write(first) for first in range(1, 640, 10)))
        assert seen == sorted(seen)
        assert len(set(seen)) > 1


async def test_a_run_is_locked_in_its_own_ledger_alone() -> None:
    async with open_ledger("memory:") as one, open_ledger("memory:") as other, planned(one) as run:
        with pytest.raises(RunInUseError):
            await one.open_run("run")
        async with planned(other) as its_own:
            await asyncio.gather(run.intend(1, 1, 1.0), its_own.intend(2, 1, 1.0))
            assert await (await one.run("run")).in_use()
        assert not await (await other.run("run")).in_use()


def test_many_loops_have_one_each() -> None:
    async def use(count: int) -> int:
        async with open_ledger("memory:") as ledger, planned(ledger, count) as run:
            for number in range(1, count + 1):
                await run.intend(number, 1, 1.0)
            [summary] = await ledger.runs()
            return summary.counts[RowState.INTENT]

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda count: asyncio.run(use(count)), range(50, 54))) == [50, 51, 52, 53]
