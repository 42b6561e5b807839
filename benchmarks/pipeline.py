"""The full pipeline against a plain aiobotocore loop, on a server that answers at once.

    python -m benchmarks.pipeline [--calls 2000] [--rounds 5] [--directory DIR]

The loop gathers all calls behind a semaphore, as most scripts do: nothing is validated, paced, or recorded. The
pipeline validates each request, paces it at a rate that does not limit, has its intent and its answer durable in an
SQLite ledger, logs each execution id as `--log-file` does, and collects the outcomes; it makes ten times as many
calls. It has half as many jobs again under way as connections, so that these are in use while the disk syncs. The
directory should be on the disk that ledgers will be on: what a durable write costs is what its disk takes to sync.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import uvloop

from benchmarks.nginx import null_server
from benchmarks.rounds import Goal, contender, measured, play, rate_ratios, show, warm_up
from benchmarks.submit import plain_loop, requests
from m2async import M2Client, Submitter
from m2async.cli.log_file import open_log
from m2async.ledger import RowState, open_ledger

CONNECTIONS = (64, 256)
_DIRECTORY = "M2ASYNC_BENCHMARK_DIRECTORY"


async def pipeline(url: str, calls: int, *, connections: int) -> None:
    with (
        tempfile.TemporaryDirectory(dir=os.environ.get(_DIRECTORY)) as directory,
        open_log(f"{directory}/log.jsonl") as log,
    ):
        async with (
            M2Client(endpoint_url=url, max_connections=connections) as client,
            open_ledger(f"{directory}/ledger.db") as ledger,
        ):

            async def run(name: str, calls: int, measure: contextlib.AbstractContextManager[None]) -> None:
                jobs = 3 * connections // 2
                settings: dict[str, Any] = {"concurrency": jobs, "rate": 1e6, "burst": 1e6, "logger": log.logger}
                async with (
                    await ledger.open_run(name) as run,
                    # Before the run has rows, as the server has no list of late executions to look at.
                    Submitter(client, ledger=ledger, run=run, **settings) as submitter,
                ):
                    with measure:
                        await run.plan((str(number), request) for number, request in enumerate(requests(calls), 1))
                        outcomes = submitter.submit_many(run.rows(RowState.PENDING))
                        ids = {outcome.to_line()["execution_id"] async for outcome in outcomes}
                assert len(ids) == calls

            await run("warm-up", max(2 * connections, warm_up(calls)), contextlib.nullcontext())
            await run("measured", calls, measured())
            started = sum(summary.counts[RowState.STARTED] for summary in await ledger.runs())
        logged = _lines(f"{directory}/log.jsonl")
        assert started == logged == calls + max(2 * connections, warm_up(calls))


def _lines(path: str) -> int:
    """How many starts are logged: besides there may be what was found where a run was opened."""
    with Path(path).open("rb") as file:
        return sum(b"batch_job.started" in line for line in file)


PROGRAMS: dict[str, Callable[[str, int], Coroutine[Any, Any, None]]] = {
    f"{name}, {connections}": partial(program, connections=connections)
    for connections in CONNECTIONS
    for name, program in (("aiobotocore loop", plain_loop), ("full pipeline", pipeline))
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", default=".")
    parser.add_argument("--contender", choices=PROGRAMS, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        uvloop.run(PROGRAMS[arguments.contender](arguments.url, arguments.calls))
        return
    os.environ[_DIRECTORY] = os.path.abspath(arguments.directory)  # noqa: PTH100 - of a text
    goals = []
    with null_server() as server:
        for connections in CONNECTIONS:
            peer, own = f"aiobotocore loop, {connections}", f"full pipeline, {connections}"
            contenders = [contender("benchmarks.pipeline", peer), contender("benchmarks.pipeline", own, 10)]
            results = play(contenders, server, calls=arguments.calls, rounds=arguments.rounds)
            print(show(contenders, results, peer=peer))
            ratio = median(rate_ratios(results, own, peer))
            goals.append(Goal(f"calls/s at {connections} connections, in those of the loop", ratio, least=10))
    print(*goals, sep="\n")


if __name__ == "__main__":
    main()
