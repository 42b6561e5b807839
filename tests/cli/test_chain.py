"""Jobs in order, and only so many in progress: what an endpoint in a process of its own really started, and when."""

from __future__ import annotations

import json
import random
import re
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from m2async import LocalEndpoint
from m2async.local.definitions import ApplicationDefinition, JobDefinition, StepDefinition
from m2async.manifest import read_manifest
from tests.cli.terminal import APPLICATION, EXAMPLES, m2async, running, written

CHAIN = EXAMPLES / "nightly-chain.yaml"
MEMBERS = Path(__file__).parents[2] / "m2async" / "local" / "carddemo-jobs.json"


@asynccontextmanager
async def local_endpoint(folder: Path, **failing: Mapping[str, int]) -> AsyncIterator[str]:
    """CardDemo in a process of its own, each job with a run time of its own; gives the URL."""
    draw = random.Random(1)
    members = json.loads(MEMBERS.read_text())
    jobs = [{**job, "seconds": draw.uniform(0.05, 0.4), **failing.get(job["jobName"], {})} for job in members["jobs"]]
    definitions = folder / "definitions.json"
    definitions.write_text(json.dumps({**members, "jobs": jobs}))
    async with running("local", "--seed", "1", "--definitions", definitions) as process:
        try:
            assert process.stdout is not None
            yield (await process.stdout.receive()).decode().strip()
        finally:
            process.terminate()


async def executions(url: str) -> list[dict[str, Any]]:
    async with aiohttp.ClientSession() as session, session.get(f"{url}/_local/executions") as answer:
        listed: list[dict[str, Any]] = (await answer.json())["executions"]
        return listed


def order_of(path: Path) -> tuple[dict[str, str], dict[str, Sequence[str]]]:
    """The file of each row, and the rows that it comes after."""
    after: dict[str, Sequence[str]] = {}
    rows = read_manifest(path, application_id=APPLICATION, after=after)
    return {key: request.job.name for key, request in rows}, after


