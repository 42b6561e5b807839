"""A fault of m2async itself: one line, a file to send that holds nothing of the user's, and a ledger that is right."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE
from importlib.metadata import version
from pathlib import Path

import pytest

from m2async import LocalEndpoint
from tests.cli.terminal import APPLICATION, m2async, settings
from tests.cli.test_submit import executions
from tests.structure import CHECKOUT

PROGRAM = """
import sys
from unittest.mock import patch

from m2async.cli import main


def faulty(*_, **__):
    given = "a secret of a frame"
    raise KeyError("SECRET=of-a-message")


with patch(sys.argv.pop(1), faulty):
    main()
"""


async def failed(target: str, folder: Path, endpoint: LocalEndpoint) -> tuple[str, str]:
    """Submit with a part of m2async that fails; gives what stderr got, and what the file holds."""
    manifest = folder / "jobs.csv"
    rows = [f"row-{n},{APPLICATION},POSTTRAN,SECRET-{n}" for n in range(9)]
    manifest.write_text("\n".join(["key,application_id,script,param.SECRETNAME", *rows, ""]))
    command: list[str | Path] = [
        "submit",
        manifest,
        "--ledger",
        folder / "ledger.db",
        "--run",
        "r",
        "--concurrency",
        "1",
    ]
    program = folder / "program.py"
    program.write_text(PROGRAM)
    process = await asyncio.create_subprocess_exec(
        sys.executable, program, target, *command,
        env=settings(endpoint.url) | {"TMPDIR": str(folder), "PYTHONPATH": str(folder)}, stdout=PIPE, stderr=PIPE,
    )  # fmt: skip
    _, err = await process.communicate()
    assert process.returncode == 3, err.decode()
    return err.decode(), the_file(folder, err.decode())


def the_file(folder: Path, err: str) -> str:
    [file] = folder.glob("m2async-fault-*")
    assert str(file) in err
    assert file.stat().st_mode & 0o777 == 0o600
    return file.read_text()


@pytest.mark.parametrize(
    ("target", "starts"),
    [
        ("m2async.cli.manifests.parse_params", 0),
        ("m2async.cli.submit.open_run", 0),
        ("m2async.client.M2Client.__aenter__", 0),
        ("m2async.submitting.recording.Recording.intend", 0),
        ("m2async.submitting.sender.Sender.latest_date", 0),
        ("m2async.submitting.feedback.Feedback.succeeded", 1),
        ("m2async.submitting.endings.Endings.started", 1),
        ("m2async.cli.outcomes.OutcomeLines.outcome", 9),
    ],
)
async def test_a_fault_is_told_in_a_line_with_a_file_to_send(tmp_path: Path, target: str, starts: int) -> None:
    async with LocalEndpoint() as endpoint:
        err, file = await failed(target, tmp_path, endpoint)
        assert len(await executions(endpoint)) <= starts
        told = [line for line in err.splitlines() if "by a fault of its own: KeyError in __main__, line " in line]
        assert len(told) == 1
        for text in (err, file):
            assert "Traceback" not in text
            assert "SECRET" not in text
        assert "builtins.KeyError" in file
        assert file.rstrip().endswith('File "module __main__", line 10, in ?')  # and no line of what is the user's
        assert 'File "m2async/' in file
        assert f"m2async {version('m2async')}, Python 3" in file
        assert not any(str(folder) in file for folder in (tmp_path, CHECKOUT, sys.prefix, sys.base_prefix))
        # The ledger is right: the same command goes on, and each job is started once.
        ended = await m2async(
            "submit", tmp_path / "jobs.csv", "--ledger", tmp_path / "ledger.db", "--run", "r", url=endpoint.url
        )
        assert ended.code == 0, ended.err
        assert len(await executions(endpoint)) == 9


@pytest.mark.parametrize(
    ("left", "content"),
    [("leftover-1.0.dist-info/top_level.txt", b"json\n"), ("m2async-0.dist-info/METADATA", b"\xff")],
    ids=["a package is half removed", "m2async is half installed"],
)
async def test_a_report_is_written_whatever_of_it_cannot_be_had(tmp_path: Path, left: str, content: bytes) -> None:
    (tmp_path / left).parent.mkdir()
    (tmp_path / left).write_bytes(content)
    async with LocalEndpoint() as endpoint:
        err, file = await failed("m2async.cli.submit.open_run", tmp_path, endpoint)
    assert "by a fault of its own: KeyError in __main__, line " in err
    assert ", Python 3" in file
    assert " UTC, " in file
    assert "builtins.KeyError" in file
