"""What is looked up before a job is started: by `m2async check`, and by `m2async submit`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from m2async import LocalEndpoint
from m2async.local.definitions import ApplicationDefinition, JobDefinition, StepDefinition
from tests.cli.terminal import APPLICATION, EXAMPLES, Ended, m2async

COMMANDS = [["check"], ["submit", "--output", "jsonl"]]


def manifest(folder: Path, *rows: str, header: str = "key,application_id,file") -> Path:
    path = folder / "jobs.csv"
    path.write_text("\n".join([header, *rows, ""]))
    return path


async def run(command: Sequence[str], path: Path, url: str) -> Ended:
    return await m2async(*command, path, url=url)


async def test_a_sound_manifest_is_exit_code_0_and_nothing_is_started(endpoint: LocalEndpoint) -> None:
    ended = await m2async("check", EXAMPLES / "carddemo.csv", "-a", APPLICATION, url=endpoint.url)
    assert (ended.code, ended.out) == (0, "")
    assert ended.err == "46 jobs of 1 application: nothing wrong was found\n"


@pytest.mark.parametrize("command", COMMANDS)
async def test_a_wrong_name_is_told_with_its_line_and_the_nearest_names(
    tmp_path: Path, endpoint: LocalEndpoint, command: list[str]
) -> None:
    rows = [f"a,{APPLICATION},POSTTRAN.jcl", f"b,{APPLICATION},POSTRAN", f"c,{APPLICATION},postran", "d,nosuch,X"]
    path = manifest(tmp_path, *rows, f"e,{APPLICATION},POSTRAN", f"f,{APPLICATION},zzzz")
    ended = await run(command, path, endpoint.url)
    assert (ended.code, ended.out) == (2, "")
    found = ended.err.splitlines()
    no = f"application {APPLICATION} defines no such file"
    assert found[0].startswith(f"{path}:3: file: 'POSTRAN': {no}; nearest is POSTTRAN.jcl")
    assert found[1].startswith(f"{path}:4: file: 'postran': {no}; nearest is POSTTRAN.jcl")
    assert found[2:] == [
        f"{path}:5: application_id: nosuch: there is no such application in this account and region",
        f"{path}:7: file: 'zzzz': {no}",
        "m2async: 4 problems in the manifest; nothing was sent",
    ]
    assert (await m2async("runs", "--output", "json")).out == "[]\n"


@pytest.mark.parametrize("command", COMMANDS)
async def test_rows_without_a_key_and_standard_input_have_their_lines_too(
    endpoint: LocalEndpoint, command: list[str]
) -> None:
    content = f"file,application_id\nPOSTTRAN.jcl,{APPLICATION}\n\nNOSUCH,{APPLICATION}\n"
    ended = await m2async(*command, "-", url=endpoint.url, stdin=content.encode())
    assert ended.code == 2
    assert ended.err.startswith("<stdin>:4: file: 'NOSUCH': ")


@pytest.mark.parametrize("command", COMMANDS)
async def test_an_application_that_does_not_run_is_told_with_its_status(tmp_path: Path, command: list[str]) -> None:
    job = JobDefinition("A.jcl", "A", (StepDefinition("STEP1"),))
    definitions = [
        ApplicationDefinition("running", "Night", "Running", (job,)),
        ApplicationDefinition("stopped", "Day", "Stopped", (job,)),
    ]
    async with LocalEndpoint(definitions=definitions) as endpoint:
        ended = await run(command, manifest(tmp_path, "a,running,A.jcl", "b,stopped,A.jcl"), endpoint.url)
    assert ended.code == 2
    assert f"{tmp_path / 'jobs.csv'}:3: application_id: stopped: the application is Stopped, not Running" in ended.err


async def test_a_name_that_was_mended_goes_on_under_the_same_run_name(tmp_path: Path, endpoint: LocalEndpoint) -> None:
    wrong = manifest(tmp_path, f"a,{APPLICATION},POSTRAN.jcl")
    assert (await m2async("submit", wrong, "--run", "night", url=endpoint.url)).code == 2
    right = manifest(tmp_path, f"a,{APPLICATION},POSTTRAN.jcl")
    ended = await m2async("submit", right, "--run", "night", "-q", url=endpoint.url)
    assert (ended.code, len(ended.err.splitlines())) == (0, 1)


async def test_no_preflight_leaves_it_to_the_service(tmp_path: Path, endpoint: LocalEndpoint) -> None:
    path = manifest(tmp_path, f"a,{APPLICATION},POSTTRAN.jcl", f"b,{APPLICATION},POSTRAN")
    ended = await m2async("submit", path, "--no-preflight", "--output", "jsonl", url=endpoint.url)
    assert ended.code == 1
    assert {line["key"]: line["state"] for line in ended.lines} == {"a": "started", "b": "rejected"}


async def test_what_is_not_listed_is_not_refused_and_check_says_so(tmp_path: Path, endpoint: LocalEndpoint) -> None:
    rows = [f"a,{APPLICATION},POSTTRAN,,", f"b,{APPLICATION},,bucket,NIGHT", f"c,{APPLICATION},NOSUCH,,"]
    path = manifest(tmp_path, *rows, header="key,application_id,script,s3_bucket,s3_script")
    checked = await m2async("check", path, url=endpoint.url)
    assert checked.code == 0
    assert f"m2async: application {APPLICATION} lists no scripts, so their names are not checked\n" in checked.err
    submitted = await m2async("submit", path, "-q", url=endpoint.url)
    assert (submitted.code, len(submitted.err.splitlines())) == (0, 1)


# Services that the local endpoint is not


@asynccontextmanager
async def service(routes: dict[str, list[tuple[int, dict[str, Any]]]]) -> AsyncIterator[tuple[str, list[str]]]:
    """A service that answers each path with these answers in turn, the last again and again; and what it was asked."""
    asked: list[str] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        asked.append(f"{request.method} {request.path_qs}")
        answers = routes[request.path]
        status, body = answers.pop(0) if len(answers) > 1 else answers[0]
        code = {
            400: "ValidationException",
            404: "ResourceNotFoundException",
            403: "AccessDeniedException",
            429: "ThrottlingException",
            500: "InternalServerException",
        }.get(status)
        headers = {"x-amzn-ErrorType": code} if code else {}
        return web.json_response(body, status=status, headers=headers)

    server = web.Server(answer)
    runner = web.ServerRunner(server)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", asked
    finally:
        await runner.cleanup()


RUNNING = (200, {"applicationId": "app", "name": "app", "status": "Running"})
DENIED = (403, {"message": "no"})
STARTED = (200, {"executionId": "e-1"})


def listed(*definitions: dict[str, Any], token: str | None = None) -> tuple[int, dict[str, Any]]:
    return 200, {"batchJobDefinitions": list(definitions), **({"nextToken": token} if token else {})}


def script(name: str) -> dict[str, Any]:
    return {"scriptBatchJobDefinition": {"scriptName": name}}


async def test_every_page_of_the_definitions_is_read_once(tmp_path: Path) -> None:
    pages = [listed(script("A"), token="2"), listed({"newKind": {}}, token="3"), listed(script("B"))]
    routes = {"/applications/app": [RUNNING], "/applications/app/batch-job-definitions": pages}
    path = manifest(
        tmp_path, *(f"k{n},app,{name}" for n, name in enumerate("ABAB")), header="key,application_id,script"
    )
    async with service(routes) as (url, asked):
        ended = await m2async("check", path, url=url)
    assert ended.code == 0
    assert len(asked) == 4
    assert [token for line in asked for token in ("nextToken=2", "nextToken=3") if token in line] == [
        "nextToken=2",
        "nextToken=3",
    ]


async def test_a_script_and_a_file_in_a_folder_are_found_where_they_are(tmp_path: Path) -> None:
    def file(name: str, folder: str | None = None) -> dict[str, Any]:
        return {"fileBatchJobDefinition": {"fileName": name, **({"folderPath": folder} if folder else {})}}

    definitions = listed(script("NIGHT"), file("A.jcl", "jcl/day"), file("A.jcl", "jcl/night"), file("B.jcl"))
    routes = {"/applications/app": [RUNNING], "/applications/app/batch-job-definitions": [definitions]}
    rows = ["1,app,NIGHT,,", "2,app,,A.jcl,", "3,app,,A.jcl,jcl/day", "4,app,,B.jcl,anywhere", "5,app,,A.jcl,jcl"]
    path = manifest(tmp_path, *rows, "6,app,NIGTH,,", header="key,application_id,script,file,folder")
    async with service(routes) as (url, _):
        ended = await m2async("check", path, url=url)
    assert ended.code == 2
    assert ended.err.splitlines()[:-1] == [
        f"{path}:6: folder: 'jcl': application app defines 'A.jcl' in jcl/day, jcl/night",
        f"{path}:7: script: 'NIGTH': application app defines no such script; nearest is NIGHT",
    ]


@pytest.mark.parametrize(
    ("application", "definitions", "warning"),
    [
        (
            DENIED,
            listed(script("A")),
            "whether the applications run, since the permission m2:GetApplication is missing",
        ),
        (
            RUNNING,
            DENIED,
            "whether the jobs are defined, since the permission m2:ListBatchJobDefinitions is missing",
        ),
        (
            RUNNING,
            (400, {"message": "odd"}),
            "whether the jobs are defined: ListBatchJobDefinitions: ",
        ),
    ],
)
async def test_what_cannot_be_looked_up_is_told_and_stops_nothing(
    tmp_path: Path, application: Any, definitions: Any, warning: str
) -> None:
    routes = {
        "/applications/app": [application],
        "/applications/app/batch-job-definitions": [definitions],
        "/applications/app/batch-job": [STARTED],
        "/applications/app/batch-job-executions": [(200, {"batchJobExecutions": []})],
    }
    path = manifest(tmp_path, "a,app,A", header="key,application_id,script")
    async with service(routes) as (url, asked):
        ended = await m2async("submit", path, "-q", url=url)
        assert ended.code == 0
        assert ended.err.startswith(f"m2async: not checked: {warning}")
        assert len(ended.err.splitlines()) == 2
        assert asked.count("POST /applications/app/batch-job") == 1
        checked = await m2async("check", path, url=url)
        assert checked.code == 0
        assert f"m2async: not checked: {warning}" in checked.err


async def test_a_list_that_is_not_there_tells_of_an_application_that_may_not_be_asked_for(tmp_path: Path) -> None:
    gone = (404, {"message": "gone", "resourceId": "app"})
    routes = {"/applications/app": [DENIED], "/applications/app/batch-job-definitions": [gone]}
    path = manifest(tmp_path, "a,app,A", header="key,application_id,script")
    async with service(routes) as (url, _):
        ended = await m2async("check", path, url=url)
    assert ended.code == 2
    assert f"{path}:2: application_id: app: there is no such application" in ended.err


async def test_a_throttled_look_is_made_again(tmp_path: Path) -> None:
    routes = {
        "/applications/app": [(429, {"message": "slow"}), (500, {"message": "oops"}), RUNNING],
        "/applications/app/batch-job-definitions": [(429, {"message": "slow"}), listed(script("B"))],
    }
    async with service(routes) as (url, _):
        ended = await m2async("check", manifest(tmp_path, "a,app,A", header="key,application_id,script"), url=url)
    assert ended.code == 2
    assert ":2: script: 'A': application app defines no such script\n" in ended.err


async def test_bad_input_is_refused_as_submit_does(tmp_path: Path, endpoint: LocalEndpoint) -> None:
    path = tmp_path / "jobs.jsonl"
    path.write_text(json.dumps({"key": "A", "script": "A", "after": "A"}) + "\n")
    for command in COMMANDS:
        ended = await m2async(*command, path, "-a", APPLICATION, url=endpoint.url)
        assert (ended.code, ended.out) == (2, "")
        assert ended.err.startswith(f"{path}:1: after: 'A': the row waits for itself\n")
    assert (await m2async("runs", "--output", "json")).out == "[]\n"
    without = await m2async("check", path, "-a", APPLICATION)
    assert without.code == 2
