"""What only the SQLite ledger promises: its file, its commits, other processes."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import pytest

from m2async import ScriptJob, StartBatchJob
from m2async.ledger import (
    DuplicateKeyError,
    IllegalTransitionError,
    Ledger,
    LedgerError,
    LedgerVersionError,
    RowState,
    RunInUseError,
    open_ledger,
)
from m2async.ledger.sqlite import plan
from m2async.ledger.sqlite.connection import integrity_problems
from m2async.ledger.sqlite.ledger import SqliteLedger
from m2async.ledger.sqlite.statements import migrations, named_statements
from m2async.ledger.sqlite.storage import FileStorage
from tests.ledger.samples import APPLICATION, Clock, files_in, planned, request, rows

WRITER = """
import asyncio, sys
from m2async.ledger import open_ledger
from tests.ledger.samples import planned

async def main():
    async with open_ledger(sys.argv[1]) as ledger, planned(ledger, 50, "theirs") as run:
        for number in range(1, 51):
            await run.intend(number, 1, 1.0)
            print(number, flush=True)
            if number == 25:
                await asyncio.to_thread(sys.stdin.readline)

asyncio.run(main())
"""


def pragma(path: Path, name: str) -> object:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(f"PRAGMA {name}").fetchone()[0]


@pytest.fixture(params=[0o000, 0o022, 0o777], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
async def test_the_files_are_their_owners_alone(path: Path) -> None:
    async with open_ledger(path) as ledger, planned(ledger):
        modes = {name: stat.S_IMODE(path.with_name(name).stat().st_mode) for name in files_in(path.parent)}
    assert modes.keys() == {"ledger.db", "ledger.db-wal", "ledger.db-shm", "ledger.db-run-1.lock"}
    assert set(modes.values()) == {0o600}


async def test_a_closed_ledger_is_one_file(path: Path) -> None:
    async with open_ledger(path) as ledger, planned(ledger):
        pass
    assert files_in(path.parent) == {"ledger.db"}
    assert integrity_problems(path) == []


async def test_every_commit_is_synced_to_a_write_ahead_log(sqlite: SqliteLedger) -> None:
    def settings() -> list[object]:
        connection = sqlite.desk.storage.writing()
        return [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]

    assert await sqlite.desk.writer.call(settings) == ["wal", 2]  # 2 is FULL


async def test_concurrent_writes_share_commits(sqlite: SqliteLedger) -> None:
    statements: list[str] = []
    async with planned(sqlite, 641) as run:
        await sqlite.desk.writer.call(lambda: sqlite.desk.storage.writing().set_trace_callback(statements.append))
        await run.intend(641, 1, 1.0)
        of_a_commit = len(statements)
        statements.clear()

        async def together(writes: Callable[[], list[Awaitable[None]]]) -> None:
            """Keep the writer busy until all of them have been asked for."""
            begun, all_there = threading.Event(), threading.Event()

            def wait() -> None:
                begun.set()
                all_there.wait()

            busy = asyncio.create_task(sqlite.desk.writer.call(wait))
            await asyncio.to_thread(begun.wait)
            asked = writes()
            all_there.set()
            await asyncio.gather(busy, *asked)

        for first in range(1, 11):
            numbers = range(first, 641, 10)
            await together(lambda: [run.intend(number, 1, 1.0) for number in numbers])  # noqa: B023
            await together(lambda: [run.started(number, 1, f"x{number}") for number in numbers])  # noqa: B023
        of_all = len(statements)
        assert (await run.counts())[RowState.STARTED] == 640
    assert of_all == 20 * of_a_commit  # for 1,280 writes


async def test_a_write_is_in_the_file_when_its_await_returns(sqlite: Ledger, path: Path) -> None:
    async with planned(sqlite) as run:
        with closing(sqlite3.connect(path)) as other:
            await run.intend(2, 1, 1.0)
            assert other.execute("SELECT state, attempts FROM progress").fetchall() == [(1, 1)]
            await run.started(2, 1, "x")
            assert other.execute("SELECT state, execution_id FROM progress").fetchall() == [(2, "x")]


async def test_waiting_for_the_file_does_not_block_the_loop(path: Path) -> None:
    async with open_ledger(path) as ledger, planned(ledger) as run:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            write = asyncio.ensure_future(run.intend(1, 1, 1.0))
            for _ in range(1_000):
                await asyncio.sleep(0)
            assert not write.done()
            assert (await run.counts())[RowState.PENDING] == 3  # reading goes on
            other.execute("COMMIT")
            await write


async def test_illegal_writes_cost_the_others_nothing_but_time(sqlite: Ledger) -> None:
    async with planned(sqlite, 200) as run:
        results = await asyncio.gather(
            *(run.intend(number, 2 if number % 10 == 0 else 1, 1.0) for number in range(1, 201)),
            return_exceptions=True,
        )
        illegal = [result for result in results if isinstance(result, IllegalTransitionError)]
        assert [error.number for error in illegal] == list(range(10, 201, 10))
        assert (await run.counts())[RowState.INTENT] == 180


async def test_writes_of_one_row_take_effect_in_their_order(sqlite: SqliteLedger) -> None:
    async with planned(sqlite) as run:
        free = threading.Event()
        holding = asyncio.create_task(sqlite.desk.writer.call(lambda: free.wait(10)))
        await asyncio.sleep(0)
        writes = [run.started(1, 1, "x"), run.intend(1, 1, 1.0), run.intend(2, 1, 1.0)]  # one batch
        free.set()
        await holding
        results = await asyncio.gather(*writes, return_exceptions=True)
        assert [type(result) for result in results] == [IllegalTransitionError, type(None), type(None)]
        assert (await run.counts())[RowState.INTENT] == 2


# Planning


async def test_rows_of_an_unfinished_plan_are_not_in_the_way_of_added_ones(
    sqlite: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "BATCH", 2)
    async with await sqlite.open_run("run") as run:
        with pytest.raises(DuplicateKeyError):
            await run.plan([*rows(5), *rows(1)])
        assert (await run.add("key-1", request(11))).number == 1
        assert [row.request for row in await run.page()] == [request(11)]


async def test_a_plan_of_many_batches_is_whole(sqlite: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "BATCH", 7)
    async with planned(sqlite, 50) as run:
        assert [row.key async for row in run.rows()] == [key for key, _ in rows(50)]
        await run.plan(rows(50))
        await run.plan(reversed(rows(50)))
    async with await sqlite.open_run("other") as run:
        with pytest.raises(DuplicateKeyError) as caught:
            await run.plan([*rows(50), ("key-3", request())])
        assert (caught.value.first, caught.value.second) == (3, 51)
        await run.plan(rows(30))
        assert len(await run.page()) == 30


async def test_a_plan_that_fails_leaves_no_rows_behind(
    sqlite: Ledger, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "BATCH", 10)
    async with await sqlite.open_run("run") as run:
        with pytest.raises(DuplicateKeyError):
            await run.plan([*rows(50), *rows(1)])
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM jobs").fetchone() == (0,)
    assert files_in(path.parent) == {"ledger.db", "ledger.db-wal", "ledger.db-shm"}


async def test_a_run_that_is_removed_is_unlocked_before_others_can_make_one_in_its_place(
    sqlite: SqliteLedger, path: Path
) -> None:
    def look(statement: str) -> None:
        if statement == "COMMIT":
            at_commit.append(files_in(path.parent))

    at_commit: list[set[str]] = []
    async with await sqlite.open_run("run"):
        await sqlite.desk.writer.call(lambda: sqlite.desk.storage.writing().set_trace_callback(look))
        assert "ledger.db-run-1.lock" in files_in(path.parent)
    assert at_commit == [{"ledger.db", "ledger.db-wal", "ledger.db-shm"}]


async def test_a_cancelled_plan_leaves_the_rows_alone_and_can_be_made_anew(
    sqlite: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "BATCH", 10)
    taken = 0

    def counted() -> Iterator[tuple[str, StartBatchJob]]:
        nonlocal taken
        for row in rows(10_000):
            taken += 1
            if taken == 25:
                loop.call_soon_threadsafe(planning.cancel)
            yield row

    loop = asyncio.get_running_loop()
    async with await sqlite.open_run("run") as run:
        planning = asyncio.create_task(run.plan(counted()))
        with pytest.raises(asyncio.CancelledError):
            await planning
        at_the_end = taken
        assert at_the_end < 10_000
        await run.plan(rows(3))
        assert taken == at_the_end
        assert len(await run.page()) == 3


def test_planning_needs_no_memory_for_its_rows(path: Path) -> None:
    program = """
