"""The whole submitter against a plain aiobotocore loop, on a server that answers at once.

    python -m benchmarks.submit [--calls 2000] [--rounds 5]

The loop gathers all calls behind a semaphore of 64, as most scripts do: nothing is validated, paced,
or recorded. The submitter has 64 workers and writes one log event for every execution id to a file. Its
rounds have ten times as many calls.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import structlog
import uvloop
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession

from benchmarks.nginx import null_server
from benchmarks.rounds import CONCURRENCY, contender, measured, play, show, timed, warm_up
from m2async import M2Client, ScriptJob, StartBatchJob, Submitter

APPLICATION = "carddemolocalapplication23"
PEER = "plain aiobotocore loop"


def requests(calls: int) -> Iterator[StartBatchJob]:
    for number in range(calls):
        yield StartBatchJob(APPLICATION, ScriptJob("POSTTRAN"), {"RUNDATE": "20261123", "BRANCH": f"{number:07}"})


async def plain_loop(url: str, calls: int, *, connections: int = CONCURRENCY) -> None:
    config = AioConfig(max_pool_connections=connections)
    async with AioSession().create_client("m2", endpoint_url=url, config=config) as client:
        semaphore = asyncio.Semaphore(connections)

        async def start(number: int) -> str:
            async with semaphore:
                answer = await client.start_batch_job(
                    applicationId=APPLICATION,
                    batchJobIdentifier={"scriptBatchJobIdentifier": {"scriptName": "POSTTRAN"}},
                    jobParams={"RUNDATE": "20261123", "BRANCH": f"{number:07}"},
                )
            execution_id: str = answer["executionId"]
            return execution_id

        async def run(calls: int) -> None:
            ids = await asyncio.gather(*(start(number) for number in range(calls)))
            assert len(set(ids)) == calls

        await run(max(2 * connections, warm_up(calls)))
        with measured():
            await run(calls)


async def submitter(url: str, calls: int) -> None:
    with tempfile.TemporaryFile("w") as file:
        structlog.configure(
            processors=[structlog.processors.TimeStamper(fmt="iso"), structlog.processors.JSONRenderer()],
            logger_factory=structlog.PrintLoggerFactory(file),
        )
        async with (
            M2Client(endpoint_url=url, max_connections=CONCURRENCY) as client,
            Submitter(client, concurrency=CONCURRENCY, rate=1e6, burst=1e6) as submitter,
        ):

            async def run(calls: int) -> None:
                ids = {outcome.to_line()["execution_id"] async for outcome in submitter.submit_many(requests(calls))}
                assert len(ids) == calls

            await timed(run, int, calls)


PROGRAMS: dict[str, Callable[[str, int], Coroutine[Any, Any, None]]] = {
    PEER: plain_loop,
    "m2async Submitter": submitter,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--contender", choices=PROGRAMS, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        uvloop.run(PROGRAMS[arguments.contender](arguments.url, arguments.calls))
        return
    contenders = [contender("benchmarks.submit", PEER), contender("benchmarks.submit", "m2async Submitter", 10)]
    with null_server() as server:
        results = play(contenders, server, calls=arguments.calls, rounds=arguments.rounds)
    print(show(contenders, results, peer=PEER))


if __name__ == "__main__":
    main()
