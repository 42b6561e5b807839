"""Files that are no ledger, and ledgers whose file or disk fails."""

from __future__ import annotations

import asyncio
import os
import resource
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from itertools import pairwise
from pathlib import Path

import pytest

from m2async.ledger import (
    Ledger,
    LedgerDamagedError,
    LedgerError,
    LedgerFullError,
    LedgerLockedError,
    LedgerReadOnlyError,
    NotALedgerError,
    RowNotFoundError,
    RowState,
    Run,
    open_ledger,
)
from m2async.ledger.sqlite.connection import integrity_problems
from m2async.ledger.sqlite.ledger import SqliteLedger
from tests.ledger.samples import planned, request


@contextmanager
def mounted(directory: Path, *options: str) -> Iterator[Path]:
    """A file system of its own, where this may be had."""
    directory.mkdir()
    command = ["mount", "-t", "tmpfs", *options, "m2async-test", str(directory)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        yield directory
    finally:
        subprocess.run(["umount", str(directory)], check=True)


@contextmanager
def unwritable(directory: Path) -> Iterator[None]:
    """Let nothing in a directory be written."""
    if os.geteuid() != 0:
        directory.chmod(0o500)
        for file in directory.iterdir():
            file.chmod(0o400)
        yield
        directory.chmod(0o700)
        return
    subprocess.run(["mount", "-o", "remount,ro", str(directory)], check=True)
    yield


def fill(path: Path) -> None:
    """Let a file take all the room that there is."""
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4_096))


async def open_and_close(path: Path) -> None:
    async with open_ledger(path) as ledger:
        await ledger.runs()


async def intend_until_it_fails(run: Run, first: int, last: int) -> tuple[int, LedgerError]:
    """Give how many intents were acknowledged, and the error of the next."""
    for number in range(first, last + 1):
        try:
            await run.intend(number, 1, 1.0)
        except LedgerError as exc:
            return number - first, exc
    raise AssertionError("no write failed")


# What is no ledger


@pytest.mark.parametrize("content", [b"key,script\na,POSTTRAN\n" * 50, b"x", b"SQLite format 3\0" + b"\xff" * 4_080])
async def test_a_file_of_another_kind_is_refused_and_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)  # noqa: ASYNC240
    with pytest.raises(NotALedgerError):
        await open_and_close(path)
    assert path.read_bytes() == content  # noqa: ASYNC240


async def test_a_database_of_another_program_is_refused_and_left_alone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE runs (id INTEGER)")
    before = path.read_bytes()  # noqa: ASYNC240
    with pytest.raises(NotALedgerError, match="another program"):
        await open_and_close(path)
    assert path.read_bytes() == before  # noqa: ASYNC240


async def test_a_directory_is_no_ledger(tmp_path: Path) -> None:
    with pytest.raises(NotALedgerError, match="not a file"):
        await open_and_close(tmp_path)


async def test_an_empty_file_becomes_a_ledger(path: Path) -> None:
    path.touch()  # noqa: ASYNC240
    await open_and_close(path)
    await open_and_close(path)


# What is taken away


def delete(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def replace(path: Path) -> None:
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)


@pytest.mark.parametrize("suffix", ["", "-wal"])
@pytest.mark.parametrize(("harm", "word"), [(delete, "deleted"), (truncate, "truncated"), (replace, "replaced")])
async def test_a_file_that_is_taken_away_is_noticed_with_the_next_write(
    path: Path, harm: object, word: str, suffix: str
) -> None:
    assert callable(harm)
    async with open_ledger(path) as ledger, planned(ledger, 500) as run:
        await asyncio.gather(*(run.intend(number, 1, 1.0) for number in range(1, 401)))
        harm(path.with_name(path.name + suffix))
        with pytest.raises(LedgerDamagedError, match=f"was {word} while in use") as caught:
            await run.intend(401, 1, 1.0)
        assert caught.value.ledger == str(path)
        for number in (402, 403):  # and nothing is written any more
            with pytest.raises(LedgerDamagedError):
                await run.intend(number, 1, 1.0)
        with pytest.raises(LedgerDamagedError):
            await ledger.open_run("another")


