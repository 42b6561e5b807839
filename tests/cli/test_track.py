"""The command after the start: track, --wait, cancel, restart, logs, and what the listings say then."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import anyio
import pytest
import typer

from m2async import LocalEndpoint, RestartJob, open_ledger
from m2async.cli.rules import parse_rules
from m2async.cli.track import exit_code
from m2async.ledger import ExecutionCount, Observation, RowState
from m2async.local import load_definitions
from m2async.service.responses import TERMINAL_STATUSES
from m2async.service.results import OPEN_STATUSES
from tests.campaigns.faults import really_started
from tests.cli.terminal import APPLICATION, COMMAND, m2async, on_terminal, plain, running, settings, written
from tests.cli.test_ledger import Book
from tests.scripted import answer, scripted, started

JOBS = {"GOOD": (0.1, 0), "WARN": (0.1, 4), "BAD": (0.1, 12), "LONG": (600.0, 0)}


@pytest.fixture
async def book(tmp_path: Path) -> AsyncIterator[Book]:
    """A ledger, and an endpoint whose jobs end as their names say; what returns other than 0 ends Failed there."""
    jobs = [
        {
            "file": f"{name}.jcl", "jobName": name, "seconds": seconds, "returnCode": code,
            "steps": [{"step": "STEP1"}, {"step": "STEP2"}, {"step": "STEP3"}],
        }
        for name, (seconds, code) in JOBS.items()
    ]  # fmt: skip
    path = tmp_path / "definitions.json"
    path.write_text(json.dumps({"jobs": jobs}))
    async with LocalEndpoint(seed=1, definitions=load_definitions(path)) as endpoint:
        yield Book(tmp_path, endpoint.url)


def manifest(folder: Path, *jobs: str) -> Path:
    path = folder / "jobs.csv"
    rows = [f"{name.lower()}-{n},{APPLICATION},{name}" for n, name in enumerate(jobs)]
    path.write_text("\n".join(["key,application_id,script", *rows, ""]))
    return path


# Exit codes


def test_the_exit_code_is_0_only_if_every_job_was_started_and_succeeded_by_the_rule() -> None:
    """Every status, return code and rule: no failure and nothing open hides behind a 0."""
    started = {state: int(state is RowState.STARTED) for state in RowState}
    codes = [None, "0", "0004", "12", "S0C7"]
    for status, code, max_rc in product([*TERMINAL_STATUSES, *OPEN_STATUSES, "Other", None], codes, [None, 0, 4]):
        ended, number = status in TERMINAL_STATUSES, {"0": 0, "0004": 4}.get(str(code), 99)
        if max_rc is None:
            good = status == "Succeeded" and (code is None or number == 0)
        else:
            good = status in {"Succeeded", "Succeeded With Warning"} and number <= max_rc
        for gone in (False, True):
            alike = ExecutionCount(status, code, ended or gone, gone, max_rc, 1)
            fine = ExecutionCount("Succeeded", "0", True, False, max_rc, 9)
            assert exit_code([fine, alike, fine], started) == (0 if good and not gone else 1)


@pytest.mark.parametrize("state", [state for state in RowState if state is not RowState.STARTED])
def test_a_job_that_was_not_started_is_no_success(state: RowState) -> None:
    fine = ExecutionCount("Succeeded", "0", True, False, None, 9)
    assert exit_code([fine], {each: 9 * (each is RowState.STARTED) for each in RowState}) == 0
    assert exit_code([fine], {each: 9 * (each is RowState.STARTED) + (each is state) for each in RowState}) == 1


# track


async def test_track_prints_a_line_for_each_job_and_its_exit_code_tells_of_a_failure(
    book: Book, tmp_path: Path
) -> None:
    await book.submit(manifest(tmp_path, "GOOD", "BAD"))
    tracked = await book("track", "night", "--output", "jsonl")
    assert tracked.code == 1
    good, bad = sorted(tracked.lines, key=lambda line: str(line["result"]), reverse=True)
    assert (good["key"], good["status"], good["return_code"], good["result"]) == ("good-0", "Succeeded", "0", "success")
    assert (bad["key"], bad["status"], bad["return_code"], bad["result"]) == ("bad-1", "Failed", "12", "failure")
    assert "1 of 2 jobs succeeded; 1 failed" in tracked.err
    again = await book("track", "night", "--output", "jsonl")
    assert (again.code, sorted(again.out.splitlines())) == (1, sorted(tracked.out.splitlines()))


async def test_a_killed_track_is_taken_up_where_it_was(book: Book, tmp_path: Path) -> None:
    await book.submit(manifest(tmp_path, *["GOOD"] * 20, "LONG"))
    command = [COMMAND, "track", "night", "--ledger", str(book.path), "--output", "jsonl"]
    for number, code in ((signal.SIGKILL, -9), (signal.SIGINT, 130)):
        async with await anyio.open_process(command, env=settings(book.url), stdin=subprocess.DEVNULL) as process:
            assert process.stdout is not None
            seen = b""
            while seen.count(b"\n") < 20:
                seen += await process.stdout.receive()
            os.kill(process.pid, number)
        assert process.returncode == code
    cancelled = await book("cancel", "night", "--key", "long-20")
    assert (cancelled.code, "cancelling" in cancelled.out) == (0, True)
    tracked = await book("track", "night", "--output", "jsonl")
    assert tracked.code == 1
    assert [line["status"] for line in tracked.lines].count("Succeeded") == 20
    assert [line["status"] for line in tracked.lines if line["key"] == "long-20"] == ["Cancelled"]


async def test_track_shows_the_statuses_on_a_terminal(book: Book, tmp_path: Path) -> None:
    await book.submit(manifest(tmp_path, "GOOD", "GOOD"))
    code, written = await on_terminal("track", "night", "--ledger", book.path, url=book.url)
    assert code == 0
    assert "2 Succeeded" in plain(written)


async def test_a_rule_is_kept_with_the_run(book: Book, tmp_path: Path) -> None:
    await book.submit(manifest(tmp_path, "GOOD", "GOOD"), "--max-rc", "4", "--max-rc", "good-1=0")
    tracked = await book("track", "night", "--output", "jsonl")
    assert (tracked.code, [line["result"] for line in tracked.lines]) == (0, ["success", "success"])


@pytest.mark.parametrize(
    ("rules", "message"), [(["x"], "must be a return code"), (["-1"], "must be"), (["4", "8"], "given before")]
)
def test_a_rule_that_makes_no_sense_is_refused(
    rules: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as ended:
        parse_rules(rules)
    assert ended.value.exit_code == 2
    assert message in capsys.readouterr().err


async def test_a_rule_for_a_row_that_is_not_there_is_refused(book: Book, tmp_path: Path) -> None:
    await book.submit(manifest(tmp_path, "GOOD"))
    refused = await book("track", "night", "--max-rc", "nobody=4")
    assert (refused.code, "no row 'nobody'" in refused.err) == (2, True)


async def test_track_of_a_run_in_another_account_concludes_nothing(book: Book, tmp_path: Path) -> None:
    await book.submit(manifest(tmp_path, "GOOD"))
    async with LocalEndpoint(definitions=(), extra_applications=["other"]) as elsewhere:
        tracked = await m2async("track", "night", "--ledger", book.path, "--moved", url=elsewhere.url)
    assert tracked.code == 3
    assert "left as they were" in tracked.err
    assert (await book("track", "night", "--moved")).code == 0


# --wait


async def test_the_log_file_has_an_event_for_every_end(book: Book, tmp_path: Path) -> None:
    log = tmp_path / "events.log"
    await book.submit(manifest(tmp_path, "GOOD", "BAD"), "--wait", "--log-file", str(log))
    events = [json.loads(line) for line in log.read_text().splitlines()]
    ids = {event["key"]: event["execution_id"] for event in events if event["event"] == "batch_job.started"}
    ends = {event["key"]: event for event in events if event["event"] == "execution.ended"}
    again = tmp_path / "again.log"
    assert (await book("track", "night", "--log-file", again)).code == 1
    assert again.read_text() == ""  # nothing has ended since
    assert len(events) == len(ids) + len(ends) == 4
    assert {key: end["execution_id"] for key, end in ends.items()} == ids
    told = {key: (end["level"], end["status"], end["return_code"], end["result"]) for key, end in ends.items()}
    assert told == {
        "good-0": ("info", "Succeeded", "0", "success"),
        "bad-1": ("error", "Failed", "12", "failure"),
    }


async def test_submit_and_wait_prints_what_each_job_came_to(book: Book, tmp_path: Path) -> None:
    waited = await book.submit(manifest(tmp_path, "GOOD", "BAD"), "--wait")
    assert waited.code == 1
    assert {line["key"]: line["result"] for line in waited.lines if "result" in line} == {
        "good-0": "success",
        "bad-1": "failure",
    }


async def test_resume_and_wait_is_0_where_all_succeeded(book: Book, tmp_path: Path) -> None:
    await book.submit(manifest(tmp_path, "GOOD", "GOOD"))
    waited = await book("resume", "night", "--wait")
    assert waited.code == 0
    assert waited.out.count("success") == 2


# cancel


async def test_cancel_says_what_came_of_each(book: Book, tmp_path: Path) -> None:
    await book.submit(manifest(tmp_path, "GOOD", "LONG", "LONG"))
    while (await really_started(book.url))[0]["status"] != "Succeeded":
        await anyio.sleep(0.02)
    chosen = await book("cancel", "night", "--key", "good-0", "--key", "long-1", "--output", "jsonl")
    assert chosen.code == 0
    assert {line["key"]: line["outcome"] for line in chosen.lines} == {"good-0": "had ended", "long-1": "cancelling"}
    rest = await book("cancel", "night", "--rate", "100", "--status", "Running", "--output", "jsonl")
    assert [line["key"] for line in rest.lines] == ["long-2"]
    assert {e["status"] for e in await really_started(book.url)} <= {"Succeeded", "Cancelling", "Cancelled"}


async def test_cancelling_a_row_that_is_not_there_is_refused(book: Book, tmp_path: Path) -> None:
    await book.submit(manifest(tmp_path, "LONG"))
    refused = await book("cancel", "night", "--key", "nobody")
    assert (refused.code, "no row 'nobody'" in refused.err) == (2, True)
    assert [e["status"] for e in await really_started(book.url)] != ["Cancelling"]


async def test_a_status_that_a_terminal_would_obey_is_written_out(tmp_path: Path) -> None:
    """On its bar, its lines, and in the listings; what looks like a style of ours is text."""
    hostile = "[/red] \x1b]0;owned\x07"
    listed = {"applicationId": APPLICATION, "executionId": "e-1", "startTime": time.time(), "endTime": time.time()}
    execution = listed | {"status": hostile, "returnCode": "\x9b31m", "jobName": "X"}
    ledger = ("--ledger", tmp_path / "ledger.db")
    async with scripted(started("e-1")) as server:
        submit = ("submit", manifest(tmp_path, "GOOD"), "--run", "night", "--no-preflight", *ledger)
        assert (await m2async(*submit, url=server.url)).code == 0
        server.steps = [answer(200, {"batchJobExecutions": [execution], **execution})]
        for command in (("track",), ("track", "--output", "jsonl"), ("status",), ("watch",)):
            code, shown = await on_terminal(*command, "night", *ledger, url=server.url)
            assert code in {0, 1}, shown
            assert not any(each in shown for each in ("\x1b]", "\x9b", "\x07"))
            assert "Traceback" not in shown


# restart


async def restarted_elsewhere(book: Book, step: str) -> None:
    """Restart the first execution that failed, with another ledger."""
    [failed, *_] = [each for each in await really_started(book.url) if each["status"] == "Failed"]
    path, row = book.folder / "other.csv", f"again,{APPLICATION},{failed['executionId']},{step}"
    path.write_text(f"key,application_id,restart_execution_id,from_step\n{row}\n")
    assert (await m2async("submit", path, "--ledger", book.folder / "other.db", url=book.url)).code == 0


async def test_what_failed_is_restarted_from_the_step_where_it_failed(book: Book, tmp_path: Path) -> None:
    await book.submit(manifest(tmp_path, "GOOD", "BAD"), "--wait")
    restarted = await book("restart", "night", "--failed", "--wait", "--output", "jsonl", "--rate", "100")
    assert restarted.code == 1  # it fails again there
    listed = await really_started(book.url)
    assert len(listed) == 3
    assert listed[2]["batchJobIdentifier"] == {
        "restartBatchJobIdentifier": {
            "executionId": listed[1]["executionId"],
            "jobStepRestartMarker": {"fromStep": "STEP3"},
        }
    }
    exported = (await book("export", "night", "--format", "jsonl")).lines
    assert [(line["attempts"], line["execution_id"]) for line in exported] == [
        (1, listed[0]["executionId"]),
        (2, listed[2]["executionId"]),
    ]


async def test_the_summary_of_a_restart_counts_what_it_did(book: Book, tmp_path: Path) -> None:
    await book.submit(manifest(tmp_path, "GOOD", "GOOD", "BAD"), "--wait")
    for _ in range(2):  # the second time its row has had two attempts
        restarted = await book("restart", "night", "--failed", "--rate", "100")
        assert re.search(r"^1 of 1 jobs started in [\d.]+ s; 2 started before$", restarted.err, re.MULTILINE)
        while (await really_started(book.url))[-1]["status"] != "Failed":
            await anyio.sleep(0.02)


async def test_a_restart_of_nothing_that_failed_says_why_it_does_nothing(book: Book, tmp_path: Path) -> None:
    await book.submit(manifest(tmp_path, "GOOD", "GOOD"), "--wait")
    refused = await book("restart", "night", "--failed")
    assert refused.code == 1
    assert "none failed: 2 executions succeeded, 0 have no result yet" in refused.err
    assert "no execution was restarted" in refused.err


async def test_a_restart_takes_the_step_that_is_named_or_says_which_there_are(book: Book, tmp_path: Path) -> None:
    await book.submit(manifest(tmp_path, "BAD", "BAD"), "--wait")
    refused = await book("restart", "night", "--failed", "--from-step", "STEP9")
    assert refused.code == 1
    assert "there is no step STEP9; those that can be restarted: STEP1, STEP2, STEP3" in refused.err
    assert len(await really_started(book.url)) == 2
    await book("restart", "night", "--failed", "--from-step", "STEP2", "--key", "bad-1")
    listed = await really_started(book.url)
    assert len(listed) == 3
    marker = listed[2]["batchJobIdentifier"]["restartBatchJobIdentifier"]
    assert marker == {"executionId": listed[1]["executionId"], "jobStepRestartMarker": {"fromStep": "STEP2"}}


async def test_a_restart_that_was_killed_before_it_sent_anything_goes_on(book: Book, tmp_path: Path) -> None:
    await book.submit(manifest(tmp_path, "BAD", "BAD"), "--wait")
    async with open_ledger(book.path) as ledger, await ledger.open_run("night") as run:
        row = await run.row("bad-0")
        assert row.execution_id is not None
        await run.restart(row.number, row.attempts, RestartJob(row.execution_id, "STEP2"), "as the command leaves it")
        await run.intend(row.number, 2, time.time())
    again = await book("restart", "night", "--failed", "--key", "bad-0", "--settle", "0.1")
    assert (again.code, "1 job was marked for restart before" in again.err) == (0, True)
    restarted = [e["batchJobIdentifier"] for e in await really_started(book.url)][2:]
    assert [each["restartBatchJobIdentifier"]["executionId"] for each in restarted] == [row.execution_id]
    once_more = await book("restart", "night", "--failed", "--key", "bad-1", "--from-step", "STEP9")
    assert (once_more.code, len(await really_started(book.url))) == (1, 3)


async def test_what_somebody_else_restarted_is_not_restarted_and_stays_as_it_is(book: Book, tmp_path: Path) -> None:
    await book.submit(manifest(tmp_path, "BAD", "BAD"), "--wait")
    await restarted_elsewhere(book, "STEP2")
    refused = await book("restart", "night", "--failed")
    assert (refused.code, len(await really_started(book.url))) == (3, 3)
    assert "from STEP2" in refused.err
    assert "which no row of the ledger explains" in refused.err
    exported = (await book("export", "night", "--format", "jsonl")).lines
    assert [(line["state"], line["status"]) for line in exported] == [("started", "Failed")] * 2
    assert (await book("restart", "night", "--failed", "--start-anyway", "--rate", "100")).code == 0
    assert len(await really_started(book.url)) == 5


async def test_what_somebody_else_restarted_is_not_restarted_by_a_run_in_progress(book: Book, tmp_path: Path) -> None:
    submit = ("submit", manifest(tmp_path, "BAD", "LONG"), "--run", "night", "--ledger", book.path, "--wait")
    async with running(*submit, url=book.url) as process:
        while (await really_started(book.url))[:1] == [] or (await really_started(book.url))[0]["status"] != "Failed":
            await anyio.sleep(0.02)
        await restarted_elsewhere(book, "STEP3")
        refused = await book("restart", "night", "--failed")
        assert (refused.code, len(await really_started(book.url))) == (3, 3)
        assert "which no row of the ledger explains" in refused.err
        process.terminate()


async def test_a_run_in_progress_restarts_what_failed_when_another_terminal_says_so(book: Book, tmp_path: Path) -> None:
    submit = ("submit", manifest(tmp_path, "BAD", "LONG"), "--run", "night", "--ledger", book.path, "--wait")
    async with running(*submit, url=book.url) as process:
        while (await really_started(book.url))[:1] == [] or (await really_started(book.url))[0]["status"] != "Failed":
            await anyio.sleep(0.02)
        restarted = await book("restart", "night", "--failed", "--key", "bad-0", "--from-step", "STEP2")
        assert restarted.code == 0
        assert "run night is in progress: the process that submits it restarts them now" in restarted.err
        while len(await really_started(book.url)) < 3:
            await anyio.sleep(0.02)
        assert (await book("cancel", "night", "--key", "long-1")).code == 0
        assert await process.wait() == 1
        out = (await written(process.stdout)).decode()
    executions = await really_started(book.url)
    assert len(executions) == 3
    [marker] = [e["batchJobIdentifier"].get("restartBatchJobIdentifier") for e in executions][2:]
    assert marker == {"executionId": executions[0]["executionId"], "jobStepRestartMarker": {"fromStep": "STEP2"}}
    assert executions[2]["executionId"] in out


async def test_before_a_restart_the_service_is_asked_how_each_execution_stands_now(book: Book, tmp_path: Path) -> None:
    await book.submit(manifest(tmp_path, "GOOD", "LONG", "BAD"))
    while [e["status"] for e in await really_started(book.url)] != ["Succeeded", "Running", "Failed"]:
        await anyio.sleep(0.02)
    async with open_ledger(book.path) as ledger:  # which has it that all have failed, or are gone
        view = await ledger.run("night")
        executions = [execution async for execution in view.all_executions()]
        await view.observe(
            [
                Observation(
                    each.number, each.execution_id, "Failed", "8", None, None, ended=True, gone=each.number == 2
                )
                for each in executions
            ]
        )
    restarted = await book("restart", "night", "--failed", "--from-step", "STEP1")
    assert restarted.code == 0
    assert "good-0 is not restarted: Succeeded with return code 0" in restarted.err
    markers = [e["batchJobIdentifier"].get("restartBatchJobIdentifier") for e in await really_started(book.url)]
    assert [marker and marker["executionId"] for marker in markers] == [None, None, None, executions[2].execution_id]
    exported = (await book("export", "night", "--format", "jsonl")).lines
    assert [line["status"] for line in exported][:2] == ["Succeeded", "Running"]


async def test_nothing_is_restarted_that_did_not_fail(book: Book, tmp_path: Path) -> None:
    await book.submit(manifest(tmp_path, "GOOD"), "--wait")
    refused = await book("restart", "night", "--failed")
    assert (refused.code, len(await really_started(book.url))) == (1, 1)


# Listings


async def test_the_listings_show_status_and_return_code_once_tracked(book: Book, tmp_path: Path) -> None:
    await book.submit(manifest(tmp_path, "GOOD", "BAD"))
    await book("track", "night")
    rows = list(csv.DictReader(io.StringIO((await book("export", "night")).out)))
    assert [(row["status"], row["return_code"]) for row in rows] == [("Succeeded", "0"), ("Failed", "12")]
    [run] = (await book("runs", "--output", "jsonl")).lines
    assert (run["started"], run["succeeded"], run["failed"]) == (2, 1, 1)
    [shown] = (await book("status", "night", "--output", "jsonl")).lines
    assert [row["key"] for row in shown["rows"]] == ["bad-1"]
    assert {"status": "Failed", "return_code": "12", "result": "failure", "jobs": 1} in shown["executions"]


# logs


@pytest.fixture
def cloudwatch() -> Iterator[Any]:
    """CloudWatch Logs, served on loopback, and a client that writes there."""
    import boto3
    from moto.moto_api._internal.models import moto_api_backend
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    moto_api_backend.reset()  # what it holds is this process's, whatever the server
    client = boto3.client(
        "logs", "us-east-1", endpoint_url=f"http://{host}:{port}", aws_access_key_id="x", aws_secret_access_key="x"
    )
    try:
        yield client
    finally:
        client.close()
        server.stop()


async def test_the_logs_of_a_job_are_its_own_streams(book: Book, tmp_path: Path, cloudwatch: Any) -> None:
    await book.submit(manifest(tmp_path, "BAD", "GOOD"))
    listed = await really_started(book.url)
    group = f"/aws/vendedlogs/m2/{APPLICATION}/BatchJobLogs"

    def write() -> None:
        cloudwatch.create_log_group(logGroupName=group)
        for execution in listed:
            stream = f"{execution['executionId']}/{execution['jobId']}/{execution['jobName']}/STEP1/01"
            cloudwatch.create_log_stream(logGroupName=group, logStreamName=stream)
            events = [{"timestamp": 1_795_000_000_000 + n, "message": f"{execution['jobName']} {n}"} for n in range(3)]
            cloudwatch.put_log_events(logGroupName=group, logStreamName=stream, logEvents=events)

    await anyio.to_thread.run_sync(write)
    url = cloudwatch.meta.endpoint_url
    printed = await book("logs", "night", "--key", "bad-0", "--endpoint-url", url)
    assert printed.code == 0
    heading, *messages = printed.out.splitlines()
    assert heading.startswith(f"==> {group} {listed[0]['executionId']}/")
    assert messages == ["BAD 0", "BAD 1", "BAD 2"]


async def test_a_log_that_cannot_be_read_changes_no_result(book: Book, tmp_path: Path, cloudwatch: Any) -> None:
    await book.submit(manifest(tmp_path, "BAD"), "--wait")
    before = (await book("export", "night")).out
    missing = await book("logs", "night", "--key", "bad-0", "--endpoint-url", cloudwatch.meta.endpoint_url)
    assert missing.code == 1
    assert "failure: ended as Failed with return code 12" in missing.err
    assert "there are no logs" in missing.err
    unreachable = await book(
        "logs", "night", "--key", "bad-0", "--endpoint-url", "http://127.0.0.1:1", AWS_MAX_ATTEMPTS="1"
    )
    assert unreachable.code == 3
    assert "cannot be read" in unreachable.err
    assert (await book("export", "night")).out == before
    assert (await book("track", "night")).code == 1
