"""One StartBatchJob call after the other, by several clients, on a server that answers at once.

    python -m benchmarks.calls [--tls] [--calls 1000] [--rounds 5] [--only NAME ...]

Each contender has 64 connections and 64 calls under way, in a process of its own; those that run on
asyncio run on uvloop. `--calls` is the number of calls of aiobotocore in a round: the others make as many
more or fewer as they are faster or slower. Nothing is repeated, paced or recorded.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import ssl
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from operator import attrgetter, itemgetter
from statistics import median
from typing import Any, TypeVar

import aiohttp
import boto3
import uvloop
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.config import Config

from benchmarks.bare import Calls, connect, decode, encode
from benchmarks.javascript import javascript
from benchmarks.nginx import null_server
from benchmarks.rounds import (
    CONCURRENCY,
    Contender,
    Goal,
    Results,
    contender,
    cpu_ratios,
    measured,
    play,
    rate_ratios,
    show,
    timed,
    warm_up,
)
from benchmarks.signing import Signing
from m2async import M2Client, ScriptJob, StartBatchJob

APPLICATION = "carddemolocalapplication23"
PEER = "aiobotocore"
FLOOR = "bare minimum"
OURS = "m2async M2Client"
BOTO3 = "boto3, 64 threads"
BY_HAND = "aiohttp, signed by hand"
_T = TypeVar("_T")
_A = TypeVar("_A")


def members(calls: int) -> list[dict[str, Any]]:
    """The members of each request's body."""
    identifier = {"scriptBatchJobIdentifier": {"scriptName": "POSTTRAN"}}
    return [
        {"batchJobIdentifier": identifier, "jobParams": {"RUNDATE": "20261123", "BRANCH": f"{number:07}"}}
        for number in range(calls)
    ]


async def by_workers(call: Callable[[_T], Awaitable[_A]], requests: Sequence[_T], read: Callable[[_A], str]) -> None:
    """Make the calls, 64 at a time, and read the execution id of each answer."""
    todo = iter(requests)
    ids: list[str] = []

    async def work() -> None:
        for request in todo:
            ids.append(read(await call(request)))  # noqa: PERF401 - the workers share one list

    await asyncio.gather(*(work() for _ in range(CONCURRENCY)))
    assert len(set(ids)) == len(requests)


async def with_aiobotocore(url: str, calls: int) -> None:
    config = AioConfig(max_pool_connections=CONCURRENCY)
    async with AioSession().create_client("m2", endpoint_url=url, config=config) as client:

        def call(request: dict[str, Any]) -> Awaitable[dict[str, Any]]:
            answer: Awaitable[dict[str, Any]] = client.start_batch_job(applicationId=APPLICATION, **request)
            return answer

        await timed(lambda made: by_workers(call, made, itemgetter("executionId")), members, calls)


def with_boto3(url: str, calls: int) -> None:
    client = boto3.client("m2", endpoint_url=url, config=Config(max_pool_connections=CONCURRENCY))

    def call(request: dict[str, Any]) -> str:
        execution_id: str = client.start_batch_job(applicationId=APPLICATION, **request)["executionId"]
        return execution_id

    with ThreadPoolExecutor(CONCURRENCY) as threads:
        assert all(threads.map(call, members(warm_up(calls))))
        requests = members(calls)
        with measured():
            assert len(set(threads.map(call, requests))) == calls


async def with_aiohttp(url: str, calls: int) -> None:
    target = f"{url}/applications/{APPLICATION}/batch-job"
    signing = Signing(target, 0)
    connector = aiohttp.TCPConnector(limit=CONCURRENCY, ssl=tls_context() or True)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def call(request: dict[str, Any]) -> bytes:
            nonlocal signing
            body = encode(request)
            second = int(time.time())
            if signing.second != second:
                signing = Signing(target, second)
            headers = {
                "content-type": "application/json",
                "x-amz-date": signing.date,
                "authorization": signing.authorization + signing.signature(body),
            }
            async with session.post(target, data=body, headers=headers) as response:
                assert response.status == 200
                return await response.read()

        await timed(lambda made: by_workers(call, made, lambda body: decode(body).execution_id), members, calls)


