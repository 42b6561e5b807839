"""The command over a ledger: the same again, resuming, listings, the operator's word, and ledgers that fail."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import re
import shlex
import shutil
import signal
import sqlite3
import stat
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import Process

from m2async import LocalEndpoint
from tests.campaigns.faults import audit, really_started
from tests.cli.terminal import APPLICATION, COMMAND, Ended, m2async, on_terminal, plain, running, settings, written
from tests.ledger.samples import older
from tests.scripted import ScriptedServer, answer, error, hang, scripted, started


def manifest(folder: Path, rows: int = 3, name: str = "jobs.csv", script: str = "JOB{}") -> Path:
    path = folder / name
    lines = [f"row-{n},{APPLICATION},{script.format(n)},{n}" for n in range(rows)]
    path.write_text("\n".join(["key,application_id,script,param.NUMBER", *lines, ""]))
    return path


class Book:
    """A ledger of the command's, in a folder of its own."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.path = folder / "ledger.db"
        self.url = url

    async def __call__(self, *arguments: str | Path, **others: Any) -> Ended:
        return await m2async(*arguments, "--ledger", self.path, url=self.url, **others)

    async def submit(self, path: Path, *options: str, **others: Any) -> Ended:
        return await self("submit", path, "--run", "night", "--output", "jsonl", *options, **others)


@pytest.fixture
def book(tmp_path: Path, endpoint: LocalEndpoint) -> Book:
    return Book(tmp_path, endpoint.url)


def ids(ended: Ended) -> dict[str, str | None]:
    return {line["key"]: line["execution_id"] for line in ended.lines}


# The same again


async def test_the_same_command_again_starts_nothing_and_prints_the_same_lines(tmp_path: Path, book: Book) -> None:
    path = manifest(tmp_path, 50)
    first = await book("submit", path, "--output", "jsonl")
    listed = await really_started(book.url)
    again = await book("submit", path, "--output", "jsonl")
    assert (first.code, again.code) == (0, 0)
    assert len(listed) == len(again.lines) == 50
    assert sorted(again.out.splitlines()) == sorted(first.out.splitlines())
    assert [e["executionId"] for e in await really_started(book.url)] == [e["executionId"] for e in listed]
    assert "50 jobs were started before, 0 are left" in again.err


async def test_another_run_starts_them_all_again(tmp_path: Path, book: Book) -> None:
    path = manifest(tmp_path)
    assert (await book("submit", path, "--run", "one")).code == 0
    assert (await book("submit", path, "--run", "two")).code == 0
    assert Counter(e["jobParams"]["NUMBER"] for e in await really_started(book.url)) == {"0": 2, "1": 2, "2": 2}


async def test_a_changed_manifest_is_another_run_unless_the_run_is_named(tmp_path: Path, book: Book) -> None:
    path = manifest(tmp_path)
    await book("submit", path)
    await book("submit", path, "--param", "RUNDATE=20261124")
    assert len(await really_started(book.url)) == 6
    listed = (await book("runs", "--output", "jsonl")).lines
    assert [entry["started"] for entry in listed] == [3, 3]
    assert all(entry["run"].startswith("jobs-") for entry in listed)


async def test_a_changed_manifest_under_the_same_run_is_refused_with_the_rows_that_differ(
    tmp_path: Path, book: Book
) -> None:
    assert (await book.submit(manifest(tmp_path))).code == 0
    path = tmp_path / "jobs.csv"
    path.write_text(path.read_text().replace("row-0", "new-0").replace("JOB1", "OTHER"))
    ended = await book.submit(path)
    assert (ended.code, ended.out) == (2, "")
    assert "1 added (new-0); 1 removed (row-0); 1 changed (row-1)" in ended.err
    assert len(await really_started(book.url)) == 3


async def test_the_order_of_the_rows_is_no_change(tmp_path: Path, book: Book) -> None:
    path = manifest(tmp_path)
    first = await book.submit(path)
    head, *rows = path.read_text().splitlines()
    path.write_text("\n".join([head, *reversed(rows), ""]))
    again = await book.submit(path)
    assert again.code == 0
    assert ids(again) == ids(first)
    assert len(await really_started(book.url)) == 3


async def test_rejected_rows_are_tried_again_by_the_same_command(tmp_path: Path) -> None:
    path = manifest(tmp_path)
    async with scripted(started("one"), error(400, "ValidationException"), started("three")) as server:
        first = await Book(tmp_path, server.url).submit(path, "--no-preflight", "--concurrency", "1")
    assert first.code == 1
    assert [line["state"] for line in first.lines] == ["started", "rejected", "started"]
    async with scripted(started("two")) as server:
        again = await Book(tmp_path, server.url).submit(path, "--moved")
        assert len(server.requests) == 1
    assert again.code == 0
    assert ids(again) == {"row-0": "one", "row-1": "two", "row-2": "three"}


