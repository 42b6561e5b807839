from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest
from aiohttp import web

from m2async import LocalEndpoint
from tests.cli.terminal import APPLICATION, COMMAND, EXAMPLES, Ended, m2async, on_terminal, plain, settings
from tests.ledger.samples import files_in
from tests.scripted import error, hang, nobody, scripted, send, started

FIELDS = ["key", "application_id", "job", "state", "execution_id", "attempts", "adopted", "error"]


async def executions(endpoint: LocalEndpoint) -> list[dict[str, Any]]:
    """What the endpoint really started."""
    async with aiohttp.ClientSession() as session, session.get(f"{endpoint.url}/_local/executions") as answer:
        listed: list[dict[str, Any]] = (await answer.json())["executions"]
        return listed


def manifest(folder: Path, rows: int = 3) -> Path:
    path = folder / "jobs.csv"
    lines = [f"row-{n},{APPLICATION},POSTTRAN,{n}" for n in range(rows)]
    path.write_text("\n".join(["key,application_id,script,param.NUMBER", *lines, ""]))
    return path


async def test_the_46_jobs_of_carddemo_start_on_a_local_endpoint() -> None:
    ended = await m2async("submit", EXAMPLES / "carddemo.csv", "--local", "--output", "jsonl")
    assert ended.code == 0
    assert len(ended.lines) == 46
    assert len({line["execution_id"] for line in ended.lines}) == 46
    assert all(list(line) == FIELDS for line in ended.lines)
    assert {(line["state"], line["attempts"], line["adopted"], line["error"]) for line in ended.lines} == {
        ("started", 1, False, None)
    }
    assert re.fullmatch(r"46 of 46 jobs started in [\d.]+ s\n", ended.err)


async def test_the_month_end_sweep_starts_every_job() -> None:
    ended = await m2async("submit", EXAMPLES / "month-end.yaml", "--local", "--output", "jsonl", "-q")
    assert (ended.code, ended.err) == (0, "")
    assert len(ended.lines) == 1_200
    assert len({line["execution_id"] for line in ended.lines}) == len({line["key"] for line in ended.lines}) == 1_200


@pytest.mark.parametrize("paced", [["--rate", "20"], []], ids=["paced", "throttled"])
async def test_a_quota_of_20_a_second_takes_its_time_and_every_job_starts(paced: list[str]) -> None:
    began = time.monotonic()
    quota = ["--local-rate", "20", "--local-burst", "1"]
    ended = await m2async("submit", EXAMPLES / "carddemo.csv", "--local", *quota, *paced, "--output", "jsonl")
    assert time.monotonic() - began >= 45 / 20
    assert ended.code == 0
    assert Counter(line["state"] for line in ended.lines) == {"started": 46}


async def test_what_is_printed_is_what_was_started(tmp_path: Path, endpoint: LocalEndpoint) -> None:
    ended = await m2async(
        "submit", manifest(tmp_path, 100), "--output", "jsonl", "--param", "RUNDATE=20261123", url=endpoint.url
    )
    assert ended.code == 0
    printed = {line["execution_id"]: line["key"] for line in ended.lines}
    listed = {e["executionId"]: e["jobParams"] for e in await executions(endpoint)}
    assert printed.keys() == listed.keys()
    for execution_id, params in listed.items():
        assert params == {"NUMBER": printed[execution_id].removeprefix("row-"), "RUNDATE": "20261123"}


async def test_options_name_the_service_as_the_environment_does(tmp_path: Path, endpoint: LocalEndpoint) -> None:
    credentials = tmp_path / "credentials"
    credentials.write_text("[nightly]\naws_access_key_id = local\naws_secret_access_key = local\n")
    options = ["--endpoint-url", endpoint.url, "--region", "us-east-1", "--profile", "nightly"]
    ended = await m2async(
        "submit", manifest(tmp_path), *options, "--output", "jsonl", AWS_SHARED_CREDENTIALS_FILE=str(credentials)
    )
    assert ended.code == 0
    assert len(await executions(endpoint)) == 3


