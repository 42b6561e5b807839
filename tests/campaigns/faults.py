"""Start jobs while a fifth of the calls fail, and compare the ledger with what was really started.

    python -m tests.campaigns.faults [--jobs 5000] [--seed N]

Every fault alone and all mixed, with distinct and with identical identifiers. Identical ones go with
`--certainty fast`: otherwise they would wait for each other, for hours. The endpoint and the command are processes of
their own. A plain aiobotocore loop with its default retries meets the same faults, for comparison.
Ends with an error if a job was started twice, is lost or has another's execution id.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import anyio
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.exceptions import BotoCoreError, ClientError

from m2async.ledger import LedgerRow, RowState, open_ledger
from m2async.local.faults import Fault
from tests.cli.terminal import APPLICATION, Ended, m2async, running

SHARE = 0.2
MIXED = "all mixed"
FAULTS: Mapping[str, Mapping[str, float]] = {
    **{fault.value: {fault.value: SHARE} for fault in Fault},
    MIXED: {fault.value: SHARE / len(Fault) for fault in Fault},
}
SETTINGS = ("--settle", "0.3", "--rate", "100000", "--burst", "100000")
"""The endpoint lists an execution at once, so this settles. Its throttles come at any rate, so none is looked for."""


@contextlib.asynccontextmanager
async def serving(*options: str) -> AsyncIterator[str]:
    """Run `m2async local`; gives its URL."""
    async with running("local", *options) as process:
        assert process.stdout is not None
        try:
            yield (await process.stdout.receive()).decode().splitlines()[0]
        finally:
            process.terminate()


def faulty(faults: Mapping[str, float], seed: int) -> list[str]:
    """The options of an endpoint with these faults."""
    return ["--seed", str(seed), *(f"--fault={name}={share}" for name, share in faults.items())]


async def really_started(url: str) -> list[dict[str, Any]]:
    """What an endpoint really started, with its parameters."""
    async with aiohttp.ClientSession() as session, session.get(f"{url}/_local/executions") as answer:
        executions: list[dict[str, Any]] = (await answer.json())["executions"]
        return executions


def patience(faults: Mapping[str, float]) -> tuple[str, str]:
    """How long an answer is waited for: briefly where a fault keeps it back, else as long as a busy machine may take.

    The longest delay of `latency` is just not waited for.
    """
    return "--timeout", "1" if faults.keys() & {Fault.ACCEPT_THEN_HANG, Fault.LATENCY} else "60"


def jobs_file(path: Path, numbers: Iterable[int], *, identical: bool) -> Path:
    """A manifest whose rows have each its NUMBER, and each its script or all the same."""
    with path.open("w") as file:
        file.write("key,application_id,script,param.NUMBER\n")
        for number in numbers:
            file.write(f"row-{number},{APPLICATION},{'SAME' if identical else f'JOB{number}'},{number}\n")
    return path


# What the ledger says, beside what is true


@dataclass
class Audit:
    """A run's rows by state, and every sentence of it that is not true."""

    states: Counter[str] = field(default_factory=Counter)
    adopted: int = 0
    together: int = 0  # of the adopted, those that share executions with others
    twice: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        return [*self.twice, *self.lost, *self.wrong]


async def audit(
    ledger: Path, run: str, executions: Sequence[Mapping[str, Any]], *, ended: bool = True, foreign: bool = False
) -> Audit:
    """Compare a run with all that its endpoint started.

    `ended` says that the run came to its end, so that no row is open without its candidates; `foreign` that
    executions without a row's NUMBER are not the run's.
    """
    true_ids: dict[str, list[str]] = defaultdict(list)
    for execution in executions:
        true_ids[execution["jobParams"].get("NUMBER", "none")].append(execution["executionId"])
    found = Audit()
    async with open_ledger(ledger, must_exist=True) as opened:
        async for row in (await opened.run(run)).rows():
            number = row.request.params["NUMBER"]
            _compare(found, row, true_ids.pop(number, []), ended=ended)
    if not foreign:
        found.lost += [f"NUMBER {number} was started and has no row" for number in true_ids]
    return found


def _compare(found: Audit, row: LedgerRow, ids: list[str], *, ended: bool) -> None:
    found.states[row.state.label] += 1
    found.adopted += row.adopted
    found.together += row.state is RowState.STARTED and row.execution_id is None
    if len(ids) > 1:
        found.twice.append(f"{row.key} was started {len(ids)} times: {ids}, and is {row.state.label}")
    match row.state:
        case RowState.STARTED:
            its = row.candidates if row.execution_id is None else (row.execution_id,)
            if not {*its} & {*ids}:
                found.wrong.append(f"{row.key} is started as {its}, which of {ids} is none")
        case RowState.PENDING | RowState.REJECTED:
            if ids:
                found.lost.append(f"{row.key} was started as {ids}, and is {row.state.label}")
        case RowState.INTENT if ended:
            found.wrong.append(f"{row.key} is still under way")
        case RowState.UNKNOWN if ended and not set(ids) <= set(row.candidates):
            found.lost.append(f"{row.key} was started as {ids}, and its candidates are {row.candidates}")
        case _:
            pass