# Interrupted and resumed


@asynccontextmanager
async def working(*arguments: str | Path, url: str) -> AsyncIterator[tuple[Process, dict[str, bytes]]]:
    """Run the command until it has printed something; afterwards wait for its end, and give all that it wrote."""
    wrote = {"out": b"", "err": b""}
    async with running(*arguments, url=url) as process:
        assert process.stdout is not None
        wrote["out"] = await process.stdout.receive()
        yield process, wrote
        rest = await asyncio.gather(written(process.stdout), written(process.stderr))
        wrote["out"], wrote["err"] = wrote["out"] + rest[0], rest[1]
        await process.wait()
    assert b"Traceback" not in wrote["err"], wrote["err"].decode()


SIXTEEN_AT_ONCE = ("--concurrency", "16", "--rate", "1e6")


async def test_a_run_that_was_interrupted_is_resumed_by_its_name_alone(tmp_path: Path) -> None:
    async with LocalEndpoint(faults={"latency": 1.0}, seed=1) as endpoint:
        book = Book(tmp_path, endpoint.url)
        path = manifest(tmp_path, 60)
        options = ["--ledger", str(book.path), "--run", "night", *SIXTEEN_AT_ONCE, "--output", "jsonl"]
        async with working("submit", path, *options, url=book.url) as (process, _):
            os.kill(process.pid, signal.SIGINT)
        assert process.returncode == 130
        before = await really_started(book.url)
        assert 16 <= len(before) < 60
        path.unlink()
        ended = await book("resume", "night", "--output", "jsonl")
        executions = await really_started(book.url)
    assert ended.code == 0
    assert len(ended.lines) == len(executions) == 60
    found = await audit(book.path, "night", executions)
    assert found.problems == []
    assert found.states == {"started": 60}


async def test_a_second_signal_leaves_a_ledger_that_is_right(tmp_path: Path) -> None:
    async with LocalEndpoint(faults={"latency": 1.0}, seed=1) as endpoint:
        book = Book(tmp_path, endpoint.url)
        options = ["--ledger", str(book.path), "--run", "night", *SIXTEEN_AT_ONCE, "--output", "jsonl"]
        async with working("submit", manifest(tmp_path, 60), *options, url=book.url) as (process, _):
            assert process.stderr is not None
            os.kill(process.pid, signal.SIGINT)
            said = b""
            while b"interrupted" not in said:
                said += await process.stderr.receive()
            os.kill(process.pid, signal.SIGINT)
        assert process.returncode == 130
        found = await audit(book.path, "night", await really_started(book.url), ended=False)
        assert found.problems == []
        assert found.states["intent"] > 0
        ended = await book("resume", "night", "--settle", "0.3")
        executions = await really_started(book.url)
    assert ended.code == 0
    assert len(executions) == 60
    found = await audit(book.path, "night", executions)
    assert found.problems == []
    assert found.adopted > 0


async def test_a_copy_of_the_file_alone_that_was_made_in_mid_run_is_refused(tmp_path: Path) -> None:
    async with LocalEndpoint(seed=1) as endpoint:
        book = Book(tmp_path, endpoint.url)
        options = ["--ledger", str(book.path), "--run", "night", "--rate", "20", "--burst", "1", "--output", "jsonl"]
        async with working("submit", manifest(tmp_path, 60), *options, url=book.url) as (process, _):
            copy = shutil.copy(book.path, tmp_path / "copy.db")
            os.kill(process.pid, signal.SIGINT)
        assert process.returncode == 130
        before = await really_started(book.url)
        for command in (["resume", "night"], ["runs"]):
            ended = await m2async(*command, "--ledger", copy, url=book.url)
            assert ended.code == 3
            assert "copy.db-wal is lost or cut; put back" in ended.err
        assert len(await really_started(book.url)) == len(before)
        assert (await book("resume", "night")).code == 0
        assert len(await really_started(book.url)) == 60


async def test_an_upgrade_is_said(book: Book) -> None:
    older(book.path)
    assert (await book("runs")).err == ""
    ended = await book("track", "run", "--max-rc", "4")
    assert re.search(
        r"^m2async: ledger \S+ was upgraded from schema version 4 to \d+; .* \S+$", ended.err, re.MULTILINE
    )
    assert "upgraded" not in (await book("track", "run", "--max-rc", "4")).err


