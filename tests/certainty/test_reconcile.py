from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count, pairwise
from typing import Any

import aiohttp
import msgspec
import pytest

from m2async import FileJob, LocalEndpoint, M2Client, RetryPolicy, ScriptJob, StartBatchJob, Started, Submitter, Unknown
from m2async.certainty import ApplicationOfRun
from m2async.certainty.adopt import Adopted, Ambiguous, Decision, Margins, NotStarted, StartedTogether
from m2async.certainty.reconcile import reconcile
from m2async.ledger import Destination, ForeignExecution, Ledger, Run, open_ledger
from m2async.service import BatchJobExecution, Job

APPLICATION = "carddemolocalapplication23"
FAULTS = {"500": 0.1, "drop-before-accept": 0.1, "accept-then-500": 0.1, "accept-then-drop": 0.1}


async def really_started(endpoint: LocalEndpoint) -> dict[str, str]:
    async with aiohttp.ClientSession() as session, session.get(f"{endpoint.url}/_local/executions") as answer:
        return {e["executionId"]: e["jobParams"]["NUMBER"] for e in (await answer.json())["executions"]}


@pytest.mark.parametrize("ahead", [0.0, 100.0, -100.0])
async def test_jobs_whose_answer_was_lost_are_found_whatever_the_service_s_clock_says(ahead: float) -> None:
    async with LocalEndpoint(faults=FAULTS, seed=5, clock=lambda: time.time() + ahead) as endpoint:
        requests = [(str(n), StartBatchJob(APPLICATION, ScriptJob(f"JOB{n}"), {"NUMBER": str(n)})) for n in range(120)]
        async with (
            M2Client(**endpoint.client_settings()) as client,
            Submitter(client, ledger="memory:", settle=0.2, retry=RetryPolicy(resends=50)) as submitter,
        ):
            ended = [outcome async for outcome in submitter.submit_many(requests)]
        executions = await really_started(endpoint)
    assert {type(outcome) for outcome in ended} == {Started}
    assert len(executions) == 120
    for outcome in ended:
        assert isinstance(outcome, Started)
        assert outcome.execution_id is not None
        assert executions[outcome.execution_id] == outcome.key
    assert Counter(outcome.adopted for outcome in ended if isinstance(outcome, Started))[True] > 10


async def test_a_job_that_surely_did_not_start_and_was_sent_often_enough_is_rejected_in_the_ledger_too() -> None:
    requests = [(str(n), StartBatchJob(APPLICATION, ScriptJob(f"JOB{n}"), {"NUMBER": str(n)})) for n in range(40)]
    async with (
        LocalEndpoint(faults={"500": 0.5}, seed=5) as endpoint,
        M2Client(**endpoint.client_settings()) as client,
        open_ledger("memory:") as ledger,
        await ledger.open_run("run") as run,
    ):
        async with Submitter(client, ledger=ledger, run=run, settle=0.2, retry=RetryPolicy(resends=0)) as submitter:
            ended = {outcome.key: outcome.state async for outcome in submitter.submit_many(requests)}
        written = {row.key: row.state.label async for row in run.rows()}
        executions = await really_started(endpoint)
    assert written == ended
    assert set(ended.values()) == {"started", "rejected"}
    assert set(executions.values()) == {key for key, state in ended.items() if state == "started"}


@dataclass
class Lists:
    """Lists what it is told to, as far as it is asked for."""

    executions: list[BatchJobExecution]
    clock_offset: float | None = 0.0
    windows: list[Any] = field(default_factory=list)
    meanwhile: Mapping[int, Callable[[], Awaitable[None]]] = field(default_factory=dict)  # while the nth list is made

    async def list_batch_job_executions(
        self, application_id: str, /, *, started_after: datetime | None = None, started_before: datetime | None = None
    ) -> AsyncIterator[BatchJobExecution]:
        assert started_after is not None
        assert started_before is not None
        self.windows.append((started_after, started_before))
        if len(self.windows) in self.meanwhile:
            await self.meanwhile[len(self.windows)]()
        for execution in self.executions:
            if started_after < execution.start_time < started_before:
                yield execution


