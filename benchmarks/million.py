"""A manifest of a million rows: checked and planned, and a run of as many gone on with.

    python -m benchmarks.million [--rows 1000000] [--rounds 3] [--directory DIR]

Rounds alternate between a bare executemany and reading the manifest into the ledger: each row is checked, and the
run is planned, and can be sent, only once all were found sound and no key came twice. The bare executemany inserts
the same rows, made beforehand as tuples, into the same table with the same settings, in one transaction. To go on,
`m2async resume` and the same `m2async submit` are started on a run that has ten rows left, and the time from the
start of the process to the first request is taken. Each is a process of its own. The directory should be
on the disk that ledgers will be on.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from statistics import median

import uvloop

from benchmarks.rounds import Goal, environment
from m2async.cli.manifests import Manifest
from m2async.ledger import open_ledger
from m2async.ledger.requests import to_columns
from m2async.ledger.sqlite_connection import connect_writer
from m2async.ledger.sqlite_file import LedgerFile
from m2async.ledger.statements import migrations, named_statements
from m2async.manifest import read_manifest

APPLICATION = "carddemolocalapplication23"
OPEN = 10
"""How many rows are left of the run that is gone on with."""

_COMMAND = (sys.executable, "-c", "from m2async.cli import main; main()")
_ANSWER = '{"executionId":"execution%017d"}'


def write_manifest(path: Path, rows: int) -> None:
    with path.open("w") as file:
        file.write("key,script,param.RUNDATE,param.BRANCH\n")
        for number in range(1, rows + 1):
            file.write(f"2026-11-23/POSTTRAN/{number:07},POSTTRAN,20261123,{number:07}\n")


def plan_run(manifest: Path, ledger: Path) -> dict[str, float]:
    """Plan the run of a manifest, which is checked while it is read."""

    async def plan() -> None:
        async with open_ledger(ledger) as opened, await opened.open_run("run", digest="1") as run:
            await run.plan(read_manifest(manifest, application_id=APPLICATION, unique_keys=False))

    with _measured() as figures:
        uvloop.run(plan())
    return figures


def bare(manifest: Path, ledger: Path) -> dict[str, float]:
    """Insert the manifest's rows into the same table."""
    made = [
        ((1 << 32) + number, 1, key, *to_columns(request))
        for number, (key, request) in enumerate(read_manifest(manifest, application_id=APPLICATION), 1)
    ]
    file = LedgerFile(ledger)
    file.make(must_exist=False)
    with closing(connect_writer(file, migrations(), busy_timeout=30)) as connection, _measured() as figures:
        connection.execute("BEGIN")
        connection.executemany(named_statements("runs")["plan_row"], made)
        connection.execute("COMMIT")
    return figures


def started(manifest: Path, ledger: Path) -> dict[str, float]:
    """Plan a run as `m2async submit` does, and have all of it started but the last rows."""

    async def plan(name: str, digest: str) -> int:
        async with open_ledger(ledger) as opened, await opened.open_run(name, digest=digest) as run:
            await run.plan(read_manifest(manifest, application_id=APPLICATION, unique_keys=False))
            return run.info.rows

    with contextlib.ExitStack() as stack:
        given = Manifest(stack, str(manifest), APPLICATION, {})
        rows = asyncio.run(plan(given.run_name(), given.digest()))
    with closing(sqlite3.connect(ledger)) as connection:
        connection.execute(
            "INSERT INTO progress (id, state, attempts, sent_at, ended_at, execution_id)"
            " SELECT id, 2, 1, 1, 2, 'execution' || id FROM jobs WHERE id & 0xFFFFFFFF <= ?",
            (rows - OPEN,),
        )
        connection.commit()
    return {}


PROGRAMS: dict[str, Callable[[Path, Path], dict[str, float]]] = {"plan": plan_run, "bare": bare, "started": started}


@contextlib.contextmanager
def _measured() -> Iterator[dict[str, float]]:
    figures: dict[str, float] = {}
    began, cpu = time.perf_counter(), time.process_time()
    yield figures
    figures["s"] = time.perf_counter() - began
    figures["CPU s"] = time.process_time() - cpu
    figures["MiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def in_a_process(program: str, manifest: Path, ledger: Path) -> dict[str, float]:
    """Run a program in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.million", "--program", program, str(manifest), str(ledger)]
    figures: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    _show(program, figures)
    return figures


def until_the_first_request(name: str, *arguments: str) -> float:
    """Start the command; gives the seconds to its first request, and waits until it has sent all."""
    seconds, requests = asyncio.run(_until_the_first_request(arguments))
    assert requests == OPEN, requests
    _show(name, {"s": seconds})
    return seconds


async def _until_the_first_request(arguments: tuple[str, ...]) -> tuple[float, int]:
    times: list[float] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                times.append(time.perf_counter())
                await reader.readexactly(int(head.partition(b"content-length:")[2].split(b"\r\n")[0]))
                body = _ANSWER % len(times)
                writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        began = time.perf_counter()
        command = (*_COMMAND, *arguments, "--endpoint-url", f"http://127.0.0.1:{port}")
        process = await asyncio.create_subprocess_exec(
            *command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        code = await process.wait()
        assert code == 0, code
    return times[0] - began, len(times)


def _show(name: str, figures: dict[str, float]) -> None:
    print(f"{name}: {', '.join(f'{figure:,.2f} {unit}' for unit, figure in figures.items())}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--directory", default=".")
    parser.add_argument("--program", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.program:
        program, manifest, ledger = arguments.program
        print(json.dumps(PROGRAMS[program](Path(manifest), Path(ledger))))
        return
    with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
        goals = measure(Path(directory), arguments.rows, arguments.rounds)
    print(*goals, sep="\n")


def measure(directory: Path, rows: int, rounds: int) -> list[Goal]:
    small, large = directory / "small.csv", directory / "large.csv"
    write_manifest(small, rows // 100)
    write_manifest(large, rows)
    numbers = iter(range(1_000_000))

    def ledger() -> Path:
        for file in directory.glob("ledger-*"):
            file.unlink()
        return directory / f"ledger-{next(numbers)}.db"

    pairs = [(in_a_process("plan", large, ledger()), in_a_process("bare", large, ledger())) for _ in range(rounds)]
    peak = max(own["MiB"] for own, _ in pairs)
    least = in_a_process("plan", small, ledger())["MiB"]
    planned = ledger()
    in_a_process("started", large, planned)
    with contextlib.ExitStack() as stack:
        run = Manifest(stack, str(large), APPLICATION, {}).run_name()

    def first_request(name: str, *arguments: str) -> float:
        copy = shutil.copy(planned, directory / "copy.db")
        return until_the_first_request(name, *arguments, "--ledger", str(copy), "--quiet")

    resumed = first_request("resume", "resume", run)
    again = first_request("the same submit", "submit", str(large), "-a", APPLICATION)
    return [
        Goal("checked and planned, in bare executemany", median(own["s"] / peer["s"] for own, peer in pairs), most=3),
        Goal("the same in CPU time", median(own["CPU s"] / peer["CPU s"] for own, peer in pairs), most=3),
        Goal("peak memory, MiB", peak, most=150),
        Goal(f"its ratio to {rows // 100:,} rows", peak / least, most=1.2),
        Goal("first request of `resume`, s", resumed, most=2),
        Goal("first request of the same `submit`, s", again, most=2),
    ]


if __name__ == "__main__":
    main()
