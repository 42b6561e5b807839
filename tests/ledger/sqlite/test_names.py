"""One ledger under several names, and for those who may only read."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from m2async.ledger import (
    LedgerFullError,
    LedgerIncompleteError,
    LedgerNameError,
    LedgerNotFoundError,
    LedgerUpgradeError,
    RowState,
    RunInUseError,
    open_ledger,
)
from m2async.ledger.sqlite.anchor import Anchor, span_of_run
from m2async.ledger.sqlite.connection import integrity_problems
from m2async.ledger.sqlite.statements import migrations
from tests.ledger.samples import OLDER, files_in, older, planned
from tests.ledger.sqlite.test_crash import killed
from tests.ledger.sqlite.test_faults import mounted, unwritable

# Names


async def test_a_link_to_a_ledger_is_the_ledger(path: Path) -> None:
    link = path.with_name("link.db")
    link.symlink_to(path)
    (path.parent / "folder").symlink_to(path.parent)
    async with open_ledger(path) as ledger, planned(ledger) as run:
        for name in (link, path.parent / "folder" / path.name, path.parent / "folder" / "link.db"):
            async with open_ledger(name) as other:
                if name == link:
                    await run.intend(1, 1, 1.0)
                assert (await (await other.run("run")).counts())[RowState.INTENT] == 1
                with pytest.raises(RunInUseError):
                    await other.open_run("run")
    assert files_in(path.parent) == {"ledger.db", "link.db", "folder"}


async def test_a_new_ledger_behind_a_link_is_made_where_that_leads(path: Path) -> None:
    link = path.with_name("link.db")
    link.symlink_to(path)
    async with open_ledger(link) as ledger, planned(ledger):
        assert "ledger.db-wal" in files_in(path.parent)


def hard_link(path: Path, name: Path) -> None:
    os.link(path, name)


def unbind(name: Path) -> None:
    subprocess.run(["umount", name], check=True)


def bind(path: Path, name: Path) -> None:
    name.touch()
    if subprocess.run(["mount", "--bind", path, name], capture_output=True, check=False).returncode:
        pytest.skip("files cannot be mounted here")


@pytest.mark.parametrize("give", [hard_link, bind])
async def test_a_ledger_is_open_by_one_name_at_a_time(path: Path, give: Callable[[Path, Path], None]) -> None:
    async with open_ledger(path) as ledger, planned(ledger):
        pass
    name = path.parent / "box" / "ledger.db"
    name.parent.mkdir()
    give(path, name)
    try:
        async with open_ledger(path) as ledger, await ledger.open_run("run") as run:
            await run.intend(1, 1, 1.0)
            with pytest.raises(LedgerNameError, match="under another name"):
                async with open_ledger(name):
                    pass
        async with open_ledger(name) as ledger, await ledger.open_run("run") as run:
            assert (await run.row("key-1")).state is RowState.UNKNOWN
            with pytest.raises(LedgerNameError):
                async with open_ledger(path):
                    pass
    finally:
        if give is bind:
            unbind(name)
    assert integrity_problems(path) == []


async def test_a_hard_link_whose_log_a_kill_left_beside_the_other_name_is_told_first(path: Path) -> None:
    async with open_ledger(path) as ledger, planned(ledger, 400):
        pass
    for _ in killed("write", path, 1, after=20):
        pass
    for name, told in [
        ("link.db", f"open it as {path};"),
        ("box/link.db", "open it by the name that it was last used"),
    ]:
        link = path.parent / name
        link.parent.mkdir(exist_ok=True)
        hard_link(path, link)
        with pytest.raises(
            LedgerIncompleteError, match=r"link\.db: is one file under [23] names \(hard links\)"
        ) as caught:
            async with open_ledger(link):
                pass
        assert told in str(caught.value)
    async with open_ledger(path) as ledger, await ledger.open_run("run") as run:
        assert (await run.counts())[RowState.PENDING] < 400


# Looking


def content(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in folder.iterdir() if file.is_file()}


def put(folder: Path, files: dict[str, bytes]) -> None:
    for name, written in files.items():
        (folder / name).write_bytes(written)


async def look(path: Path) -> int:
    """Give how many rows were attempted."""
    async with open_ledger(path, must_exist=True) as ledger:
        [summary] = await ledger.runs()
        view = await ledger.run("run")
        rows = [row async for row, _ in view.jobs()]
        assert not await view.in_use()
        await view.activity()
        await view.orders()
        await view.execution_counts()
        return len(rows) - summary.counts[RowState.PENDING]


async def test_looking_changes_nothing_and_leaves_nothing(path: Path) -> None:
    async with open_ledger(path) as ledger, planned(ledger) as run:
        await run.intend(1, 1, 1.0)
    before = content(path.parent)
    assert await look(path) == 1
    assert content(path.parent) == before


async def test_who_looks_sees_what_others_write_meanwhile(path: Path) -> None:
    async with open_ledger(path) as ledger, planned(ledger):
        pass
    async with open_ledger(path) as looking:
        view = await looking.run("run")
        async with open_ledger(path) as ledger, await ledger.open_run("run") as run:
            for number in (1, 2):
                await run.intend(number, 1, 1.0)
                assert (await view.counts())[RowState.INTENT] == number
        assert (await view.counts())[RowState.INTENT] == 2
        async with open_ledger(path) as ledger, await ledger.open_run("run") as run:
            await run.intend(3, 1, 1.0)
        assert sum((await view.counts()).values()) - (await view.counts())[RowState.PENDING] == 3


@pytest.mark.parametrize("left", [False, True], ids=["closed", "killed"])
async def test_looking_needs_the_right_to_read_alone(tmp_path: Path, *, left: bool) -> None:
    with mounted(tmp_path / "disk") as disk:
        path = disk / "ledger.db"
        async with open_ledger(path) as ledger, planned(ledger) as run:
            await run.intend(1, 1, 1.0)
            kept = {name: written for name, (written, _) in content(disk).items() if not name.endswith(".lock")}
        if left:
            put(disk, kept)
        before = content(disk)
        with unwritable(disk):
            assert await look(path) == 1
            assert content(disk) == before


# Versions


def version(path: Path) -> int:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        found: int = connection.execute("PRAGMA user_version").fetchone()[0]
        return found


async def test_looking_at_an_older_ledger_leaves_it_as_it_is(path: Path) -> None:
    older(path)
    before = content(path.parent)
    assert await look(path) == 0
    assert content(path.parent) == before


async def test_an_older_ledger_is_copied_before_it_is_upgraded(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    older(path)
    async with open_ledger(path) as ledger, await ledger.open_run("run") as run:
        await run.intend(1, 1, 1.0)
    assert version(path) == len(migrations())
    [copy] = path.parent.glob("*schema*")
    assert copy.name.startswith(f"ledger.db-schema-{len(OLDER)}-")
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert version(copy) == len(OLDER)
    assert integrity_problems(copy) == []
    [record] = caplog.records
    assert record.getMessage() == (
        f"ledger {path} was upgraded from schema version {len(OLDER)} to {len(migrations())}; as it was before, "
        f"it is kept in {copy}"
    )
    async with open_ledger(path) as ledger, await ledger.open_run("run"):
        pass
    assert len(caplog.records) == 1


async def test_an_older_ledger_is_not_upgraded_while_a_run_of_it_is_open(path: Path) -> None:
    older(path)
    holder = Anchor(path)
    assert holder.take(span_of_run(1))
    async with open_ledger(path) as ledger:
        assert await (await ledger.run("run")).in_use()
        with pytest.raises(LedgerUpgradeError, match="not upgraded to"):
            await ledger.open_run("another")
        assert version(path) == len(OLDER)
        assert not list(path.parent.glob("*schema*"))
        holder.release(span_of_run(1))
        async with await ledger.open_run("another"):
            assert version(path) == len(migrations())
    holder.close()


async def test_an_older_ledger_is_not_upgraded_while_an_older_version_has_a_run_open(path: Path) -> None:
    older(path)
    holder = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); input()"
    command = [sys.executable, "-c", holder, f"{path}-run-1.lock"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        async with open_ledger(path) as ledger:
            with pytest.raises(LedgerUpgradeError):
                await ledger.open_run("run")
            process.communicate("\n")
            async with await ledger.open_run("run"):
                assert version(path) == len(migrations())


def test_one_of_several_upgrades_at_once(path: Path) -> None:
    older(path)

    async def use(name: str) -> None:
        async with open_ledger(path) as ledger, planned(ledger, 3, name):
            pass

    program = "import asyncio, sys; from tests.ledger.sqlite.test_names import use; asyncio.run(use(*sys.argv[1:]))"
    processes = [subprocess.Popen([sys.executable, "-c", program, path, name]) for name in ("a", "b", "c")]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert len([name for name in files_in(path.parent) if "schema" in name]) == 1
    assert version(path) == len(migrations())


async def use(path: str, name: str) -> None:
    async with open_ledger(path) as ledger:
        while True:
            try:
                async with planned(ledger, 3, name):
                    return
            except LedgerUpgradeError:  # another has just upgraded it, and has its run open
                continue


async def test_a_disk_that_has_no_room_for_the_copy_leaves_the_ledger_as_it_is(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "-o", "size=600k") as disk:
        path = disk / "ledger.db"
        older(path)
        with (disk / "ballast").open("wb", buffering=0) as file:
            file.write(bytes(shutil.disk_usage(disk).free - 60_000))
        async with open_ledger(path) as ledger:
            with pytest.raises(LedgerFullError):
                await ledger.open_run("run")
        assert version(path) == len(OLDER)
        assert {name for name in files_in(disk) if "schema" in name} == set()


# A file that was made for nothing


async def test_a_new_ledger_that_no_run_came_into_goes_again(path: Path) -> None:
    async with open_ledger(path) as ledger:
        assert await ledger.runs() == []
    assert files_in(path.parent) == set()
    async with open_ledger(path) as ledger, await ledger.open_run("run"):
        pass
    assert files_in(path.parent) == set()
    async with open_ledger(path) as ledger, planned(ledger):
        pass
    assert files_in(path.parent) == {"ledger.db"}


async def test_a_new_ledger_that_others_have_open_or_made_a_run_in_stays(path: Path) -> None:
    async with open_ledger(path), open_ledger(path) as other:
        async with planned(other):
            pass
    async with open_ledger(path) as ledger:
        assert len(await ledger.runs()) == 1
    path.unlink()  # noqa: ASYNC240
    async with open_ledger(path) as other:
        async with open_ledger(path):
            pass
        async with planned(other):
            pass
    assert files_in(path.parent) == {"ledger.db"}


@pytest.mark.parametrize("instead", [None, b""], ids=["nothing", "another"])
@pytest.mark.parametrize("moment", ["access", "open"])
async def test_a_file_that_goes_just_as_it_is_opened_is_made_anew(
    path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, instead: bytes | None
) -> None:
    path.touch()  # noqa: ASYNC240
    real, gone = getattr(os, moment), list[Path]()

    def taken_away(given: object, *others: object) -> object:
        if given == path and not gone:
            path.rename(path.with_name("away"))
            gone.append(path)
            if instead is not None:
                path.write_bytes(instead)
        return real(given, *others)

    monkeypatch.setattr(os, moment, taken_away)
    async with open_ledger(path) as ledger, planned(ledger) as run:
        await run.intend(1, 1, 1.0)
    assert gone
    async with open_ledger(path, must_exist=True) as ledger:
        assert (await (await ledger.run("run")).counts())[RowState.INTENT] == 1
    gone.clear()
    if instead is None:
        with pytest.raises(LedgerNotFoundError):
            async with open_ledger(path, must_exist=True):
                pass


def test_many_that_make_a_ledger_for_nothing_do_not_take_it_from_one_who_uses_it(path: Path) -> None:
    async def open_for_nothing() -> None:
        for _ in range(40):
            async with open_ledger(path), open_ledger(path):
                pass

    async def plan(name: str) -> None:
        async with open_ledger(path) as ledger, planned(ledger, 3, name):
            pass

    with ThreadPoolExecutor(4) as threads:
        started = [threads.submit(asyncio.run, open_for_nothing()) for _ in range(3)]
        started += [threads.submit(asyncio.run, plan(f"run-{number}")) for number in range(5)]
        for done in started:
            done.result()

    async def names() -> list[str]:
        async with open_ledger(path) as ledger:
            return sorted(summary.info.name for summary in await ledger.runs())

    assert asyncio.run(names()) == [f"run-{number}" for number in range(5)]