async def test_a_rehearsal_takes_the_applications_of_the_manifest(tmp_path: Path) -> None:
    path = tmp_path / "jobs.jsonl"
    rows = [
        {"application_id": "aaaa", "file": "OWN.jcl"},
        {"application_id": "bbbb", "script": "OTHER"},
        {"script": "X"},
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    ended = await m2async("submit", path, "--local", "-a", "cccc", "--output", "jsonl")
    assert ended.code == 0
    assert {line["application_id"] for line in ended.lines} == {"aaaa", "bbbb", "cccc"}


async def test_a_rehearsal_does_not_depend_on_the_aws_settings_of_the_machine(tmp_path: Path) -> None:
    wrong: dict[str, Any] = {
        "AWS_PROFILE": "nope",
        "AWS_ENDPOINT_URL_M2": "http://127.0.0.1:1",
        "HTTP_PROXY": "http://127.0.0.1:1",
    }
    ended = await m2async("submit", manifest(tmp_path), "--local", "-q", **wrong)
    assert (ended.code, ended.err) == (0, "")


async def test_standard_input_and_pipes_are_read_as_files_are(tmp_path: Path, endpoint: LocalEndpoint) -> None:
    content = manifest(tmp_path).read_bytes()
    ended = await m2async("submit", "-", "--output", "jsonl", url=endpoint.url, stdin=content)
    assert (ended.code, len(ended.lines)) == (0, 3)
    program = f"{COMMAND} submit <(cat {tmp_path / 'jobs.csv'}) --output jsonl -q"
    done = await anyio.run_process(["bash", "-c", program], env=settings(endpoint.url))
    assert len(done.stdout.splitlines()) == 3


async def test_a_dry_run_prints_the_requests_and_sends_nothing(tmp_path: Path) -> None:
    async with scripted(started()) as server:
        ended = await m2async("submit", manifest(tmp_path), "--dry-run", "--output", "jsonl", url=server.url)
        assert ended.code == 0
        assert server.connections == 0
    assert ended.lines[1] == {
        "key": "row-1",
        "application_id": APPLICATION,
        "job": "POSTTRAN",
        "request": {
            "applicationId": APPLICATION,
            "batchJobIdentifier": {"scriptBatchJobIdentifier": {"scriptName": "POSTTRAN"}},
            "jobParams": {"NUMBER": "1"},
        },
    }
    assert ended.err == "3 jobs would be started; nothing was sent\n"
    table = await m2async("submit", manifest(tmp_path), "--dry-run")
    assert f'row-1  POST /applications/{APPLICATION}/batch-job  {{"batchJobIdentifier"' in table.out


async def test_the_table_names_each_job_and_its_execution(tmp_path: Path, endpoint: LocalEndpoint) -> None:
    ended = await m2async("submit", manifest(tmp_path), url=endpoint.url)
    head, *rows = ended.out.splitlines()
    assert head.split() == ["KEY", "JOB", "STATE", "EXECUTION", "ID"]
    listed = {(f"row-{e['jobParams']['NUMBER']}", e["executionId"]) for e in await executions(endpoint)}
    assert {tuple(row.split()) for row in rows} == {(key, "POSTTRAN", "started", id_) for key, id_ in listed}


async def test_the_log_file_has_one_event_for_every_execution_id(tmp_path: Path, endpoint: LocalEndpoint) -> None:
    log = tmp_path / "events.log"
    ended = await m2async("submit", manifest(tmp_path), "--log-file", log, "--output", "jsonl", url=endpoint.url)
    events = [json.loads(line) for line in log.read_text().splitlines()]
    assert {event["execution_id"] for event in events} == {line["execution_id"] for line in ended.lines}
    assert {(event["event"], event["level"]) for event in events} == {("batch_job.started", "info")}
    assert "NUMBER" not in log.read_text()


async def test_a_full_disk_under_the_log_is_said_once_and_the_jobs_go_on(
    tmp_path: Path, endpoint: LocalEndpoint
) -> None:
    ended = await m2async("submit", manifest(tmp_path), "--log-file", "/dev/full", "-q", url=endpoint.url)
    assert ended.code == 0
    assert ended.err.splitlines()[1:] == [
        "m2async: --log-file /dev/full: events are no longer recorded: No space left on device"
    ]
    assert len(await executions(endpoint)) == 3


async def test_a_reader_that_leaves_does_not_stop_the_jobs(tmp_path: Path, endpoint: LocalEndpoint) -> None:
    program = f"{COMMAND} submit {manifest(tmp_path, 300)} --output jsonl | head -1; exit ${{PIPESTATUS[0]}}"
    done = await anyio.run_process(["bash", "-c", program], env=settings(endpoint.url), check=False)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 1
    assert "\n300 of 300 jobs started" in done.stderr.decode()
    assert len(await executions(endpoint)) == 300


# A terminal


async def test_a_terminal_of_80_columns_shows_rows_and_a_progress_bar() -> None:
    code, written = await on_terminal("submit", EXAMPLES / "carddemo.csv", "--local")
    assert code == 0
    shown = plain(written)
    assert re.search(r"━ 46/46 [\d,]+/s \d:\d\d:\d\d", shown)
    rows = re.findall(r"(?m)[\w]+ +\w+\.(?:jcl|JCL) +started   [a-z2-7]{26}", shown)
    assert len(rows) == 46
    assert max(map(len, rows)) <= 80
    assert re.search(r"46 of 46 jobs started in [\d.]+ s\n$", shown)
    assert written.count("\x1b[?25h") >= written.count("\x1b[?25l")  # the cursor is shown again


async def test_control_characters_of_a_manifest_do_not_reach_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "jobs.jsonl"
    path.write_text(json.dumps({"script": "\x1b[31mred\x07"}) + "\n")
    code, written = await on_terminal("submit", path, "--local", "-q")
    assert code == 0
    assert "\x1b[31m" not in written
    assert "\x07" not in written
    assert r"\x1b[31m" in written


# Answers that are not an execution id


async def test_a_rejected_job_is_exit_code_1_and_the_rest_go_on(tmp_path: Path, endpoint: LocalEndpoint) -> None:
    path = tmp_path / "jobs.csv"
    path.write_text(f"key,application_id,file\ngood,{APPLICATION},POSTTRAN.jcl\nbad,{APPLICATION},NOSUCH.jcl\n")
    ended = await m2async("submit", path, "--no-preflight", "--output", "jsonl", url=endpoint.url)
    assert ended.code == 1
    by_key = {line["key"]: line for line in ended.lines}
    assert by_key["good"]["state"] == "started"
    assert by_key["bad"]["state"] == "rejected"
    assert by_key["bad"]["error"]["code"] == "ResourceNotFoundException"
    assert "1 of 2 jobs started" in ended.err
    assert "1 rejected" in ended.err


async def test_a_job_that_may_have_started_is_exit_code_1_and_says_what_to_do(tmp_path: Path) -> None:
    async with scripted(error(500, "InternalServerException"), started()) as server:
        options = ["--no-preflight", "--concurrency", "1", "--on-unknown", "hold"]
        ended = await m2async("submit", manifest(tmp_path), *options, url=server.url)
        assert ended.code == 1
        assert len(server.requests) == 3
    assert re.search(r"row-0 +POSTTRAN +unknown +InternalServerException: InternalServerException said", ended.out)
    assert "look for its execution before you start it again" in ended.err
    async with scripted(error(500, "InternalServerException"), started()) as server:
        options = ["--no-preflight", "--on-unknown", "resend", "--run", "another"]
        ended = await m2async("submit", manifest(tmp_path), *options, url=server.url)
        assert ended.code == 0
        assert len(server.requests) == 4
    assert "1 sent again" in ended.err


async def test_denied_access_is_exit_code_3_and_every_row_has_its_line(tmp_path: Path) -> None:
    async with scripted(error(403, "AccessDeniedException")) as server:
        options = ["--no-preflight", "--concurrency", "4", "--output", "jsonl"]
        ended = await m2async("submit", manifest(tmp_path, 2_000), *options, url=server.url)
        assert len(server.requests) <= 4
    assert ended.code == 3
    assert Counter(line["key"] for line in ended.lines) == Counter(f"row-{n}" for n in range(2_000))
    states = Counter(line["state"] for line in ended.lines)
    assert states == {"rejected": len(server.requests), "skipped": 2_000 - len(server.requests)}
    assert {line["error"]["code"] for line in ended.lines} == {"AccessDeniedException"}
    assert "m2async: stopped: AccessDeniedException: AccessDeniedException said\n" in ended.err


async def test_a_wrong_secret_is_exit_code_3(tmp_path: Path, endpoint: LocalEndpoint) -> None:
    ended = await m2async("submit", manifest(tmp_path), url=endpoint.url, AWS_SECRET_ACCESS_KEY="wrong")
    assert ended.code == 3
    assert "InvalidSignatureException" in ended.err
    assert await executions(endpoint) == []


async def test_an_application_that_does_not_exist_is_exit_code_3_while_others_go_on(
    tmp_path: Path, endpoint: LocalEndpoint
) -> None:
    path = tmp_path / "jobs.csv"
    rows = [f"{name}-{n},{name},X" for n in range(50) for name in ("nosuch", APPLICATION)]
    path.write_text("\n".join(["key,application_id,script", *rows]))
    ended = await m2async(
        "submit", path, "--no-preflight", "--concurrency", "1", "--hold", "0", "--output", "jsonl", url=endpoint.url
    )
    assert ended.code == 3
    states = Counter((line["application_id"], line["state"]) for line in ended.lines)
    assert states == {(APPLICATION, "started"): 50, ("nosuch", "rejected"): 1, ("nosuch", "skipped"): 49}


async def test_an_application_that_denies_access_stops_no_other(tmp_path: Path, endpoint: LocalEndpoint) -> None:
    path = tmp_path / "jobs.csv"
    rows = [f"denied-{n},denied,X" for n in range(50)] + [f"row-{n},{APPLICATION},X" for n in range(50)]
    path.write_text("\n".join(["key,application_id,script", *rows]))
    options = ["--no-preflight", "--concurrency", "2", "--hold", "0.2", "--output", "jsonl"]
    async with denying("denied", endpoint) as url:
        ended = await m2async("submit", path, *options, url=url)
        states = Counter((line["application_id"], line["state"]) for line in ended.lines)
        assert states[APPLICATION, "started"] == 50
        assert states["denied", "skipped"] + states["denied", "rejected"] == 50
        assert ended.code == 3
        assert "m2async: the jobs of application denied wait for access to it: no\n" in ended.err
        ended = await m2async("submit", path, *options, url=url)  # of what is left all is denied
        assert ended.code == 3
        assert "m2async: stopped: AccessDeniedException: no\n" in ended.err
    assert len(await executions(endpoint)) == 50


@contextlib.asynccontextmanager
async def denying(application_id: str, endpoint: LocalEndpoint) -> AsyncIterator[str]:
    """A service before the endpoint that denies access to one application."""

    async def handle(request: web.BaseRequest) -> web.Response:
        if f"/applications/{application_id}/" in request.path:
            headers = {"x-amzn-ErrorType": "AccessDeniedException"}
            return web.json_response({"message": "no"}, status=403, headers=headers)
        body, url = await request.read(), f"{endpoint.url}{request.path_qs}"
        async with session.request(request.method, url, headers=request.headers, data=body) as answer:
            return web.Response(status=answer.status, body=await answer.read())

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    async with aiohttp.ClientSession() as session:
        await site.start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()


async def test_no_credentials_are_exit_code_3(tmp_path: Path) -> None:
    async with scripted(started()) as server:
        options = ["--endpoint-url", server.url, "--region", "us-east-1"]
        ended = await m2async("submit", manifest(tmp_path), *options)
        assert server.requests == []
    assert ended.code == 3
    assert "no credentials: Unable to locate credentials" in ended.err


async def test_an_unreachable_endpoint_is_exit_code_3(tmp_path: Path) -> None:
    with nobody() as server:
        ended = await m2async("submit", manifest(tmp_path), "--output", "jsonl", url=server.url)
    assert ended.code == 3
    assert f"m2async: stopped: no connection to {server.url.removeprefix('http://')}: " in ended.err
    assert {line["state"] for line in ended.lines} <= {"rejected", "skipped"}


# Bad input: one clear message, exit code 2, nothing sent


async def refused(*arguments: str | Path, stdin: bytes = b"", **others: str) -> Ended:
    """Run the command against a server that counts: it must not be reached."""
    async with scripted(started()) as server:
        ended = await m2async(*arguments, url=server.url, stdin=stdin, **others)
        assert server.connections == 0
    assert ended.code == 2, ended
    assert ended.out == ""
    return ended


BAD_MANIFESTS: Mapping[str, tuple[str, bytes, str]] = {
    "empty": ("jobs.csv", b"", r"jobs\.csv: no rows"),
    "header alone": ("jobs.csv", b"script\n", r"jobs\.csv: no rows"),
    "wrong column": ("jobs.csv", b"scirpt\nX\n", r"jobs\.csv:1: scirpt: .*script"),
    "bad parameter name": ("jobs.csv", b"script,param.1A\nX,y\n", r"jobs\.csv:1: param\.1A: "),
    "501 parameters": (
        "jobs.jsonl",
        json.dumps({"script": "X", "params": {f"P{n:03}": "v" for n in range(501)}}).encode(),
        r"jobs\.jsonl:1: .*501.*500",
    ),
    "two identifiers": ("jobs.csv", b"script,file\nX,Y\n", r"jobs\.csv:2: file: .*script"),
    "1,025 characters": ("jobs.csv", b"script,param.AB\nX," + b"v" * 1_025, r"jobs\.csv:2: param\.AB: .*1,025.*1,024"),
    "invalid UTF-8": ("jobs.csv", b"script,param.AB\nX,\xff\n", r"jobs\.csv:2: .*0xff.*UTF-8"),
    "invalid JSON": ("jobs.jsonl", b'{"script": "X"}\n{"script": \n', r"jobs\.jsonl:2: "),
    "invalid YAML": ("jobs.yaml", b"jobs: [\n", r"jobs\.yaml:2: "),
    "duplicate keys": ("jobs.csv", b"key,script\na,X\na,Y\n", r"jobs\.csv:3: key: .*2"),
}


@pytest.mark.parametrize("name", BAD_MANIFESTS)
async def test_a_bad_manifest_is_refused_with_file_line_and_column(tmp_path: Path, name: str) -> None:
    file, content, message = BAD_MANIFESTS[name]
    (tmp_path / file).write_bytes(content)
    ended = await refused("submit", tmp_path / file, "-a", APPLICATION, "--ledger", tmp_path / "new.db")
    assert re.search(message, ended.err), ended.err
    assert files_in(tmp_path) == {file}
    assert ended.err.endswith("1 problem in the manifest; nothing was sent\n")


@pytest.mark.parametrize("content", [b"\xef\xbb\xbfscript\nX\n", b"script\r\nX\r\n"], ids=["byte-order mark", "CRLF"])
async def test_a_byte_order_mark_and_crlf_are_no_problem(
    tmp_path: Path, content: bytes, endpoint: LocalEndpoint
) -> None:
    (tmp_path / "jobs.csv").write_bytes(content)
    ended = await m2async("submit", tmp_path / "jobs.csv", "-a", APPLICATION, "--output", "jsonl", url=endpoint.url)
    assert (ended.code, ended.lines[0]["job"]) == (0, "X")


async def test_a_line_of_100_mb_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "jobs.csv"
    with path.open("wb") as file:
        file.write(b"script,param.AB\nX,")
        for _ in range(100):
            file.write(b"v" * 1_000_000)
    ended = await refused("submit", path, "-a", APPLICATION)
    assert re.search(r"jobs\.csv:2: .*8,388,608 bytes", ended.err), ended.err


async def test_every_bad_row_is_reported_at_once(tmp_path: Path) -> None:
    path = tmp_path / "jobs.csv"
    path.write_text("script,param.AB\n" + "".join(f"X,{'v' * 1_025}\n" if n % 2 else "X,ok\n" for n in range(200)))
    ended = await refused("submit", path, "-a", APPLICATION)
    assert len(re.findall(r"jobs\.csv:\d+: param\.AB", ended.err)) == 50
    assert ended.err.endswith("100 problems in the manifest, of which 50 are not shown; nothing was sent\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nosuch.csv"], "nosuch.csv: cannot be opened: No such file or directory"),
        (["."], "Is a directory"),
        (["jobs.csv"], "application_id"),
        (["jobs.csv", "-a", "a b"], "application_id: 'a b': must have 1 to 80 characters"),
        (["jobs.csv", "-a", "x", "--param", "AB"], "--param AB: must be NAME=VALUE"),
        (["jobs.csv", "-a", "x", "--param", "1=2"], "letter followed by"),
        (["jobs.csv", "-a", "x", "--param", "AB=1", "--param", "AB=2"], "AB is given twice"),
        (["jobs.csv", "-a", "x", "--rate", "0"], "--rate must be above 0"),
        (["jobs.csv", "-a", "x", "--rate", "5", "--burst", "0"], "--burst must be at least 1"),
        (["jobs.csv", "-a", "x", "--burst", "5"], "--burst needs --rate"),
        (["jobs.csv", "-a", "x", "--concurrency", "0"], "--concurrency"),
        (["jobs.csv", "-a", "x", "--timeout", "0"], "--timeout must be above 0"),
        (["jobs.csv", "-a", "x", "--on-unknown", "guess"], "--on-unknown"),
        (["jobs.csv", "-a", "x", "--certainty", "sure"], "--certainty must be 'exact', 'careful', 'fast', or a share"),
        (["jobs.csv", "-a", "x", "--certainty", "100%"], "above 0 and below 1 such as 0.001 or 0.1%, not '100%'"),
        (["jobs.csv", "-a", "x", "--certainty", "careful", "--exact"], "give --exact or --certainty careful, not both"),
        (
            ["jobs.csv", "-a", "x", "--certainty", "fast", "--on-unknown", "hold"],
            "--certainty fast needs --on-unknown adopt, not hold",
        ),
        (["jobs.csv", "-a", "x", "--output", "xml"], "--output"),
        (["jobs.csv", "-a", "x", "--local", "--endpoint-url", "http://127.0.0.1:1"], "--endpoint-url"),
        (["jobs.csv", "-a", "x", "--local-rate", "5"], "--local"),
        (["jobs.csv", "-a", "x", "--log-file", "/nosuch/events.log"], "--log-file /nosuch/events.log: No such file"),
        (["jobs.csv", "-a", "x", "--profile", "nope"], "The config profile (nope) could not be found"),
        (["jobs.csv", "-a", "x", "--region", "not a region"], "not a region"),
        (["jobs.csv", "-a", "x", "--endpoint-url", "nonsense"], "nonsense"),
        (["jobs.csv", "-a", "x", "--endpoint-url", "nonsense", "--no-preflight"], "nonsense"),
        (["jobs.csv", "-a", "x", "--ledger", ""], "ledger : is empty: give a path"),
        (["jobs.csv", "-a", "x", "--ledger", ":memory:"], "ledger :memory:: is not how a ledger in memory is named"),
        (["jobs.csv", "-a", "x", "--max-rc", "1=4", "--max-rc", "row=4"], "--max-rc row=…: the manifest has no row"),
    ],
)
async def test_a_bad_option_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    (tmp_path / "jobs.csv").write_text("script\nX\n")
    monkeypatch.chdir(tmp_path)
    ended = await refused("submit", "--ledger", "new.db", *arguments)
    assert message in ended.err.replace("\n", " ")
    assert files_in(tmp_path) == {"jobs.csv"}


