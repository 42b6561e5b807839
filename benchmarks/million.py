"""A manifest of a million rows: checked and planned, and a run of as many gone on with.

    python -m benchmarks.million [--rows 1000000] [--rounds 3] [--directory DIR]

Rounds alternate between `m2async submit`, from the start of the process to its first request, and a bare executemany,
which inserts the same rows, made beforehand as tuples, into the same table with the same settings, in one transaction.
What a submit of one row takes is left out: that is the start of the process, the client and the connection. To go on,
`m2async resume` and the same `m2async submit` are started on a run that has ten rows left; there all counts. Memory is
the peak up to the 10,000th request, or to the tenth. The directory should be on the disk that ledgers will be on.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks.rounds import Goal, environment
from m2async.cli.manifests import Manifest
from m2async.ledger import open_ledger
from m2async.ledger.requests import to_columns
from m2async.ledger.sqlite.statements import named_statements
from m2async.manifest import read_manifest

APPLICATION = "carddemolocalapplication23"
OPEN = 10
"""How many rows are left of the run that is gone on with."""
SENT = 10_000
"""How many requests a new run sends before it is ended."""

_COMMAND = (sys.executable, "-c", "from m2async.cli import main; main()")
_ANSWER = '{"executionId":"execution%017d"}'


def write_manifest(path: Path, rows: int) -> None:
    with path.open("w") as file:
        file.write("key,script,param.RUNDATE,param.BRANCH\n")
        for number in range(1, rows + 1):
            file.write(f"2026-11-23/POSTTRAN/{number:07},POSTTRAN,20261123,{number:07}\n")


def bare(manifest: Path, ledger: Path) -> dict[str, float]:
    """Insert the manifest's rows into the same table."""
    made = [
        ((1 << 32) + number, 1, key, *to_columns(request))
        for number, (key, request) in enumerate(read_manifest(manifest, application_id=APPLICATION), 1)
    ]
    asyncio.run(_make(ledger))
    with closing(sqlite3.connect(ledger, isolation_level=None)) as connection, _measured() as figures:
        connection.execute("PRAGMA synchronous = FULL")  # as the ledger's own
        connection.execute("BEGIN")
        connection.executemany(named_statements("runs")["plan_row"], made)
        connection.execute("COMMIT")
    return figures


async def _make(ledger: Path) -> None:
    async with open_ledger(ledger):
        pass


def started(manifest: Path, ledger: Path) -> dict[str, float]:
    """Plan a run as `m2async submit` does, and have all of it started but the last rows."""

    async def plan(name: str, digest: str) -> int:
        async with open_ledger(ledger) as opened, await opened.open_run(name, digest=digest) as run:
            await run.plan(read_manifest(manifest, application_id=APPLICATION, unique_keys=False))
            return run.info.rows

    with contextlib.ExitStack() as stack:
        given = Manifest(stack, str(manifest), APPLICATION, {})
        rows = asyncio.run(plan(given.run_name(), given.digest))
    with closing(sqlite3.connect(ledger)) as connection:
        connection.execute(
            "INSERT INTO progress (id, state, attempts, sent_at, ended_at, execution_id)"
            " SELECT id, 2, 1, 1, 2, 'execution' || id FROM jobs WHERE id & 0xFFFFFFFF <= ?",
            (rows - OPEN,),
        )
        connection.commit()
    return {}


PROGRAMS: dict[str, Callable[[Path, Path], dict[str, float]]] = {"bare": bare, "started": started}


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


class Sent(NamedTuple):
    """What a command took up to its first request, and the peak of its memory up to its last."""

    seconds: float
    cpu: float
    mebibytes: float


def sending(name: str, *arguments: str, requests: int) -> Sent:
    """Start the command, let it send so many requests, and end it."""
    sent = asyncio.run(_sending(arguments, requests))
    _show(name, {"s": sent.seconds, "CPU s": sent.cpu, "MiB": sent.mebibytes})
    return sent