def execution(execution_id: str, identifier: dict[str, Any] | None, start: float) -> BatchJobExecution:
    when = datetime.fromtimestamp(start, UTC)
    return BatchJobExecution(APPLICATION, execution_id, when, "Running", batch_job_identifier=identifier)


async def in_doubt(ledger: Ledger, at: float) -> Run:
    """A run with one job that was sent at a time, and whose answer was lost."""
    run = await ledger.open_run("run")
    row = await run.add("a", StartBatchJob(APPLICATION, FileJob("POSTTRAN.jcl")))
    await run.intend(row.number, 1, at)
    await run.unknown(row.number, 1, "ConnectionLostError", "lost")
    return run


FILE = {"fileBatchJobIdentifier": {"fileName": "POSTTRAN.jcl"}}
OTHER_FORM = {"fileBatchJobIdentifier": {"fileName": "POSTTRAN"}}
OTHER_JOB = {"scriptBatchJobIdentifier": {"scriptName": "INTCALC"}}


async def answered(run: Run, number: int, job: Job, execution_id: str, at: float) -> None:
    """A row whose job was started at a time, which the service answered with an id."""
    row = await run.add(f"answered-{number}", StartBatchJob(APPLICATION, job))
    await run.intend(row.number, 1, at)
    await run.started(row.number, 1, execution_id)


async def look(
    client: Lists, ledger: Ledger, run: Run, *, settled_before: float | None = None
) -> tuple[Decision | None, list[ForeignExecution]]:
    """What is found out about the row in doubt, and whom else is seen."""
    findings = await reconcile(
        client,
        ApplicationOfRun(client, ledger, run, APPLICATION, Margins()),
        settled_before=time.time() + 60 if settled_before is None else settled_before,
        wanted=[1],
    )
    return findings.decisions.get(1), findings.foreign


@pytest.mark.parametrize(
    ("listed", "known", "kind"),
    [
        (FILE, None, Adopted),
        # The service lists jobs in another form than they were sent in, as far as anybody knows.
        (OTHER_FORM, None, Ambiguous),
        # It was seen to list files as they were sent: then what is listed is another job.
        (OTHER_JOB, FileJob("KNOWN.jcl"), NotStarted),
        # What was seen of scripts says nothing of files.
        (OTHER_FORM, ScriptJob("KNOWN"), Ambiguous),
        (None, FileJob("KNOWN.jcl"), Ambiguous),
    ],
)
async def test_not_started_is_said_only_where_jobs_are_listed_as_they_were_sent(
    listed: dict[str, Any] | None, known: Job | None, kind: type
) -> None:
    now = time.time()
    client = Lists([execution("e", listed, now - 29)])
    async with open_ledger("memory:", clock=lambda: now) as ledger, await in_doubt(ledger, now - 30) as run:
        if known is not None:
            await answered(run, 2, known, "known", now - 1)
            client.executions.append(execution("known", {known.member: known.to_members()}, now - 1))
        decision, _ = await look(client, ledger, run)
    assert type(decision) is kind


async def test_an_attempt_that_is_too_young_is_not_decided() -> None:
    now = time.time()
    async with open_ledger("memory:") as ledger, await in_doubt(ledger, now) as run:
        client = Lists([])
        decision, _ = await look(client, ledger, run, settled_before=now - 5)
    assert decision is None
    assert client.windows == []


async def witnessed(run: Run, client: Lists, at: float, count: int = 6, ahead: float = 0.0) -> None:
    """So many jobs that were answered at about this time, and are listed so much ahead of it."""
    for number in range(2, 2 + count):
        await answered(run, number, FileJob(f"KNOWN{number}.jcl"), f"known-{number}", at)
        members = {"fileBatchJobIdentifier": {"fileName": f"KNOWN{number}.jcl"}}
        client.executions.append(execution(f"known-{number}", members, at + ahead))


async def test_a_start_time_that_is_stamped_by_another_clock_is_still_found() -> None:
    now = time.time()
    client = Lists([execution("e", FILE, now - 30 + 3_600)])
    async with open_ledger("memory:", clock=lambda: now) as ledger, await in_doubt(ledger, now - 30) as run:
        await witnessed(run, client, now - 1, ahead=3_600)
        decision, foreign = await look(client, ledger, run)
    assert decision == Adopted(("e",))
    assert foreign == []


