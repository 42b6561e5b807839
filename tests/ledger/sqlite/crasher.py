"""A process to be killed: writes to a ledger, and prints a line for each write whose await returned.

python -m tests.ledger.sqlite.crasher write LEDGER SEED | plan LEDGER ROWS | checkpoint LEDGER SEED
"""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import sys
from collections.abc import AsyncIterator, Iterator

from m2async import StartBatchJob
from m2async.ledger import LedgerRow, RowState, Run, open_ledger
from m2async.ledger.sqlite import FileStorage
from m2async.ledger.sqlite import plan as planning
from tests.ledger.samples import rows

CALLERS = 16


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


async def write(path: str, seed: int) -> None:
    """Take rows through random writes, until there are no more."""
    chance = random.Random(seed)
    async with open_ledger(path) as ledger, await ledger.open_run("run") as run:
        say("open")
        left = run.rows(RowState.PENDING, RowState.UNKNOWN)
        async with asyncio.TaskGroup() as tasks:
            for _ in range(CALLERS):
                tasks.create_task(caller(run, left, chance))


async def caller(run: Run, left: AsyncIterator[LedgerRow], chance: random.Random) -> None:
    async for row in _shared(left):
        number, attempt = row.number, row.attempts
        resend = False
        if row.state is RowState.UNKNOWN:
            match chance.choice(["claim", "not started", "resend", "leave"]):
                case "claim":
                    await run.claim(number, attempt, f"found-{number}-{attempt}", "note")
                    say(number, "claimed", attempt)
                    continue
                case "not started":
                    await run.not_started(number, attempt, "note")
                    say(number, "not_started", attempt)
                case "resend":
                    resend = True
                case _:
                    continue
        await run.intend(number, attempt + 1, 1.0, resend=resend)
        say(number, "resend" if resend else "intend", attempt + 1)
        match chance.choice(["started", "started", "started", "refused", "unknown"]):
            case "started":
                await run.started(number, attempt + 1, f"answered-{number}-{attempt + 1}")
                say(number, "started", attempt + 1)
            case "refused":
                await run.refused(number, attempt + 1, "ThrottlingException", "slow down")
                say(number, "refused", attempt + 1)
            case _:
                await run.unknown(number, attempt + 1, "ConnectionLostError", "lost")
                say(number, "unknown", attempt + 1)


_turn = asyncio.Lock()


async def _shared(left: AsyncIterator[LedgerRow]) -> AsyncIterator[LedgerRow]:
    """Let several callers share an iterator."""
    while True:
        async with _turn:
            row = await anext(left, None)
        if row is None:
            return
        yield row


async def checkpoint(path: str, seed: int) -> None:
    """Write likewise, and move the log into the file again and again."""
    connect = FileStorage.writing

    def connect_and_checkpoint_often(storage: FileStorage) -> sqlite3.Connection:
        connection = connect(storage)
        connection.execute("PRAGMA wal_autocheckpoint = 40")
        return connection

    FileStorage.writing = connect_and_checkpoint_often  # type: ignore[method-assign, assignment]
    await write(path, seed)


async def plan(path: str, count: int) -> None:
    """Plan a run in small transactions."""
    planning.BATCH = 50

    def saying() -> Iterator[tuple[str, StartBatchJob]]:
        for number, row in enumerate(rows(count)):
            if number % 10 == 0:
                say(number)
            yield row

    async with open_ledger(path) as ledger, await ledger.open_run("run") as run:
        await run.plan(saying())
        say("planned")


if __name__ == "__main__":
    asyncio.run({"write": write, "plan": plan, "checkpoint": checkpoint}[sys.argv[1]](sys.argv[2], int(sys.argv[3])))
