"""The README says what is so."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

import m2async
from m2async import LocalEndpoint, M2ServiceException, ScriptJob, StartBatchJob, errors
from m2async.certainty.verdict import Verdict, verdict
from tests.campaigns.faults import really_started
from tests.cli import terminal
from tests.cli.terminal import settings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
FOLLOWS = {
    Verdict.RETRY: "send again",
    Verdict.REJECT: "Reject this job; the others go on.",
    Verdict.HOLD_APPLICATION: "Hold this application's jobs",
    Verdict.STOP: "Stop the run",
    Verdict.HOLD: "Report it as unknown",
    Verdict.ADOPT: "Look for its execution",
}


def error_rows() -> list[tuple[str, str, str]]:
    table = README.partition("## What happens on each error")[2].partition("\n\nEvery exception")[0]
    rows = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("|")]
    return [(answer.strip(), started.strip(), follows.strip()) for answer, started, follows in rows[2:]]


def test_the_table_of_errors_is_what_the_code_does() -> None:
    request = StartBatchJob("app", ScriptJob("X"))
    named = set()
    for answer, started, follows in error_rows():
        for name in re.findall(r"`(\w+)`", answer):
            kind = getattr(errors, name)
            status = 500 if name == "InternalServerException" else 429 if name == "ThrottlingException" else 400
            error = kind("said", code=name, http_status=status)
            assert FOLLOWS[verdict(error, request, "hold")] in follows, name
            assert started == ("unknown" if error.may_have_started else "no"), name
            named.add(name)
    modelled = {name for name in dir(m2async) if name.endswith("Exception") and name != M2ServiceException.__name__}
    assert named == modelled


def test_every_exception_of_a_call_without_an_answer_is_in_the_table() -> None:
    rows = {answer: (started, follows) for answer, started, follows in error_rows()}
    request = StartBatchJob("app", ScriptJob("X"))
    unanswered = [errors.AnswerTimeoutError, errors.ConnectionLostError, errors.UnreadableAnswerError]
    for kind in unanswered:
        started, follows = rows["Timeout (also HTTP 408 and 499), lost connection, unreadable answer"]
        assert started == "unknown"
        assert FOLLOWS[verdict(kind("x"), request, "hold")] in follows
        assert FOLLOWS[verdict(kind("x"), request, "adopt")] in follows
        assert FOLLOWS[verdict(kind("x"), request, "resend")] in follows
    late = "None: not sent within a minute, as on a machine that slept"
    for kind, row in ((errors.NotSentError, "No connection"), (errors.SignatureTooLateError, late)):
        started, follows = rows[row]
        assert started == "no"
        assert FOLLOWS[verdict(kind("x"), request, "hold")] in follows


@pytest.mark.parametrize("line", re.findall(r"^m2async .*?(?=  +#)", README, re.MULTILINE))
async def test_every_option_of_the_shown_commands_exists(line: str) -> None:
    command, *words = line.split()[1:]
    shown = await terminal.m2async(command, "--help", COLUMNS="200")
    assert shown.code == 0
    for option in [word for word in words if word.startswith("-")]:
        assert re.search(rf"(?<!\S){option}\b", shown.out), option


async def test_the_example_of_the_library_runs(
    endpoint: LocalEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    program = README.partition("```python\n")[2].partition("```")[0]
    program = program.replace("ab2cdefghijklmnopqrstuvwxy", endpoint.application_ids[0])
    december = program.replace("202611", "202612")
    for text, month, when, executions in (
        (program, "11", "now", 30), (program, "11", "before", 30), (december, "12", "now", 60),
    ):  # fmt: skip
        done = await anyio.run_process([sys.executable, "-c", text], env=settings(endpoint.url))
        told = rf"^POSTTRAN/2026{month}\d\d started {when} [a-z2-7]{{26}}$"
        assert len(re.findall(told, done.stdout.decode(), re.MULTILINE)) == 30
        assert len(await really_started(endpoint.url)) == executions


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_the_example_service_starts_jobs_and_stops_cleanly(number: signal.Signals) -> None:
    process = await anyio.open_process(
        [sys.executable, "-X", "dev", "-W", "error", str(ROOT / "examples" / "service.py")],
        env={**settings(), "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
    )
    async with process:
        assert process.stdout is not None
        written = b""
        async for piece in process.stdout:
            written += piece
            if written.count(b"batch_job.started") >= 2 and not written.count(b"signalled"):
                os.kill(process.pid, number)
                written += b"signalled\n"
    assert process.returncode == 0
    assert written.endswith(b"stopped\n")
    assert b"Traceback" not in written
    assert b"Warning" not in written