# Listings


@pytest.fixture
async def mixed(tmp_path: Path) -> Book:
    """A run with a row that is started, one that is rejected, and one that is unknown."""
    path = manifest(tmp_path)
    steps = [started("one"), error(400, "ValidationException"), error(500, "InternalServerException")]
    async with scripted(*steps) as server:
        book = Book(tmp_path, server.url)
        ended = await book.submit(path, "--no-preflight", "--concurrency", "1", "--on-unknown", "hold")
    assert ended.code == 1
    return book


async def test_runs_and_status_show_how_far_a_run_is(mixed: Book) -> None:
    counts = {"run": "night", "pending": 0, "intent": 0, "started": 1, "rejected": 1, "unknown": 1}
    counts |= {"succeeded": 0, "failed": 0}
    assert (await mixed("runs", "--output", "jsonl")).lines == [counts]
    [status] = (await mixed("status", "night", "--output", "jsonl")).lines
    rows, executions = status.pop("rows"), status.pop("executions")
    assert status == {**counts, "sent_to": f"{mixed.url} in us-east-1"}
    assert executions == [{"status": None, "return_code": None, "result": "open", "jobs": 1}]
    assert [(row["key"], row["state"], row["error"]["code"]) for row in rows] == [
        ("row-1", "rejected", "ValidationException"),
        ("row-2", "unknown", "InternalServerException"),
    ]
    table = (await mixed("status", "night")).out
    assert "row-1" in table
    assert "row-2" in table
    assert "row-0" not in table


async def test_status_says_that_a_run_is_stopped_or_paused(mixed: Book) -> None:
    for order in ("pause", "stop"):
        assert (await mixed(order, "night")).code == 0
        word = {"pause": "paused", "stop": "stopped"}[order]
        assert f"{word} until m2async unpause night --ledger {mixed.path}\n" in (await mixed("status", "night")).out
    assert (await mixed("unpause", "night")).code == 0
    assert "until" not in (await mixed("status", "night")).out


async def test_status_shows_the_candidates_of_an_unknown_row(tmp_path: Path) -> None:
    async with LocalEndpoint(faults={"accept-then-500": 0.5, "500": 0.5}, seed=1) as endpoint:
        book = Book(tmp_path, endpoint.url)
        ended = await book.submit(manifest(tmp_path, 2, script="SAME"), "--settle", "0.1", "--certainty", "fast")
        assert ended.code == 1
        [one] = [execution["executionId"] for execution in await really_started(book.url)]
    [status] = (await book("status", "night", "--output", "jsonl")).lines
    assert [row["candidates"] for row in status["rows"]] == [[one], [one]]
    assert one in (await book("status", "night")).out


def lists(server: ScriptedServer) -> int:
    """How often it was asked for executions of a window of time."""
    return sum(b"startedBefore" in request.split(b"\r\n")[0] for request in server.requests)


@pytest.mark.parametrize("again", ["submit", "resume"])
async def test_doubts_that_no_look_can_end_are_looked_for_once_and_it_is_said(tmp_path: Path, again: str) -> None:
    path = manifest(tmp_path, 2, script="SAME")
    ledger = ("--ledger", tmp_path / "ledger.db", "--run", "night")
    async with scripted(error(500, "InternalServerException")) as server:
        await m2async("submit", path, "--no-preflight", "--on-unknown", "hold", *ledger, url=server.url)
        members = {"applicationId": APPLICATION, "startTime": time.time(), "status": "Running"}
        members["batchJobIdentifier"] = {"scriptBatchJobIdentifier": {"scriptName": "SAME"}}
        listed = [members | {"executionId": f"e-{number}"} for number in range(1)]
        server.steps = [answer(200, {"batchJobExecutions": listed})]
        await m2async("reconcile", "night", *ledger[:2], "--settle", "0.1", url=server.url)
        once = lists(server)
        command = ("submit", path, "--no-preflight", *ledger) if again == "submit" else ("resume", "night", *ledger[:2])
        ended = await m2async(*command, "--settle", "0.1", "--output", "jsonl", url=server.url)
    assert [line["state"] for line in ended.lines] == ["unknown", "unknown"]
    assert lists(server) == 2 * once
    assert "2 jobs may have been started before: looked for among the service's executions" in ended.err