# Signals


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_signal_stops_the_intake_and_awaits_the_calls_under_way(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    async with LocalEndpoint(faults={"latency": 1.0}, seed=1) as endpoint:  # every answer takes 0.1 to 1 s
        process = await anyio.open_process(
            [
                COMMAND,
                "submit",
                str(manifest(tmp_path, 500)),
                "--output",
                "jsonl",
                "--concurrency",
                "8",
                "--rate",
                "1e6",
            ],
            env=settings(endpoint.url),
            stdin=subprocess.DEVNULL,
        )
        async with process:
            assert process.stdout is not None
            assert process.stderr is not None
            written = await process.stdout.receive()  # the first outcomes are there, so calls are under way
            os.kill(process.pid, number)
            async for piece in process.stdout:
                written += piece
            said = b"".join([piece async for piece in process.stderr]).decode()
        listed = await executions(endpoint)
    assert process.returncode == code
    lines = [json.loads(line) for line in written.splitlines()]
    started = {line["execution_id"] for line in lines if line["state"] == "started"}
    assert started == {e["executionId"] for e in listed}
    assert len(lines) == 500
    assert 8 <= len(started) < 500
    assert "interrupted: waiting for the calls under way" in said
    assert f"{len(started)} of 500 jobs started" in said


async def test_a_second_signal_leaves_at_once(tmp_path: Path) -> None:
    async with scripted(hang) as server:
        process = await anyio.open_process(
            [COMMAND, "submit", str(manifest(tmp_path)), "--no-preflight"],
            env=settings(server.url),
            stdin=subprocess.DEVNULL,
        )
        async with process:
            await server.arrived.wait()
            os.kill(process.pid, signal.SIGINT)
            assert process.stderr is not None
            said = b""
            while b"interrupted" not in said:
                said += await process.stderr.receive()
            os.kill(process.pid, signal.SIGINT)
            assert await process.wait() == 130


async def test_what_waits_for_others_of_its_name_is_said_and_how_long_is_told_at_the_end(tmp_path: Path) -> None:
    faults = {"drop-before-accept": 0.2}
    async with LocalEndpoint(seed=2, faults=faults) as endpoint:
        options: list[str | Path] = ["--settle", "2", "--rate", "100", "--ledger", tmp_path / "ledger.db"]
        ended = await m2async("submit", manifest(tmp_path, 20), *options, url=endpoint.url)
    assert ended.code == 0
    assert ended.err.count("jobs named POSTTRAN wait for each other, as answers of theirs were lost") == 1
    assert re.search(r"Jobs named POSTTRAN waited \d+ s for each other, as answers were lost \(of late \d+", ended.err)


async def test_what_answers_and_is_not_the_service_stops_the_run(tmp_path: Path) -> None:
    page = b"<html>Sign in to the corporate \x1b[31mnetwork</html>"
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n" % len(page)
    async with scripted(send(head + page)) as server:
        arguments = ("submit", manifest(tmp_path, 300), "--no-preflight", "--concurrency", "4", "--settle", "0.01")
        ended = await m2async(*arguments, "--ledger", "memory:", "--output", "jsonl", url=server.url)
    states = Counter(line["state"] for line in ended.lines)
    assert ended.code == 3
    assert set(states) == {"unknown", "skipped"}
    assert states.total() == 300
    assert 5 <= states["unknown"] <= 9
    [said] = [line for line in ended.err.splitlines() if "stopped" in line and "StartBatchJob" in line]
    assert said.startswith("m2async: stopped: UnreadableAnswerError: the answer to StartBatchJob cannot be read: ")
    assert said.endswith('it is not the service\'s: 200 OK, text/html, "Sign in to the corporate [31mnetwork"')