import asyncio, resource, sys
from m2async.ledger import open_ledger
from tests.ledger.samples import request
async def main(count):
    async with open_ledger(sys.argv[1]) as ledger, await ledger.open_run(str(count)) as run:
        await run.plan((f"key-{number}", request(number)) for number in range(count))
for count in (5_000, 100_000):
    asyncio.run(main(count))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    output = subprocess.run([sys.executable, "-c", program, path], check=True, capture_output=True, text=True).stdout
    few, many = map(int, output.split())
    assert many - few < 4_096  # KiB, for 95,000 rows


@pytest.mark.parametrize(
    ("statement", "given", "index"),
    [
        ("page", {"after": 0, "last": 9, "states": 1, "limit": 1}, "jobs USING INTEGER PRIMARY KEY"),
        ("page_of_open", {"after": 0, "last": 9, "states": 16, "limit": 1}, "progress_open"),
        ("claimed", {"given": "[]", "application_id": APPLICATION}, "progress_by_execution"),
        ("claimed", {"given": "[]", "application_id": APPLICATION}, "restarts_by_execution"),
        ("open_attempts", (APPLICATION,), "history_open"),
        ("open_attempts", (APPLICATION,), "progress_open"),
        ("row", {"run": 1, "key": "key", "last": 9}, "jobs_by_key"),
        ("history", (1,), "history_of_row"),
        ("latest_time", {"first": 0, "last": 9}, "progress_open"),
        ("latest_time", {"first": 0, "last": 9}, "history_open"),
        ("run", ("run",), "withdrawn USING INTEGER PRIMARY KEY"),
        ("gone", (0, 9), "withdrawn USING INTEGER PRIMARY KEY"),
        ("kin", {"first": 0, "end": 9, "unlike": "[]"}, "jobs_by_request"),
        ("executions", {"base": 0, "first": 1, "last": 9, "until": 1, "together": 1}, "progress_together"),
        ("execution_counts", {"base": 0, "last": 9}, "progress_together"),
    ],
)
async def test_no_question_looks_at_every_row(
    sqlite: SqliteLedger, statement: str, given: Mapping[str, object] | tuple[object, ...], index: str
) -> None:
    await sqlite.claimed(APPLICATION, [])
    sql = f"EXPLAIN QUERY PLAN {named_statements('reads', 'runs', 'again', 'tracking')[statement]}"
    steps = [step[3] for step in await sqlite.desk.read(lambda connection: connection.execute(sql, given).fetchall())]
    assert any(index in step for step in steps), steps
    whole = ("SCAN progress", "SCAN jobs", "SCAN withdrawn", "MATERIALIZE")
    assert not [step for step in steps if step.startswith(whole) and "progress_open" not in step]
    assert not [step for step in steps if "AUTOMATIC" in step]  # an index of all rows of a view