@pytest.mark.parametrize("is_moved", [False, True], ids=["needed", "moved"])
async def test_an_older_copy_that_is_written_over_the_file_is_noticed_with_the_next_write(
    path: Path, *, is_moved: bool
) -> None:
    async with open_ledger(path) as ledger, planned(ledger, 500):
        pass
    older = path.read_bytes()  # noqa: ASYNC240
    async with open_ledger(path) as ledger, await ledger.open_run("run") as run:
        await asyncio.gather(*(run.intend(number, 1, 1.0) for number in range(1, 101)))
        with closing(sqlite3.connect(path)) as other:
            other.execute("PRAGMA wal_checkpoint(FULL)")
        if not is_moved:
            await run.intend(101, 1, 1.0)
        pages = path.stat().st_size // 4_096  # noqa: ASYNC240
        path.write_bytes(older.ljust(pages * 4_096, b"\0"))  # noqa: ASYNC240
        with pytest.raises(LedgerDamagedError, match="it is older than"):
            await run.intend(102, 1, 1.0)
        with pytest.raises(LedgerDamagedError):
            await run.intend(103, 1, 1.0)
    with pytest.raises(LedgerDamagedError):
        await open_and_close(path)


async def test_a_file_that_is_deleted_during_a_commit_makes_nothing_durable(sqlite: SqliteLedger, path: Path) -> None:
    def delete_on_commit(statement: str) -> None:
        if statement.startswith("INSERT INTO attempts"):
            path.unlink()

    async with planned(sqlite) as run:
        await sqlite.desk.writer.call(lambda: sqlite.desk.storage.writing().set_trace_callback(delete_on_commit))
        with pytest.raises(LedgerDamagedError, match="was deleted while in use"):
            await run.intend(1, 1, 1.0)


async def test_a_corrupt_file_is_told(path: Path) -> None:
    async with open_ledger(path) as ledger, planned(ledger, 500):
        pass
    content = bytearray(path.read_bytes())  # noqa: ASYNC240
    content[4_096:] = b"\xa5" * (len(content) - 4_096)
    path.write_bytes(content)  # noqa: ASYNC240
    with pytest.raises(LedgerDamagedError, match="corrupt"):
        await open_and_close(path)


# What cannot be written


async def test_a_disk_that_is_full_fails_the_write_and_not_the_ledger(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "-o", "size=2m") as disk:
        async with open_ledger(disk / "ledger.db") as ledger, planned(ledger, 2_000) as run:
            ballast = disk / "ballast"
            fill(ballast)
            made, error = await intend_until_it_fails(run, 1, 2_000)
            assert isinstance(error, LedgerFullError), error
            assert (await run.counts())[RowState.INTENT] == made
            ballast.unlink()
            await run.intend(made + 1, 1, 1.0)
            await run.started(made + 1, 1, "x")
            assert (await run.counts())[RowState.STARTED] == 1
        assert integrity_problems(disk / "ledger.db") == []


async def test_a_limit_on_the_files_size_fails_the_write_and_not_the_ledger(path: Path) -> None:
    async with open_ledger(path) as ledger, planned(ledger, 1_000) as run:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        size = path.with_name("ledger.db-wal").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20_000, limits[1]))
        try:
            made, error = await intend_until_it_fails(run, 1, 1_000)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert isinstance(error, LedgerFullError), error
        assert "has reached the limit on the size of files (ulimit -f" in str(error)
        assert (await run.counts())[RowState.INTENT] == made
        await run.intend(made + 1, 1, 1.0)
    assert integrity_problems(path) == []


async def test_a_row_whose_addition_fails_is_not_there(path: Path) -> None:
    async with open_ledger(path) as ledger, await ledger.open_run("run") as run:
        await run.add("first", request())
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        try:
            with pytest.raises(LedgerError):
                await run.add("second", request())
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert run.info.rows == 1
        with pytest.raises(RowNotFoundError):
            run.intend(2, 1, 1.0)
        assert (await run.add("third", request())).number == 2
        assert [row.key for row in await run.page()] == ["first", "third"]


async def test_a_directory_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk") if os.geteuid() == 0 else _made(tmp_path / "disk") as disk:
        (disk / "ledger.db").touch()
        await open_and_close(disk / "ledger.db")
        with unwritable(disk):
            with pytest.raises(LedgerReadOnlyError, match="cannot be written"):
                await open_and_close(disk / "new.db")
            async with open_ledger(disk / "ledger.db") as ledger:
                assert await ledger.runs() == []
                with pytest.raises(LedgerReadOnlyError, match="cannot be written"):
                    await ledger.open_run("run")