async def with_the_bare_minimum(url: str, calls: int) -> None:
    context = tls_context()
    connections = await asyncio.gather(*(connect(url, context) for _ in range(CONCURRENCY)))

    async def run(requests: list[dict[str, Any]]) -> None:
        run = Calls(f"{url}/applications/{APPLICATION}/batch-job", iter(requests))
        for connection in connections:
            connection.run(run)
        await run.finished
        assert len(set(run.ids)) == len(requests)

    await timed(run, members, calls)
    for connection in connections:
        connection.close()


async def with_m2async(url: str, calls: int) -> None:
    async with M2Client(endpoint_url=url, max_connections=CONCURRENCY) as client:
        read = attrgetter("execution_id")
        await timed(lambda made: by_workers(client.start_batch_job, made, read), requests, calls)


def requests(calls: int) -> list[StartBatchJob]:
    return [
        StartBatchJob(APPLICATION, ScriptJob("POSTTRAN"), {"RUNDATE": "20261123", "BRANCH": f"{number:07}"})
        for number in range(calls)
    ]


def tls_context() -> ssl.SSLContext | None:
    bundle = os.environ.get("AWS_CA_BUNDLE")
    return ssl.create_default_context(cafile=bundle) if bundle else None


PROGRAMS: dict[str, Callable[[str, int], Coroutine[Any, Any, None] | None]] = {
    PEER: with_aiobotocore,
    BOTO3: with_boto3,
    BY_HAND: with_aiohttp,
    FLOOR: with_the_bare_minimum,
    OURS: with_m2async,
}


def contenders(*, tls: bool) -> list[Contender]:
    module = "benchmarks.calls"
    return [
        contender(module, PEER),
        contender(module, BOTO3, 0.6),
        javascript(1.5),
        contender(module, BY_HAND, 4),
        contender(module, FLOOR, 20 if tls else 35),
        contender(module, OURS, 15 if tls else 25),
    ]


def goals(results: Results, *, tls: bool) -> list[Goal]:
    found = []
    if {OURS, PEER} <= results.keys():
        rate = median(rate_ratios(results, OURS, PEER))
        cpu = median(cpu_ratios(results, OURS, PEER))
        times = 8 if tls else 20
        found.append(Goal(f"calls/s, at least {times} times those of {PEER}", rate, least=times))
        if not tls:
            found.append(Goal(f"CPU a call, {PEER}'s divided by it, at least 20", 1 / cpu, least=20))
    if {OURS, FLOOR} <= results.keys():
        slower = median(rate_ratios(results, FLOOR, OURS))
        found.append(Goal(f"calls/s of the {FLOOR}, at most 1.5 times its own", slower, most=1.5))
        dearer = median(cpu_ratios(results, OURS, FLOOR))
        found.append(Goal(f"CPU a call, at most 1.5 times that of the {FLOOR}", dearer, most=1.5))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tls", action="store_true", help="over TLS; every contender verifies the certificate")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only contenders whose names begin like this")
    parser.add_argument("--contender", choices=PROGRAMS, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        program = PROGRAMS[arguments.contender](arguments.url, arguments.calls)
        if program is not None:
            uvloop.run(program)
        return
    chosen = contenders(tls=arguments.tls)
    if arguments.only:
        chosen = [one for one in chosen if one.name.startswith(tuple(arguments.only))]
    with null_server(tls=arguments.tls) as server:
        results = play(chosen, server, calls=arguments.calls, rounds=arguments.rounds)
    print(show(chosen, results, peer=PEER, floor=FLOOR), *goals(results, tls=arguments.tls), sep="\n")


if __name__ == "__main__":
    main()