# Versions

NEWEST = len(migrations())


async def test_a_later_migration_is_made_with_the_first_write_and_keeps_the_rows(path: Path, clock: Clock) -> None:
    async with open_ledger(path) as ledger, planned(ledger) as run:
        await run.intend(1, 1, 1.0)
    assert pragma(path, "user_version") == NEWEST
    later = (*migrations(), "-- later\nALTER TABLE runs ADD COLUMN owner TEXT;\nCREATE TABLE tags (tag TEXT);\n")
    async with await SqliteLedger.open(FileStorage(path), clock=clock, scripts=later) as ledger:
        [summary] = await ledger.runs()
        assert (summary.info.rows, summary.counts[RowState.INTENT]) == (3, 1)
        assert pragma(path, "user_version") == NEWEST
        async with await ledger.open_run("run"):
            assert pragma(path, "user_version") == NEWEST + 1
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT owner FROM runs").fetchall() == [(None,)]
    assert integrity_problems(path) == []


async def test_a_ledger_of_a_later_version_is_left_alone(path: Path) -> None:
    later = (*migrations(), "CREATE TABLE tags (tag TEXT);")
    async with await SqliteLedger.open(FileStorage(path), scripts=later) as ledger, planned(ledger):
        pass
    before = path.read_bytes()  # noqa: ASYNC240
    with pytest.raises(LedgerVersionError, match="upgrade m2async") as caught:
        async with open_ledger(path):
            pass
    assert (caught.value.found, caught.value.known) == (NEWEST + 1, NEWEST)
    assert path.read_bytes() == before  # noqa: ASYNC240


async def test_a_migration_that_fails_changes_nothing(path: Path) -> None:
    async with open_ledger(path) as ledger, planned(ledger):
        pass
    broken = (
        *migrations(),
        "CREATE TABLE tags (tag TEXT);\nINSERT INTO runs (name, created_at) SELECT name, 0 FROM runs;",
    )
    async with await SqliteLedger.open(FileStorage(path), scripts=broken) as ledger:
        with pytest.raises(LedgerError, match="UNIQUE"):
            await ledger.open_run("run")
    assert pragma(path, "user_version") == NEWEST
    assert files_in(path.parent) == {"ledger.db"}
    async with open_ledger(path) as ledger:
        assert len(await ledger.runs()) == 1


# Other processes and loops


