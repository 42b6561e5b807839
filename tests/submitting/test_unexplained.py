"""Runs that are opened while the service shows executions of their jobs: which of them stop it."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from msgspec.structs import replace

from m2async import (
    DEFAULT_APPLICATION_ID,
    ApplicationDefinition,
    FileJob,
    JobDefinition,
    LedgerClosedError,
    LocalEndpoint,
    M2Client,
    RestartJob,
    ScriptJob,
    SentElsewhereError,
    StartBatchJob,
    Started,
    StepDefinition,
    Submitter,
    UnexplainedExecutionsError,
    open_ledger,
)
from m2async.clock import steady_time
from m2async.ledger import Run, destination_of
from m2async.service import ExecutionsPage
from m2async.submitting.unexplained import look_for_unexplained
from tests.scripted import answer, error, scripted, started

Rows = Sequence[tuple[str, StartBatchJob]]

ROWS = [(f"row-{n}", StartBatchJob(DEFAULT_APPLICATION_ID, ScriptJob(f"JOB{n}"))) for n in range(10)]
SAME = [(f"row-{n}", StartBatchJob(DEFAULT_APPLICATION_ID, ScriptJob("JOB"), {"NUMBER": str(n)})) for n in range(10)]


async def started_twice(endpoint: LocalEndpoint) -> int:
    """How many jobs were really started more than once."""
    async with aiohttp.ClientSession() as session, session.get(f"{endpoint.url}/_local/executions") as answer:
        listed: list[dict[str, Any]] = (await answer.json())["executions"]
    counted = Counter(str((each["batchJobIdentifier"], each.get("jobParams"))) for each in listed)
    return sum(count > 1 for count in counted.values())


async def submit(
    client: M2Client, path: Path, given: Rows, run: str = "night", *, of: Rows = (), **options: Any
) -> str:
    """Start rows of a run, which has those of `of` or no others; gives what its user is to know of it."""
    async with open_ledger(path) as ledger, await ledger.open_run(run) as opened:
        await opened.plan(of or given)
        async with Submitter(client, ledger=ledger, run=opened, **options) as submitter:
            rows = [await opened.row(key) for key, _ in given]
            assert {outcome.state async for outcome in submitter.submit_many(rows)} <= {"started"}
        return "; ".join(submitter.warnings)


async def belongs(run: Run, client: M2Client) -> None:
    """Write down that a run is sent where a client's calls go."""
    destination = destination_of(client)
    assert destination is not None
    await run.belong_to(destination)


