"""What a waiting call costs in memory: 10,000 calls on 64 connections, and a server that does not answer.

    python -m benchmarks.memory [--calls 10000] [--rounds 3]

The first 64 calls take the connections and count as no waiting ones; the requests were made before. Each
contender is measured by the growth of its resident memory and, in another process and only once, as the figure
is always the same, by tracemalloc.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import resource
import socket
import subprocess
import sys
import tracemalloc
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import uvloop
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession

from benchmarks.calls import APPLICATION, members, requests
from benchmarks.rounds import CONCURRENCY, environment
from m2async import M2Client, StartBatchJob

PEER = "aiobotocore"
OURS = "m2async M2Client"
SECONDS = 600.0
_T = TypeVar("_T")


async def with_aiobotocore(url: str, calls: int, *, traced: bool) -> None:
    config = AioConfig(max_pool_connections=CONCURRENCY, connect_timeout=SECONDS, read_timeout=SECONDS)
    async with AioSession().create_client("m2", endpoint_url=url, config=config) as client:

        async def call(request: dict[str, Any]) -> None:
            await client.start_batch_job(applicationId=APPLICATION, **request)

        await _wait(call, members(CONCURRENCY + calls), traced=traced)


async def with_m2async(url: str, calls: int, *, traced: bool) -> None:
    async with M2Client(
        endpoint_url=url, max_connections=CONCURRENCY, connect_timeout=SECONDS, read_timeout=SECONDS
    ) as client:

        async def call(request: StartBatchJob) -> None:
            await client.start_batch_job(request)

        await _wait(call, requests(CONCURRENCY + calls), traced=traced)


async def _wait(call: Callable[[_T], Awaitable[None]], requests: Sequence[_T], *, traced: bool) -> None:
    """Have all calls wait, print the bytes of each, and cancel them."""
    tasks: list[asyncio.Task[None]] = []

    async def one(request: _T) -> None:
        await call(request)

    async def begin(requests: Sequence[_T]) -> None:
        tasks.extend([asyncio.create_task(one(request)) for request in requests])
        spent = float("-inf")
        while _cpu_seconds() - spent > 0.02:  # some do not wait yet
            spent = _cpu_seconds()
            await asyncio.sleep(0.3)

    await begin(requests[:CONCURRENCY])
    if traced:
        tracemalloc.start()
    before = _used(traced=traced)
    await begin(requests[CONCURRENCY:])
    grown = _used(traced=traced) - before
    tracemalloc.stop()
    assert not any(task.done() for task in tasks)
    print(json.dumps({"bytes": grown / (len(requests) - CONCURRENCY)}))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _used(*, traced: bool) -> int:
    gc.collect()
    if traced:
        return tracemalloc.get_traced_memory()[0]
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def serve(listener: socket.socket) -> None:
    """Take connections and whatever comes on them, and never answer."""
    server = await asyncio.start_server(_ignore, sock=listener, backlog=1024)
    await server.serve_forever()


async def _ignore(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while await reader.read(65_536):
            pass
    writer.close()


@contextlib.contextmanager
def silent_server() -> Iterator[str]:
    """Run the server in a process of its own; gives its URL."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        command = [sys.executable, "-m", "benchmarks.memory", "--serve", str(listener.fileno())]
        process = subprocess.Popen(command, pass_fds=[listener.fileno()])
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            process.terminate()
            process.wait(10)


PROGRAMS: dict[str, Callable[..., Coroutine[Any, Any, None]]] = {PEER: with_aiobotocore, OURS: with_m2async}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--contender", choices=PROGRAMS, help=argparse.SUPPRESS)
    parser.add_argument("--traced", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve is not None:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(serve(socket.socket(fileno=arguments.serve)))
        return
    if arguments.contender:
        uvloop.run(PROGRAMS[arguments.contender](arguments.url, arguments.calls, traced=arguments.traced))
        return
    if not Path("/proc/self/statm").exists():
        raise SystemExit("resident memory is read from /proc, which is not here")
    print(f"bytes of each of {arguments.calls:,} waiting calls: medians, and (least-most)")
    print(f"{'':<24}{'resident':>26}{'tracemalloc':>26}")
    with silent_server() as url:
        figures = {
            (name, traced): [_bytes(name, url, arguments.calls, traced=traced) for _ in range(rounds)]
            for name in PROGRAMS
            for traced, rounds in ((False, arguments.rounds), (True, 1))
        }
    for name in PROGRAMS:
        print(f"{name:<24}" + "".join(f"{_spread(figures[name, traced]):>26}" for traced in (False, True)))
    ratios = [median(figures[PEER, traced]) / median(figures[OURS, traced]) for traced in (False, True)]
    print(f"{f'{PEER} / {OURS}':<24}{ratios[0]:>22.1f}{ratios[1]:>26.1f}")


def _bytes(name: str, url: str, calls: int, *, traced: bool) -> float:
    command = [sys.executable, "-m", "benchmarks.memory", "--contender", name, "--url", url, "--calls", str(calls)]
    output = subprocess.run(
        [*command, *(["--traced"] if traced else [])], check=True, stdout=subprocess.PIPE, env=environment()
    ).stdout
    figure: float = json.loads(output)["bytes"]
    return figure


def _spread(values: Sequence[float]) -> str:
    return f"{median(values):,.0f} ({min(values):,.0f}-{max(values):,.0f})"


if __name__ == "__main__":
    main()