@contextmanager
def _made(directory: Path) -> Iterator[Path]:
    directory.mkdir()
    yield directory


async def test_a_file_that_others_keep_locked_fails_the_write_and_not_the_ledger(sqlite: Ledger, path: Path) -> None:
    async with planned(sqlite) as run:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(LedgerLockedError, match="locked by another program"):
                await run.intend(1, 1, 1.0)
            other.execute("ROLLBACK")
        assert (await run.counts())[RowState.INTENT] == 0
        await run.intend(1, 1, 1.0)


async def test_once_a_write_has_waited_in_vain_the_next_do_not_wait_as_long(path: Path) -> None:
    async with open_ledger(path, busy_timeout=1.0) as ledger, planned(ledger, 50) as run:
        with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
            other.execute("BEGIN IMMEDIATE")
            times = [time.monotonic()]
            for number in range(1, 11):
                with pytest.raises(LedgerLockedError):
                    await run.intend(number, 1, 1.0)
                times.append(time.monotonic())
            first, *others = (end - begin for begin, end in pairwise(times))
            assert min(others) < 1.0 <= first
            assert sum(others) < 9 * 1.0  # what they would take at least, did each wait as long
            other.execute("ROLLBACK")
            await run.intend(11, 1, 1.0)  # and from then on a busy moment is survived again
            other.execute("BEGIN IMMEDIATE")
            unlocking = asyncio.get_running_loop().call_later(0.3, other.execute, "ROLLBACK")
            await run.intend(12, 1, 1.0)
            assert unlocking.when() < asyncio.get_running_loop().time()
        assert (await run.counts())[RowState.INTENT] == 2


# What others do to it, and may


@pytest.mark.parametrize(
    "statement",
    ["PRAGMA wal_checkpoint(PASSIVE)", "PRAGMA wal_checkpoint(RESTART)", "PRAGMA wal_checkpoint(TRUNCATE)", "VACUUM"],
)
async def test_what_another_program_moves_into_the_file_is_not_taken_for_damage(path: Path, statement: str) -> None:
    async with open_ledger(path) as ledger, planned(ledger, 500) as run:
        for first in (1, 101, 201):
            await asyncio.gather(*(run.intend(number, 1, 1.0) for number in range(first, first + 100)))
            with closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute(statement)
        assert (await run.counts())[RowState.INTENT] == 300
    assert integrity_problems(path) == []
    async with open_ledger(path) as ledger:
        assert (await (await ledger.run("run")).counts())[RowState.INTENT] == 300


async def test_a_backup_through_sqlite_while_it_is_written_is_a_ledger(path: Path) -> None:
    copy = path.with_name("copy.db")
    async with open_ledger(path) as ledger, planned(ledger, 500) as run:

        async def write() -> None:
            for number in range(1, 501):
                await run.intend(number, 1, 1.0)

        writing = asyncio.create_task(write())
        made = 0
        while not writing.done():
            copy.unlink(missing_ok=True)
            with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
                source.backup(target)
            async with open_ledger(copy) as other:
                now = (await (await other.run("run")).counts())[RowState.INTENT]
            assert now >= made
            made = now
        await writing


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE progress SET state = 99",
        "UPDATE progress SET sent_at = 'yesterday'",
        "UPDATE jobs SET job = 'not json'",
        "UPDATE jobs SET params = '{\"A\": 5}'",
        "UPDATE progress SET candidates = 'x'",
        "UPDATE progress SET attempts = 'two'",
        "UPDATE progress SET doubts = 'some'",
        "UPDATE progress SET execution_id = x'00'",
        "UPDATE progress SET state = 2, execution_id = 'e-1', attempts = 'two'",
        "UPDATE progress SET state = 2, execution_id = 'e-1', adopted = 'no'",
    ],
)
async def test_what_no_ledger_holds_is_told_as_damage(path: Path, statement: str) -> None:
    async with open_ledger(path) as ledger, planned(ledger) as run:
        await run.intend(1, 1, 1.0)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
        connection.commit()
    async with open_ledger(path) as ledger:
        view = await ledger.run("run")
        with pytest.raises(LedgerDamagedError, match="did not write"):
            await view.page()
        if "state = 99" in statement:
            with pytest.raises(LedgerDamagedError, match="did not write"):
                await view.counts()