async def test_export_has_the_fields_of_a_submit_line(mixed: Book, tmp_path: Path) -> None:
    exported = await mixed("export", "night", "--format", "jsonl")
    assert exported.code == 0
    submitted = await mixed("submit", tmp_path / "jobs.csv", "--dry-run", "--output", "jsonl")
    assert [line["key"] for line in exported.lines] == [line["key"] for line in submitted.lines]
    of_submit = ("key", "application_id", "job", "state", "execution_id", "attempts", "adopted", "error")
    assert [tuple(line) for line in exported.lines] == [(*of_submit, "status", "return_code")] * 3
    rows = list(csv.DictReader(io.StringIO((await mixed("export", "night", "--format", "csv")).out)))
    assert [(row["key"], row["state"], row["execution_id"], row["error_code"]) for row in rows] == [
        ("row-0", "started", "one", ""),
        ("row-1", "rejected", "", "ValidationException"),
        ("row-2", "unknown", "", "InternalServerException"),
    ]


async def test_an_export_as_csv_reads_back_whatever_a_key_or_a_message_holds(tmp_path: Path) -> None:
    key, message = 'a, "b"; c', 'no such thing: "x", y\r\nor z'
    (tmp_path / "jobs.jsonl").write_text(json.dumps({"key": key, "application_id": APPLICATION, "script": "A,B"}))
    async with scripted(error(400, "ValidationException", message=message)) as server:
        book = Book(tmp_path, server.url)
        assert (await book.submit(tmp_path / "jobs.jsonl", "--no-preflight")).code == 1
    exported = await book("export", "night", "--format", "csv")
    [row] = csv.DictReader(io.StringIO(exported.out, newline=""))
    assert (row["key"], row["job"], row["error_message"]) == (key, "A,B", message)


async def test_what_a_spreadsheet_or_a_terminal_would_obey_in_an_export_is_exact_in_a_file_and_never_silent(
    tmp_path: Path,
) -> None:
    keys = ["=HYPERLINK(1)", "-1+1", "@x", "plain"]
    message = "\x1b]0;owned\x07 \x9b31m \u202egpj \U000e0001"
    path = tmp_path / "jobs.jsonl"
    path.write_text("\n".join(json.dumps({"key": k, "application_id": APPLICATION, "script": "A"}) for k in keys))
    async with scripted(error(400, "ValidationException", message=message)) as server:
        book = Book(tmp_path, server.url)
        submitted = await book.submit(path, "--no-preflight")
    in_csv = await book("export", "night")
    rows = list(csv.DictReader(io.StringIO(in_csv.out, newline="")))
    in_json = await book("export", "night", "--format", "jsonl")
    assert {row["key"] for row in rows} == {line["key"] for line in in_json.lines} == set(keys)
    assert {row["error_message"] for row in rows} == {message}
    assert {line["error"]["message"] for line in (*in_json.lines, *submitted.lines)} == {message}
    assert "3 cells with a formula" in in_csv.err
    assert "4 cells with control characters" in in_csv.err
    assert in_json.err == ""
    for command in (("export",), ("export", "--format", "jsonl"), ("status",), ("status", "--output", "json")):
        _, shown = await on_terminal(*command, "night", "--ledger", book.path)
        assert "ValidationException" in shown
        assert all(c.isprintable() or c in "\r\n" for c in plain(shown)), command


async def test_an_export_without_anything_odd_says_nothing(book: Book, tmp_path: Path) -> None:
    await book.submit(manifest(tmp_path))
    assert (await book("export", "night")).err == ""


async def test_export_of_a_started_run_is_what_submit_printed(tmp_path: Path, book: Book) -> None:
    submitted = await book.submit(manifest(tmp_path, 20))
    exported = await book("export", "night", "--format", "jsonl")
    printed = [line | {"status": None, "return_code": None} for line in submitted.lines]  # not tracked yet
    assert sorted(exported.lines, key=str) == sorted(printed, key=str)


# The operator's word


async def test_the_operators_word_decides_an_unknown_row(mixed: Book) -> None:
    ended = await mixed("resolve", "night", "--key", "row-2", "--started", "found-by-hand")
    assert (ended.code, ended.err) == (0, "row-2 is started as found-by-hand\n")
    [row] = [line for line in (await mixed("export", "night", "--format", "jsonl")).lines if line["key"] == "row-2"]
    assert (row["state"], row["execution_id"], row["adopted"]) == ("started", "found-by-hand", False)


async def test_a_row_that_an_operator_calls_not_started_is_started_by_the_same_command(
    mixed: Book, tmp_path: Path
) -> None:
    ended = await mixed("resolve", "night", "--key", "row-2", "--not-started")
    assert (ended.code, ended.err) == (0, "row-2 is pending\n")
    async with scripted(started("two"), started("three")) as server:
        again = await Book(tmp_path, server.url).submit(tmp_path / "jobs.csv", "--concurrency", "1", "--moved")
        assert len(server.requests) == 2
    assert again.code == 0
    assert ids(again) == {"row-0": "one", "row-1": "two", "row-2": "three"}