@pytest.mark.parametrize("off", [-7_200.0, -100.0, 200.0, 3_600.0, 50_400.0])
async def test_where_nothing_tells_how_start_times_behave_a_lone_one_at_any_time_leaves_it_unknown(off: float) -> None:
    clock = [now := time.time()]
    client = Lists([execution("e", FILE, now - 30 + off)])
    async with open_ledger("memory:", clock=lambda: clock[0]) as ledger, await in_doubt(ledger, now - 30) as run:
        decision, foreign = await look(client, ledger, run)
        assert decision == Ambiguous(("e",), surely_started=False)
        assert foreign == []
        # With witnesses of right times it is somebody else's, and too far off to matter for ours.
        clock[0] = now + 10
        await witnessed(run, client, now + 9)
        decision, foreign = await look(client, ledger, run)
    assert decision == NotStarted()


@pytest.mark.parametrize("off", [-7_200.0, -300.0, 300.0, 3_600.0])
async def test_start_times_that_jump_are_not_relied_on_before_a_later_one_shows_how_they_are(off: float) -> None:
    """What was answered before the doubt was listed as it should be; from then on start times are of another clock."""
    clock = [now := time.time()]
    client = Lists([execution("e", FILE, now + off)])
    async with open_ledger("memory:", clock=lambda: clock[0]) as ledger, await ledger.open_run("run") as run:
        doubt = await run.add("a", StartBatchJob(APPLICATION, FileJob("POSTTRAN.jcl")))
        clock[0] = now - 20
        await witnessed(run, client, now - 21)
        clock[0] = now
        await run.intend(doubt.number, 1, now - 1)
        await run.unknown(doubt.number, 1, "ConnectionLostError", "lost")
        assert await look(client, ledger, run) == (Ambiguous(("e",), surely_started=False), [])
        # One that was sent later and is listed so far off says that any may be; one that is not, that none is.
        for number in range(100, 105):
            clock[0] = now + 6
            await answered(run, number, ScriptJob("LATER"), f"later-{number}", now + 5)
            identifier = {"scriptBatchJobIdentifier": {"scriptName": "LATER"}}
            client.executions.append(execution(f"later-{number}", identifier, now + 5.5))
        assert await look(client, ledger, run) == (NotStarted(), [])


async def test_a_list_that_lacks_what_was_answered_lets_nothing_be_called_not_started() -> None:
    now = time.time()
    client = Lists([])
    async with open_ledger("memory:", clock=lambda: now) as ledger, await in_doubt(ledger, now - 30) as run:
        await witnessed(run, client, now - 20)
        late = client.executions.pop()
        decision, _ = await look(client, ledger, run)
        assert decision == Ambiguous((), surely_started=False)
        client.executions.append(late)
        decision, _ = await look(client, ledger, run)
    assert decision == NotStarted()


@pytest.mark.parametrize("after", [20.0, 100.0, 250.0])
async def test_what_started_later_than_a_doubt_may_be_its_own_that_left_a_queue(after: float) -> None:
    """Others that still are in that queue show nothing of it: the row is open, and nobody is said to start its job."""
    clock = [sent := time.time()]
    client = Lists([execution("e", FILE, sent + after)])
    async with open_ledger("memory:", clock=lambda: clock[0]) as ledger, await in_doubt(ledger, sent) as run:
        clock[0] = sent + 300
        await witnessed(run, client, sent + 299.5)
        found = await look(client, ledger, run, settled_before=sent + 300)
        assert found == (Ambiguous(("e",), surely_started=False), [])
        # A further one is more than it can have started.
        client.executions.append(execution("theirs", FILE, sent + after + 1))
        decision, foreign = await look(client, ledger, run, settled_before=sent + 300)
    assert isinstance(decision, Ambiguous)
    assert [each.execution_id for each in foreign] == ["theirs"]


