"""How the command reads its manifest: once, into the ledger, or not at all; what is wrong leaves nothing behind."""

from __future__ import annotations

import contextlib
import re
import signal
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest
import typer
from anyio.abc import Process

from m2async import LocalEndpoint
from m2async.cli.manifests import Manifest
from m2async.ledger.sqlite.plan import BATCH
from tests.campaigns.faults import really_started
from tests.cli.terminal import APPLICATION, COMMAND, Ended, m2async, on_terminal, plain, running, settings, written
from tests.scripted import scripted, started

HEAD = "key,application_id,script,param.NUMBER\n"
JSON_ROW = f'{{{{"application_id": "{APPLICATION}", "script": "{{}}"}}}}\n'
YAML_ROW = f"defaults: {{{{application_id: {APPLICATION}, script: {{}}}}}}\n"


def lines(first: int, end: int) -> str:
    return "".join(f"row-{n},{APPLICATION},POSTTRAN,{n}\n" for n in range(first, end))


def manifest(folder: Path, content: str, name: str = "jobs.csv") -> Path:
    path = folder / name
    path.write_text(HEAD + content)
    return path


async def refused(ledger: Path, *arguments: str | Path, stdin: bytes = b"", **others: str) -> Ended:
    """Run `submit` against a server that counts: it must not be reached, and no run may be made."""
    async with scripted(started()) as server:
        ended = await m2async("submit", *arguments, "--ledger", ledger, url=server.url, stdin=stdin, **others)
        assert server.connections == 0
    assert (ended.code, ended.out) == (2, ""), ended
    return ended


def is_there(ledger: Path) -> bool:
    """Whether the ledger's file, or one of those beside it, exists."""
    return any(ledger.parent.glob(f"{ledger.name}*"))


def in_ledger(ledger: Path) -> dict[str, int]:
    """The runs of a ledger, each with its rows; no other rows may be there."""
    with closing(sqlite3.connect(ledger)) as connection:
        runs = connection.execute("SELECT name, (SELECT count(*) FROM jobs WHERE run = runs.id) FROM runs").fetchall()
        assert sum(rows for _, rows in runs) == connection.execute("SELECT count(*) FROM jobs").fetchone()[0]
    return dict(runs)


# What is wrong


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"last,{APPLICATION},POSTTRAN,1,2\n", f"jobs.csv:{BATCH + 12}: 5 fields, but the header has 4 columns"),
        (lines(7, 8), f"jobs.csv:{BATCH + 12}: key: 'row-7': is the key of line 9 already"),
    ],
    ids=["fields", "key"],
)
async def test_a_bad_row_behind_a_batch_of_good_ones_leaves_nothing_in_the_ledger(
    tmp_path: Path, endpoint: LocalEndpoint, line: str, message: str
) -> None:
    ledger = tmp_path / "ledger.db"
    path = manifest(tmp_path, lines(0, BATCH + 10) + line + f"another,,POSTTRAN,\n,{APPLICATION},,\n")
    ended = await refused(ledger, path, "--run", "night")
    assert message in ended.err
    assert ended.err.endswith("3 problems in the manifest; nothing was sent\n")
    assert not is_there(ledger)
    ended = await m2async(
        "submit", manifest(tmp_path, lines(0, 3)), "--ledger", ledger, "--run", "night", url=endpoint.url
    )
    assert ended.code == 0
    assert in_ledger(ledger) == {"night": 3}
    assert len(await really_started(endpoint.url)) == 3


async def test_a_manifest_that_is_broken_later_leaves_its_run_as_it_was(
    tmp_path: Path, endpoint: LocalEndpoint
) -> None:
    ledger = tmp_path / "ledger.db"
    options = ["--ledger", str(ledger), "--run", "night", "--output", "jsonl"]
    first = await m2async("submit", manifest(tmp_path, lines(0, 3)), *options, url=endpoint.url)
    for broken in ("one cell too few\n", lines(1, 2), lines(3, 4) + "x,y\n"):
        ended = await refused(ledger, manifest(tmp_path, lines(0, 3) + broken), "--run", "night")
        assert ended.err.endswith("1 problem in the manifest; nothing was sent\n")
    again = await m2async("submit", manifest(tmp_path, lines(0, 3)), *options, url=endpoint.url)
    assert sorted(again.out.splitlines()) == sorted(first.out.splitlines())
    assert len(await really_started(endpoint.url)) == 3


async def test_a_bad_manifest_is_told_before_anything_that_is_wrong_with_the_service(tmp_path: Path) -> None:
    path = manifest(tmp_path, "a,b\n")
    keys: dict[str, Any] = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
    for options in (["--profile", "nope"], ["--region", "not a region"], ["--timeout", "5"]):
        ended = await refused(tmp_path / "ledger.db", path, *options, **keys)
        assert ended.err == (
            f"{path}:2: 2 fields, but the header has 4 columns: is a comma missing or not quoted?\n"
            "m2async: 1 problem in the manifest; nothing was sent\n"
        )


