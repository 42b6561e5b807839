"""A process that writes is killed, again and again: whatever it was told to be durable is there, and nothing else."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from m2async.ledger import RowState, open_ledger
from m2async.ledger.sqlite.connection import integrity_problems
from m2async.ledger.states import RowEvent, Standing, follow
from tests.ledger.samples import APPLICATION, planned, rows

KILLS = 50
EVENT_OF_WORD = {
    "intend": RowEvent.INTEND,
    "resend": RowEvent.RESEND,
    "started": RowEvent.STARTED,
    "refused": RowEvent.REFUSED,
    "unknown": RowEvent.UNKNOWN,
    "claimed": RowEvent.CLAIMED,
    "not_started": RowEvent.NOT_STARTED,
}
Known = tuple[Standing, int]
"""Where a row stands, and its attempts."""


def killed(*arguments: str | Path | int, after: int) -> Iterator[list[str]]:
    """Run the crasher, kill it after so many lines, and give all lines that it printed."""
    command = [sys.executable, "-m", "tests.ledger.sqlite.crasher", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for count, line in enumerate(process.stdout, 1):
            if count == after:
                process.kill()
            if line.endswith("\n"):
                yield line.split()


def followed(known: Known, event: RowEvent) -> Known | None:
    standing = follow(known[0], event)
    return None if standing is None else (standing, known[1] + (event in {RowEvent.INTEND, RowEvent.RESEND}))


def shown(known: Known) -> Known:
    """What a row says of it."""
    return known[0]._replace(settled=0), known[1]


async def test_what_was_acknowledged_survives_every_kill(path: Path) -> None:
    chance = random.Random(4)
    count = 4_000
    async with open_ledger(path) as ledger, planned(ledger, count):
        pass
    known: dict[int, Known] = {number: (Standing(RowState.PENDING, 0), 0) for number in range(1, count + 1)}
    acknowledged = 0
    for round_ in range(KILLS):
        for words in killed("write", path, round_, after=chance.randint(1, 250)):
            if words == ["open"]:  # what a crash left under way is in doubt from now on
                known = {number: followed(row, RowEvent.CRASH) or row for number, row in known.items()}
                continue
            number, event = int(words[0]), EVENT_OF_WORD[words[1]]
            after = followed(known[number], event)
            assert after is not None, (words, known[number])
            assert after[1] == int(words[2])
            known[number] = after
            acknowledged += 1
        assert integrity_problems(path) == []
        async with open_ledger(path) as ledger:
            run = await ledger.run("run")
            in_doubt: dict[int, int] = {}
            for attempt in await ledger.open_attempts(APPLICATION):
                if attempt.ended_at is not None:
                    in_doubt[attempt.number] = in_doubt.get(attempt.number, 0) + 1
            async for row in run.rows():
                told = (Standing(row.state, row.doubts), row.attempts)
                if told != shown(known[row.number]):  # a write that was made, but not acknowledged: at most one
                    written = EVENT_OF_WORD.values()
                    possible = [after for event in written if (after := followed(known[row.number], event))]
                    [known[row.number]] = {after for after in possible if shown(after) == told}
                assert in_doubt.get(row.number, 0) == row.doubts
    assert acknowledged > 10 * KILLS
    assert {standing.state for standing, _ in known.values()} > {RowState.STARTED, RowState.UNKNOWN}


async def test_a_plan_that_is_killed_is_made_anew(path: Path) -> None:
    chance = random.Random(5)
    for _ in range(8):
        lines = list(killed("plan", path, 2_000, after=chance.randint(2, 150)))
        assert lines[-1] != ["planned"]
        assert integrity_problems(path) == []
        async with open_ledger(path) as ledger:
            run = await ledger.run("run")
            assert (run.info.planned, await run.page()) == (False, [])
    async with open_ledger(path) as ledger, planned(ledger, rows(1_000)) as written:
        assert [row.number async for row in written.rows()] == list(range(1, 1_001))