async def test_it_is_its_own_once_others_are_seen_to_leave_the_queue() -> None:
    clock = [sent := time.time()]
    client = Lists([execution("e", FILE, sent + 20)])
    async with open_ledger("memory:", clock=lambda: clock[0]) as ledger, await in_doubt(ledger, sent) as run:
        clock[0] = sent + 30
        await witnessed(run, client, sent + 29.5)
        of = ApplicationOfRun(client, ledger, run, APPLICATION, Margins())
        found = await reconcile(client, of, settled_before=sent + 35, wanted=[1])
        assert (found.decisions, found.may_change) == ({1: Ambiguous(("e",), surely_started=False)}, True)
        for number, each in enumerate(client.executions[1:], 1):
            late = each.start_time + timedelta(seconds=3 * number)
            client.executions[number] = msgspec.structs.replace(each, start_time=late)
        found = await reconcile(client, of, settled_before=sent + 60, wanted=[1])
    assert (found.decisions, found.foreign) == ({1: Adopted(("e",))}, [])


async def test_a_late_start_may_be_a_doubt_s_though_a_call_under_way_may_have_started_it_too() -> None:
    clock = [sent := time.time()]
    client = Lists([execution("e", FILE, sent + 20)])
    async with open_ledger("memory:", clock=lambda: clock[0]) as ledger, await in_doubt(ledger, sent) as run:
        under_way = await run.add("b", StartBatchJob(APPLICATION, FileJob("POSTTRAN.jcl")))
        await run.intend(under_way.number, 1, sent + 10)
        clock[0] = sent + 30
        await witnessed(run, client, sent + 29.5)
        of = ApplicationOfRun(client, ledger, run, APPLICATION, Margins())
        found = await reconcile(client, of, settled_before=sent + 30, wanted=[1])
        assert found == ({1: Ambiguous(("e",), surely_started=False)}, [], True)
        await run.started(under_way.number, 1, "e")
        found = await reconcile(client, of, settled_before=sent + 30, wanted=[1])
    assert found.decisions == {1: NotStarted()}


@pytest.mark.parametrize(
    ("its_own", "after", "found"),
    [
        (True, 5.0, NotStarted()),
        (True, 100.0, Ambiguous(("f",), surely_started=False)),  # that was looked at too long ago
        (False, 5.0, Ambiguous(("e",), surely_started=False)),  # the call may still be answered with another
    ],
)
async def test_what_others_start_from_then_on_does_not_leave_a_doubt_open_for_ever(
    after: float, found: Decision, *, its_own: bool
) -> None:
    """Of a name there is always a call under way: what counts is what was shown when nothing else spoke against it."""
    clock = [sent := time.time()]
    client = Lists([execution("e", FILE, sent + 20), execution("x", FILE, sent + 20)])
    async with open_ledger("memory:", clock=lambda: clock[0]) as ledger, await in_doubt(ledger, sent) as run:
        calls = [await run.add(key, StartBatchJob(APPLICATION, FileJob("POSTTRAN.jcl"))) for key in ("b", "c", "d")]
        for call in calls[:2]:
            await run.intend(call.number, 1, sent + 10)
        clock[0] = sent + 30
        await witnessed(run, client, sent + 29.5)
        of = ApplicationOfRun(client, ledger, run, APPLICATION, Margins())
        first = await reconcile(client, of, settled_before=sent + 30, wanted=[1])
        assert first.decisions == {1: Ambiguous(("e", "x"), surely_started=False)}
        await run.started(calls[0].number, 1, "x")
        await run.intend(calls[2].number, 1, sent + 31)
        client.executions.append(execution("f", FILE, sent + 32))
        if its_own:
            await run.started(calls[1].number, 1, "e")
        second = await reconcile(client, of, settled_before=sent + 30 + after, wanted=[1])
    assert second.decisions == {1: found}


async def test_what_a_later_doubt_explains_does_not_leave_an_earlier_one_open() -> None:
    clock = [sent := time.time()]
    client = Lists([execution("e", FILE, sent + 20)])
    async with open_ledger("memory:", clock=lambda: clock[0]) as ledger, await in_doubt(ledger, sent) as run:
        clock[0] = sent + 20
        for key in ("b", "c"):
            await another_in_doubt(run, sent + 20, key)
        clock[0] = sent + 30
        await witnessed(run, client, sent + 29.5)
        of = ApplicationOfRun(client, ledger, run, APPLICATION, Margins())
        found = await reconcile(client, of, settled_before=sent + 30, wanted=[1, 2, 3])
    either = Ambiguous(("e",), surely_started=False)
    assert found.decisions == {1: NotStarted(), 2: either, 3: either}