async def test_an_operators_word_is_corrected_by_another_until_the_job_is_sent_again(
    mixed: Book, tmp_path: Path
) -> None:
    for words in (("--started", "in-error"), ("--not-started",), ("--started", "again"), ("--not-started",)):
        assert (await mixed("resolve", "night", "--key", "row-2", *words)).code == 0
    async with scripted(started("two"), started("three")) as server:
        again = await Book(tmp_path, server.url).submit(tmp_path / "jobs.csv", "--concurrency", "1", "--moved")
    assert ids(again)["row-2"] == "three"
    late = await mixed("resolve", "night", "--key", "row-2", "--started", "in-error")
    assert late.code == 2
    assert "not possible for a row that is STARTED" in late.err


@pytest.mark.parametrize("command", ["resume", "reconcile", "resolve"])
async def test_a_job_whose_first_attempt_is_in_doubt_is_settled_although_a_later_one_was_refused(
    tmp_path: Path, command: str
) -> None:
    async with LocalEndpoint(faults={"accept-then-500": 1.0}, seed=1) as endpoint:
        first = Book(tmp_path, endpoint.url)
        assert (await first.submit(manifest(tmp_path, 1), "--on-unknown", "hold")).code == 1
        [execution] = [execution["executionId"] for execution in await really_started(endpoint.url)]
        async with scripted(error(429, "ThrottlingException", {"retry-after": "60"})) as throttled:
            options = [
                "--run",
                "night",
                "--ledger",
                str(first.path),
                "--on-unknown",
                "resend",
                "--no-preflight",
                "--moved",
            ]
            async with running("submit", tmp_path / "jobs.csv", *options, url=throttled.url) as process:
                await throttled.arrived.wait()
                while (await first("export", "night", "--format", "jsonl")).lines[0]["attempts"] != 2:
                    pass
                while (await first("runs", "--output", "jsonl")).lines[0]["intent"]:
                    pass
                process.kill()
        back = ("--settle", "0.1", "--moved")
        words = ("--key", "row-0", "--started", execution) if command == "resolve" else back
        assert (await first(command, "night", *words)).code == 0
        [row] = (await first("export", "night", "--format", "jsonl")).lines
        assert (row["state"], row["execution_id"]) == ("started", execution)
        assert len(await really_started(endpoint.url)) == 1


@pytest.mark.parametrize("seed", range(4))
async def test_reconcile_decides_at_once_what_another_process_has_just_left_in_doubt(tmp_path: Path, seed: int) -> None:
    """By our clock it is not known exactly when that was; how well depends on where in a second it was."""
    async with LocalEndpoint(faults={"accept-then-drop": 0.5}, seed=seed) as endpoint:
        book = Book(tmp_path, endpoint.url)
        submitted = await book.submit(manifest(tmp_path, 20), "--on-unknown", "hold")
        unknown = [line["key"] for line in submitted.lines if line["state"] == "unknown"]
        assert len(unknown) > 3
        found = await book("reconcile", "night", "--settle", "0.1", "--output", "jsonl")
    assert found.code == 0, found.err
    assert {line["key"]: line["state"] for line in found.lines} == dict.fromkeys(unknown, "started")


async def test_the_rows_of_a_run_in_progress_are_looked_for_and_resolved_from_another_terminal(tmp_path: Path) -> None:
    async with LocalEndpoint(faults={"accept-then-500": 1.0}, seed=1) as endpoint:
        book = Book(tmp_path, endpoint.url)
        path = manifest(tmp_path, 3)
        assert (await book.submit(path, "--on-unknown", "hold")).code == 1
        assert (await book("resolve", "night", "--key", "row-2", "--not-started")).code == 0
        assert (await book("pause", "night")).code == 0
        submit = ("submit", path, "--run", "night", "--ledger", book.path, "--settle", "600", "--output", "jsonl")
        anyway = "--start-anyway"  # row-2 was started, and said not to be
        async with running(*submit, anyway, url=book.url) as process:  # which looks for them in ten minutes
            assert process.stderr is not None
            while b"paused" not in await process.stderr.receive():
                pass
            taken = await book("resolve", "night", "--key", "row-2", "--started", "e-2")
            assert (taken.code, taken.err) == (0, "row-2 is started as e-2\n")
            refused = await book("resolve", "night", "--key", "row-1", "--started", "e-2")
            assert refused.code == 2
            assert "execution e-2 belongs to row 'row-2' of run 'night' already" in refused.err
            found = await book("reconcile", "night", "--settle", "0.1", "--output", "jsonl")
            assert (found.code, [line["state"] for line in found.lines]) == (0, ["started", "started"])
            for words in (("--not-started",), ("--started", "e-1")):
                assert (await book("resolve", "night", "--key", "row-1", *words)).code == 0
            process.terminate()
            assert await process.wait() == 143
        assert len(await really_started(book.url)) == 3
    exported = (await book("export", "night", "--format", "jsonl")).lines
    assert [line["execution_id"] for line in exported][1:] == ["e-1", "e-2"]