def check_order(listed: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Every job that was started was so after all that it comes after had succeeded."""
    files, after = order_of(path)
    started = {
        execution["batchJobIdentifier"]["fileBatchJobIdentifier"]["fileName"]: execution
        for execution in listed
        if "fileBatchJobIdentifier" in execution["batchJobIdentifier"]
    }
    restarted = {execution["jobName"]: execution for execution in listed}
    for key, earlier in after.items():
        for other in earlier if files[key] in started else ():
            before = restarted[started[files[other]]["jobName"]]
            assert before["status"] == "Succeeded"
            assert before["endTime"] <= started[files[key]]["startTime"], (key, other)


async def test_a_night_of_carddemo_starts_in_order(tmp_path: Path) -> None:
    async with local_endpoint(tmp_path) as url:
        ended = await m2async("submit", CHAIN, "-a", APPLICATION, "-q", "--output", "jsonl", url=url)
        assert (ended.code, len(ended.err.splitlines())) == (0, 1)
        assert [line["state"] for line in ended.lines] == ["started"] * 14
        listed = await executions(url)
    assert len(listed) == 14
    assert {execution["status"] for execution in listed} == {"Succeeded"}
    check_order(listed, CHAIN)


async def test_jobs_behind_a_failure_are_held_until_it_is_restarted(tmp_path: Path) -> None:
    run = ("--run", "night")
    async with local_endpoint(tmp_path, INTCALC={"returnCode": 8, "failures": 1}) as url:
        ended = await m2async("submit", CHAIN, "-a", APPLICATION, *run, "--output", "jsonl", url=url)
        assert ended.code == 1
        states = Counter(line["state"] for line in ended.lines)
        assert states == {"started": 10, "skipped": 4}
        held = {line["key"]: line["error"] for line in ended.lines if line["state"] == "skipped"}
        why = "INTCALC (ended as Failed with return code 8)"
        assert {error["code"] for error in held.values()} == {"HeldError"}
        assert {key: error["message"] for key, error in held.items()} == {
            "COMBTRAN": f"{why} -> COMBTRAN",
            "CREASTMT": f"{why} -> COMBTRAN -> CREASTMT",
            "TRANIDX": f"{why} -> COMBTRAN -> TRANIDX",
            "OPENFIL": f"{why} -> COMBTRAN -> CREASTMT -> OPENFIL",
        }
        assert "m2async: INTCALC: ended as Failed with return code 8\n" in ended.err
        assert len(await executions(url)) == 10

        again = await m2async("resume", "night", "-q", "--output", "jsonl", url=url)
        assert again.code == 1
        assert {line["key"] for line in again.lines if line["state"] == "skipped"} == held.keys()
        assert len(await executions(url)) == 10

        restarted = await m2async("restart", "night", "--failed", "--from-step", "STEP15", url=url)
        assert restarted.code == 0
        listed = await executions(url)
    assert len(listed) == 15
    assert Counter(execution["status"] for execution in listed) == {"Succeeded": 14, "Failed": 1}
    check_order(listed, CHAIN)


def manifest(folder: Path, *rows: str) -> Path:
    path = folder / "jobs.csv"
    path.write_text("\n".join(["key,application_id,file,after", *rows, ""]))
    return path


async def test_a_table_shows_what_is_held_and_the_summary_counts_it(tmp_path: Path) -> None:
    path = manifest(tmp_path, f"bad,{APPLICATION},NOSUCH,", f"last,{APPLICATION},POSTTRAN.jcl,bad")
    ended = await m2async("submit", path, "--local", "--no-preflight")
    assert ended.code == 1
    held = "HeldError: bad (was not started: ResourceNotFoundException) -> last"
    assert ended.out.splitlines()[2].split(maxsplit=3) == ["last", "POSTTRAN.jcl", "skipped", held]
    assert re.search(r"0 of 2 jobs started in [\d.]+ s; 1 rejected; 1 skipped\n$", ended.err)


async def test_a_dry_run_shows_the_order(tmp_path: Path) -> None:
    path = manifest(tmp_path, f"a,{APPLICATION},A,", f"b,{APPLICATION},B,", f"c,{APPLICATION},C,a;b")
    table = await m2async("submit", path, "--dry-run")
    assert [line.partition("}}}")[2] for line in table.out.splitlines()] == ["", "", "  after a; b"]
    lines = (await m2async("submit", path, "--dry-run", "--output", "jsonl")).lines
    assert [line.get("after") for line in lines] == [None, None, ["a", "b"]]


async def test_an_order_that_cannot_be_followed_stops_the_run(tmp_path: Path) -> None:
    async def answer(request: web.BaseRequest) -> web.Response:
        if request.method == "POST":
            return web.json_response({"executionId": "e-1"})
        return web.json_response({"message": "no"}, status=403, headers={"x-amzn-ErrorType": "AccessDeniedException"})

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        path = manifest(tmp_path, f"a,{APPLICATION},A,", f"b,{APPLICATION},B,a")
        ended = await m2async("submit", path, "--no-preflight", "--output", "jsonl", url=url)
    finally:
        await runner.cleanup()
    assert ended.code == 3
    assert {line["key"]: line["state"] for line in ended.lines} == {"a": "started", "b": "skipped"}
    assert "m2async: stopped: the executions cannot be followed: AccessDeniedException: no\n" in ended.err


@pytest.mark.parametrize("rows", [["a,{},SLOW.jcl,", "b,{},SLOW.jcl,a"], ["a,{},SLOW.jcl,", "b,{},SLOW.jcl,"]])
async def test_a_signal_ends_the_wait_and_the_same_command_goes_on(tmp_path: Path, rows: list[str]) -> None:
    slow = JobDefinition("SLOW.jcl", "SLOW", (StepDefinition("STEP1"),), seconds=3_600)
    path = manifest(tmp_path, *(row.format(APPLICATION) for row in rows))
    async with LocalEndpoint(definitions=[ApplicationDefinition(APPLICATION, "Nightly", jobs=(slow,))]) as endpoint:
        async with running("submit", path, "--max-running", "1", "--output", "jsonl", url=endpoint.url) as process:
            assert process.stdout is not None
            out = await process.stdout.receive()
            process.send_signal(signal.SIGINT)
            out += await written(process.stdout)
            said = await written(process.stderr)
        assert process.returncode == 130
        assert [json.loads(line)["state"] for line in out.splitlines()] == ["started", "skipped"]
        assert b"Traceback" not in said
        assert len(await executions(endpoint.url)) == 1


async def test_no_more_than_so_many_executions_are_in_progress(tmp_path: Path) -> None:
    path = tmp_path / "jobs.csv"
    path.write_text("key,file\n" + "".join(f"{number},POSTTRAN.jcl\n" for number in range(18)))
    async with local_endpoint(tmp_path) as url:
        options = ["-a", APPLICATION, "--max-running", "5", "-q", "--output", "jsonl"]
        ended = await m2async("submit", path, *options, url=url)
        assert (ended.code, len(ended.err.splitlines())) == (0, 1)
        listed = await executions(url)
    assert len(listed) == len(ended.lines) == 18
    assert most_at_once(listed) == 5


def most_at_once(listed: Iterable[Mapping[str, Any]]) -> int:
    """How many of the executions were in progress at once, at most; one that has not ended is so for ever."""
    running = most = 0
    moments = [(execution["startTime"], 1) for execution in listed]
    moments += [(execution["endTime"], -1) for execution in listed if "endTime" in execution]
    for _, change in sorted(moments):
        running += change
        most = max(most, running)
    return most