async def test_what_started_since_an_old_doubt_is_listed_once_and_nothing_else() -> None:
    clock = [sent := time.time()]
    client = Lists([execution("e", FILE, sent)])
    async with open_ledger("memory:", clock=lambda: clock[0]) as ledger, await in_doubt(ledger, sent) as run:
        clock[0] = old = sent + 36_000
        other = await run.add("b", StartBatchJob(APPLICATION, FileJob("OTHER.jcl")))
        await run.intend(other.number, 1, old)
        await run.unknown(other.number, 1, "ConnectionLostError", "lost")
        clock[0] = old + 20
        await witnessed(run, client, old + 19)
        clock[0] = sent + 72_000
        of = ApplicationOfRun(client, ledger, run, APPLICATION, Margins())
        found = await reconcile(client, of, settled_before=sent + 72_000, wanted=[1, 2])
    assert found.decisions == {1: Adopted(("e",)), 2: NotStarted()}
    listed = sorted(client.windows)
    assert not any(after.timestamp() < sent + 33_000 and before.timestamp() > sent + 3_000 for after, before in listed)
    assert all(after > before - timedelta(seconds=5) for (_, before), (after, _) in pairwise(listed)), listed
    assert listed[-1][1].timestamp() > sent + 72_000


@pytest.mark.parametrize(
    ("shown_at", "seen_until", "looked_at", "found"),
    [
        (1e6, 410.0, 600.0, NotStarted()),
        # With no witness behind it, start times may have jumped.
        (4_000.0, 10.0, 440.0, Ambiguous(("late",), surely_started=False)),
    ],
)
async def test_what_becomes_clear_only_while_more_is_listed_for_another_is_looked_for_once_more(
    shown_at: float, seen_until: float, looked_at: float, found: Decision
) -> None:
    """A call that may have started its execution is answered while all is listed that started since an older doubt."""
    clock = [sent := time.time()]
    client = Lists([execution("e", OTHER_JOB, sent + 400), execution("late", OTHER_JOB, sent + shown_at)])
    async with open_ledger("memory:", clock=lambda: clock[0]) as ledger, await in_doubt(ledger, sent) as run:
        await run.note_clock(0.0)
        clock[0] = sent + 10
        await witnessed(run, client, sent + 10)
        clock[0] = sent + 400
        young, other = [await run.add(key, StartBatchJob(APPLICATION, ScriptJob("INTCALC"))) for key in ("b", "c")]
        for row in young, other:
            await run.intend(row.number, 1, sent + 400)
        await run.unknown(young.number, 1, "ConnectionLostError", "lost")
        if seen_until > 400:
            clock[0] = sent + seen_until
            await answered(run, 100, ScriptJob("LAST"), "last", sent + seen_until)
            client.executions.append(
                execution("last", {"scriptBatchJobIdentifier": {"scriptName": "LAST"}}, sent + seen_until)
            )
        clock[0] = sent + looked_at

        async def answer() -> None:
            await run.started(other.number, 1, "e")

        client.meanwhile = {3: answer}
        of = ApplicationOfRun(client, ledger, run, APPLICATION, Margins())
        first = await reconcile(client, of, settled_before=sent + looked_at, wanted=[1, young.number])
        assert (first.decisions[young.number], first.may_change) == (Ambiguous((), surely_started=False), True)
        second = await reconcile(client, of, settled_before=sent + looked_at, wanted=[1, young.number])
    assert second.decisions[young.number] == found


@pytest.mark.parametrize(("listed", "known"), [(OTHER_FORM, ScriptJob("KNOWN")), (None, FileJob("KNOWN.jcl"))])
async def test_a_late_start_may_be_a_doubt_s_though_its_job_is_listed_in_other_terms_or_not_at_all(
    listed: dict[str, Any] | None, known: Job
) -> None:
    clock = [sent := time.time()]
    client = Lists([execution("e", listed, sent + 20)])
    async with open_ledger("memory:", clock=lambda: clock[0]) as ledger, await in_doubt(ledger, sent) as run:
        clock[0] = sent + 30
        for number in range(2, 8):
            await answered(run, number, known, f"known-{number}", sent + 29)
            identifier = {known.member: known.to_members()}
            client.executions.append(execution(f"known-{number}", identifier, sent + 29))
        decision, foreign = await look(client, ledger, run, settled_before=sent + 30)
        assert (decision, foreign) == (Ambiguous(("e",), surely_started=False), [])
        client.executions[0] = execution("e", listed, sent - 20)  # it was not sent yet
        decision, _ = await look(client, ledger, run, settled_before=sent + 30)
    assert decision == NotStarted()


