"""Looking, before a run is sent, for executions of its jobs that no row of its ledger explains.

They say that the ledger does not know all that was started: it is an old copy, put back from a backup; or it is a new
one, of another home folder or machine, beside the one that knows; or somebody else starts the same jobs. A start may be
a second one then, so nothing is sent until somebody has said that it should be.

| the run | executions that stop it |
|---|---|
| sent before | those that began after the last attempt that the ledger knows |
| not sent yet | those that began in the half hour before the run was made, or later, or have not ended |

Of a run that was not sent yet, others of the last 12 hours before it are told and stop nothing: a nightly job was
started last night, too, and perhaps under another ledger. What cannot be listed stops nothing either: it is told.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from math import inf
from typing import NamedTuple

import anyio

from m2async.certainty import ApplicationOfRun, ListedExecution, Margins, as_foreign
from m2async.clock import CLOCK_TOLERANCE
from m2async.errors import CallError, M2AsyncError
from m2async.events import Events
from m2async.ledger import Ledger, RowState, Run, RunView, TrackedExecution, destination_of
from m2async.service import RestartJob
from m2async.submitting.application_look import ApplicationLook, Spans
from m2async.submitting.listing import ExecutionsList, ListsPages, RefusedLists, why_refused

_JUST_BEFORE = 1_800.0  # seconds: less than from one hourly run to the next
_LOOK_BACK = 43_200.0  # less than from one night to the next
_APPLICATIONS_AT_ONCE = 8
_SHOWN = 3


class UnexplainedExecutionsError(M2AsyncError):
    """The service shows executions of a run's jobs that nothing in its ledger explains; nothing was sent.

    `execution_ids` are theirs, in the order of their start; `jobs` names the jobs, and `what` says it in words.
    `in_doubt` rows of the run, of the same jobs, may have started some of them later than a service is taken to do.
    """

    def __init__(
        self, run: str, what: str, why: str, execution_ids: Sequence[str], jobs: Sequence[str], in_doubt: int = 0
    ) -> None:
        message = (
            f"{what}: {why}, or somebody else starts the same jobs. Nothing was sent, as run {run!r} might start them "
            "a second time. Use the ledger that knows them; or, if they are to be started nevertheless, give "
            "--start-anyway (start_anyway=True)"
        )
        if in_doubt:
            rows = "1 row" if in_doubt == 1 else f"{in_doubt:,} rows"
            of = "this job" if len(jobs) == 1 else "these jobs"
            late = "it" if len(execution_ids) == 1 else "some of them"
            message += f". But {rows} of {of} in doubt may have started {late} late; reconcile the run first"
        super().__init__(message)
        self.run = run
        self.in_doubt = in_doubt
        self.what = what
        self.execution_ids: tuple[str, ...] = tuple(execution_ids)
        self.jobs: tuple[str, ...] = tuple(jobs)


class OpeningLook(NamedTuple):
    """What was found: executions that stop the run, others that are only to be told, and what could not be looked up.

    `until` is the time by the service's clock, in seconds of the epoch, before which all of them began. `refused` are
    the applications whose executions the service did not list. `in_doubt` counts the run's rows in doubt that are of
    the same jobs as those that stop it.
    """

    stopping: Sequence[ListedExecution]
    warnings: Sequence[str]
    until: float
    refused: Mapping[str, CallError]
    in_doubt: int = 0


async def look_for_unexplained(
    client: ListsPages, ledger: Ledger, run: Run, *, settle: float, now: float
) -> OpeningLook:
    """Look for the executions of all applications of a run that has anything left to be started.

    Arguments:
        client: lists them.
        ledger: knows which are claimed, and the attempts that may have started others.
        run: the run.
        settle: seconds after which nothing starts late any more.
        now: the local time, in seconds of the epoch.
    """
    counts, info = await run.counts(), run.info
    if info.planned and counts[RowState.STARTED] == info.jobs:
        return OpeningLook((), (), now, {})
    since = _Since(await run.last_sent(), await run.accepted(), min(info.created_at, now), now)
    looks = await _look_at_all(client, ledger, run, since.spans, settle=settle, now=now, at_end=False)
    offset = client.clock_offset or 0.0
    stopping, others, until = list[ListedExecution](), list[ListedExecution](), now + offset
    for look in looks.values():
        for execution, is_open in look.unexplained:
            stops = is_open or execution.start_time >= since.stopping(offset, look.early)
            (stopping if stops else others).append(execution)
            until = max(until, execution.start_time + 1 + look.early)
    warnings = _not_looked(looks.values())
    if others:
        told = _told(sorted(others, key=_start))
        warnings.append(f"{told}, which no row of the ledger explains; all have ended, and stop nothing")
    refused = {application_id: look.refused for application_id, look in looks.items() if look.refused is not None}
    in_doubt = await _in_doubt(ledger, run, stopping)
    return OpeningLook(sorted(stopping, key=_start), warnings, until, refused, in_doubt)


async def look_for_others(
    client: ListsPages, ledger: Ledger, run: Run, refused: RefusedLists, events: Events, *, settle: float, now: float
) -> list[str]:
    """Look, once a run was sent, for what others started of its jobs since it was made; the run keeps note of it.

    Two who begin the same jobs at the same moment are not shown to each other by the list with which each began. What
    is not listed yet is not seen.

    Arguments as those of `look_for_unexplained`. What is found and what cannot be listed is logged; given is, in words,
    why not all was looked at, where the service gave a list.
    """
    made = min(run.info.created_at, now) - settle

    def spans(offset: float, early: float) -> Iterator[tuple[float, float]]:
        yield made + offset - CLOCK_TOLERANCE - 1 - early, inf

    looks = await _look_at_all(client, ledger, run, spans, settle=settle, now=now, at_end=True)
    found = as_foreign(execution for look in looks.values() for execution, _ in look.unexplained)
    for each in await run.note_foreign(found):
        events.foreign_execution(each.application_id, each.job.name, each.execution_id, each.start_time)
    for application_id, look in looks.items():
        if look.refused is not None:
            events.reconcile_failed(application_id, look.refused)
        elif look.trouble is None:
            refused.note(application_id, None)
    return _not_looked(look for look in looks.values() if look.refused is None)


async def refuse_restarted(
    client: ListsPages, ledger: Ledger, view: RunView, failed: Iterable[TrackedExecution]
) -> list[str]:
    """Raise UnexplainedExecutionsError if somebody else has restarted one of a run's failed executions, from any step.

    A restart begins after what it restarts, by the same clock, and says what that was. Gives in words what was not
    checked.
    """
    firsts: dict[str, dict[str, TrackedExecution]] = defaultdict(dict)
    for execution in failed:
        if execution.start_time is not None:
            firsts[execution.application_id][execution.execution_id] = execution
    found, trouble = list[ListedExecution](), list[str]()
    for application_id, first in firsts.items():
        listing = ExecutionsList(client, application_id, patient=True)
        since = min(execution.start_time or 0.0 for execution in first.values())
        try:
            await listing.add(since)
        except CallError as error:
            trouble.append(why_refused(error))
            continue
        if not listing.covers(since, inf):
            trouble.append(f"application {application_id} has too many executions; the first were looked at")
        restarts = dict[str, ListedExecution]()
        for id_, each in listing.found.items():
            failure = first.get(each.job.execution_id) if isinstance(each.job, RestartJob) else None
            # The row has another execution by now where this run restarted it meanwhile.
            now = [] if failure is None else await view.executions(failure.number, failure.number)
            if failure is not None and any(its.execution_id == failure.execution_id for its in now):
                restarts[id_] = ListedExecution(id_, application_id, each.job, each.start_time.timestamp())
        claimed = await ledger.claimed(application_id, restarts, often=False) if restarts else set[str]()
        found += [restart for id_, restart in restarts.items() if id_ not in claimed]
    if found:
        raise unexplained_error(view.info.name, sorted(found, key=_start), sent_before=True)
    return [f"not checked: whether others have restarted these executions: {each}" for each in dict.fromkeys(trouble)]


async def _look_at_all(
    client: ListsPages, ledger: Ledger, run: Run, spans: Spans, *, settle: float, now: float, at_end: bool
) -> Mapping[str, ApplicationLook]:
    """Look at all applications that a run names."""
    applications = await run.applications()
    knows_place = destination_of(client) is not None
    looks = {
        application_id: ApplicationLook(
            client,
            ApplicationOfRun(client, ledger, run, application_id, Margins(late=settle), knows_place),
            settled_before=now - settle,
            at_end=at_end,
        )
        for application_id in applications
    }
    limit = anyio.CapacityLimiter(_APPLICATIONS_AT_ONCE)
    failures: list[M2AsyncError] = []

    async def look_at(look: ApplicationLook) -> None:
        async with limit:
            try:
                await look.find(spans)
            except M2AsyncError as error:  # raised below, so that the task group does not wrap it
                failures.append(error)

    async with anyio.create_task_group() as tasks:
        for look in looks.values():
            tasks.start_soon(look_at, look)
    if failures:
        raise failures[0]
    return looks


async def _in_doubt(ledger: Ledger, run: Run, executions: Iterable[ListedExecution]) -> int:
    """Count the rows of a run that are in doubt and of the same jobs as these executions."""
    jobs = {(each.application_id, each.job) for each in executions}
    opened = [
        attempt
        for application_id in {application_id for application_id, _ in jobs}
        for attempt in await ledger.open_attempts(application_id)
    ]
    return len(
        {
            attempt.number
            for attempt in opened
            if attempt.run_id == run.info.id
            and attempt.state is RowState.UNKNOWN
            and (attempt.application_id, attempt.job) in jobs
        }
    )


class _Since(NamedTuple):
    """From when on executions stop the run, by the service's clock, which is `offset` ahead of the local one.

    They may show a start that is so much too `early`.

    Arguments:
        sent: when the run was last sent, by the service's clock.
        accepted: until when, by the same, somebody knows of executions that nothing explains.
        made: when the run was made, by the local clock.
        now: the present, by the local clock.
    """

    sent: float | None
    accepted: float | None
    made: float
    now: float

    def stopping(self, offset: float, early: float) -> float:
        """Give the time when the ledger was right for certain; without one, some time before the run was made."""
        right = self._right(offset, early)
        return self.made + offset - _JUST_BEFORE - early if right is None else right

    def told(self, offset: float, early: float) -> float:
        """Give the time from which on they stop the run only if they have not ended."""
        right = self._right(offset, early)
        return self.made + offset - _LOOK_BACK - early if right is None else right

    def spans(self, offset: float, early: float) -> Iterator[tuple[float, float]]:
        """Give what to list: what may stop the run first, as lists may be too long."""
        stopping, told = self.stopping(offset, early), self.told(offset, early)
        yield stopping, inf
        if told < stopping:
            yield told, stopping

    def _right(self, offset: float, early: float) -> float | None:
        right = [] if self.accepted is None else [self.accepted]
        if self.sent is not None:
            right.append(min(self.sent, self.now + offset) - CLOCK_TOLERANCE - 1 - early)  # lists have whole seconds
        return max(right, default=None)


def _not_looked(looks: Iterable[ApplicationLook]) -> list[str]:
    """Say once of each reason that not all was looked at."""
    reasons = [why_refused(look.refused) if look.refused is not None else look.trouble for look in looks]
    return [
        f"not checked: whether others have started these jobs: {reason}"
        for reason in dict.fromkeys(reasons)
        if reason is not None
    ]


def unexplained_error(
    run: str, executions: Sequence[ListedExecution], *, sent_before: bool, in_doubt: int = 0
) -> UnexplainedExecutionsError:
    """Give the error that stops a run because of these executions."""
    why = (
        "the ledger may be an old copy, put back from a backup"
        if sent_before
        else "another ledger, such as that of another home folder or pod, may have started them"
    )
    what = f"{_told(executions)}, which no row of the ledger explains"
    ids, jobs = [each.execution_id for each in executions], dict.fromkeys(_name(each) for each in executions)
    return UnexplainedExecutionsError(run, what, why, ids, tuple(jobs), in_doubt)


def _told(executions: Sequence[ListedExecution]) -> str:
    """Say how many there are, of which jobs, and name the first."""
    jobs = list(dict.fromkeys(_name(each) for each in executions))
    shown = [f"{_name(each)} {each.execution_id} at {_utc(each.start_time)}" for each in islice(executions, _SHOWN)]
    more = len(executions) - len(shown)
    first = "; ".join(shown) + (f"; and {more:,} more" if more else "")
    are = "is 1 execution" if len(executions) == 1 else f"are {len(executions):,} executions"
    of = "a job" if len(jobs) == 1 else f"{len(jobs):,} jobs"
    return f"there {are} of {of} of this run ({first})"


def _name(execution: ListedExecution) -> str:
    return str(getattr(execution.job, "name", execution.job))


def _start(execution: ListedExecution) -> tuple[float, str]:
    return execution.start_time, execution.execution_id


def _utc(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"
