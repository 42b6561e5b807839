"""Many rows of one job name under lost answers: the share of the quota that is used, and what ends unknown.

    python -m benchmarks.one_name [--rate 40] [--lost 0.01] [--rows 5000] [--certainty careful] [--faults drop|hang]
                                  [--names 1] [--seed 1]

Rows of one name, with a parameter each, are submitted to a local endpoint of its own process. Half of the answers
that are lost have started their job (accept-then-drop, or accept-then-hang with a time-out of 3 s), half have not
(drop-before-accept). The share of the quota is that from the first to the last first attempt. With `--names N` there
are so many rows of N - 1 further names of CardDemo in between, of which no answer is lost. Their share is told besides,
and what it is where the one name loses no answer either, measured before and after.

Ends with an error if a job was started twice, or is lost.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any, NamedTuple

import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession

from m2async import (
    CallNext,
    ConnectionLostError,
    M2Client,
    ScriptJob,
    StartBatchJob,
    StartBatchJobResponse,
    Submitter,
)
from m2async.local import DEFAULT_APPLICATION_ID
from m2async.local.definitions import default_definitions

_FAULTS = {"drop": ("accept-then-drop", "drop-before-accept"), "hang": ("accept-then-hang", "drop-before-accept")}
_BURST = 10
_TIMEOUT_OF = {"drop": 60.0, "hang": 3.0}
_NAMES = [job.job_name for job in default_definitions()[0].jobs]


class Case(NamedTuple):
    """What is measured: a rate in calls a second, the share of answers lost, how many rows, and by which faults."""

    rate: float
    lost: float
    rows: int
    certainty: str
    faults: str
    names: int
    seed: int


class Found(NamedTuple):
    """What came of it: shares of the quota, of the rows of one name and of the others, and numbers of rows."""

    share: float
    others_share: float | None
    unknown: int
    twice: int
    lost: int
    sent_again: int
    seconds: float


async def measure(case: Case) -> Found:
    """Submit the rows, and hold what the ledger says against what was really started."""
    by_endpoint = case.names == 1
    faults = dict.fromkeys(_FAULTS[case.faults], case.lost / 2) if by_endpoint else {}
    sent_at: dict[str, float] = {}
    sends: Counter[str] = Counter()
    draw = random.Random(case.seed)

    async def note(request: StartBatchJob, call_next: CallNext) -> StartBatchJobResponse:
        key = request.params["ROW"]
        sent_at.setdefault(key, monotonic())
        sends[key] += 1
        if by_endpoint or request.job != ScriptJob(_NAMES[0]) or draw.random() >= case.lost:
            return await call_next(request)
        if draw.random() < 0.5:
            await call_next(request)
        raise ConnectionLostError("lost", ended_by_service=True)

    requests = [
        (f"{row}-{name}", StartBatchJob(DEFAULT_APPLICATION_ID, ScriptJob(_NAMES[name]), {"ROW": f"{row}-{name}"}))
        for row in range(case.rows)
        for name in range(case.names)
    ]
    states: dict[str, str] = {}
    began = monotonic()
    with TemporaryDirectory() as folder:
        async with _endpoint(faults, case.seed) as url, M2Client(**_settings(url, case)) as client:
            client.use(note)
            async with Submitter(
                client,
                rate=case.rate,
                burst=_BURST,
                ledger=Path(folder) / "ledger.db",
                certainty=case.certainty,
            ) as submitter:
                async for outcome in submitter.submit_many(requests):
                    states[outcome.key] = outcome.state
            started = await _really_started(url)
    own = [at for key, at in sent_at.items() if key.endswith("-0")]
    others = [at for key, at in sent_at.items() if not key.endswith("-0")]
    return Found(
        _share(own, case.rate / case.names),
        _share(others, case.rate * (case.names - 1) / case.names) if others else None,
        sum(state == "unknown" for state in states.values()),
        sum(count > 1 for count in started.values()),
        sum(state == "rejected" or (state == "started" and not started[key]) for key, state in states.items())
        + sum(key not in states for key, _ in requests),
        sum(count - 1 for count in sends.values()),
        monotonic() - began,
    )


def _share(times: list[float], rate: float) -> float:
    return (len(times) - _BURST) / (max(times) - min(times)) / rate


def _settings(url: str, case: Case) -> dict[str, Any]:
    session = AioSession()
    session.set_credentials("local", "local")
    session.set_default_client_config(AioConfig(proxies={}))
    return {
        "session": session,
        "region_name": "us-east-1",
        "endpoint_url": url,
        "read_timeout": _TIMEOUT_OF[case.faults],
    }


@asynccontextmanager
async def _endpoint(faults: dict[str, float], seed: int) -> AsyncIterator[str]:
    options = [option for name, share in faults.items() for option in ("--fault", f"{name}={share}")]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from m2async.cli import main; main()",
        "local",
        "--seed",
        str(seed),
        *options,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        yield (await process.stdout.readline()).decode().split()[-1]
    finally:
        process.terminate()
        await process.wait()


async def _really_started(url: str) -> Counter[str]:
    async with aiohttp.ClientSession() as session, session.get(f"{url}/_local/executions") as response:
        executions = (await response.json())["executions"]
    return Counter(each["jobParams"]["ROW"] for each in executions)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=40.0)
    parser.add_argument("--lost", type=float, default=0.01)
    parser.add_argument("--rows", type=int, default=5_000)
    parser.add_argument("--certainty", default="careful")
    parser.add_argument("--faults", choices=sorted(_FAULTS), default="drop")
    parser.add_argument("--names", type=int, default=1, choices=range(1, len(_NAMES) + 1), metavar=f"1..{len(_NAMES)}")
    parser.add_argument("--seed", type=int, default=1)
    case = Case(**vars(parser.parse_args()))
    if case.names == 1:
        return _show(case)
    without = case._replace(lost=0.0)
    return max(_show(each) for each in (without, case, without))


def _show(case: Case) -> int:
    """Measure and print; gives 1 if a job was started twice, or is lost."""
    found = asyncio.run(measure(case))
    others = "" if found.others_share is None else f", the others' {found.others_share:.1%}"
    print(
        f"{case.rows:,} rows of a name, {case.rate:g}/s, {case.lost:.1%} lost ({case.faults}), {case.certainty}: "
        f"{found.share:.1%} of the quota{others}; {found.unknown} unknown ({found.unknown / case.rows:.2%}), "
        f"{found.twice} twice, {found.lost} lost, {found.sent_again} sent again; {found.seconds:.0f} s"
    )
    return int(found.twice + found.lost > 0)


if __name__ == "__main__":
    sys.exit(main())
