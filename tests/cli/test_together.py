"""Jobs of one name of which every answer is lost: all are started, and only which execution is whose cannot be told."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from m2async import LocalEndpoint, open_ledger
from m2async.ledger import Observation
from m2async.local import load_definitions
from tests.campaigns.faults import really_started
from tests.cli.terminal import APPLICATION, on_terminal
from tests.cli.test_ledger import Book
from tests.cli.test_track import JOBS, cloudwatch, manifest

__all__ = ["cloudwatch"]
SETTLE = ("--settle", "0.5", "--certainty", "fast")  # or they would wait for each other, and be told apart


@pytest.fixture
async def book(tmp_path: Path) -> AsyncIterator[Book]:
    """A ledger, and an endpoint that starts every job and answers no call; jobs end as their names say."""
    jobs = [
        {"file": f"{name}.jcl", "jobName": name, "seconds": seconds, "returnCode": code, "steps": [{"step": "STEP1"}]}
        for name, (seconds, code) in JOBS.items()
    ]
    path = tmp_path / "definitions.json"
    path.write_text(json.dumps({"jobs": jobs}))
    definitions = load_definitions(path)
    async with LocalEndpoint(seed=1, faults={"accept-then-500": 1.0}, definitions=definitions) as endpoint:
        yield Book(tmp_path, endpoint.url)


async def ids_of(book: Book) -> list[str]:
    return sorted(execution["executionId"] for execution in await really_started(book.url))


async def test_they_are_started_and_every_listing_shows_as_what_they_may_be(book: Book, tmp_path: Path) -> None:
    path = manifest(tmp_path, "LONG", "LONG", "LONG")
    submitted = await book.submit(path, *SETTLE)
    assert submitted.code == 0
    ids = await ids_of(book)
    assert len(ids) == 3
    for line in submitted.lines:
        assert (line["state"], line["execution_id"], line["adopted"], line["attempts"]) == ("started", None, True, 1)
        assert sorted(line["candidates"]) == ids
    assert "3 started jobs without an execution id" in submitted.err
    exported = (await book("export", "night", "--format", "jsonl")).lines
    assert [(line["execution_id"], line["candidates"]) for line in exported] == [(None, ids)] * 3
    rows = list(csv.DictReader(io.StringIO((await book("export", "night")).out)))
    assert [(row["state"], row["execution_id"], row["candidates"]) for row in rows] == [
        ("started", "", " ".join(ids))
    ] * 3
    [status] = (await book("status", "night", "--output", "jsonl")).lines
    assert (status["started"], status["unknown"], status["rows"]) == (3, 0, [])
    again = await book.submit(path, *SETTLE)
    assert (again.code, [line["candidates"] for line in again.lines]) == (0, [ids] * 3)
    assert await ids_of(book) == ids
    page = tmp_path / "page.html"
    assert (await book("report", "night", "-o", page)).code == 0
    assert "3 jobs started together" in page.read_text()


async def test_what_is_done_by_key_names_the_group_and_does_nothing_to_it(book: Book, tmp_path: Path) -> None:
    await book.submit(manifest(tmp_path, "LONG", "LONG"), *SETTLE)
    ids = await ids_of(book)
    for command, code in (("cancel", 1), ("logs", 2)):
        ended = await book(command, "night", "--key", "long-0")
        assert ended.code == code
        assert "long-0 was started together with long-1, as one of " + ", ".join(ids) in ended.err
    assert {execution["status"] for execution in await really_started(book.url)} == {"Running"}
    cancelled = await book("cancel", "night", "--output", "jsonl")
    assert cancelled.code == 0
    assert sorted((line["key"] or "", line["execution_id"]) for line in cancelled.lines) == [("", id_) for id_ in ids]
    assert {execution["status"] for execution in await really_started(book.url)} <= {"Cancelling", "Cancelled"}


async def test_what_they_came_to_is_known_once_it_is_the_same_of_all(book: Book, tmp_path: Path) -> None:
    await book.submit(manifest(tmp_path, "GOOD", "GOOD"), *SETTLE)
    tracked = await book("track", "night", "--output", "jsonl")
    assert tracked.code == 0
    assert [(line["key"], line["result"], line["execution_id"]) for line in tracked.lines] == [
        ("good-0", "success", None), ("good-1", "success", None),
    ]  # fmt: skip


async def failed_by_hand(book: Book, number: int = 1) -> str:
    """Have it seen that the execution failed that a row stands for, and give its id."""
    async with open_ledger(book.path) as ledger:
        view = await ledger.run("night")
        [its] = await view.executions(number, number)
        await view.observe([Observation(number, its.execution_id, "Failed", "8", None, None, ended=True)])
    return its.execution_id


async def test_where_they_came_to_different_things_it_stays_open_and_is_listed(book: Book, tmp_path: Path) -> None:
    await book.submit(manifest(tmp_path, "GOOD", "GOOD"), *SETTLE)
    await failed_by_hand(book)
    for _ in range(2):
        tracked = await book("track", "night", "--output", "jsonl")
        assert tracked.code == 1
        ids = await ids_of(book)
        assert [(line["key"], line["result"], line["candidates"]) for line in tracked.lines] == [
            ("good-0", "open", ids), ("good-1", "open", ids),
        ]  # fmt: skip
        assert "Succeeded with return code 0 or ended as Failed with return code 8" in tracked.lines[0]["reason"]
        assert "0 of 2 jobs succeeded; 2 of which it cannot be told" in tracked.err
    [status] = (await book("status", "night", "--output", "jsonl")).lines
    assert [(row["state"], row["error"]["code"], row["candidates"]) for row in status["rows"]] == [
        ("started", "Untold", ids)
    ] * 2
    assert "2 started jobs without an execution id" in (await book("status", "night")).out
    exported = (await book("export", "night", "--format", "jsonl")).lines
    assert [(line["status"], line["return_code"]) for line in exported] == [(None, None)] * 2
    watched = await book("watch", "night")
    assert "2 jobs started with others: which execution is whose cannot be told" in watched.out


@pytest.mark.parametrize(("failed", "state"), [(False, "started"), (True, "skipped")])
async def test_what_comes_after_one_of_them_waits_until_all_have_succeeded(
    book: Book, tmp_path: Path, failed: bool, state: str
) -> None:
    path = tmp_path / "jobs.csv"
    rows = [f"good-{n},{APPLICATION},GOOD," for n in range(2)]
    path.write_text("\n".join(["key,application_id,script,after", *rows, f"last,{APPLICATION},WARN,good-0", ""]))
    if failed:
        first = tmp_path / "first.csv"
        first.write_text("\n".join(["key,application_id,script,after", *rows, ""]))
        await book.submit(first, *SETTLE)
        await failed_by_hand(book, 2)  # it may be good-0's
        await book("track", "night")
        ended = await book.submit(path, *SETTLE, "--amend")
        assert ended.code == 1
    else:
        ended = await book.submit(path, *SETTLE)
    last = {line["key"]: line for line in ended.lines}["last"]
    assert last["state"] == state
    listed = await really_started(book.url)
    if failed:
        assert "good-0" in last["error"]["message"]
        assert [execution["jobName"] for execution in listed] == ["GOOD", "GOOD"]
    else:
        *both, warn = sorted(listed, key=lambda execution: execution["startTime"])
        assert warn["jobName"] == "WARN"
        assert all(execution["endTime"] <= warn["startTime"] for execution in both)


async def test_a_restart_by_key_names_the_group_and_does_nothing_to_it(book: Book, tmp_path: Path) -> None:
    await book.submit(manifest(tmp_path, "BAD", "BAD"), *SETTLE)
    before = await ids_of(book)
    await book("track", "night")
    async with open_ledger(book.path) as ledger:
        view = await ledger.run("night")
        ended = await view.executions(1, 2)
    assert {each.judgement.result.value for each in ended} == {"failure"}
    by_key = await book("restart", "night", "--failed", "--key", "bad-0")
    assert by_key.code == 1
    assert "nothing is done to them" in by_key.err
    assert await ids_of(book) == before


async def test_failed_ones_are_restarted_each_once(book: Book, tmp_path: Path) -> None:
    await book.submit(manifest(tmp_path, "BAD", "BAD"), *SETTLE)
    before = await ids_of(book)
    tracked = await book("track", "night", "--output", "jsonl")
    assert (tracked.code, {line["result"] for line in tracked.lines}) == (1, {"failure"})
    restarted = await book("restart", "night", "--failed", *SETTLE[:2], "--output", "jsonl")
    assert restarted.code == 0
    new = [each for each in await really_started(book.url) if each["executionId"] not in before]
    jobs = [each["batchJobIdentifier"]["restartBatchJobIdentifier"]["executionId"] for each in new]
    assert sorted(jobs) == before
    exported = (await book("export", "night", "--format", "jsonl")).lines
    assert [(line["state"], line["execution_id"]) for line in exported] == [("started", None)] * 2
    assert exported[0]["candidates"] == sorted(each["executionId"] for each in new)


async def test_a_word_on_one_of_them_takes_it_out_and_the_last_one_left_is_told_by_it(
    book: Book, tmp_path: Path
) -> None:
    await book.submit(manifest(tmp_path, "LONG", "LONG", "LONG"), *SETTLE)
    ids = await ids_of(book)
    for key, execution_id in (("long-2", ids[0]), ("long-0", ids[2])):
        told = await book("resolve", "night", "--key", key, "--started", execution_id)
        assert (told.code, told.err.splitlines()[-1]) == (0, f"{key} is started as {execution_id}")
    exported = (await book("export", "night", "--format", "jsonl")).lines
    assert [line["execution_id"] for line in exported] == [ids[2], ids[1], ids[0]]
    assert [line["adopted"] for line in exported] == [False, True, False]


async def test_a_word_that_contradicts_a_group_takes_all_of_it_back(book: Book, tmp_path: Path) -> None:
    await book.submit(manifest(tmp_path, "LONG", "LONG", "LONG"), *SETTLE)
    ids = await ids_of(book)
    assert (await book("resolve", "night", "--key", "long-1", "--not-started")).code == 0
    [status] = (await book("status", "night", "--output", "jsonl")).lines
    assert (status["pending"], status["unknown"]) == (1, 2)
    assert [row["candidates"] for row in status["rows"]] == [ids, ids]


# Many words at once


@pytest.fixture
async def unknown(book: Book, tmp_path: Path) -> list[str]:
    """Four jobs that were started and are unknown; gives the executions."""
    await book.submit(manifest(tmp_path, *["LONG"] * 4), "--on-unknown", "hold")
    return await ids_of(book)


async def words(book: Book, *lines: str) -> Any:
    path = book.folder / "words.csv"
    path.write_text("\n".join(["key,execution_id", *lines, ""]))
    return await book("resolve", "night", "--from", path)


async def told(book: Book) -> list[tuple[str, str | None]]:
    return [
        (line["state"], line["execution_id"]) for line in (await book("export", "night", "--format", "jsonl")).lines
    ]


async def test_a_file_of_words_is_written_at_once_and_a_later_one_replaces_it(book: Book, unknown: list[str]) -> None:
    a, b, c, d = unknown
    ended = await words(book, f"long-0,{a}", f"long-1,{b}", "long-2,")
    assert (ended.code, ended.err) == (0, "3 jobs resolved: 2 started, 1 not started\n")
    assert await told(book) == [("started", a), ("started", b), ("pending", None), ("unknown", None)]
    assert (await words(book, f"long-0,{b}", f"long-1,{a}", f"long-2,{c}", f"long-3,{d}")).code == 0
    assert await told(book) == [("started", b), ("started", a), ("started", c), ("started", d)]
    assert (await words(book, f"long-0,{a}", "long-1,")).code == 0
    assert await told(book) == [("started", a), ("pending", None), ("started", c), ("started", d)]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("nosuch,abc", "3: key: the run has no row 'nosuch'"),
        ("long-0,another", "3: key: 'long-0' stands in line 2 as well"),
        ("long-1,{a}", "3: execution_id: '{a}' stands in line 2 as well"),
        ("long-1,{d}", "3: execution_id: {d} belongs to another row"),
        ("long-1,a b", "3: execution_id: "),
        ("long-1,\x1b[31mred", "3: execution_id: "),
        ("long-1", "3: key: 1 fields, and not 2"),
        ("long-1,x,y", "3: key: 3 fields, and not 2"),
    ],
)
async def test_a_file_with_a_line_that_cannot_be_is_refused_as_a_whole(
    book: Book, unknown: list[str], line: str, problem: str
) -> None:
    a, _, _, d = unknown
    assert (await words(book, f"long-3,{d}")).code == 0
    before = await told(book)
    ended = await words(book, f"long-0,{a}", line.format(a=a, d=d))
    assert ended.code == 2
    assert f"words.csv:{problem.format(a=a, d=d)}" in ended.err
    assert ended.err.endswith("nothing was written\n")
    assert "\x1b" not in ended.err
    assert await told(book) == before


async def test_what_is_not_in_doubt_is_not_told_by_a_file(book: Book, unknown: list[str]) -> None:
    a = unknown[0]
    assert (await book("resolve", "night", "--all", "--not-started")).code == 0
    assert {state for state, _ in await told(book)} == {"pending"}
    sent_again = await book(
        "resume", "night", "--on-unknown", "hold", "--start-anyway"
    )  # each is sent again, and in doubt again
    assert sent_again.code == 1
    assert {state for state, _ in await told(book)} == {"unknown"}
    assert (await words(book, f"long-0,{a}")).code == 0
    async with open_ledger(book.path) as ledger, await ledger.open_run("night", by_hand=True) as run:
        row = await run.row("long-1")
        await run.resolve(row.number, row.attempts, None, "a word")
        await run.give_up(row.number, row.attempts, "enough")
        await run.retry(row.number, row.attempts, "no")
        await run.intend(row.number, row.attempts + 1, 1.0)
        await run.rejected(row.number, row.attempts + 1, "code", "no")
    ended = await words(book, f"long-1,{unknown[1]}")
    assert ended.code == 2
    assert "words.csv:2: key: 'long-1' is not in doubt: it is rejected" in ended.err


@pytest.mark.parametrize(
    "options",
    [
        [], ["--all"], ["--all", "--started", "x"], ["--key", "k", "--all", "--not-started"],
        ["--from", "words.csv", "--not-started"], ["--key", "k"], ["--from", "nosuch.csv"],
    ],
    ids=" ".join,
)  # fmt: skip
async def test_words_that_say_nothing_or_too_much_are_refused(
    book: Book, unknown: list[str], options: list[str]
) -> None:
    assert (await book("resolve", "night", *options)).code == 2
    assert {state for state, _ in await told(book)} == {"unknown"}


# What the logs tell


async def test_the_candidates_logs_are_searched_for_what_tells_the_jobs_apart(
    book: Book, tmp_path: Path, cloudwatch: Any
) -> None:
    path = tmp_path / "jobs.csv"
    rows = [f"k{n},{APPLICATION},LONG,202611{n + 10},same" for n in range(2)]
    path.write_text("\n".join(["key,application_id,script,param.RUNDATE,param.REGION", *rows, ""]))
    assert (await book.submit(path, *SETTLE)).code == 0
    listed = await really_started(book.url)
    group = f"/aws/vendedlogs/m2/{APPLICATION}/BatchJobLogs"

    def write() -> None:
        cloudwatch.create_log_group(logGroupName=group)
        for execution in listed:
            stream = f"{execution['executionId']}/{execution['jobId']}/LONG/STEP1/01"
            cloudwatch.create_log_stream(logGroupName=group, logStreamName=stream)
            date = execution["jobParams"]["RUNDATE"]
            said = ["REGION same", f"DATE \x1b[31m{date} BEGINS", f"NO.{date}0", *(f"{date} AGAIN" for _ in range(9))]
            events = [{"timestamp": 1_795_000_000_000 + n, "message": line} for n, line in enumerate(said)]
            cloudwatch.put_log_events(logGroupName=group, logStreamName=stream, logEvents=events)

    await anyio.to_thread.run_sync(write)
    logs = ("--logs", "--logs-endpoint-url", cloudwatch.meta.endpoint_url)
    before = (await book("export", "night")).out
    found = await book("reconcile", "night", *logs, "--output", "jsonl")
    assert found.code == 0
    its = {execution["jobParams"]["RUNDATE"]: execution["executionId"] for execution in listed}
    for line, date in zip(found.lines, sorted(its), strict=True):
        [one] = line["logs"]
        assert (one["execution_id"], one["parameter"], one["value"]) == (its[date], "RUNDATE", date)
        assert one["lines"] == [f"DATE \x1b[31m{date} BEGINS", *[f"{date} AGAIN"] * 4]
    code, shown = await on_terminal("reconcile", "night", "--ledger", book.path, *logs, url=book.url)
    assert code == 0
    assert "RUNDATE=20261110" in shown
    assert "\x1b[31m2026" not in shown
    assert (await book("export", "night")).out == before
    unreadable = await book(
        "reconcile", "night", "--logs", "--logs-endpoint-url", "http://127.0.0.1:1", AWS_MAX_ATTEMPTS="1"
    )
    assert unreadable.code == 1
    assert "logs cannot be read" in unreadable.err
    assert (await book("reconcile", "night", "--logs-endpoint-url", "http://127.0.0.1:1")).code == 2


async def test_a_word_on_all_that_are_in_doubt_is_not_taken_while_the_run_goes_on(
    book: Book, unknown: list[str]
) -> None:
    """One may have come to be in doubt just now, and be running."""
    async with open_ledger(book.path) as ledger, await ledger.open_run("night"):
        refused = await book("resolve", "night", "--all", "--not-started")
    assert (refused.code, refused.out) == (2, "")
    assert "run night is in progress" in refused.err
    assert {state for state, _ in await told(book)} == {"unknown"}
    assert len(unknown) == 4
