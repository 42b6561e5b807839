"""Commands that are printed to be run next: pasted into a shell, they do what is said of them."""

from __future__ import annotations

import asyncio
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from m2async import LocalEndpoint
from m2async.cli import hints
from m2async.cli.app import app
from m2async.cli.service import Service
from m2async.texts import quoted
from tests.campaigns.faults import really_started
from tests.cli.terminal import APPLICATION, COMMAND, Ended, m2async, settings
from tests.cli.test_ledger import manifest
from tests.scripted import error, scripted, started

NAMES = ["night", "it's a night; touch x", "-night", "tab\tand\nline\x1b[31m", "näc\u202eht \\ $HOME `id`"]


def paste(command: str, url: str, folder: Path) -> Ended:
    """Run a line in a shell, as somebody who has pasted it; its first word is found in the PATH."""
    environment = {**settings(url), "PATH": f"{Path(COMMAND).parent}:/usr/bin:/bin"}
    del environment["AWS_ENDPOINT_URL_M2"]
    ended = subprocess.run(["bash", "-c", command], cwd=folder, env=environment, capture_output=True, check=False)
    return Ended(ended.returncode, ended.stdout.decode(), ended.stderr.decode())


def printed(text: str, verb: str) -> str:
    """Give the command that a message ends with."""
    [command] = re.findall(rf"^.*(m2async {verb} .*)$", text, re.MULTILINE)
    return str(command)


@pytest.mark.parametrize("name", NAMES)
async def test_what_is_said_to_be_run_next_can_be_pasted(tmp_path: Path, endpoint: LocalEndpoint, name: str) -> None:
    ledger = tmp_path / "my ledger's.db"
    place = ("--ledger", ledger, "--endpoint-url", endpoint.url, "--region", "us-east-1")
    assert (await m2async("submit", manifest(tmp_path), f"--run={name}", *place, url=endpoint.url)).code == 0
    said = await m2async("stop", "--ledger", ledger, "--", name)
    standing = await m2async("status", "--ledger", ledger, "--", name)
    refused = await m2async("resume", *place, "--", name, url=endpoint.url)
    assert refused.code == 3
    let_go = [printed(text, "unpause") for text in (said.err, standing.out, refused.err)]
    assert let_go == let_go[:1] * 3
    assert paste(let_go[0], endpoint.url, tmp_path).code == 0
    assert (await m2async("resume", *place, "--", name, url=endpoint.url)).code == 0


async def test_a_job_in_doubt_is_looked_for_where_it_was_sent(tmp_path: Path) -> None:
    """The submission was told its ledger and endpoint by options: without them it would be looked for elsewhere."""
    ledger = tmp_path / "a ledger.db"
    async with scripted(error(500, "InternalServerException"), started()) as server:
        place = ("--ledger", ledger, "--endpoint-url", server.url, "--region", "us-east-1")
        options = ("--no-preflight", "--on-unknown", "hold", "--run", "night", *place)
        ended = await m2async("submit", manifest(tmp_path), *options, url=server.url)
    assert shlex.split(printed(ended.err, "reconcile")) == ["m2async", "reconcile", "night", *map(str, place)]


async def test_a_run_that_stopped_says_how_it_goes_on(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.db"
    async with scripted(error(403, "AccessDeniedException")) as server:
        options = ("--no-preflight", "--run", "night", "--ledger", ledger, "--endpoint-url", server.url)
        ended = await m2async("submit", manifest(tmp_path), *options, url=server.url)
    assert ended.code == 3
    expected = ["m2async", "resume", "night", "--ledger", str(ledger), "--endpoint-url", server.url]
    assert shlex.split(printed(ended.err, "resume")) == expected


async def test_a_rehearsal_that_is_gone_is_not_to_be_gone_on_with(tmp_path: Path) -> None:
    ended = await m2async("submit", manifest(tmp_path, script="NONE"), "--local", "--on-unknown", "hold")
    assert "m2async resume" not in ended.err


def test_every_command_that_is_named_takes_the_options_that_it_is_given() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined] # it is a group
    service = Service("http://127.0.0.1:1", "eu-central-1", "prod", 1.0)
    for verb in ("resume", "restart", "reconcile", "track", "cancel", "status", "resolve", "unpause", "export"):
        options = {option for parameter in commands[verb].params for option in parameter.opts}
        words = hints.command(verb, "run", ledger="x", service=service).split()
        assert {word for word in words if word.startswith("--")} == options & {
            "--ledger",
            "--endpoint-url",
            "--region",
            "--profile",
        }


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20))
def test_whatever_is_quoted_is_that_text_in_a_shell_and_shows_on_a_screen(text: str) -> None:
    assert quoted(text).isprintable()
    if text.isprintable():
        assert shlex.split(quoted(text)) == [text]


def test_texts_that_a_screen_would_obey_are_spelled_out_for_the_shell() -> None:
    texts = [*NAMES, "\udcff\udc80 \xa0", "'\\'\n1", "\ue000"]
    command = "printf '%s\\0' " + " ".join(map(quoted, texts))
    written = subprocess.run(["bash", "-c", command], capture_output=True, check=True).stdout
    assert written.decode(errors="surrogateescape").split("\0")[:-1] == texts


@pytest.mark.parametrize("named", [False, True])
async def test_how_all_is_started_anew_can_be_pasted(tmp_path: Path, endpoint: LocalEndpoint, named: bool) -> None:
    jobs = tmp_path / "it's one job.csv"
    jobs.write_text("script\nPOSTTRAN\n")
    place = ["--ledger", str(tmp_path / "my ledger.db"), "--endpoint-url", endpoint.url, "--region", "us-east-1"]
    given = [str(jobs), "-a", APPLICATION, "--param", "NAME=it's $HOME", *place, *(["--run", "night"] if named else [])]
    assert (await m2async("submit", *given, url=endpoint.url)).code == 0
    again = await m2async("submit", *given, "-q", url=endpoint.url)
    assert "nothing was started: 1 job was started before, 0 are left, of run " in again.err
    command = printed(again.err, "submit").replace("ANOTHER", "another")
    assert command.endswith("us-east-1")
    started = await asyncio.to_thread(paste, command, endpoint.url, tmp_path)
    assert (started.code, "1 of 1 jobs started" in started.err) == (0, True)
    assert [e["jobParams"] for e in await really_started(endpoint.url)] == [{"NAME": "it's $HOME"}] * 2