async def test_an_operators_word_that_cannot_be_is_refused(mixed: Book) -> None:
    refusals = {
        ("night", "--key", "nosuch", "--not-started"): "run 'night' has no row 'nosuch'",
        ("nosuch", "--key", "row-2", "--not-started"): "has no run 'nosuch'",
        ("night", "--key", "row-0", "--not-started"): "run 'night', row 1",
        ("night", "--key", "row-1", "--started", "e"): "run 'night', row 2",
        ("night", "--key", "row-2", "--started", "one"): "execution one belongs to row 'row-0' of run 'night' already",
        ("night", "--key", "row-2", "--started", ""): "--started: '': must have 1 to 80 characters and no white space",
        ("night", "--key", "row-2", "--started", "a b"): "--started: 'a b': must have 1 to 80 characters",
        ("night", "--key", "row-2", "--started", "../.."): "--started: '../..': must hold printable characters only",
        ("night", "--key", "row-2", "--started", "\x1b[31m"): r"--started: '\x1b[31m': must hold printable characters",
        ("night", "--key", "row-2", "--started", "y" * 81): "(81 characters): must have 1 to 80 characters",
        ("night", "--key", "row-2"): "give either --started EXECUTION_ID or --not-started",
        ("night", "--key", "row-2", "--started", "e", "--not-started"): "give either --started",
    }
    before = (await mixed("export", "night")).out
    for arguments, message in refusals.items():
        ended = await mixed("resolve", *arguments)
        assert (ended.code, ended.out) == (2, ""), ended
        assert message in ended.err
    assert (await mixed("export", "night")).out == before
    assert [line["run"] for line in (await mixed("runs", "--output", "jsonl")).lines] == ["night"]


@pytest.mark.parametrize("command", ["resume", "status", "export"])
async def test_a_run_that_does_not_exist_is_bad_input_and_is_not_made(book: Book, tmp_path: Path, command: str) -> None:
    await book.submit(manifest(tmp_path))
    ended = await book(command, "nosuch")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.endswith("has no run 'nosuch'\n")
    assert len((await book("runs", "--output", "jsonl")).lines) == 1


# The file


async def test_the_ledger_is_its_owners_alone(book: Book, tmp_path: Path) -> None:
    await book.submit(manifest(tmp_path))
    assert stat.S_IMODE(book.path.stat().st_mode) == 0o600
    default = tmp_path / "state" / "m2async"
    assert not default.exists()
    await m2async("submit", tmp_path / "jobs.csv", url=book.url)
    assert stat.S_IMODE(default.stat().st_mode) == 0o700
    assert stat.S_IMODE((default / "ledger.db").stat().st_mode) == 0o600


async def test_a_rehearsal_writes_no_file(tmp_path: Path) -> None:
    path = manifest(tmp_path)
    before = files(tmp_path)
    assert (await m2async("submit", path, "--local")).code == 0
    assert files(tmp_path) == before