async def test_another_process_can_be_read_and_not_be_disturbed(path: Path) -> None:
    async with open_ledger(path) as ledger:
        command = [sys.executable, "-c", WRITER, str(path)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            while process.stdout.readline() != "25\n":
                pass
            view = await ledger.run("theirs")
            assert (await view.counts())[RowState.INTENT] == 25
            with pytest.raises(RunInUseError) as caught:
                await ledger.open_run("theirs")
            assert caught.value.pid == process.pid
            assert str(process.pid) in str(caught.value)
            process.stdin.write("\n")
            process.stdin.flush()
            async with planned(ledger, 50, "ours") as run:  # while the other goes on
                await asyncio.gather(*(run.intend(number, 1, 1.0) for number in range(1, 51)))
            output, _ = process.communicate()
            assert output.split()[-1] == "50"
        assert (await view.counts())[RowState.INTENT] == 50
        async with await ledger.open_run("theirs") as run:
            assert (await run.counts())[RowState.UNKNOWN] == 50


def test_two_loops_write_one_file(path: Path) -> None:
    async def write(name: str) -> None:
        async with open_ledger(path) as ledger, planned(ledger, 100, name) as run:
            for number in range(1, 101):
                await run.intend(number, 1, 1.0)
                await run.started(number, 1, f"{name}-{number}")

    threads = [threading.Thread(target=asyncio.run, args=(write(name),)) for name in ("a", "b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*), count(DISTINCT execution_id) FROM progress").fetchone() == (
            300,
            300,
        )
    assert integrity_problems(path) == []


def test_a_run_that_comes_and_goes_is_made_and_removed_by_one_at_a_time(
    path: Path,
) -> None:
    path.touch()  # one that a ledger made itself would go with the last run
    opened: list[int] = []

    async def use() -> None:
        async with open_ledger(path) as ledger:
            while len(opened) < 40:  # by all of them, however often another has it
                with suppress(RunInUseError):
                    async with await ledger.open_run("run") as run:
                        opened.append(run.info.id)
                        assert (run.info.rows, run.info.planned, await run.page()) == (0, False, [])
                        if len(opened) % 2:
                            with pytest.raises(OSError, match="gone"):
                                await run.plan(failing())

    def failing() -> Iterator[tuple[str, StartBatchJob]]:
        yield from rows(3)
        raise OSError("the manifest is gone")

    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(asyncio.run, use()) for _ in range(4)]:
            done.result()
    assert files_in(path.parent) == {"ledger.db"}
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT (SELECT count(*) FROM runs), (SELECT count(*) FROM jobs)").fetchone() == (
            0,
            0,
        )


async def test_whoever_looks_whether_a_run_is_in_use_keeps_nobody_from_opening_it(path: Path) -> None:
    async with open_ledger(path) as ledger, open_ledger(path) as other:
        async with planned(ledger):
            pass
        view = await other.run("run")
        looking = True

        async def look() -> None:
            while looking:
                await view.in_use()
                await asyncio.sleep(0)

        task = asyncio.create_task(look())
        for _ in range(50):
            async with await ledger.open_run("run"):
                assert await view.in_use()
        looking = False
        await task
        assert not await view.in_use()


async def test_two_ledgers_of_one_process_share_a_file_but_no_run(path: Path) -> None:
    async with open_ledger(path) as one, open_ledger(path) as other, planned(one) as run:
        with pytest.raises(RunInUseError):
            await other.open_run("run")
        async with planned(other, name="another") as another:
            await asyncio.gather(run.intend(1, 1, 1.0), another.intend(1, 1, 1.0))
        assert len(await other.open_attempts(APPLICATION)) == 2


async def test_many_open_a_new_file_at_once(path: Path) -> None:
    async def use(name: str) -> None:
        async with (
            open_ledger(path) as ledger,
            planned(ledger, [(name, StartBatchJob(APPLICATION, ScriptJob("A")))], name),
        ):
            pass

    await asyncio.gather(*(use(f"run-{number}") for number in range(8)))
    async with open_ledger(path) as ledger:
        assert len(await ledger.runs()) == 8


async def test_a_cancelled_opening_leaves_the_run_to_others(sqlite: Ledger) -> None:
    async with planned(sqlite):
        pass
    opening = asyncio.create_task(sqlite.open_run("run"))
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    async with await sqlite.open_run("run"):
        pass


async def test_no_descriptor_is_left_open(path: Path) -> None:
    before = len(files_in(Path("/proc/self/fd")))
    for _ in range(3):
        async with open_ledger(path) as ledger, planned(ledger):
            pass
    assert len(files_in(Path("/proc/self/fd"))) <= before