@pytest.mark.parametrize("mode", ["--local", "--dry-run"])
async def test_a_rehearsal_and_a_dry_run_refuse_what_a_submission_refuses(tmp_path: Path, mode: str) -> None:
    path = manifest(tmp_path, "a,b\n" + lines(0, 2) + lines(1, 2))
    submitted = await refused(tmp_path / "ledger.db", path)
    ended = await m2async("submit", path, mode)
    assert (ended.code, ended.out, ended.err) == (2, "", submitted.err)
    assert "2 problems in the manifest" in ended.err


# Pipes


async def test_every_problem_of_a_manifest_on_a_pipe_is_told(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.db"
    content = (HEAD + lines(0, 3) + "a,b\n" + lines(1, 2)).encode()
    ended = await refused(ledger, "-", "--run", "night", stdin=content)
    assert re.findall(r"(?m)^<stdin>:(\d+): ", ended.err) == ["5", "6"]
    (tmp_path / "jobs.csv").write_bytes(content)
    async with scripted(started()) as server:
        program = f"{COMMAND} submit <(cat {tmp_path / 'jobs.csv'}) --ledger {ledger}"
        done = await anyio.run_process(["bash", "-c", program], env=settings(server.url), check=False)
        assert server.connections == 0
    assert done.returncode == 2
    assert re.findall(r"(?m)^/dev/fd/\d+:(\d+): ", done.stderr.decode()) == ["5", "6"]
    assert not is_there(ledger)


async def test_the_same_rows_on_a_pipe_again_start_nothing(tmp_path: Path, endpoint: LocalEndpoint) -> None:
    options = ["--ledger", str(tmp_path / "ledger.db"), "--output", "jsonl"]
    content = (HEAD + lines(0, 3)).encode()
    first = await m2async("submit", "-", *options, url=endpoint.url, stdin=content)
    again = await m2async("submit", "-", *options, url=endpoint.url, stdin=content)
    assert (first.code, again.code) == (0, 0)
    assert sorted(again.out.splitlines()) == sorted(first.out.splitlines())
    assert len(await really_started(endpoint.url)) == 3


# What is planned already


async def test_a_manifest_whose_run_is_planned_is_not_read_again(tmp_path: Path, endpoint: LocalEndpoint) -> None:
    path = tmp_path / "jobs.yaml"
    path.write_text(f"defaults: {{application_id: {APPLICATION}}}\njobs:\n  - {{key: a, script: POSTTRAN}}\n")
    options = ["--ledger", str(tmp_path / "ledger.db"), "--output", "jsonl", "-q"]
    first = await m2async("submit", path, *options, url=endpoint.url)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "yaml.py").write_text("raise ModuleNotFoundError('no yaml here', name='yaml')\n")
    unreadable: dict[str, Any] = {"PYTHONPATH": str(tmp_path / "site")}
    again = await m2async("submit", path, *options, url=endpoint.url, **unreadable)
    assert (again.code, again.out) == (0, first.out)
    other = await m2async("submit", path, *options, "--run", "other", url=endpoint.url, **unreadable)
    assert (other.code, other.out) == (2, "")
    assert "PyYAML" in other.err
    assert in_ledger(tmp_path / "ledger.db").keys() == {f"jobs-{name}" for name in run_digests(tmp_path / "ledger.db")}


def run_digests(ledger: Path) -> list[str]:
    with closing(sqlite3.connect(ledger)) as connection:
        return [digest[:8] for (digest,) in connection.execute("SELECT digest FROM runs")]


async def test_a_table_fits_the_rows_of_a_run_that_is_gone_on_with(tmp_path: Path, endpoint: LocalEndpoint) -> None:
    rows = [f"{'long-' * 8}{n},{APPLICATION},{'JOB' * 7}{n},{n}\n" for n in range(8, 12)]
    options = ["--ledger", str(tmp_path / "ledger.db"), "--run", "night"]
    for arguments in (["submit", manifest(tmp_path, "".join(rows)), *options], ["resume", "night", *options[:2]]):
        ended = await m2async(*arguments, url=endpoint.url)
        assert ended.code == 0
        assert {line.find("started") for line in ended.out.splitlines()[1:]} == {ended.out.index("STATE")}


# While it is read