def audit_lines(found: Audit, ended: Ended, executions: Sequence[Mapping[str, Any]]) -> None:
    """Compare what a command printed with the truth, and with the rows' states."""
    numbers = {execution["executionId"]: f"row-{execution['jobParams']['NUMBER']}" for execution in executions}
    lines = ended.lines
    for line in lines:
        its = line.get("candidates", [line["execution_id"]])
        if line["state"] == "started" and line["key"] not in {numbers.get(execution_id) for execution_id in its}:
            found.wrong.append(f"printed: {line}")
    states = Counter(line["state"] for line in lines)
    known = Counter({state: count for state, count in found.states.items() if state != "pending"})
    known["rejected"] += found.states["pending"]  # given up, surely not started, and tried again by the same command
    if +states != +known:
        found.wrong.append(f"printed {dict(states)}, and the ledger has {dict(found.states)}")


# The campaign


async def one_run(
    url: str, folder: Path, numbers: range, *options: str, identical: bool, again: int
) -> tuple[Audit, Audit]:
    """Submit a manifest, and up to `again` times more while a row is not started; what it came to first and last."""
    run = "identical" if identical else "distinct"
    path, ledger = jobs_file(folder / f"{run}.csv", numbers, identical=identical), folder / "ledger.db"
    audits: list[Audit] = []
    options = ("--ledger", str(ledger), "--run", run, *SETTINGS, *options, "--output", "jsonl", "-q")
    while not audits or (audits[-1].states["started"] < len(numbers) and len(audits) <= again):
        ended = await m2async("submit", path, *options, url=url)
        executions = await really_started(url)
        own = [e for e in executions if int(e["jobParams"]["NUMBER"]) in numbers]
        audits.append(await audit(ledger, run, own))
        audit_lines(audits[-1], ended, own)
        expected = 0 if audits[-1].states["started"] == len(numbers) else 1
        if ended.code != expected:
            audits[-1].wrong.append(f"exit code {ended.code} instead of {expected}: {ended.err}")
    return audits[0], audits[-1]


async def plain_loop(url: str, jobs: int) -> tuple[int, int]:
    """The same with aiobotocore alone; gives how many jobs it says it started, and how many it started again."""
    session = AioSession()
    session.set_credentials("local", "local")
    config = AioConfig(max_pool_connections=64, read_timeout=1, proxies={})
    limit = asyncio.Semaphore(64)

    async def start(number: int) -> bool:
        async with limit:
            try:
                await client.start_batch_job(
                    applicationId=APPLICATION,
                    batchJobIdentifier={"scriptBatchJobIdentifier": {"scriptName": f"JOB{number}"}},
                    jobParams={"NUMBER": str(number)},
                )
            except (BotoCoreError, ClientError, aiohttp.ClientError):
                return False
            return True

    async with session.create_client("m2", region_name="us-east-1", endpoint_url=url, config=config) as client:
        told = sum(await asyncio.gather(*(start(number) for number in range(jobs))))
    started = Counter(execution["jobParams"]["NUMBER"] for execution in await really_started(url))
    return told, sum(started.values()) - len(started)


def rows_of_table(name: str, seed: int, jobs: int) -> Iterator[tuple[Sequence[object], Sequence[str]]]:
    """The table's rows for one fault, each with the problems found."""

    options = patience(FAULTS[name])

    async def ours(folder: str, *, identical: bool) -> tuple[Audit, Audit]:
        async with serving(*faulty(FAULTS[name], seed)) as url:
            certainty = ("--certainty", "fast" if identical else "careful")
            return await one_run(url, Path(folder), range(jobs), *options, *certainty, identical=identical, again=1)

    async def theirs() -> tuple[int, int]:
        async with serving(*faulty(FAULTS[name], seed)) as url:
            return await plain_loop(url, jobs)

    for identical in (False, True):
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            first, last = anyio.run(partial(ours, folder, identical=identical))
        cells = (
            name,
            "identical" if identical else "distinct",
            last.states["started"],
            last.adopted,
            first.states["rejected"] + first.states["pending"],
            first.states["unknown"],
            last.states["unknown"],
            len(last.twice),
            len(last.lost),
            len(last.wrong),
            f"{time.monotonic() - began:.0f} s",
        )
        yield cells, [*first.problems, *last.problems]
    told, again = anyio.run(theirs)
    yield (name, "aiobotocore", told, "", "", jobs - told, "", again, "", "", ""), ()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--jobs", type=int, default=5_000, help="jobs of each run")
    arguments.add_argument("--seed", type=int, default=random.randrange(2**32), help="by default a new one")
    options = arguments.parse_args()
    print(f"seed {options.seed}, {options.jobs:,} jobs a run, {SHARE:.0%} of the calls fail")
    widths = (19, 12, 8, 8, 9, 8, 11, 6, 5, 6, 6)
    heads = (
        "FAULT",
        "IDENTIFIERS",
        "STARTED",
        "ADOPTED",
        "REJECTED",
        "UNKNOWN",
        "WHEN AGAIN",
        "TWICE",
        "LOST",
        "WRONG",
    )
    print("".join(f"{head:<{width}}" for head, width in zip(heads, widths, strict=False)), flush=True)
    problems: list[str] = []
    for name in FAULTS:
        for cells, found in rows_of_table(name, options.seed, options.jobs):
            print("".join(f"{cell!s:<{width}}" for cell, width in zip(cells, widths, strict=True)), flush=True)
            problems += [f"{name}, {cells[1]}: {problem}" for problem in found]
    if problems:
        raise SystemExit("\n".join(problems))


if __name__ == "__main__":
    main()