async def _sending(arguments: tuple[str, ...], requests: int) -> Sent:
    arrived = 0
    seconds = cpu = mebibytes = 0.0
    done = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal arrived, seconds, cpu, mebibytes
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                await reader.readexactly(int(head.partition(b"content-length:")[2].split(b"\r\n")[0]))
                arrived += 1
                if arrived == 1:
                    seconds, cpu = time.perf_counter() - began, _cpu_of(process.pid)
                if arrived == requests:
                    mebibytes = _peak_of(process.pid)
                    done.set()
                body = _ANSWER % arrived
                writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        began = time.perf_counter()
        command = (*_COMMAND, *arguments, "--endpoint-url", f"http://127.0.0.1:{port}", "--quiet")
        process = await asyncio.create_subprocess_exec(
            *command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        ended = asyncio.ensure_future(process.wait())
        await asyncio.wait([ended, asyncio.ensure_future(done.wait())], return_when=asyncio.FIRST_COMPLETED)
        assert done.is_set(), f"{arguments} ended with {ended.result()} after {arrived} requests"
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await ended
    return Sent(seconds, cpu, mebibytes)


def _cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # proc(5): utime, stime


def _peak_of(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


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
    one, small, large = (directory / f"{name}.csv" for name in ("one", "small", "large"))
    write_manifest(one, 1)
    write_manifest(small, SENT)
    write_manifest(large, rows)
    numbers = iter(range(1_000_000))

    def ledger(copied: Path | None = None) -> Path:
        for file in directory.glob("ledger-*"):
            file.unlink()
        path = directory / f"ledger-{next(numbers)}.db"
        if copied is not None:
            shutil.copy(copied, path)
        return path

    def submit(name: str, manifest: Path, requests: int, copied: Path | None = None) -> Sent:
        arguments = ("submit", str(manifest), "-a", APPLICATION, "--ledger", str(ledger(copied)))
        return sending(name, *arguments, requests=requests)

    submits, starts, bares = [], [], []
    for _ in range(rounds):
        starts.append(submit("submit of 1 row", one, 1))
        submits.append(submit(f"submit of {rows:,} rows", large, SENT))
        bares.append(in_a_process("bare", large, ledger()))
    least = submit(f"submit of {SENT:,} rows", small, SENT)
    planned = directory / "planned.db"
    in_a_process("started", large, planned)
    with contextlib.ExitStack() as stack:
        run = Manifest(stack, str(large), APPLICATION, {}).run_name()
    resumed, again = [], []
    for _ in range(rounds):
        resumed.append(sending("resume", "resume", run, "--ledger", str(ledger(planned)), requests=OPEN))
        again.append(submit("the same submit", large, OPEN, planned))

    of_bare = [
        (own.seconds - start.seconds) / peer["s"] for own, start, peer in zip(submits, starts, bares, strict=True)
    ]
    cpu_of_bare = [
        (own.cpu - start.cpu) / peer["CPU s"] for own, start, peer in zip(submits, starts, bares, strict=True)
    ]
    peak = max(sent.mebibytes for sent in [*submits, *resumed, *again])
    return [
        Goal(f"checked and planned, in bare executemany {_spread(of_bare)}", median(of_bare), most=3),
        Goal(f"the same in CPU time {_spread(cpu_of_bare)}", median(cpu_of_bare), most=3),
        Goal("peak memory, MiB", peak, most=150),
        Goal(f"its ratio to {SENT:,} rows", peak / least.mebibytes, most=1.2),
        *(
            Goal(f"first request of {name}, s {_spread(seconds)}", median(seconds), most=2)
            for name, seconds in (
                ("`resume`", [sent.seconds for sent in resumed]),
                ("the same `submit`", [sent.seconds for sent in again]),
            )
        ),
    ]


def _spread(figures: Sequence[float]) -> str:
    return f"({min(figures):.2f}-{max(figures):.2f})"


if __name__ == "__main__":
    main()
