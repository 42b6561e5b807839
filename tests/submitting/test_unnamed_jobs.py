"""Jobs without keys, submitted into a ledger: the same program again, its next month, and after a crash."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest

from m2async import (
    CallError,
    ConnectionLostError,
    IllegalTransitionError,
    LocalEndpoint,
    M2Client,
    ManifestChangedError,
    Outcome,
    RestartJob,
    ScriptJob,
    StartBatchJob,
    StartBatchJobResponse,
    Submitter,
    ValidationException,
    open_ledger,
    read_manifest,
)
from tests.campaigns.faults import really_started

APPLICATION = "carddemolocalapplication23"


def request(date: str) -> StartBatchJob:
    return StartBatchJob(APPLICATION, ScriptJob("POSTTRAN"), {"RUNDATE": date})


def requests(*dates: str) -> list[StartBatchJob]:
    return [request(date) for date in dates]


def month(number: int) -> Iterable[StartBatchJob]:
    return (request(f"2026{number:02}{day:02}") for day in range(1, 31))


async def submitted(client: M2Client, ledger: Path, jobs: Iterable[StartBatchJob]) -> Counter[bool]:
    """Submit jobs as a program does that is run anew; counts what was started before and what now."""
    async with Submitter(client, rate=2_000, burst=100, ledger=ledger, on_unknown="hold") as submitter:
        return Counter([outcome.before async for outcome in submitter.submit_many(jobs)])


async def dates(endpoint: LocalEndpoint) -> Counter[str]:
    return Counter(execution["jobParams"]["RUNDATE"] for execution in await really_started(endpoint.url))


async def test_a_program_run_twice_in_a_month_and_in_the_next_one(
    client: M2Client, endpoint: LocalEndpoint, tmp_path: Path
) -> None:
    path = tmp_path / "nightly.db"
    assert await submitted(client, path, month(11)) == {False: 30}
    assert await submitted(client, path, month(11)) == {True: 30}
    assert await submitted(client, path, month(12)) == {False: 30}
    assert await submitted(client, path, [*month(12), *month(11), request("20270101")]) == {True: 60, False: 1}
    assert set((await dates(endpoint)).values()) == {1}
    assert len(await dates(endpoint)) == 61


async def test_equal_requests_are_started_as_often_as_they_are_given(
    client: M2Client, endpoint: LocalEndpoint, tmp_path: Path
) -> None:
    path = tmp_path / "jobs.db"
    assert await submitted(client, path, requests(*"abab")) == {False: 4}
    assert await submitted(client, path, requests(*"bbaa")) == {True: 4}
    assert await submitted(client, path, requests(*"aaab")) == {True: 3, False: 1}
    assert await dates(endpoint) == {"a": 3, "b": 2}


async def test_a_second_pass_in_one_process_is_told_what_was_started_before(
    client: M2Client, endpoint: LocalEndpoint
) -> None:
    async with Submitter(client, ledger="memory:", on_unknown="hold") as submitter:
        for before in (False, True):
            told = [(o.key, o.before) async for o in submitter.submit_many(requests(*"abb"))]
            assert sorted(told) == [("1", before), ("2", before), ("3", before)]
    assert await dates(endpoint) == {"a": 1, "b": 2}


@pytest.mark.parametrize("sent", [0, 1, 7])
async def test_it_goes_on_after_a_crash_wherever_it_was(
    client: M2Client, endpoint: LocalEndpoint, tmp_path: Path, sent: int
) -> None:
    path = tmp_path / "jobs.db"
    jobs = requests(*"aabcadaeb")
    async with open_ledger(path) as ledger, await ledger.open_run("default") as run:
        for number, job in enumerate(jobs[: sent + 1], 1):  # the last was not sent yet
            row = await run.add_unnamed(str(number), job, jobs_of(run))
            if number <= sent:
                await run.intend(row.number, 1, 1.0)
                answer = await client.start_batch_job(job)
                await run.started(row.number, 1, answer.execution_id)
    async with Submitter(client, ledger=path, on_unknown="hold", start_anyway=True) as submitter:
        again = Counter([outcome.before async for outcome in submitter.submit_many(reversed(jobs))])
    assert again == Counter({True: sent, False: len(jobs) - sent})
    assert await dates(endpoint) == Counter("aabcadaeb")


def jobs_of(run: object) -> object:
    """What a single pass over a run is known by."""
    return run


async def test_what_was_rejected_is_tried_again_and_what_is_in_doubt_is_not(tmp_path: Path) -> None:
    client = Answering(
        {"r": ValidationException("no", code="ValidationException", http_status=400), "u": ConnectionLostError("gone")}
    )
    states = []
    for _ in range(2):
        async with Submitter(client, ledger=tmp_path / "jobs.db", on_unknown="hold") as submitter:
            async for outcome in submitter.submit_many(requests("r", "u", "s")):
                states.append((outcome.request.params["RUNDATE"], outcome.state, outcome.before))
    assert sorted(states[:3]) == [("r", "rejected", False), ("s", "started", False), ("u", "unknown", False)]
    assert sorted(states[3:]) == [("r", "rejected", False), ("s", "started", True), ("u", "unknown", True)]
    assert client.calls == {"r": 2, "u": 1, "s": 1}


@pytest.mark.parametrize("key", [None, "k"])
@pytest.mark.parametrize("exact", [False, True])
async def test_a_row_that_was_told_to_restart_is_not_started_anew(key: str | None, *, exact: bool) -> None:
    client, restart = Answering({}), RestartJob("e-a", "STEP1")
    jobs = [request("a") if key is None else (key, request("a")), ("other", request("b")), ("last", request("c"))]
    async with open_ledger("memory:") as ledger, await ledger.open_run("run") as run:
        for _ in range(2):
            async with Submitter(client, ledger=ledger, run=run, on_unknown="hold", exact=exact) as submitter:
                told = {outcome.key: outcome.before async for outcome in submitter.submit_many(jobs)}
            if not client.restarted:
                await run.restart((await run.row(key or "1")).number, 1, restart, "note")
    assert told == {key or "1": False, "other": True, "last": True}
    assert (client.calls, client.restarted) == ({"a": 2, "b": 1, "c": 1}, [restart])


async def test_jobs_with_and_without_keys_go_into_one_run(
    client: M2Client, endpoint: LocalEndpoint, tmp_path: Path
) -> None:
    async def mixed() -> AsyncIterator[StartBatchJob | tuple[str, StartBatchJob]]:
        for job in (
            ("first", request("a")),
            request("a"),
            ("3", request("b")),
            request("b"),
            ("a\u00fc;'", request("a")),
        ):
            yield job

    keys = []
    for _ in range(2):
        async with Submitter(client, ledger=tmp_path / "jobs.db", on_unknown="hold", concurrency=1) as submitter:
            keys.append(sorted([outcome.key async for outcome in submitter.submit_many(mixed())]))
    assert keys == [["2", "3", "4", "a\u00fc;'", "first"]] * 2
    assert await dates(endpoint) == {"a": 3, "b": 2}


async def test_rows_of_a_manifest_without_keys_are_known_by_their_requests(
    client: M2Client, endpoint: LocalEndpoint, tmp_path: Path
) -> None:
    for text in ("a\nb\n", "b\nc\na\n"):
        (tmp_path / "m.csv").write_text(
            f"script,param.RUNDATE\n{''.join(f'POSTTRAN,{d}{chr(10)}' for d in text.split())}"
        )
        async with Submitter(client, ledger=tmp_path / "jobs.db", on_unknown="hold") as submitter:
            rows = read_manifest(tmp_path / "m.csv", application_id=APPLICATION)
            before = [outcome.before async for outcome in submitter.submit_many(rows)]
    assert sorted(before) == [False, True, True]
    assert await dates(endpoint) == {"a": 1, "b": 1, "c": 1}


async def test_calls_at_once_with_equal_requests_start_them_once() -> None:
    client = Answering({})
    client.gate = asyncio.Event()

    async def call(submitter: Submitter) -> list[Outcome | Exception]:
        told: list[Outcome | Exception] = []
        try:
            async for outcome in submitter.submit_many(requests("a", "b")):
                told.append(outcome)
        except IllegalTransitionError as exc:
            told.append(exc)
        return told

    async with Submitter(client, ledger="memory:", on_unknown="hold") as submitter:
        first = asyncio.create_task(call(submitter))
        while client.under_way < 2:
            await asyncio.sleep(0)
        second = asyncio.create_task(call(submitter))
        assert [type(each) for each in await second] == [IllegalTransitionError]  # as where they have the same key
        client.gate.set()
        assert [each.before for each in await first if not isinstance(each, Exception)] == [False, False]
        assert [outcome.before for outcome in await call(submitter) if not isinstance(outcome, Exception)] == [
            True,
            True,
        ]
    assert client.calls == {"a": 1, "b": 1}


async def test_a_planned_run_takes_none_that_its_manifest_has_not(tmp_path: Path) -> None:
    client = Answering({})
    async with open_ledger("memory:") as ledger, await ledger.open_run("run") as run:
        await run.plan([("a", request("a"))])
        async with Submitter(client, ledger=ledger, run=run, on_unknown="hold") as submitter:
            with pytest.raises(ManifestChangedError):
                await anext(submitter.submit_many(requests("a")))
    assert client.calls == {}


class Answering:
    """Starts jobs, but for those of some dates, which fail; waits for the gate, if it has one."""

    def __init__(self, errors: dict[str, CallError]) -> None:
        self.errors = errors
        self.gate: asyncio.Event | None = None
        self.calls: Counter[str] = Counter()
        self.under_way = 0
        self.restarted: list[RestartJob] = []

    async def start_batch_job(self, request: StartBatchJob, /) -> StartBatchJobResponse:
        date = request.params["RUNDATE"]
        self.calls[date] += 1
        self.restarted += [request.job] if isinstance(request.job, RestartJob) else []
        if date in self.errors:
            raise self.errors[date]
        if self.gate is not None:
            self.under_way += 1
            await self.gate.wait()
        return StartBatchJobResponse(f"e-{date}", "r")
