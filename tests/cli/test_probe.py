"""`m2async probe` as a user runs it: what it finds, what it starts (nothing), and how it ends."""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
import typer

from m2async import LocalEndpoint, ScriptJob, StartBatchJob
from m2async.cli.probe import parse_asking, parse_load, text
from m2async.clock import steady_time
from m2async.ledger import RowState, open_ledger
from m2async.pacing import TokenBucket
from m2async.probing.plans import Limits, Ramp
from m2async.probing.summary import Setting, Starts, summarize
from tests.campaigns.faults import really_started, serving
from tests.cli.terminal import APPLICATION, COMMAND, m2async, on_terminal, plain, running, settings, written
from tests.cli.test_ledger import prefixed, shell
from tests.probing.simulated import play
from tests.scripted import ScriptedServer, Step, error, hang, scripted, started

REAL = ("-a", APPLICATION, "--start-real-jobs", "--script", "POSTTRAN")


@pytest.fixture
async def url() -> AsyncIterator[str]:
    """A local endpoint with a quota, in a process of its own."""
    async with serving("--rate", "50", "--burst", "20") as url:
        yield url


@pytest.fixture
async def slow_url() -> AsyncIterator[str]:
    """One with a greater quota, which answers late."""
    async with serving("--rate", "300", "--burst", "40", "--fault", "latency=1.0") as url:
        yield url


# What it finds


async def test_it_looks_for_the_quota_and_starts_nothing(url: str, tmp_path: Path) -> None:
    """A busy machine sends calls in lumps: then none is told, or about. How exact it is, simulated time shows."""
    page = tmp_path / "probe.html"
    ended = await m2async("probe", "--output", "json", "--report", page, url=url)
    [found] = ended.lines
    assert ended.code == 0
    assert found["rate"] is None or 25 <= found["rate"] <= 100
    assert sum(quota["calls"] for quota in found["quotas"]) == found["throttled"]
    assert found["refused"] == {"ResourceNotFoundException": found["accepted"]}
    assert await really_started(url) == []
    assert "<html" in page.read_text()


def test_the_text_has_what_to_use() -> None:
    plan = Ramp(Limits(600.0, 60.0))
    play(plan, TokenBucket(50, 20).try_take)
    setting = Setting("http://127.0.0.1:9", APPLICATION, "X", "no application", 0.0, None, 0)
    findings = summarize(plan, setting, Starts((), (), (), ()), ended_by=None)
    told = re.search(r"rate   (\S+)/s(?s:.*)use:   --rate (\S+) --burst (\d+)", "\n".join(text(findings)))
    assert told is not None
    assert float(told[1]) == pytest.approx(50, rel=0.05)
    assert float(told[2]) == findings.use_rate == pytest.approx(0.98 * float(told[1]), abs=1)
    assert int(told[3]) == findings.use_burst == 19


async def test_the_text_fits_a_terminal() -> None:
    async with serving("--rate", "5", "--burst", "5") as url:
        code, written = await on_terminal("probe", "--steps", "100,200", "--seconds", "0.5", url=url)
        shown = plain(written)
        assert code == 0
        assert "Calls count before they are validated" in shown
        assert "m2 L-LOCAL001" in shown
        assert max(map(len, shown[shown.rindex("calls in") :].splitlines())) <= 80
        assert await really_started(url) == []


async def test_steps_have_a_line_each(url: str) -> None:
    ended = await m2async("probe", "--steps", "20,40", "--seconds", "0.5", "--output", "json", url=url)
    [found] = ended.lines
    assert [(step["rate"], step["calls"]) for step in found["steps"]] == [(20.0, 10), (40.0, 20)]
    assert (found["rate"], found["throttled"], found["profile"]) == (None, 0, "steps")
    shown = await m2async("probe", "--steps", "20,40", "--seconds", "0.5", url=url)
    assert "40/s" in shown.out
    assert "this says nothing about valid calls" in shown.out.replace("\n", " ")


# What it must not do


async def test_a_start_that_was_not_asked_for_ends_it_and_is_cancelled(url: str) -> None:
    """The local endpoint takes any script's name: so the name that no application defines starts a job there."""
    ended = await m2async("probe", "-a", APPLICATION, url=url)
    assert ended.code == 3
    assert "stopped at once" in ended.err
    [execution] = await really_started(url)
    assert execution["status"] in {"Cancelling", "Cancelled"}
    assert execution["executionId"] in ended.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--rate", "0"], "--rate must be above 0"),
        (["--script", "POSTTRAN"], "give --start-real-jobs as well"),
        (["--report", "/nowhere/at/all.html"], "in a folder that exists"),
        (["--endpoint-url", "http://example.com"], "plain HTTP"),
    ],
)
async def test_bad_input_sends_nothing(options: list[str], said: str) -> None:
    async with scripted(error(404, "ResourceNotFoundException")) as server:
        ended = await m2async("probe", *options, url=server.url)
        assert (ended.code, ended.out) == (2, "")
        assert said in ended.err
        assert not server.requests