def files(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


async def test_addresses_of_no_ledger_are_refused_and_nothing_is_sent(tmp_path: Path, endpoint: LocalEndpoint) -> None:
    path = manifest(tmp_path)
    with closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("CREATE TABLE notes (text)")
    (tmp_path / "text").write_text("no database" * 100)
    refusals = {
        "mysql://host/x": (2, "there are no ledgers of the kind mysql:"),
        str(tmp_path / "nosuch" / "ledger.db"): (3, "there is no directory"),
        str(tmp_path): (3, "is not a file"),
        str(tmp_path / "other.db"): (3, "is an SQLite database of another program"),
        str(tmp_path / "text"): (3, "is not an SQLite database"),
    }
    for address, (code, message) in refusals.items():
        ended = await m2async("submit", path, "--ledger", address, url=endpoint.url)
        assert (ended.code, ended.out) == (code, ""), ended
        assert message in ended.err
    assert await really_started(endpoint.url) == []
    assert (tmp_path / "text").read_text() == "no database" * 100


@pytest.mark.parametrize(
    "command",
    ["runs", "status", "export", "report", "watch", "rate", "pause", "resume", "track", "cancel", "reconcile"],
)
async def test_a_ledger_whose_name_is_mistyped_is_not_made(tmp_path: Path, command: str) -> None:
    run = [] if command == "runs" else ["night", "80"] if command == "rate" else ["night"]
    ended = await m2async(command, *run, "--ledger", tmp_path / "typo.db", url="http://127.0.0.1:9")
    assert (ended.code, ended.out) == (3, "")
    assert ended.err == f"m2async: ledger {tmp_path / 'typo.db'}: does not exist\n"
    assert files(tmp_path) == set()


# Ledgers that fail


def prefixed(prefix: str, *arguments: str | Path) -> list[str]:
    """The command behind a shell's `prefix`."""
    return ["bash", "-c", f"{prefix} {shlex.join([COMMAND, *map(str, arguments)])}"]


async def shell(command: list[str], url: str) -> Ended:
    done = await anyio.run_process(command, env=settings(url), check=False)
    ended = Ended(done.returncode, done.stdout.decode(), done.stderr.decode())
    assert "Traceback" not in ended.err, ended.err
    return ended


@pytest.mark.parametrize("kilobytes", [160, 400])
async def test_a_full_disk_ends_the_run_and_nothing_was_sent_that_is_not_written(
    tmp_path: Path, kilobytes: int
) -> None:
    async with LocalEndpoint(faults={"latency": 0.1}, seed=1) as endpoint:
        path, book = manifest(tmp_path, 1_000), Book(tmp_path, endpoint.url)
        options = ["--ledger", str(book.path), "--run", "night", "--output", "jsonl"]
        ended = await shell(prefixed(f"ulimit -f {kilobytes}; exec", "submit", path, *options), book.url)
        assert ended.code == 3, ended
        assert re.search(r"ledger .*ledger\.db: has reached the limit on the size of files", ended.err), ended.err
        executions = await really_started(book.url)
        assert len(executions) < 1_000
        assert bool(executions) is (kilobytes == 400)  # where there is room for the plan, and for some jobs
        if executions:
            assert (await audit(book.path, "night", executions, ended=False)).problems == []
        again = await book.submit(path, "--settle", "0.3")
        assert again.code == 0
        executions = await really_started(book.url)
        assert len(executions) == 1_000
        assert (await audit(book.path, "night", executions)).problems == []


@pytest.mark.parametrize("what", ["directory", "file"])
async def test_a_ledger_that_cannot_be_written_is_said_and_nothing_is_sent(
    tmp_path: Path, endpoint: LocalEndpoint, what: str
) -> None:
    folder = tmp_path / "ledgers"
    folder.mkdir()
    path = manifest(tmp_path)
    if what == "file":
        await m2async("submit", path, "--ledger", folder / "ledger.db", "--run", "before", "--local")
        (folder / "ledger.db").chmod(0o400)
    else:
        folder.chmod(0o500)
    # The administrator may write anywhere, unless that is taken away.
    prefix = "exec setpriv --bounding-set=-dac_override" if os.geteuid() == 0 else "exec"
    ended = await shell(prefixed(prefix, "submit", path, "--ledger", folder / "ledger.db"), endpoint.url)
    folder.chmod(0o700)
    assert (ended.code, ended.out) == (3, "")
    assert re.search(r"ledger .*ledger\.db: cannot be (written|opened)", ended.err), ended.err
    assert await really_started(endpoint.url) == []


@pytest.mark.parametrize("deed", ["deleted", "truncated"])
async def test_a_ledger_that_is_taken_away_ends_the_run(tmp_path: Path, deed: str) -> None:
    async with LocalEndpoint(faults={"latency": 1.0}, seed=1) as endpoint:
        book = Book(tmp_path, endpoint.url)
        options = ["--ledger", str(book.path), "--run", "night", "--concurrency", "8", "--output", "jsonl"]
        async with working("submit", manifest(tmp_path, 200), *options, url=book.url) as (process, wrote):
            for name in ("ledger.db", "ledger.db-wal"):
                os.link(tmp_path / name, tmp_path / f"kept-{name}")
            if deed == "deleted":
                book.path.unlink()
            else:
                os.truncate(book.path, 100)
        executions = await really_started(book.url)
    assert process.returncode == 3
    assert f"ledger.db was {deed} while in use" in wrote["err"].decode()
    assert len(executions) < 100
    if deed == "deleted":  # what was durable until then can still be read
        assert (await audit(tmp_path / "kept-ledger.db", "night", executions, ended=False)).problems == []


@pytest.mark.parametrize("options", [[], ["--wait"]], ids=["", "followed"])
async def test_a_log_that_is_cut_ends_the_run_in_words(tmp_path: Path, options: list[str]) -> None:
    async with LocalEndpoint(faults={"latency": 1.0}, seed=1) as endpoint:
        book = Book(tmp_path, endpoint.url)
        options = [*options, "--ledger", str(book.path), "--run", "night", "--concurrency", "8", "--output", "jsonl"]
        async with working("submit", manifest(tmp_path, 200), *options, url=book.url) as (process, wrote):
            os.truncate(tmp_path / "ledger.db-wal", 0)
        executions = await really_started(book.url)
    errors = wrote["err"].decode()
    assert process.returncode == 3
    assert "m2async: stopped: " in errors
    assert "ledger.db: " in errors.partition("stopped: ")[2]
    assert "Traceback" not in errors
    assert len(executions) < 100


async def test_a_second_submit_of_a_run_that_goes_on_is_not_let_in(tmp_path: Path) -> None:
    async with LocalEndpoint(faults={"latency": 1.0}, seed=1) as endpoint:
        book = Book(tmp_path, endpoint.url)
        path = manifest(tmp_path, 600)
        options = ["--ledger", str(book.path), "--run", "night", "--concurrency", "8", "--output", "jsonl"]
        async with working("submit", path, *options, url=book.url) as (process, _):
            for ended in [await book.submit(path), await book("resume", "night")]:
                assert (ended.code, ended.out) == (3, "")
                assert f"run 'night' is in use by process {process.pid} on " in ended.err
            [status] = (await book("status", "night", "--output", "jsonl")).lines  # reading is possible
            assert sum(status[state] for state in ("pending", "intent", "started")) == 600
            os.kill(process.pid, signal.SIGINT)
        executions = await really_started(book.url)
    assert process.returncode == 130
    found = await audit(book.path, "night", executions)
    assert found.problems == []
    assert found.states["started"] == len(executions)


async def test_a_clock_that_was_set_back_stops_a_run_with_jobs_in_doubt_and_an_operator_can_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flag = tmp_path / "set"
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SET_CLOCK.format(flag=str(flag), seconds=-3_600))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"), prepend=os.pathsep)
    path = manifest(tmp_path)
    async with scripted(hang) as server:
        options = ["--ledger", tmp_path / "ledger.db", "--run", "night", "--concurrency", "1"]
        command = [COMMAND, *map(str, ["submit", path, "--no-preflight", *options])]
        async with await anyio.open_process(command, env=settings(server.url)) as process:
            await server.arrived.wait()
            process.kill()
    flag.touch()
    async with scripted(started("zero"), started("one"), started("two")) as server:
        book = Book(tmp_path, server.url)
        for ended in (await book.submit(path), await book("resume", "night"), await book("reconcile", "night")):
            assert (ended.code, ended.out) == (3, "")
            assert re.search(r"run 'night' was last written at \S+Z, but this machine's clock says \S+Z: ", ended.err)
            assert "m2async resolve" in ended.err
        assert server.connections == 0
        assert (await book("resolve", "night", "--key", "row-0", "--not-started")).code == 0
        ended = await book("resume", "night", "--concurrency", "1", "--output", "jsonl")
    assert ended.code == 0
    assert ids(ended) == {"row-0": "zero", "row-1": "one", "row-2": "two"}


SET_CLOCK = """
import os, time
_time, _flag, _seconds = time.time, {flag!r}, {seconds}
time.time = lambda: _time() + (_seconds if os.path.exists(_flag) else 0)
"""


@pytest.mark.parametrize("seconds", [-3_600, -10, 10])
async def test_a_clock_that_is_set_while_it_runs_starts_no_job_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    flag = tmp_path / "set"
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SET_CLOCK.format(flag=str(flag), seconds=seconds))
    faults = {"accept-then-drop": 0.2, "drop-before-accept": 0.1, "latency": 0.4}
    async with LocalEndpoint(faults=faults, seed=1) as endpoint:
        book = Book(tmp_path, endpoint.url)
        options = ["--ledger", str(book.path), "--run", "night", "--settle", "0.5", "--output", "jsonl"]
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"), prepend=os.pathsep)
        async with working("submit", manifest(tmp_path, 200), *options, url=book.url) as (process, _):
            flag.touch()
        executions = await really_started(book.url)
    assert process.returncode in {0, 1, 3}
    assert (await audit(book.path, "night", executions, ended=process.returncode != 3)).problems == []
