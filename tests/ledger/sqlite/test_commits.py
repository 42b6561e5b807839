"""Files of one ledger, but of two moments: what a checkpoint may leave is a ledger, anything else is refused."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from m2async.ledger import LedgerIncompleteError, RowState, Run, open_ledger
from m2async.ledger.sqlite.wal import HEADER
from tests.ledger.samples import planned
from tests.ledger.sqlite.test_harm import log_of

ROWS = 60


@asynccontextmanager
async def at_work(path: Path) -> AsyncIterator[Run]:
    async with open_ledger(path) as ledger, planned(ledger, ROWS) as run:
        yield run


def checkpoint(path: Path) -> None:
    """Move all into the file, whose log is begun anew with the next commit."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA wal_checkpoint(FULL)").fetchone()[0] == 0


def back_up(path: Path, copy: Path) -> Path:
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    return copy


async def intend(run: Run, first: int, last: int) -> None:
    for number in range(first, last + 1):
        await run.intend(number, 1, 1.0)


def put(file: Path, log: Path, place: Path) -> Path:
    """Put copies of a file and of a log beside each other."""
    place.mkdir()
    ledger = place / "ledger.db"
    shutil.copy(file, ledger)
    shutil.copy(log, log_of(ledger))
    return ledger


async def attempted(path: Path) -> int:
    """Give how many rows were attempted, as one sees it who goes on with the run."""
    async with open_ledger(path) as ledger, await ledger.open_run("run") as run:
        return ROWS - (await run.counts())[RowState.PENDING]


def begin_anew(log: Path) -> None:
    """Leave what a process does that is killed once it has begun a log anew: another header, and nothing behind it."""
    with log.open("r+b") as file:
        header = file.read(HEADER)
        file.seek(0)
        file.write(header[:16] + bytes(byte ^ 0xFF for byte in header[16:24]) + header[24:])


async def test_a_copy_from_before_the_log_is_refused_whenever_in_the_log_before_it_was_made(
    tmp_path: Path, path: Path
) -> None:
    copies = []
    async with at_work(path) as run:
        for last in (10, 20):
            await intend(run, last - 9, last)
            copies.append(back_up(path, tmp_path / f"copy-{last}.db"))
        await intend(run, 21, 25)
        checkpoint(path)
        copies.append(back_up(path, tmp_path / "copy-25.db"))
        await intend(run, 26, 30)
        copies.append(back_up(path, tmp_path / "copy-30.db"))
        await intend(run, 31, 40)
        ledgers = [put(copy, log_of(path), tmp_path / copy.stem) for copy in copies]
    for ledger in ledgers[:2]:
        for _ in range(2):  # and being refused changes nothing
            with pytest.raises(LedgerIncompleteError, match="it is older than the write-ahead log ledger.db-wal"):
                await attempted(ledger)
    assert [await attempted(ledger) for ledger in ledgers[2:]] == [40, 40]


async def test_a_log_that_was_only_begun_tells_an_older_file(tmp_path: Path, path: Path) -> None:
    async with at_work(path) as run:
        older = back_up(path, tmp_path / "copy.db")
        await intend(run, 1, 20)
        checkpoint(path)
        harmed, sound = put(older, log_of(path), tmp_path / "harmed"), put(path, log_of(path), tmp_path / "sound")
    begin_anew(log_of(harmed))
    begin_anew(log_of(sound))
    with pytest.raises(LedgerIncompleteError, match="it is older than"):
        await attempted(harmed)
    assert await attempted(sound) == 20


async def test_an_older_log_is_refused_under_a_file_that_needs_none(tmp_path: Path, path: Path) -> None:
    async with at_work(path) as run:
        await intend(run, 1, 10)
        log = Path(shutil.copy(log_of(path), tmp_path / "older-wal"))
        await intend(run, 11, 30)
    harmed = put(path, log, tmp_path / "harmed")
    with pytest.raises(
        LedgerIncompleteError, match="ledger.db-wal beside it is older than it.*move the -wal file away"
    ):
        await attempted(harmed)
    log_of(harmed).unlink()
    assert await attempted(harmed) == 30


def anew(path: Path, place: Path) -> Path:
    return place / "another.db"


def from_a_copy(path: Path, place: Path) -> Path:
    return back_up(path, place / "another.db")


@pytest.mark.parametrize("make", [anew, from_a_copy])
async def test_the_log_of_another_ledger_is_refused(
    tmp_path: Path, path: Path, make: Callable[[Path, Path], Path]
) -> None:
    async with at_work(path):
        pass
    another = make(path, tmp_path)
    async with at_work(another) as run:
        await intend(run, 1, 10)
        log = Path(shutil.copy(log_of(another), tmp_path / "its-wal"))
    async with open_ledger(path) as ledger, await ledger.open_run("run") as run:
        await intend(run, 1, 10)
    with pytest.raises(LedgerIncompleteError, match="of another ledger, or of another copy of this one"):
        await attempted(put(path, log, tmp_path / "harmed"))


async def test_a_ledger_that_vacuum_moved_about_in_its_log_is_whole(tmp_path: Path, path: Path) -> None:
    async with at_work(path) as run:
        await intend(run, 1, 10)
        checkpoint(path)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("DROP INDEX destinations_of_run")
            connection.execute("VACUUM")
            moved = put(path, log_of(path), tmp_path / "moved")
    assert await attempted(moved) == 10
