"""Rows to plan, and what tests say about them again and again."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, closing
from pathlib import Path

from m2async import FileJob, RestartJob, S3Job, ScriptJob, StartBatchJob
from m2async.ledger import Ledger, LedgerRow, RowState, Run
from m2async.ledger.sqlite.schema import APPLICATION_ID
from m2async.ledger.sqlite.statements import migrations
from m2async.service.requests import Job

APPLICATION = "carddemolocalapplication23"
OTHER_APPLICATION = "carddemolocalapplication24"
JOBS: tuple[Job, ...] = (
    ScriptJob("POSTTRAN"),
    FileJob("POSTTRAN.jcl"),
    FileJob("POSTTRAN.jcl", "jcl/ü"),
    S3Job("bucket", file_name="a.jcl", key_prefix="p/"),
    S3Job("bucket", script_name="A"),
    RestartJob("2345672345672345672345672a", "STEP1", to_step="STEP2", skip=False, step_checkpoint=-1),
)


class Clock:
    """Tells a time that goes on by a second whenever it is asked."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def request(number: int = 1, application_id: str = APPLICATION, job: Job = JOBS[0]) -> StartBatchJob:
    return StartBatchJob(application_id, job, {"RUNDATE": "20261123", "BRANCH": f"{number:07}"})


def rows(count: int, *, first: int = 1) -> list[tuple[str, StartBatchJob]]:
    return [(f"key-{number}", request(number)) for number in range(first, first + count)]


@asynccontextmanager
async def planned(
    ledger: Ledger, given: int | Iterable[tuple[str, StartBatchJob]] = 3, name: str = "run"
) -> AsyncIterator[Run]:
    """A run that is open for writing, with so many rows, or these."""
    async with await ledger.open_run(name) as run:
        await run.plan(rows(given) if isinstance(given, int) else given)
        yield run


async def row_of(run: Run, number: int) -> LedgerRow:
    [row] = await run.page(after=number - 1, limit=1)
    assert row.number == number
    return row


async def state_of(run: Run, number: int) -> RowState:
    return (await row_of(run, number)).state


def files_in(directory: Path) -> set[str]:
    return {file.name for file in directory.iterdir()}


OLDER = migrations()[:4]
"""What leads to an older schema."""


def older(path: Path) -> None:
    """Make a ledger of an older version, with a run of one row."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("\n;\n".join(OLDER))
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(OLDER)}")
        connection.execute("INSERT INTO runs (id, name, planned, rows, created_at) VALUES (1, 'run', 1, 1, 5)")
        job = '{"scriptBatchJobIdentifier":{"scriptName":"X"}}'
        connection.execute("INSERT INTO jobs VALUES (4294967297, 1, 'key', 'application', ?, NULL, NULL)", (job,))
        connection.commit()
        connection.execute("PRAGMA journal_mode = WAL")