SWEEP = f"""
defaults: {{application_id: {APPLICATION}}}
jobs:
  - script: POSTTRAN
    matrix: {{NUMBER: {{from: 1, to: 1000000}}}}
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_long_check_is_shown_and_a_signal_ends_it_with_nothing_sent_and_no_run(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    path, ledger = tmp_path / "sweep.yaml", tmp_path / "ledger.db"
    path.write_text(SWEEP)
    async with scripted(started()) as server:
        ended, written = await on_terminal(
            "submit", path, "--ledger", ledger, url=server.url, once="rows checked", send=number
        )
        assert server.connections == 0
    assert ended == code, written
    shown = plain(written)
    assert re.search(r"━ \d+,000 rows checked [\d,]+/s", shown), shown[-2_000:]
    assert shown.endswith("m2async: interrupted before the whole manifest was checked; nothing was sent\n")
    assert "Traceback" not in shown
    assert written.count("\x1b[?25h") >= written.count("\x1b[?25l")  # the cursor is shown again
    assert not is_there(ledger)


async def test_a_short_check_shows_no_bar_of_its_own(tmp_path: Path, endpoint: LocalEndpoint) -> None:
    options = ["--ledger", str(tmp_path / "ledger.db")]
    code, written = await on_terminal("submit", manifest(tmp_path, lines(0, 3)), *options, url=endpoint.url)
    assert code == 0
    assert "rows checked" not in plain(written)
    assert "3/3" in plain(written)


async def test_a_ledger_that_cannot_take_the_rows_is_not_called_a_bad_manifest(tmp_path: Path) -> None:
    path, ledger = manifest(tmp_path, lines(0, 20_000)), tmp_path / "ledger.db"
    async with scripted(started()) as server:
        program = f"ulimit -f 200; exec {COMMAND} submit {path} --ledger {ledger}"
        done = await anyio.run_process(["bash", "-c", program], env=settings(server.url), check=False)
        assert server.connections == 0
    assert done.returncode == 3
    assert f"ledger {ledger}: has reached the limit on the size of files (ulimit -f" in done.stderr.decode()


def test_a_manifest_that_cannot_be_taken_from_standard_input_is_told(tmp_path: Path) -> None:
    (tmp_path / "jobs.csv").write_text("key,file\n" + "".join(f"key-{n},POSTTRAN.jcl\n" for n in range(9_000)))
    for redirection, complaint in (
        ("<&-", "m2async: standard input is closed: give the manifest as a file, or pipe it in\n"),
        ("< jobs.csv", "-: cannot be read, or copied to a temporary file (in TMPDIR, if that is set): "),
    ):
        command = f"ulimit -f 1; exec {COMMAND} check - -a {APPLICATION} {redirection}"
        ended = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert ended.returncode == 2
        assert complaint in ended.stderr
        assert "Traceback" not in ended.stderr


async def waits_for(process: Process, path: Path) -> None:
    """Wait until the process has a file open."""

    def has_it_open() -> bool:
        with contextlib.suppress(FileNotFoundError):  # another file was closed meanwhile
            return any(fd.readlink() == path for fd in Path(f"/proc/{process.pid}/fd").iterdir())
        return False

    while not has_it_open():
        await anyio.sleep(0.01)


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("jobs.csv", HEAD + lines(0, 3), HEAD + lines(0, 2) + lines(9, 10)),
        ("jobs.csv", HEAD + lines(0, 3), HEAD + lines(0, 2)),
        ("jobs.csv", HEAD + lines(0, 3), HEAD + lines(0, 3) + "\n"),
        ("jobs.jsonl", JSON_ROW.format("A"), JSON_ROW.format("B")),
        ("jobs.yaml", YAML_ROW.format("A"), YAML_ROW.format("B")),
    ],
    ids=["another row", "cut", "a line feed", "jsonl", "yaml"],
)
@pytest.mark.parametrize("named", [[], ["--run", "night"]], ids=["", "named"])
async def test_a_manifest_that_changes_while_it_is_read_is_an_error_and_nothing_is_sent(
    tmp_path: Path, endpoint: LocalEndpoint, name: str, before: str, after: str, named: list[str]
) -> None:
    path, ledger = tmp_path / name, tmp_path / "ledger.db"
    first = await m2async("submit", manifest(tmp_path, lines(50, 51), "x.csv"), "--ledger", ledger, url=endpoint.url)
    assert first.code == 0
    path.write_text(before)
    with closing(sqlite3.connect(ledger, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        async with running("submit", path, "--ledger", ledger, *named, url=endpoint.url) as process:
            await waits_for(process, ledger)  # its digest is known
            path.write_text(after)
            other.execute("ROLLBACK")
            out, err = await written(process.stdout), await written(process.stderr)
            assert (await process.wait(), out) == (2, b"")
    assert f"{path} was changed while it was read: {path}: its rows are not those of its digest; nothing was sent" in (
        err.decode()
    )
    assert len(await really_started(endpoint.url)) == 1
    assert list(in_ledger(ledger).values()) == [1]


async def test_a_check_and_a_dry_run_say_that_the_manifest_changes(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        read = Manifest(stack, str(manifest(tmp_path, lines(0, 3))), None, {})
        assert read.digest
        manifest(tmp_path, lines(0, 4))
        with pytest.raises(typer.Exit) as ended, read.unchanged(), read.rows({}) as rows:
            assert len(list(rows)) == 3
        assert ended.value.exit_code == 2