async def another_in_doubt(run: Run, at: float, key: str = "b") -> None:
    other = await run.add(key, StartBatchJob(APPLICATION, FileJob("POSTTRAN.jcl")))
    await run.intend(other.number, 1, at)
    await run.unknown(other.number, 1, "ConnectionLostError", "lost")


async def test_what_was_listed_before_a_job_was_sent_is_not_taken_for_its_execution() -> None:
    """Start times are half a minute ahead, and nothing tells so."""
    clock = [sent := time.time()]
    client = Lists([execution("e", FILE, sent + 30)])
    async with open_ledger("memory:", clock=lambda: clock[0]) as ledger, await in_doubt(ledger, sent) as run:
        of = ApplicationOfRun(client, ledger, run, APPLICATION, Margins())
        found = await reconcile(client, of, settled_before=sent + 20, wanted=[1])
        assert found.decisions == {1: Ambiguous(("e",), surely_started=False)}
        clock[0] = sent + 30
        await another_in_doubt(run, sent + 30)
        found = await reconcile(client, of, settled_before=sent + 60, wanted=[2])
    assert (found.decisions, found.foreign) == ({2: Ambiguous(("e",), surely_started=False)}, [])


async def test_of_two_doubts_either_may_have_started_it_where_few_say_that_start_times_are_off() -> None:
    """The others still are in a queue that it left after half a minute; and all are half a minute behind."""
    clock = [sent := time.time()]
    client = Lists([execution("e", FILE, sent + 10)])
    async with open_ledger("memory:", clock=lambda: clock[0]) as ledger, await in_doubt(ledger, sent) as run:
        clock[0] = sent + 40
        await another_in_doubt(run, sent + 40)
        await witnessed(run, client, sent + 39.5, count=3, ahead=-30)
        of = ApplicationOfRun(client, ledger, run, APPLICATION, Margins())
        found = await reconcile(client, of, settled_before=sent + 60, wanted=[1, 2])
        assert found.decisions == dict.fromkeys([1, 2], Ambiguous(("e",), surely_started=False))
        # Nor is it the one's because nobody asks for the other any more.
        found = await reconcile(client, of, settled_before=sent + 60, wanted=[2])
    assert found.decisions == {2: Ambiguous(("e",), surely_started=False)}


async def test_a_job_that_somebody_else_is_seen_to_start_is_left_open_from_then_on() -> None:
    now = time.time()
    client = Lists([execution("e", FILE, now - 29.5), execution("theirs", FILE, now - 60)])
    async with open_ledger("memory:", clock=lambda: now) as ledger, await in_doubt(ledger, now - 30) as run:
        await witnessed(run, client, now - 1)
        decision, foreign = await look(client, ledger, run)
        assert decision == Ambiguous(("e",), surely_started=False)
        assert [each.execution_id for each in foreign] == ["theirs"]
        client.executions.pop(1)
        decision, foreign = await look(client, ledger, run)
        assert decision == Ambiguous(("e",), surely_started=False)
        assert foreign == []
        assert [each.execution_id for each in await run.foreign()] == ["theirs"]


