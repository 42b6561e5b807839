"""What the SQLite ledger costs: durable writes a second, planning against a bare executemany, resuming, and memory.

    python -m benchmarks.ledger [--rows 1000000] [--jobs 100000] [--directory DIR]

Each figure is measured in a process of its own. The bare executemany inserts the same rows, made beforehand, into the
same table in one transaction. The directory should be on the disk that ledgers will be on: what a durable
write costs is what its disk takes to sync. A ledger in memory makes the same writes for less CPU time, and opens
sooner.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from statistics import median

import uvloop

from benchmarks.rounds import Goal
from m2async.ledger import RowState, open_ledger
from m2async.ledger.requests import to_columns
from m2async.ledger.sqlite.statements import named_statements
from m2async.service.requests import ScriptJob, StartBatchJob

APPLICATION = "carddemolocalapplication23"
OPEN = 10
"""How many rows of the run that is resumed are open."""


def rows(count: int) -> Iterator[tuple[str, StartBatchJob]]:
    for number in range(1, count + 1):
        params = {"RUNDATE": "20261123", "BRANCH": f"{number:07}"}
        yield f"2026-11-23/POSTTRAN/{number:07}", StartBatchJob(APPLICATION, ScriptJob("POSTTRAN"), params)


async def pairs(address: str, jobs: int, callers: int) -> dict[str, float]:
    """Write an intent and a result for each job, from so many callers at once."""
    async with open_ledger(address) as ledger, await ledger.open_run(f"pairs {callers}") as run:
        await run.plan(rows(jobs))
        numbers = iter(range(1, jobs + 1))

        async def caller() -> None:
            for number in numbers:
                await run.intend(number, 1, time.time())
                await run.started(number, 1, f"execution{number:017}", "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0")

        cpu, began = time.process_time(), time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(callers)))
        seconds = time.perf_counter() - began
        assert (await run.counts())[RowState.STARTED] == jobs
    return {"jobs/s": jobs / seconds, "CPU µs/job": (time.process_time() - cpu) / jobs * 1e6}


async def opening(address: str, times: int) -> dict[str, float]:
    """Open a ledger that there is, and close it, again and again."""
    async with open_ledger(address):
        pass
    began = time.perf_counter()
    for _ in range(times):
        async with open_ledger(address):
            pass
    return {"ms": (time.perf_counter() - began) / times * 1e3}


async def plan(path: str, count: int) -> dict[str, float]:
    """Plan a run of so many rows, which are made as they are read."""
    async with open_ledger(path) as ledger, await ledger.open_run("plan", digest="1") as run:
        began = time.perf_counter()
        for _ in rows(count):
            pass
        making = time.perf_counter() - began
        began = time.perf_counter()
        await run.plan(rows(count))
        seconds = time.perf_counter() - began
    return {"s": seconds - making, "MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


async def bare(path: str, count: int) -> dict[str, float]:
    """Insert the same rows into the same table by executemany."""
    async with open_ledger(path):
        pass
    made = [((1 << 32) + number, 1, key, *to_columns(request)) for number, (key, request) in enumerate(rows(count), 1)]
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        began = time.perf_counter()
        connection.execute("BEGIN")
        connection.executemany(named_statements("runs")["plan_row"], made)
        connection.execute("COMMIT")
        return {"s": time.perf_counter() - began}


async def resume(path: str, count: int) -> dict[str, float]:
    """Open a run of so many rows, all but the last ones of them started, and read its first open row."""
    async with open_ledger(path) as ledger, await ledger.open_run("resume", digest="1") as run:
        await run.plan(rows(count))
        for first in range(1, count - OPEN + 1, 10_000):
            numbers = range(first, min(first + 10_000, count - OPEN + 1))
            await asyncio.gather(*(run.intend(number, 1, 1.0) for number in numbers))
            await asyncio.gather(*(run.started(number, 1, f"execution{number:017}") for number in numbers))
    began = time.perf_counter()
    async with open_ledger(path) as ledger, await ledger.open_run("resume", digest="1") as run:
        await run.plan(rows(count))
        page = await run.page(RowState.PENDING)
        seconds = time.perf_counter() - began
        assert len(page) == OPEN
        began = time.perf_counter()
        await run.counts()
        counting = time.perf_counter() - began
        began = time.perf_counter()
        await ledger.claimed(APPLICATION, ["execution"])
        indexing = time.perf_counter() - began
    return {"s": seconds, "counts s": counting, "first claimed s": indexing}


async def compare(path: str, count: int) -> dict[str, float]:
    """Plan a run again without a digest, so that its rows are compared."""
    async with open_ledger(path) as ledger, await ledger.open_run("plan") as run:
        await run.plan(rows(count))
        began = time.perf_counter()
        await run.plan(rows(count))
        return {"s": time.perf_counter() - began}


PROGRAMS: dict[str, Callable[..., Awaitable[dict[str, float]]]] = {
    "pairs": pairs, "opening": opening, "plan": plan, "bare": bare, "resume": resume, "compare": compare,
}  # fmt: skip


def measured(directory: str, program: str, *numbers: int, in_memory: bool = False) -> dict[str, float]:
    """Run a program in a process and a directory of its own."""
    with tempfile.TemporaryDirectory(dir=directory) as own:
        address = "memory:" if in_memory else f"{own}/ledger.db"
        command = [sys.executable, "-m", "benchmarks.ledger", "--program", program, address, *map(str, numbers)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    figures: dict[str, float] = json.loads(output)
    print(f"{program} {' '.join(f'{number:,}' for number in numbers)}{' in memory' * in_memory}: ", end="")
    print(", ".join(f"{figure:,.2f} {unit}" for unit, figure in figures.items()), flush=True)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--directory", default=".")
    parser.add_argument("--program", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.program:
        program, address, *numbers = arguments.program
        print(json.dumps(uvloop.run(PROGRAMS[program](address, *map(int, numbers)))))  # type: ignore[arg-type]
        return
    directory, count = arguments.directory, arguments.rows
    goals = []
    for callers in (64, 256):
        rate = measured(directory, "pairs", arguments.jobs, callers)["jobs/s"]
        goals.append(Goal(f"jobs/s with {callers} callers, two durable writes each", rate, least=15_000))
    baseline = measured(directory, "bare", count)["s"]
    small, planned = measured(directory, "plan", count // 100), measured(directory, "plan", count)
    goals.append(Goal("planning, as a multiple of bare executemany", planned["s"] / baseline, most=3))
    goals.append(Goal("peak memory of planning, MiB", planned["MiB"], most=150))
    goals.append(Goal(f"its ratio to {count // 100:,} rows", planned["MiB"] / small["MiB"], most=1.2))
    measured(directory, "compare", count)
    goals.append(Goal("first open row of a resumed run, s", measured(directory, "resume", count)["s"], most=2))
    for what, unit, program, numbers in (
        ("CPU time of a job", "CPU µs/job", "pairs", (arguments.jobs, 64)),
        ("opening", "ms", "opening", (100,)),
    ):
        ratios = []
        for _ in range(3):
            kept = measured(directory, program, *numbers)[unit]
            ratios.append(measured(directory, program, *numbers, in_memory=True)[unit] / kept)
        goals.append(Goal(f"{what} in memory, as a multiple of that in a file", median(ratios), most=1))
    print(*goals, sep="\n")


if __name__ == "__main__":
    main()