@pytest.mark.parametrize(
    ("load", "said"),
    [
        ({"rate": math.nan}, "--rate must be above 0"),
        ({"rate": 5.0, "steps": "5"}, "not both"),
        ({"steps": "5,x"}, "such as 10,20,50"),
        ({"steps": ""}, "such as 10,20,50"),
        ({"steps": "5,-1"}, "--steps must be above 0"),
        ({"seconds": 5.0}, "--seconds is for"),
        ({"rate": 5_000.0}, "more than --max-rate"),
        ({"rate": 100.0, "seconds": 100.0}, "more than --max-seconds"),
        ({"rate": 100.0, "max_calls": 50}, "more than --max-calls"),
        ({"max_seconds": math.inf}, "--max-seconds must be above 0"),
    ],
)
def test_a_load_that_makes_no_sense_is_refused(
    load: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"rate": None, "steps": None, "seconds": None, "max_rate": 2e3, "max_calls": 20_000, "max_seconds": 60.0}
    with pytest.raises(typer.Exit) as ended:
        parse_load(**{**options, **load})
    assert ended.value.exit_code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("asking", "said"),
    [
        ((None, "POSTTRAN", None, True), "needs -a APP"),
        ((APPLICATION, None, None, True), "needs -a APP"),
        ((APPLICATION, "A", "B", True), "needs -a APP"),
        ((APPLICATION, None, "A", False), "give --start-real-jobs as well"),
        (("not an id", None, None, False), "no white space"),
    ],
)
def test_a_job_is_started_only_where_everything_is_spelled_out(
    asking: tuple[str | None, str | None, str | None, bool], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    application, script, file, real = asking
    with pytest.raises(typer.Exit) as ended:
        parse_asking(application, script, file, real=real)
    assert ended.value.exit_code == 2
    assert said in capsys.readouterr().err


async def test_credentials_that_are_refused_end_it_with_a_message(url: str) -> None:
    ended = await m2async("probe", url=url, AWS_SECRET_ACCESS_KEY="wrong")
    assert (ended.code, ended.out) == (3, "")
    assert "InvalidSignatureException" in ended.err


async def test_an_endpoint_that_is_not_there_ends_it_with_a_message() -> None:
    ended = await m2async("probe", url="http://127.0.0.1:1")
    assert (ended.code, ended.out) == (3, "")
    assert "no connection to 127.0.0.1:1" in ended.err


async def test_access_that_is_denied_ends_it_with_what_to_do() -> None:
    async with scripted(error(403, "AccessDeniedException")) as server:
        ended = await m2async("probe", url=server.url)
        assert (ended.code, len(server.requests)) == (3, 1)
    assert "name one with -a" in ended.err


# Real jobs, and how it is ended


async def test_real_jobs_are_cancelled_and_recorded(url: str, tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    options = ("--rate", "20", "--seconds", "1", "--ledger", path, "--output", "json")  # as many as it takes at once
    ended = await m2async("probe", *REAL, *options, url=url)
    [found] = ended.lines
    assert ended.code == 0
    listed = {execution["executionId"]: execution["status"] for execution in await really_started(url)}
    assert listed.keys() == set(found["started"]) == {*found["cancelled"], *found["had_ended"]}
    assert len(listed) == 20
    assert all(listed[each] in {"Cancelling", "Cancelled"} for each in found["cancelled"])
    async with open_ledger(path) as ledger:
        view = await ledger.run(found["run"])
        assert {row.execution_id async for row in view.rows(RowState.STARTED)} == set(listed)


async def test_ctrl_c_cancels_what_was_started_and_prints_what_was_found(url: str, tmp_path: Path) -> None:
    options = ("--rate", "40", "--seconds", "20", "--ledger", tmp_path / "ledger.db")
    code, written = await on_terminal("probe", *REAL, *options, url=url, once="2 s")
    text = plain(written)
    assert code == 130
    assert "It was interrupted" in text
    assert "not cancelled: 0" in text
    executions = await really_started(url)
    assert executions
    assert all(execution["status"] in {"Cancelling", "Cancelled", "Succeeded"} for execution in executions)


def refusing(server: ScriptedServer, cancel: Step) -> Step:
    """Starts every job, and does so with every cancellation."""

    async def step(writer: asyncio.StreamWriter) -> None:
        is_cancel = server.requests[-1].split(b" ")[1].endswith(b"/cancel")
        await (cancel if is_cancel else started(f"e-{len(server.requests)}"))(writer)

    return step


async def test_what_cannot_be_cancelled_is_named_and_the_next_probe_tells_of_it(tmp_path: Path) -> None:
    options = ("--rate", "20", "--seconds", "1", "--ledger", tmp_path / "ledger.db")
    async with scripted(started()) as server:
        server.steps = [refusing(server, error(403, "AccessDeniedException"))]
        ended = await m2async("probe", *REAL, *options, url=server.url)
        ids = [f"e-{number}" for number in range(1, 21)]
        assert ended.code == 1
        assert all(f"{each}: AccessDeniedException" in ended.out for each in ids)
        [name] = re.findall(r"to go on cancelling: m2async cancel (probe-\S+)", ended.out)
        server.steps = [error(404, "ResourceNotFoundException")]
        following = await m2async("probe", *REAL, *options, url=server.url)
    assert f"20 executions of an earlier probe may be running: m2async cancel {name} --ledger " in following.err


async def test_a_second_ctrl_c_names_what_is_not_cancelled(tmp_path: Path) -> None:
    options = ("--rate", "20", "--seconds", "20", "--ledger", tmp_path / "ledger.db")
    async with scripted(started()) as server:
        asked = asyncio.Event()

        async def cancel(writer: asyncio.StreamWriter) -> None:
            asked.set()
            await hang(writer)

        server.steps = [refusing(server, cancel)]
        async with running("probe", *REAL, *options, url=server.url) as process:
            while len(server.requests) < 5:
                await server.arrived.wait()
                await asyncio.sleep(0)
            process.send_signal(signal.SIGINT)
            await asked.wait()
            process.send_signal(signal.SIGINT)
            told = (await written(process.stderr)).decode()
            assert await process.wait() == 130
    assert all(f"\ne-{number}\n" in told for number in range(1, 6))
    assert re.search(r"to go on cancelling: m2async cancel probe-\S+", told)


async def test_lost_answers_are_said_as_jobs_may_run(tmp_path: Path) -> None:
    options = ("--rate", "20", "--seconds", "1", "--ledger", tmp_path / "ledger.db")
    async with scripted(error(500, "InternalServerException")) as server:
        ended = await m2async("probe", *REAL, *options, url=server.url)
    assert ended.code == 1
    assert re.search(
        r"20 calls may have started a job: m2async reconcile (\S+) (--ledger \S+), then m2async cancel \1 \2\n",
        ended.err,
    )


async def test_a_probe_that_begins_in_the_second_of_another_has_a_run_of_its_own(url: str, tmp_path: Path) -> None:
    """One that was killed at once, and given again."""
    path, began = tmp_path / "ledger.db", datetime.now()
    names = [f"probe-{began + timedelta(seconds=number):%Y%m%d-%H%M%S}" for number in range(120)]
    async with open_ledger(path) as ledger:
        for name in names:
            async with await ledger.open_run(name) as run:
                row = await run.add("call-000001", StartBatchJob(APPLICATION, ScriptJob("POSTTRAN")))
                await run.intend(row.number, 1, steady_time())
    ended = await m2async("probe", *REAL, "--rate", "20", "--seconds", "0.5", "--ledger", path, url=url)
    assert ended.code == 0, ended.err
    [own] = re.findall(r"recorded in run (\S+)-2\.", ended.err)
    assert (
        f"with another ledger takes what is started here for somebody else's; with this one: --ledger {path}\n"
        in ended.err
    )
    assert own in names


async def test_a_ledger_that_is_full_ends_it_with_a_message_and_all_is_cancelled(url: str, tmp_path: Path) -> None:
    options = ("--rate", "200", "--seconds", "20", "--ledger", str(tmp_path / "ledger.db"))
    ended = await shell(prefixed("ulimit -f 400; exec", "probe", *REAL, *options), url)
    assert ended.code == 3, ended
    assert re.search(r"m2async: ledger .*: has reached the limit on the size of files", ended.err), ended.err
    executions = await really_started(url)
    assert executions
    assert {execution["status"] for execution in executions} <= {"Cancelling", "Cancelled", "Succeeded"}


async def test_after_a_kill_reconcile_and_cancel_go_on(slow_url: str, tmp_path: Path) -> None:
    """None is lost: each execution is in the ledger, as a row's own or as a candidate of rows in doubt."""
    path = tmp_path / "ledger.db"
    command = [COMMAND, "probe", *REAL, "--rate", "100", "--seconds", "20", "--ledger", str(path)]
    async with await anyio.open_process(
        command, env=settings(slow_url), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        while len(await really_started(slow_url)) < 50:
            await anyio.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
    [listed] = json.loads((await m2async("runs", "--ledger", path, "--output", "json")).out)
    name = listed["run"]
    assert name.startswith("probe-")
    await m2async("reconcile", name, "--settle", "0.1", "--ledger", path, url=slow_url)
    cancelled = await m2async("cancel", name, "--ledger", path, "--rate", "1000", url=slow_url)
    assert cancelled.code == 0
    status = {execution["executionId"]: execution["status"] for execution in await really_started(slow_url)}
    async with open_ledger(path) as ledger:
        view = await ledger.run(name)
        own = {row.execution_id async for row in view.rows(RowState.STARTED)}
        candidates = {each async for row in view.rows(RowState.UNKNOWN) for each in row.candidates}
    assert own | candidates >= status.keys()
    assert all(status[each] not in {"Submitting", "Holding", "Dispatching", "Running"} for each in own if each)


async def test_the_local_endpoint_in_this_process_is_not_started_anything_either(endpoint: LocalEndpoint) -> None:
    ended = await m2async("probe", "--max-calls", "30", url=endpoint.url)
    assert ended.code == 0
    assert "cap of 30 calls was reached" in ended.out
    assert await really_started(endpoint.url) == []