@pytest.mark.parametrize(
    ("place", "found"),
    [
        (Destination("https://m2.eu-west-1.amazonaws.com", "eu-west-1", "1"), Adopted),
        (Destination("https://m2.us-east-1.amazonaws.com", "us-east-1", "2"), Adopted),
        (Destination("http://127.0.0.1:8000", "us-east-1"), Adopted),
        # A name of the same service, perhaps.
        (Destination("https://vpce-1.m2.us-east-1.vpce.amazonaws.com", "us-east-1", "1"), Ambiguous),
        (None, Ambiguous),
    ],
)
async def test_attempts_that_were_surely_sent_elsewhere_do_not_compete(place: Destination | None, found: type) -> None:
    now = time.time()
    client = Lists([execution("e", FILE, now - 30)])
    async with open_ledger("memory:", clock=lambda: now) as ledger, await in_doubt(ledger, now - 30) as run:
        await run.belong_to(Destination("https://m2.us-east-1.amazonaws.com", "us-east-1", "1"), moved=True)
        async with await ledger.open_run("another") as another:
            if place is not None:
                await another.belong_to(place)
            row = await another.add("a", StartBatchJob(APPLICATION, FileJob("POSTTRAN.jcl")))
            await another.intend(row.number, 1, now - 30)
            await witnessed(run, client, now - 1)
            decision, _ = await look(client, ledger, run)
    assert isinstance(decision, found)


async def test_an_entry_of_another_application_is_no_proof_that_nothing_was_started() -> None:
    now = time.time()
    entry = BatchJobExecution("z" * 26, "e", datetime.fromtimestamp(now - 29.5, UTC), "Running", None, FILE)
    client = Lists([entry])
    async with open_ledger("memory:", clock=lambda: now) as ledger, await in_doubt(ledger, now - 30) as run:
        await witnessed(run, client, now - 1)
        decision, _ = await look(client, ledger, run)
    assert decision == Ambiguous(("e",), surely_started=False)


@pytest.mark.parametrize(("share", "state"), [(1.0, Started), (0.5, Unknown)])
async def test_what_cannot_be_told_has_its_candidates_and_is_started_where_all_were(share: float, state: type) -> None:
    faults = {"accept-then-500": share, "500": 1.0 - share}
    async with LocalEndpoint(faults=faults, seed=5) as endpoint:
        same = [(str(n), StartBatchJob(APPLICATION, ScriptJob("SAME"), {"NUMBER": str(n)})) for n in range(3)]
        async with (
            M2Client(**endpoint.client_settings()) as client,
            Submitter(client, ledger="memory:", settle=0.1) as submitter,
        ):
            ended = [outcome async for outcome in submitter.submit_many(same)]
        executions = await really_started(endpoint)
    assert len(executions) == 3 if state is Started else 0 < len(executions) < 3  # nothing was sent again
    for outcome in ended:
        assert type(outcome) is state
        assert isinstance(outcome, Started | Unknown)
        assert getattr(outcome, "execution_id", None) is None
        assert set(outcome.candidates) == set(executions)


@pytest.mark.parametrize(
    "caution", ["none", "a witness is missing", "somebody else starts it", "sent perhaps elsewhere"]
)
async def test_what_leaves_one_row_open_leaves_a_group_open(caution: str) -> None:
    now = time.time()
    client = Lists([execution(f"e{number}", FILE, now - 30) for number in (1, 2)])
    ticks = count()  # as it counts which opening came later
    async with (
        open_ledger("memory:", clock=lambda: now + next(ticks) / 1e3) as ledger,
        await in_doubt(ledger, now - 30) as run,
    ):
        other = await run.add("b", StartBatchJob(APPLICATION, FileJob("POSTTRAN.jcl")))
        await run.intend(other.number, 1, now - 30)
        await run.unknown(other.number, 1, "ConnectionLostError", "lost")
        if caution == "a witness is missing":
            await answered(run, 1, ScriptJob("W"), "not-listed", now - 29)
        if caution == "somebody else starts it":
            await run.note_foreign([ForeignExecution("x", APPLICATION, FileJob("POSTTRAN.jcl"), now - 9_000)])
        if caution == "sent perhaps elsewhere":
            await run.aclose()
            run = await ledger.open_run("run")
        of = ApplicationOfRun(
            client, ledger, run, APPLICATION, Margins(), knows_place=caution != "sent perhaps elsewhere"
        )
        found = await reconcile(client, of, settled_before=now + 60, wanted=[1, 2])
        await run.aclose()
    kinds = {type(decision) for decision in found.decisions.values()}
    assert kinds == {StartedTogether if caution == "none" else Ambiguous}
    if caution == "none":
        assert found.decisions[1] == StartedTogether(((1, 1), (2, 1)), ("e1", "e2"))
