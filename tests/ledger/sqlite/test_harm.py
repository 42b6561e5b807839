"""What may become of the files of a ledger whose process was killed: all acknowledged is there, or it is refused."""

from __future__ import annotations

import random
import shutil
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from m2async.ledger import LedgerDamagedError, LedgerError, LedgerIncompleteError, RowState, open_ledger
from m2async.ledger.sqlite.connection import integrity_problems
from tests.ledger.samples import planned
from tests.ledger.sqlite.test_crash import killed

COUNT = 4_000
Harm = Callable[[Path, random.Random], Path]
"""Does something to the files, and gives the ledger to go on with."""


def log_of(path: Path) -> Path:
    return Path(f"{path}-wal")


def index_of(path: Path) -> Path:
    return Path(f"{path}-shm")


# What leaves it whole


def nothing(path: Path, chance: random.Random) -> Path:
    return path


def read_and_close(path: Path, chance: random.Random) -> Path:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("SELECT count(*) FROM progress").fetchone()
    assert not log_of(path).exists()
    return path


def checkpoint(path: Path, chance: random.Random) -> Path:
    with closing(sqlite3.connect(path)) as connection:
        how = chance.choice(["PASSIVE", "FULL", "RESTART", "TRUNCATE"])
        connection.execute(f"PRAGMA wal_checkpoint({how})")
    return path


def vacuum(path: Path, chance: random.Random) -> Path:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("VACUUM")
    return path


def back_up(path: Path, chance: random.Random) -> Path:
    copy = path.with_name("copy.db")
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    return copy


def vacuum_into(path: Path, chance: random.Random) -> Path:
    copy = path.with_name("copy.db")
    with closing(sqlite3.connect(path)) as source:
        source.execute("VACUUM INTO ?", (str(copy),))
    return copy


def copy_with_log(path: Path, chance: random.Random) -> Path:
    copy = path.with_name("copy.db")
    shutil.copy(path, copy)
    shutil.copy(log_of(path), log_of(copy))
    return copy


def remove_index(path: Path, chance: random.Random) -> Path:
    index_of(path).unlink()
    return path


def put_an_older_index_back(path: Path, chance: random.Random) -> Path:
    shutil.copy(index_of(path.with_name("early.db")), index_of(path))
    return path


def rename(path: Path, chance: random.Random) -> Path:
    copy = path.with_name("copy.db")
    log_of(path).rename(log_of(copy))
    return path.rename(copy)


# What loses something, unless all of it was in the file already


def copy_alone(path: Path, chance: random.Random) -> Path:
    return Path(shutil.copy(path, path.with_name("copy.db")))


def remove_log(path: Path, chance: random.Random) -> Path:
    log_of(path).unlink()
    if chance.random() < 0.5:
        index_of(path).unlink(missing_ok=True)
    return path


def cut_log(path: Path, chance: random.Random) -> Path:
    size = log_of(path).stat().st_size
    with log_of(path).open("r+b") as file:
        file.truncate(chance.choice([0, chance.randrange(size), size - 1, size - 4_120]))
    return path


def spoil_log(path: Path, chance: random.Random) -> Path:
    place = chance.randrange(log_of(path).stat().st_size)
    with log_of(path).open("r+b") as file:
        file.seek(place)
        file.write(chance.randbytes(600))
    return path


def put_an_older_file_back(path: Path, chance: random.Random) -> Path:
    older = path.with_name(chance.choice(["clean.db", "early.db", "backup.db"]))
    path.write_bytes(older.read_bytes()) if chance.random() < 0.5 else shutil.copy(older, path)
    return path


def put_an_older_log_back(path: Path, chance: random.Random) -> Path:
    if chance.random() < 0.5:
        read_and_close(path, chance)
    shutil.copy(log_of(path.with_name("early.db")), log_of(path))
    return path


def put_back_both_of_different_moments(path: Path, chance: random.Random) -> Path:
    """The log is a little older than the file, which is older than the ledger was: none of them is the last."""
    shutil.copy(path.with_name("backup.db"), path)
    shutil.copy(log_of(path.with_name("early.db")), log_of(path))
    return path


def put_the_log_of_another_there(path: Path, chance: random.Random) -> Path:
    if chance.random() < 0.5:
        read_and_close(path, chance)
    other = path.with_name("other.db")
    if chance.random() < 0.5:  # of one that went on from a copy of this
        shutil.copy(path.with_name("clean.db"), other)
    for _ in killed("checkpoint", other, chance.randrange(1 << 30), after=chance.randint(20, 400)):
        pass
    shutil.copy(log_of(other), log_of(path))
    return path