def copied(ledger: Path, copy: Path) -> Path:
    """A sound backup of a ledger."""
    with closing(sqlite3.connect(ledger)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    return copy


# A copy of the ledger that was put back


@pytest.mark.parametrize("rows", [ROWS, SAME], ids=["a job each", "one job"])
async def test_a_copy_of_the_ledger_does_not_start_what_was_started_since(
    tmp_path: Path, endpoint: LocalEndpoint, client: M2Client, rows: Rows
) -> None:
    path = tmp_path / "ledger.db"
    await submit(client, path, rows[:4], of=rows)
    copy = copied(path, tmp_path / "copy.db")
    await submit(client, path, rows[4:], of=rows)
    for _ in range(2):  # and not by a second try either
        with pytest.raises(UnexplainedExecutionsError, match="an old copy") as caught:
            await submit(client, copy, rows[4:], of=rows)
        assert len(caught.value.execution_ids) == 6
        assert len(caught.value.jobs) == len({request.job for _, request in rows[4:]})
    assert await started_twice(endpoint) == 0
    assert await submit(client, path, rows, of=rows) == ""  # the ledger itself knows them all


async def test_a_word_lets_it_start_and_holds_for_those_executions_alone(
    tmp_path: Path, endpoint: LocalEndpoint, client: M2Client
) -> None:
    path = tmp_path / "ledger.db"
    await submit(client, path, ROWS[:4], of=ROWS)
    copy = copied(path, tmp_path / "copy.db")
    await submit(client, path, ROWS[4:8], of=ROWS)
    warnings = await submit(client, copy, ROWS[4:5], of=ROWS, start_anyway=True)
    assert "there are 4 executions of 4 jobs of this run" in warnings
    assert "the run is started anyway" in warnings
    assert await started_twice(endpoint) == 1
    await submit(client, copy, ROWS[5:6], of=ROWS)
    async with open_ledger(copy) as ledger:  # and doubts of these jobs are nothing to decide without anybody
        foreign = await (await ledger.run("night")).foreign()
    assert {execution.job for execution in foreign} == {request.job for _, request in ROWS[4:8]}


async def test_what_was_restarted_from_any_step_is_not_restarted_again(tmp_path: Path) -> None:
    """Somebody restarts a job's execution where this run would not: it is the same job, a second time."""
    path, night = tmp_path / "ledger.db", "night"
    jobs = (JobDefinition("JOB0.jcl", "JOB0", (StepDefinition("ONE"), StepDefinition("TWO"))),)
    definitions = [ApplicationDefinition(DEFAULT_APPLICATION_ID, "Night", jobs=jobs)]
    async with LocalEndpoint(definitions=definitions) as endpoint, M2Client(**endpoint.client_settings()) as client:
        await submit(client, path, [("row-0", StartBatchJob(DEFAULT_APPLICATION_ID, FileJob("JOB0.jcl")))])
        async with open_ledger(path) as ledger, await ledger.open_run(night) as run:
            first = (await run.row("row-0")).execution_id
            assert first is not None
            await run.restart(1, 1, RestartJob(first, "TWO"), "an operator's word")
        theirs = await client.start_batch_job(StartBatchJob(DEFAULT_APPLICATION_ID, RestartJob(first, "ONE")))
        async with open_ledger(path) as ledger, await ledger.open_run(night) as run:
            with pytest.raises(UnexplainedExecutionsError) as caught:
                async with Submitter(client, ledger=ledger, run=run):
                    raise AssertionError("it was entered")
    assert caught.value.execution_ids == (theirs.execution_id,)


async def test_attempts_that_a_crash_left_explain_their_executions(
    tmp_path: Path, endpoint: LocalEndpoint, client: M2Client
) -> None:
    path = tmp_path / "ledger.db"
    async with open_ledger(path) as ledger, await ledger.open_run("night") as run:
        await run.plan(SAME)
        await belongs(run, client)
        for number in (1, 2):
            await run.intend(number, 1, time.time())
            await client.start_batch_job(SAME[number - 1][1])
        await run.intend(3, 1, time.time())  # and died before it was sent
    assert "execution" not in await submit(client, path, SAME[3:], of=SAME, on_unknown="hold")
    assert await started_twice(endpoint) == 0


async def test_more_executions_than_a_crash_can_explain_stop_it(tmp_path: Path, client: M2Client) -> None:
    path = tmp_path / "ledger.db"
    async with open_ledger(path) as ledger, await ledger.open_run("night") as run:
        await run.plan(SAME)
        await belongs(run, client)
        await run.intend(1, 1, time.time())
        for _, request in SAME[:3]:
            await client.start_batch_job(request)
    with pytest.raises(UnexplainedExecutionsError) as caught:
        await submit(client, path, SAME[3:], of=SAME)
    assert len(caught.value.execution_ids) == 2


@pytest.mark.parametrize("ahead", [-3_600, 3_600])
async def test_a_service_whose_clock_is_another_changes_nothing(tmp_path: Path, ahead: int) -> None:
    path = tmp_path / "ledger.db"
    async with LocalEndpoint(clock=lambda: time.time() + ahead) as endpoint:
        async with M2Client(**endpoint.client_settings()) as client:
            await submit(client, path, ROWS[:4], of=ROWS)
            copy = copied(path, tmp_path / "copy.db")
            await submit(client, path, ROWS[4:], of=ROWS)
        async with M2Client(**endpoint.client_settings()) as client:
            with pytest.raises(UnexplainedExecutionsError) as caught:
                await submit(client, copy, ROWS[4:], of=ROWS)
        assert len(caught.value.execution_ids) == 6


@pytest.mark.parametrize("wrong", [-7_200, 7_200])
async def test_a_local_clock_that_was_wrong_when_the_run_was_sent_changes_nothing(tmp_path: Path, wrong: int) -> None:
    path, ago = tmp_path / "ledger.db", 1_000.0
    sent_at = time.time() - 900 + wrong
    async with open_ledger(path, clock=lambda: sent_at) as ledger, await ledger.open_run("night") as run:
        await run.plan(ROWS[:2])
        await run.note_clock(-float(wrong))
        await run.intend(1, 1, sent_at)
        await run.started(1, 1, "known")
    async with LocalEndpoint(clock=lambda: time.time() - ago) as endpoint:
        async with M2Client(**endpoint.client_settings()) as client:
            ago = 1_000.0
            await client.start_batch_job(ROWS[1][1])  # before that: the ledger may have been right
            ago = 600.0
            await client.start_batch_job(ROWS[1][1])
            ago = 0.0
        async with M2Client(**endpoint.client_settings()) as client:
            with pytest.raises(UnexplainedExecutionsError) as caught:
                await submit(client, path, ROWS[1:2], of=ROWS[:2])
    assert len(caught.value.execution_ids) == 1


async def test_a_run_without_a_manifest_is_looked_at_too(tmp_path: Path, client: M2Client) -> None:
    path = tmp_path / "ledger.db"
    async with Submitter(client, ledger=path) as submitter:
        await submitter.submit(ROWS[0][1], key="monday")
    copy = copied(path, tmp_path / "copy.db")
    async with Submitter(client, ledger=path) as submitter:
        await submitter.submit(ROWS[0][1], key="tuesday")
    with pytest.raises(UnexplainedExecutionsError):
        async with Submitter(client, ledger=copy):
            pass
    async with Submitter(client, ledger=path) as submitter:
        await submitter.submit(ROWS[1][1], key="tuesday too")


# A run that was not sent yet


async def test_the_second_night_of_a_ledger_is_a_night_like_the_first(
    tmp_path: Path, endpoint: LocalEndpoint, client: M2Client
) -> None:
    path = tmp_path / "ledger.db"
    for run in ("monday", "tuesday"):
        assert await submit(client, path, SAME, run) == ""
    assert await started_twice(endpoint) == 10


async def test_a_new_ledger_beside_the_one_that_knows_starts_nothing(
    tmp_path: Path, endpoint: LocalEndpoint, client: M2Client
) -> None:
    await submit(client, tmp_path / "ledger.db", ROWS[:6], of=ROWS)
    for _ in range(2):
        with pytest.raises(UnexplainedExecutionsError, match="another ledger, such as that of another home folder"):
            await submit(client, tmp_path / "other.db", ROWS)
    assert await started_twice(endpoint) == 0


async def test_a_job_that_still_runs_is_not_started_beside_itself(tmp_path: Path) -> None:
    ago = 7_200
    jobs = (JobDefinition("LONG.jcl", "LONG", (StepDefinition("STEP1"),), seconds=36_000),)
    definitions = [ApplicationDefinition(DEFAULT_APPLICATION_ID, "Night", jobs=jobs)]
    long = [("row", StartBatchJob(DEFAULT_APPLICATION_ID, FileJob("LONG.jcl")))]
    async with LocalEndpoint(definitions=definitions, clock=lambda: time.time() - ago) as endpoint:
        async with M2Client(**endpoint.client_settings()) as client:
            await submit(client, tmp_path / "ledger.db", long)
        ago = 0
        async with M2Client(**endpoint.client_settings()) as client:
            with pytest.raises(UnexplainedExecutionsError, match="1 execution of a job of this run .LONG"):
                await submit(client, tmp_path / "other.db", long)


async def test_waiting_does_not_make_a_run_that_was_stopped_start(tmp_path: Path) -> None:
    ago = 600
    async with LocalEndpoint(clock=lambda: time.time() - ago) as endpoint:
        async with M2Client(**endpoint.client_settings()) as client:
            await submit(client, tmp_path / "ledger.db", ROWS[:2])
        ago = 0
        async with M2Client(**endpoint.client_settings()) as client:
            with pytest.raises(UnexplainedExecutionsError):
                await submit(client, tmp_path / "other.db", ROWS)
            async with open_ledger(tmp_path / "other.db") as ledger, await ledger.open_run("night") as run:
                for later in (0, 86_400):
                    look = await look_for_unexplained(client, ledger, run, settle=5, now=time.time() + later)
                    assert len(look.stopping) == 2


async def test_other_jobs_of_the_application_are_nobodys_business(tmp_path: Path, client: M2Client) -> None:
    await submit(client, tmp_path / "ledger.db", ROWS[:6])
    assert await submit(client, tmp_path / "other.db", ROWS[6:]) == ""


@pytest.mark.parametrize(
    ("hours", "stops", "said"),
    [(0.3, True, ""), (1, False, "there are 2 executions of 2 jobs of this run"), (20, False, "")],
)
async def test_what_ended_some_time_ago_is_told_and_what_ended_last_night_is_not(
    tmp_path: Path, hours: float, stops: bool, said: str
) -> None:
    ago = hours * 3_600
    async with LocalEndpoint(clock=lambda: time.time() - ago) as endpoint:
        async with M2Client(**endpoint.client_settings()) as client:
            await submit(client, tmp_path / "ledger.db", ROWS[:2])
        ago = 0.0
        async with M2Client(**endpoint.client_settings()) as client:
            if stops:
                with pytest.raises(UnexplainedExecutionsError):
                    await submit(client, tmp_path / "other.db", ROWS)
            else:
                assert said in (warnings := await submit(client, tmp_path / "other.db", ROWS))
                assert bool(warnings) is bool(said)


# Start times that are not the clock's


class Stamped(M2Client):
    """A client of a service that stamps start times by another clock, or in coarse units."""

    ahead = 0.0
    unit = 0.001

    async def get_batch_job_executions_page(self, application_id: str, **asked: Any) -> ExecutionsPage:
        first, last = asked.pop("started_after", None), asked.pop("started_before", None)
        page = await super().get_batch_job_executions_page(application_id, **asked)
        shown = [replace(each, start_time=self.shown(each.start_time)) for each in page.executions]
        return ExecutionsPage(
            [each for each in shown if (not first or each.start_time > first) and (not last or each.start_time < last)],
            page.next_token,
        )

    def shown(self, start: datetime) -> datetime:
        return datetime.fromtimestamp((start.timestamp() + self.ahead) // self.unit * self.unit, UTC)


STAMPS = [(0.0, 0.001), (0.0, 60.0), (3_600.0, 0.001), (-3_600.0, 1.0), (40.0, 10.0), (-20.0, 30.0)]


@pytest.mark.parametrize(("ahead", "unit"), STAMPS)
async def test_a_run_s_own_lost_start_never_stops_it(
    tmp_path: Path, endpoint: LocalEndpoint, ahead: float, unit: float
) -> None:
    async with Stamped(**endpoint.client_settings()) as client:
        client.ahead, client.unit = ahead, unit
        path = tmp_path / "ledger.db"
        await submit(client, path, ROWS[:6], of=ROWS)
        async with open_ledger(path) as ledger, await ledger.open_run("night") as run:
            await run.note_clock(client.clock_offset)
            await run.intend(7, 1, steady_time())
            await client.start_batch_job(ROWS[6][1])  # and died before it was answered
        assert "execution" not in await submit(client, path, ROWS[7:], of=ROWS, on_unknown="hold")


class StampedAfterItsQueue(Stamped):
    """One of them shows the time at which its job left a queue."""

    def shown(self, start: datetime) -> datetime:
        return start + timedelta(seconds=20 if start >= self.queued_since else 0)

    queued_since = datetime.max.replace(tzinfo=UTC)


async def test_at_the_end_a_lost_start_that_left_a_queue_is_not_called_somebody_else_s(
    tmp_path: Path, endpoint: LocalEndpoint
) -> None:
    async with StampedAfterItsQueue(**endpoint.client_settings()) as client:
        path = tmp_path / "ledger.db"
        await submit(client, path, ROWS[:6], of=ROWS)
        async with open_ledger(path) as ledger:
            async with await ledger.open_run("night") as run:
                await run.note_clock(client.clock_offset)
                await run.intend(7, 1, steady_time())
                await run.unknown(7, 1, "ConnectionLostError", "lost")
                since = datetime.now(UTC)
                await client.start_batch_job(ROWS[6][1])
            async with (
                await ledger.open_run("night") as run,
                Submitter(client, ledger=ledger, run=run, on_unknown="hold") as submitter,
            ):
                client.queued_since = since
                for others in (0, 1):
                    await submitter.look_for_others()
                    assert len(await run.foreign()) == others
                    await client.start_batch_job(ROWS[6][1])


@pytest.mark.parametrize("answered", [0, 2])
async def test_where_too_little_was_answered_to_tell_a_lost_start_explains_one_execution_whenever_it_began(
    tmp_path: Path, endpoint: LocalEndpoint, answered: int
) -> None:
    path = tmp_path / "ledger.db"
    async with Stamped(**endpoint.client_settings()) as client:
        client.ahead = 7_200.0
        async with open_ledger(path) as ledger, await ledger.open_run("night") as run:
            await run.plan(ROWS)
            await belongs(run, client)
        await submit(client, path, ROWS[:answered], of=ROWS)
        async with open_ledger(path) as ledger, await ledger.open_run("night") as run:
            await run.note_clock(client.clock_offset)
            await run.intend(7, 1, steady_time())
            await client.start_batch_job(ROWS[6][1])
        assert "execution" not in await submit(client, path, ROWS[7:], of=ROWS, on_unknown="hold")
        await client.start_batch_job(ROWS[6][1])
        async with open_ledger(path) as ledger, await ledger.open_run("another") as run:
            await run.plan(ROWS[6:7])
            look = await look_for_unexplained(client, ledger, run, settle=5, now=time.time())
        assert len(look.stopping) == 1


@pytest.mark.parametrize(("ahead", "unit"), STAMPS)
async def test_what_an_old_copy_does_not_know_stops_it_however_start_times_are_stamped(
    tmp_path: Path, endpoint: LocalEndpoint, ahead: float, unit: float
) -> None:
    path = tmp_path / "ledger.db"
    async with Stamped(**endpoint.client_settings()) as client:
        client.ahead, client.unit = ahead, unit
        await submit(client, path, ROWS[:6], of=ROWS)
        copy = copied(path, tmp_path / "copy.db")
        await submit(client, path, ROWS[6:], of=ROWS)
        for _ in range(2):
            with pytest.raises(UnexplainedExecutionsError) as caught:
                await submit(client, copy, ROWS[6:], of=ROWS)
            assert len(caught.value.execution_ids) == 4
        await submit(client, copy, ROWS[6:7], of=ROWS, start_anyway=True)
        await submit(client, copy, ROWS[7:8], of=ROWS)  # what was accepted stays so


@pytest.mark.parametrize("rows", [ROWS, SAME], ids=["a job each", "one job"])
async def test_a_doubt_of_an_old_copy_explains_no_job_that_would_be_sent_unasked(
    tmp_path: Path, endpoint: LocalEndpoint, client: M2Client, rows: Rows
) -> None:
    path, before = tmp_path / "ledger.db", steady_time() - 3_600
    async with open_ledger(path, clock=lambda: before) as ledger, await ledger.open_run("night") as run:
        await run.plan(rows)
        await belongs(run, client)
        await run.note_clock(0.0)
        for number in (1, 2, 3):  # nothing was answered, and nothing came of it
            await run.intend(number, 1, before)
            await run.unknown(number, 1, "ReadTimeout", "no answer")
    copy = copied(path, tmp_path / "copy.db")
    await submit(client, path, rows[3:6], of=rows, on_unknown="hold")
    with pytest.raises(UnexplainedExecutionsError) as caught:
        await submit(client, copy, rows[3:6], of=rows, on_unknown="hold")
    assert len(caught.value.execution_ids) == 3
    assert await started_twice(endpoint) == 0


async def test_what_is_lost_elsewhere_explains_nothing_here(tmp_path: Path, endpoint: LocalEndpoint) -> None:
    path = tmp_path / "ledger.db"
    async with LocalEndpoint() as other, M2Client(**other.client_settings()) as client:
        async with open_ledger(path) as ledger, await ledger.open_run("elsewhere") as run:
            await run.plan(ROWS[:1])
            await belongs(run, client)
            await run.intend(1, 1, time.time())
    async with M2Client(**endpoint.client_settings()) as client:
        await client.start_batch_job(ROWS[0][1])
        with pytest.raises(UnexplainedExecutionsError):
            await submit(client, path, ROWS[:1])


# What cannot be looked up


async def test_where_lists_are_not_permitted_it_says_so_and_goes_on(tmp_path: Path) -> None:
    async with scripted(error(403, "AccessDeniedException"), started("one")) as server:
        server.lists = True
        async with M2Client(**server.settings()) as client:
            warnings = await submit(client, tmp_path / "ledger.db", ROWS[:1])
    assert warnings == (
        "not checked: whether others have started these jobs: the permission m2:ListBatchJobExecutions is missing; "
        "a job whose answer is lost stays unknown as long as the executions of its application cannot be listed"
    )


async def test_a_list_without_end_costs_so_many_calls_and_is_told(tmp_path: Path) -> None:
    page = answer(200, {"batchJobExecutions": [], "nextToken": "more"})
    async with scripted(*[page] * 20, started("one")) as server, M2Client(**server.settings()) as client:
        server.lists = True
        warnings = await submit(client, tmp_path / "ledger.db", ROWS[:1])
        assert len(server.requests) == 21
    assert f"application {DEFAULT_APPLICATION_ID} has too many executions; the first were looked at" in warnings


async def test_a_list_without_end_at_the_end_of_a_run_is_told_too(tmp_path: Path) -> None:
    page = answer(200, {"batchJobExecutions": [], "nextToken": "more"})
    async with scripted(started("one"), page) as server, M2Client(**server.settings()) as client:
        async with Submitter(client, ledger=tmp_path / "ledger.db") as submitter:
            assert isinstance(await submitter.submit(ROWS[0][1], key="row-0"), Started)
            server.lists = True
            [warning] = await submitter.look_for_others()
    assert f"application {DEFAULT_APPLICATION_ID} has too many executions; the first were looked at" in warning


async def test_executions_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    page = answer(200, {"batchJobExecutions": [{"executionId": "x", "applicationId": DEFAULT_APPLICATION_ID}]})
    async with scripted(started("one"), page) as server, M2Client(**server.settings()) as client:
        async with Submitter(client, ledger=tmp_path / "ledger.db") as submitter:
            assert isinstance(await submitter.submit(ROWS[0][1], key="row-0"), Started)
            server.lists = True
            [warning] = await submitter.look_for_others()
    assert f"of the list of application {DEFAULT_APPLICATION_ID} cannot be read as executions of it" in warning


async def test_a_run_that_has_nothing_left_asks_nothing(tmp_path: Path) -> None:
    async with scripted(started("one")) as server, M2Client(**server.settings()) as client:
        await submit(client, tmp_path / "ledger.db", ROWS[:1])
        server.lists = True
        before = len(server.requests)
        await submit(client, tmp_path / "ledger.db", ROWS[:1])
        assert len(server.requests) == before


# Where it is sent


async def test_a_run_that_was_sent_elsewhere_is_not_entered(tmp_path: Path, endpoint: LocalEndpoint) -> None:
    path = tmp_path / "ledger.db"
    async with M2Client(**endpoint.client_settings()) as client, Submitter(client, ledger=path) as submitter:
        await submitter.submit(ROWS[0][1], key="row-0")
    async with scripted(started("one")) as server, M2Client(**server.settings()) as client:
        with pytest.raises(SentElsewhereError) as caught:
            async with Submitter(client, ledger=path):
                pass
        assert server.connections == 0
        async with open_ledger(path) as ledger:
            await (await ledger.run("default")).belong_to(caught.value.goes_to, moved=True)
        async with Submitter(client, ledger=path) as submitter:
            assert (await submitter.submit(ROWS[1][1], key="row-1")).state == "started"


async def test_a_ledger_that_fails_meanwhile_says_so_itself(tmp_path: Path, client: M2Client) -> None:
    await submit(client, tmp_path / "ledger.db", ROWS[:2])
    async with open_ledger(tmp_path / "other.db") as ledger:
        run = await ledger.open_run("night")
        await run.plan(ROWS)
        await run.aclose()
        with pytest.raises(LedgerClosedError):
            await look_for_unexplained(client, ledger, run, settle=5, now=time.time())
