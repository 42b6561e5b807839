from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import anyio
import pytest

from m2async import LocalEndpoint
from tests.cli.terminal import APPLICATION, EXAMPLES, m2async, on_terminal, plain, running
from tests.scripted import error, scripted


@pytest.mark.parametrize("command", [[], ["submit"], ["local"], ["apps"], ["jobs"]])
async def test_help_fits_a_terminal_and_each_command_has_an_example(command: list[str]) -> None:
    code, written = await on_terminal(*command, "--help")
    assert code == 0
    assert max(map(len, plain(written).split("\n"))) <= 80
    if command:
        assert f"Example: m2async {command[0]} " in plain(written)


def test_help_does_not_import_botocore() -> None:
    program = (
        "import sys; from m2async.cli import main; sys.argv = ['m2async', '--help']\n"
        "try: main()\nfinally: print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "m2async.cli.app" in done.stderr
    assert not {"botocore", "aiobotocore", "aiohttp"} & {name.partition(".")[0] for name in done.stderr.split()}


def test_what_only_shows_a_run_on_a_terminal_does_not_import_what_makes_pages() -> None:
    program = "import sys, m2async.cli.watch, m2async.cli.track; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"jinja2", "vl_convert"} & set(done.stdout.split())


async def test_an_unknown_command_or_option_is_bad_input() -> None:
    assert (await m2async("sumbit")).code == 2
    assert (await m2async("submit", "--nonsense")).code == 2


async def test_apps_lists_the_applications(endpoint: LocalEndpoint) -> None:
    expected = {"application_id": APPLICATION, "name": "CardDemo", "status": "Running"}
    ended = await m2async("apps", "--output", "jsonl", url=endpoint.url)
    assert (ended.code, ended.lines) == (0, [expected])
    ended = await m2async("apps", "--output", "json", url=endpoint.url)
    assert ended.out.lstrip().startswith("[")
    ended = await m2async("apps", url=endpoint.url)
    assert [line.split() for line in ended.out.splitlines()] == [
        ["APPLICATION_ID", "NAME", "STATUS"],
        [APPLICATION, "CardDemo", "Running"],
    ]


async def test_jobs_lists_the_definitions_of_one_application_or_of_all(endpoint: LocalEndpoint) -> None:
    ended = await m2async("jobs", "-a", APPLICATION, "--output", "jsonl", url=endpoint.url)
    assert len(ended.lines) == 46
    assert ended.lines[0].keys() == {"application_id", "type", "job", "folder"}
    ended = await m2async("jobs", "--prefix", "POST", "--output", "jsonl", url=endpoint.url)
    assert [line["job"] for line in ended.lines] == ["POSTTRAN.jcl"]


async def test_a_list_that_cannot_be_had_says_why() -> None:
    async with scripted(error(403, "AccessDeniedException")) as server:
        ended = await m2async("apps", url=server.url)
    assert (ended.code, ended.out) == (3, "")
    assert ended.err == "m2async: AccessDeniedException: AccessDeniedException said\n"
    assert (await m2async("apps", "--profile", "nope")).code == 2
    assert (await m2async("jobs", "-a", "a b", url="http://127.0.0.1:1")).code == 2


async def test_a_terminal_obeys_nothing_that_a_message_brings_from_elsewhere() -> None:
    async with scripted(error(403, "AccessDeniedException", message="\x1b[2Jgone\u202e\nand more")) as server:
        ended = await m2async("apps", url=server.url)
    assert ended.err == "m2async: AccessDeniedException: \\x1b[2Jgone\\u202e\nand more\n"


@asynccontextmanager
async def served(*options: str | Path) -> AsyncIterator[tuple[str, anyio.abc.Process]]:
    async with running("local", *options) as process:
        assert process.stdout is not None
        url = (await process.stdout.receive()).decode().splitlines()[0]
        try:
            yield url, process
        finally:
            if process.returncode is None:
                os.kill(process.pid, signal.SIGTERM)
            await process.wait()


async def test_local_prints_its_url_first_and_serves_until_a_signal() -> None:
    async with served("--seed", "1") as (url, process):
        ended = await m2async("submit", EXAMPLES / "carddemo.csv", "-a", APPLICATION, "--output", "jsonl", url=url)
        assert (ended.code, len(ended.lines)) == (0, 46)
        async with aiohttp.ClientSession() as session, session.get(f"{url}/_local/executions") as answer:
            assert len((await answer.json())["executions"]) == 46
        os.kill(process.pid, signal.SIGINT)
        assert await process.wait() == 130


async def test_local_takes_definitions_faults_and_a_quota(tmp_path: Path) -> None:
    options: list[str | Path] = ["--definitions", EXAMPLES / "carddemo-jobs.json", "--fault", "500=1", "--rate", "1000"]
    async with served(*options) as (url, _):
        jobs = await m2async("jobs", "--output", "jsonl", url=url)
        assert len(jobs.lines) == 46
        hold = ["--on-unknown", "hold"]
        ended = await m2async(
            "submit", EXAMPLES / "carddemo.csv", "-a", jobs.lines[0]["application_id"], *hold, url=url
        )
        assert ended.code == 1
        assert "46 unknown" in ended.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--fault", "nonsense=0.1"], "accept-then-drop"),
        (["--fault", "500"], "500"),
        (["--fault", "500=0.7", "--fault", "throttle=0.7"], "1"),
        (["--rate", "0"], "rate must be above 0"),
        (["--burst", "5"], "burst"),
        (["--definitions", "nosuch.json"], "nosuch.json"),
        (["--port", "99999"], "--port"),
    ],
)
async def test_a_local_endpoint_that_cannot_be_made_says_why(options: list[str], message: str) -> None:
    ended = await m2async("local", *options)
    assert ended.code == 2
    assert message in ended.err


async def test_a_port_that_is_taken_is_named(endpoint: LocalEndpoint) -> None:
    port = endpoint.url.rpartition(":")[2]
    ended = await m2async("local", "--port", port)
    assert ended.code == 2
    assert port in ended.err


@pytest.mark.parametrize(
    "module", sorted(path.stem for path in (EXAMPLES.parent / "m2async" / "cli").glob("[a-z]*.py"))
)
def test_each_command_s_module_can_be_the_first_that_is_imported(module: str) -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", f"import m2async.cli.{module}"], check=True)
