"""Runs to report on: one that was really submitted and followed, and ones of any size, written to a ledger."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from pathlib import Path

from m2async import LocalEndpoint, M2Client, RetryPolicy, ScriptJob, StartBatchJob, Submitter, Tracker
from m2async.ledger import Ledger, Observation, Run, RunView
from m2async.local import load_definitions

APPLICATION = "carddemolocalapplication23"
BEGAN = 1_795_000_000.0
QUICK = RetryPolicy(base=0.001, cap=0.01)
NAMES = ("POSTTRAN", "INTCALC", "TRANREPT", "CREASTMT", "CLOSEFIL")


async def real_night(folder: Path, ledger: Ledger, jobs: int = 200) -> RunView:
    """Submit jobs of which some fail, to a service that throttles and loses answers, and follow them to their ends."""
    named = [
        {
            "file": f"{name}.jcl", "jobName": name, "seconds": 0.05, "returnCode": code, "steps": [{"step": "STEP1"}],
        }
        for name, code in (("GOOD", 0), ("BAD", 12))
    ]  # fmt: skip
    definitions = folder / "definitions.json"
    definitions.write_text(json.dumps({"jobs": named}))
    faults = {"throttle": 0.15, "accept-then-500": 0.03}
    async with (
        LocalEndpoint(seed=1, definitions=load_definitions(definitions), faults=faults) as endpoint,
        M2Client(**endpoint.client_settings()) as client,
    ):
        submitter = Submitter(
            client, rate=100_000, burst=100_000, ledger=ledger, run="night", on_unknown="hold", retry=QUICK
        )
        async with submitter:
            for _ in [
                outcome
                async for outcome in submitter.submit_many(
                    StartBatchJob(APPLICATION, ScriptJob("BAD" if number % 10 == 0 else "GOOD"))
                    for number in range(jobs)
                )
            ]:
                pass
        async with Tracker(client, ledger, "night", rate=10_000, burst=10_000) as tracker:
            async for _ in tracker:
                pass
    return await ledger.run("night")


class Written:
    """A run of any size, as it would be after a night with a bit of everything.

    `keys` names the rows; `message` is what every service error says. `clock` is the ledger's.
    """

    def __init__(
        self, keys: Callable[[int], str] = "2026-11-23/BRANCH/{:06}".format, message: str = "not defined"
    ) -> None:
        self.now = BEGAN
        self.keys = keys
        self.message = message

    def clock(self) -> float:
        return self.now

    async def plan(self, run: Run, rows: int, script: Callable[[int], str] = lambda n: NAMES[n % 5]) -> None:
        await run.plan(
            (self.keys(number), StartBatchJob(APPLICATION, ScriptJob(script(number)), {"SECRET": "personal data"}))
            for number in range(1, rows + 1)
        )

    async def go(self, run: Run, first: int, last: int, *, rate: float = 50.0, status: str = "Succeeded") -> None:
        """Start these rows, but every 1,000th, which is rejected, and every 2,500th, which is unknown.

        Every 100th is throttled before, every 200th fails.
        """
        draw = random.Random(first)
        done, seen = [], []
        for number in range(first, last + 1):
            self.now += 1 / rate
            attempt = 1
            if number % 100 == 1:
                done.append(run.intend(number, attempt, self.now))
                done.append(run.refused(number, attempt, "ThrottlingException", "Rate exceeded"))
                attempt = 2
            done.append(run.intend(number, attempt, self.now))
            self.now += draw.uniform(0, 0.02)
            execution = "".join(draw.choices("abcdefghijklmnopqrstuvwxyz234567", k=26))
            request = f"{draw.getrandbits(128):032x}"
            if number % 2_500 == 0:
                done.append(run.unknown(number, attempt, "ReadTimeout", self.message))
            elif number % 1_000 == 0:
                done.append(run.rejected(number, attempt, "ValidationException", self.message, request))
            else:
                done.append(run.started(number, attempt, execution, request))
                failed = number % 200 == 0
                times = (self.now, self.now + draw.expovariate(1 / 30))
                seen.append(
                    Observation(
                        number, execution, "Failed" if failed else status, "12" if failed else "0", *times, True
                    )
                )
            if len(done) > 2_000:
                await asyncio.gather(*done)
                done.clear()
        await asyncio.gather(*done)
        await run.observe(seen)
