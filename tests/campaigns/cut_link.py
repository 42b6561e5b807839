"""Cut the link to the service for some seconds in the middle of a run, and count what was started twice.

    python -m tests.campaigns.cut_link [--jobs 500] [--cut 16] [--runs 3]

Client, router and server are in network namespaces of their own, and the router stops forwarding: what was sent waits
in the client's kernel. Over both transports, plain and over TLS. Ends with an error if a job was started twice or is
lost.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Literal

from m2async import M2Client, ScriptJob, StartBatchJob, Submitter
from tests.cli.terminal import APPLICATION
from tests.network import ADDRESS, Network, inside, why_not
from tests.scripted import ScriptedServer

TIMEOUT = 3.0
RATE = 100.0
LATE = 30.0
"""Seconds after which nothing arrives any more: longer than the kernel waits between two tries after such a cut."""


async def run(transport: Literal["wire", "aiobotocore"], jobs: int, seconds: float, *, is_tls: bool) -> list[str]:
    """Cut the link in the middle of one run; gives what is wrong then."""
    states: Counter[str] = Counter()
    told: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        async with Network(is_tls=is_tls) as network:
            settings = ScriptedServer(()).settings(
                endpoint_url=network.url, transport=transport, read_timeout=TIMEOUT, verify=False
            )
            cutting = asyncio.create_task(cut(network, seconds))
            async with M2Client(**settings, plain_http_to=[ADDRESS]) as client:
                async with Submitter(client, ledger=Path(folder, "ledger.db"), rate=RATE, burst=RATE / 10) as submitter:
                    requests = (
                        (str(n), StartBatchJob(APPLICATION, ScriptJob(f"JOB{n}"), {"NUMBER": str(n)}))
                        for n in range(jobs)
                    )
                    async for outcome in submitter.submit_many(requests):
                        states[outcome.state] += 1
                        told[outcome.key] = outcome.state
            await cutting
            await asyncio.sleep(LATE)
            really = Counter(execution["jobParams"]["NUMBER"] for execution in await network.started())
    twice = sorted(number for number, count in really.items() if count > 1)
    lost = sorted(number for number, state in told.items() if state == "started" and number not in really)
    what = f"{transport:<12} {'tls' if is_tls else 'plain':<6} cut {seconds:g} s"
    told_as = dict(Counter(told[number] for number in twice))
    print(f"{what}: {dict(states)}; twice {len(twice)} {told_as or ''}, lost {len(lost)}", flush=True)
    return [f"{what}: {len(twice)} twice, {len(lost)} lost"] if twice or lost else []


async def cut(network: Network, seconds: float) -> None:
    await asyncio.sleep(1.5)
    network.cut()
    await asyncio.sleep(seconds)
    network.heal()


async def main(jobs: int, seconds: float, runs: int) -> list[str]:
    problems: list[str] = []
    for transport in ("wire", "aiobotocore"):
        for is_tls in (False, True):
            for number in range(runs):
                problems += await run(transport, jobs, seconds + number % 3 - 1, is_tls=is_tls)
    return problems


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--cut", type=float, default=16.0, help="seconds, give or take one")
    parser.add_argument("--runs", type=int, default=3, help="of each transport, plain and over TLS")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if not given.inside:
        if reason := why_not():
            sys.exit(f"this machine cannot do it: {reason}")
        command = inside(sys.executable, "-m", "tests.campaigns.cut_link", "--inside", *sys.argv[1:])
        os.execvp(command[0], command)
    found = asyncio.run(main(given.jobs, given.cut, given.runs))
    sys.exit("\n".join(found) or 0)