WHOLE = [
    nothing,
    read_and_close,
    checkpoint,
    vacuum,
    back_up,
    vacuum_into,
    copy_with_log,
    remove_index,
    put_an_older_index_back,
    rename,
]
MIXTURES = [
    put_an_older_file_back,
    put_an_older_log_back,
    put_back_both_of_different_moments,
    put_the_log_of_another_there,
]
LOSSES = [copy_alone, remove_log, cut_log, spoil_log, *MIXTURES]


async def written_and_killed(path: Path, chance: random.Random) -> dict[int, tuple[str, int]]:
    """Give for each row what was acknowledged last, and of which attempt."""
    for name in (path.with_name("other.db"), path):
        async with open_ledger(name) as ledger, planned(ledger, COUNT):
            pass
    shutil.copy(path, path.with_name("clean.db"))
    backed_up = chance.randint(16, 180)
    known: dict[int, tuple[str, int]] = {}
    for words in killed("checkpoint", path, chance.randrange(1 << 30), after=chance.randint(200, 1_500)):
        if words != ["open"]:
            if len(known) == 15:
                for of in (Path, log_of, index_of):
                    shutil.copy(of(path), of(path.with_name("early.db")))
            if len(known) == backed_up:
                back_up(path, chance).rename(path.with_name("backup.db"))
            known[int(words[0])] = words[1], int(words[2])
    assert len(known) > 20
    if not path.with_name("backup.db").exists():
        shutil.copy(path.with_name("clean.db"), path.with_name("backup.db"))
    return known


async def lost(path: Path, known: dict[int, tuple[str, int]]) -> list[int]:
    """Give the rows of which the ledger, which is opened for writing, knows less than was acknowledged."""
    async with open_ledger(path) as ledger, await ledger.open_run("run") as run:
        rows = {row.number: row async for row in run.rows()}
    assert len(rows) == COUNT
    return [
        number
        for number, (word, attempt) in known.items()
        if rows[number].attempts < attempt
        or (word in {"started", "claimed"} and rows[number].state is not RowState.STARTED)
    ]


@pytest.mark.parametrize("harm", WHOLE)
async def test_what_leaves_a_ledger_whole_is_not_taken_for_a_loss(path: Path, harm: Harm) -> None:
    chance = random.Random(harm.__name__)
    known = await written_and_killed(path, chance)
    path = harm(path, chance)
    async with open_ledger(path) as ledger:  # looks only
        assert len(await ledger.runs()) == 1
    assert await lost(path, known) == []
    assert integrity_problems(path) == []


@pytest.mark.parametrize("harm", LOSSES)
async def test_a_ledger_whose_log_is_lost_is_refused_until_it_is_put_back(path: Path, harm: Harm) -> None:
    chance = random.Random(harm.__name__)
    known = await written_and_killed(path, chance)
    kept = path.parent / "kept"
    kept.mkdir()
    for file in (path, log_of(path)):
        shutil.copy(file, kept)

    def put_back() -> None:
        for file in (path, log_of(path)):
            shutil.copy(kept / file.name, file)

    for _ in range(2):  # and being refused changes nothing
        harmed = harm(path, chance)
        try:
            assert await lost(harmed, known) == []
            return  # nothing was lost
        except LedgerDamagedError as error:
            assert isinstance(error, LedgerIncompleteError) or harm is spoil_log, error
        put_back()
    assert await lost(path, known) == []


if __name__ == "__main__":
    """python -m tests.ledger.sqlite.test_harm SECONDS SEED [NAME …]: the same with other dice, as a campaign.

    The names are those of what is to be done to the files, by default anything.
    """
    import asyncio
    import collections
    import sys
    import tempfile

    async def campaign(seconds: float, seed: int, harms: Sequence[Harm]) -> None:
        told: collections.Counter[tuple[str, str]] = collections.Counter()
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            seed += 1
            chance = random.Random(seed)
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "l.db"
                known = await written_and_killed(path, chance)
                harm = chance.choice(harms)
                harmed = harm(path, chance)
                try:
                    missing = await lost(harmed, known)
                    told[harm.__name__, "LOST" if missing else "whole"] += 1
                    if missing:
                        print(seed, harm.__name__, "LOST", len(missing))
                except LedgerIncompleteError:
                    told[harm.__name__, "REFUSED" if harm in WHOLE else "refused"] += 1
                except LedgerError as exc:
                    told[harm.__name__, repr(exc)[:90]] += 1
                    print(seed, harm.__name__, repr(exc)[:300])
        for what, count in sorted(told.items()):
            print(count, *what)

    _, length, first, *names = sys.argv
    chosen = [harm for harm in (*WHOLE, *LOSSES) if not names or harm.__name__ in names]
    asyncio.run(campaign(float(length), int(first), chosen))
