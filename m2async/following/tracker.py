"""Executions to their end: list what may have changed, write it down, tell it, wait.

What to ask for is decided in plans.py, what an end comes to in service/results.py. All state is in the ledger: whoever
tracks a run, and however often it is broken off, the same is found.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Sequence
from datetime import UTC, datetime
from functools import partial
from os import PathLike
from time import monotonic
from types import TracebackType
from typing import NamedTuple, Protocol, Self

import anyio
from msgspec.structs import replace
from structlog.typing import FilteringBoundLogger

from m2async.certainty import ApplicationOfRun, Margins
from m2async.clock import steady_time
from m2async.errors import (
    CallError,
    ConflictException,
    InvalidRequestError,
    ResourceNotFoundException,
    ValidationException,
)
from m2async.events import Events
from m2async.following.others import OthersExecutions
from m2async.following.plans import GONE_AFTER, LIST_LAG, OpenExecution, ask_alone_at, batches, next_interval, plan
from m2async.ledger import Ledger, Observation, RunView, TrackedExecution, as_stored, destination_of, open_ledger
from m2async.pacing import Calls, RetryPolicy
from m2async.service import BatchJobExecution, ExecutionsPage, Judgement, ListEnd, check_identifier, has_ended

_UNCERTAINTY = 5.0  # seconds by which a start may be earlier than it seems, once the service's clock is known
_CLOCKS_APART = 300.0  # the same, before: the service refuses signatures that are further off
_SHARE_OF_READING = 0.05  # of the time, at most, goes into finding out what was started since

_OF_ONE_APPLICATION = (ResourceNotFoundException, ConflictException, ValidationException)


class TracksExecutions(Protocol):
    """What a tracker needs of a client; M2Client is one."""

    @property
    def clock_offset(self) -> float | None:
        """How far the service's clock is ahead of the local one, in seconds; None if that is not known yet."""

    async def get_batch_job_executions_page(
        self,
        application_id: str,
        /,
        *,
        execution_ids: Sequence[str] | None = None,
        started_after: datetime | None = None,
        next_token: str | None = None,
    ) -> ExecutionsPage:
        """Get one page of an application's executions."""

    async def get_batch_job_execution(self, application_id: str, execution_id: str, /) -> BatchJobExecution:
        """Get one execution."""


class Change(NamedTuple):
    """What changed of a row's execution: the status that was seen before, None if none was, and what is seen now.

    Once all executions have ended that a group of rows shares, there is one more for each of these rows.
    """

    before: str | None
    execution: TrackedExecution

    @property
    def key(self) -> str:
        """The row's key."""
        return self.execution.key

    @property
    def judgement(self) -> Judgement:
        """What the job came to, by the rule: success, failure, or open still."""
        return self.execution.judgement


class Tracker:
    """Follows the executions of a run until all have ended: an async iterator of their changes.

    Arguments:
        client: an open M2Client, or whatever else lists executions.
        ledger: the run's ledger, as `open_ledger` takes it, or an open Ledger.
        run: the run, by name or as it was opened; others may write it at the same time.
        rate: calls a second at most, its own.
        burst: how many calls may go out at once after a pause.
        shortest, longest: seconds from one look to the next; between them it adapts to how fast things change.
        more: asked whether further rows may still be started; as long as it says so, tracking goes on. By default no
            row is expected that is not started when tracking begins.
        retry: how long a call is repeated that fails in passing.
        logger: a structlog logger to use instead of the host's pipeline, for an event when an execution has ended.
        troubled: told each such failure, and the seconds that are waited then.
        clock: the time in seconds of the epoch.
        sleep: waits for some seconds.

    Use it as an async context manager; entering raises SentElsewhereError if the run was sent to another endpoint,
    region or account. A change is written to the ledger before it is told. An application that does
    not exist (perhaps in this region or account), or whose executions cannot be listed for a reason of its own, is left
    open; once all others have ended, the iteration raises its CallError. Every other CallError that does not pass, and
    a LedgerError, ends it at once.

    Executions of the run's jobs that its lists show and that somebody else started are logged, and kept in the ledger:
    see `RunView.foreign`.

    An execution that the service does not show is looked for through ten minutes, in which it is open, and then counts
    as gone. One that was gone before is looked for once more.
    """

    def __init__(
        self,
        client: TracksExecutions,
        ledger: str | PathLike[str] | Ledger,
        run: str | RunView,
        *,
        rate: float = 5.0,
        burst: float = 10.0,
        shortest: float = 1.0,
        longest: float = 30.0,
        more: Callable[[], Awaitable[bool]] | None = None,
        retry: RetryPolicy | None = None,
        logger: FilteringBoundLogger | None = None,
        troubled: Callable[[CallError, float], None] = lambda error, seconds: None,
        clock: Callable[[], float] = steady_time,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        if not 0 < shortest <= longest:
            raise ValueError(f"shortest must be above 0 and at most longest, not {shortest} and {longest}")
        self._client = client
        self._ledger = ledger
        self._run = run
        policy = retry or RetryPolicy(base=0.5, cap=30.0, patience=3_600.0)
        self._call = Calls(rate, troubled, burst=burst, policy=policy, sleep=sleep)
        self._shortest = shortest
        self._longest = longest
        self._more = more
        self._events = Events(logger=logger)
        self._clock = clock
        self._sleep = sleep
        self._applications: dict[str, _FollowedApplication] = {}
        self._read_again_at = 0.0

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            given = self._ledger
            ledger = given if isinstance(given, Ledger) else await stack.enter_async_context(open_ledger(given))
            self._view = self._run if isinstance(self._run, RunView) else await ledger.run(self._run)
            self._opened = ledger
            if (destination := destination_of(self._client)) is not None:
                await self._view.belong_to(destination)
            self._knows_place = destination is not None
            self._host = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._host.aclose()

    def __aiter__(self) -> AsyncIterator[Change]:
        return self._changes()

    async def _changes(self) -> AsyncGenerator[Change, None]:
        interval, more = self._shortest, True
        while True:
            expected, more = more, self._more is not None and await self._more()
            if expected and await self._read_what_was_started(at_once=not more):  # once more when no more are
                for application in self._applications.values():
                    await application.others.tell(application.open)
            open_before, changed = self._count_open(), 0
            for application in self._applications.values():
                for change in await self._look_at(application):
                    changed += 1
                    yield change
            if not (more or self._count_open()):
                break
            interval = next_interval(interval, changed, open_before, shortest=self._shortest, longest=self._longest)
            await self._sleep(interval)
        for application in self._applications.values():
            await application.others.tell(application.open, at_last=True)
        for application in self._applications.values():
            if application.failure is not None and application.open:
                raise application.failure

    def _log(self, execution: TrackedExecution) -> None:
        if execution.ended:
            self._events.ended(
                execution.key, execution.application_id, execution.job.name, execution.known_id,
                execution.status, execution.return_code, execution.judgement,
            )  # fmt: skip

    async def refresh(self) -> None:
        """Look at every open execution once, and write down what changed."""
        await self._read_what_was_started(at_once=True)
        for application in self._applications.values():
            await self._look_at(application)
            await application.others.tell(application.open)

    def _count_open(self) -> int:
        return sum(len(each.open) for each in self._applications.values() if each.failure is None)

    async def _read_what_was_started(self, *, at_once: bool) -> bool:
        """Find the executions that have not ended, and tell whether that was not left for later.

        From a large ledger they are not read often.
        """
        began = monotonic()
        if began < self._read_again_at and not at_once:
            return False
        async for execution in self._view.all_executions(open_only=True):
            id_ = execution.application_id
            if id_ not in self._applications:
                of = ApplicationOfRun(self._client, self._opened, self._view, id_, Margins(), self._knows_place)
                self._applications[id_] = _FollowedApplication(id_, OthersExecutions(of, self._events))
            self._applications[id_].follow(execution)
        ended = monotonic()
        self._read_again_at = ended + (ended - began) / _SHARE_OF_READING
        return True

    # One application

    async def _look_at(self, application: _FollowedApplication) -> Sequence[Change]:
        """Look at the open executions of an application; what changed is written before it is told."""
        if not application.open or application.failure is not None:
            return ()
        try:
            found = await self._find(application)
            lost = await self._ask_alone(application, found)
        except _OF_ONE_APPLICATION as error:
            application.failure = error
            return ()
        changes = [
            Change(before.status, after)
            for execution_id, before in application.open.items()
            if (after := _after(before, found.get(execution_id), lost.get(execution_id))) != before
        ]
        if changes:
            await self._view.observe([observation(change.execution) for change in changes])
        over: dict[str, TrackedExecution] = {}
        for change in changes:
            application.update(change.execution)
            group = change.execution.group
            if group is None:
                self._log(change.execution)
            elif change.execution.ended and change.key not in over:
                over |= {each.key: each for each in await self._view.together(group) if each.is_over}
        for execution in over.values():
            self._log(execution)
        application.leave_what_is_gone()
        return [*changes, *(Change(execution.status, execution) for execution in over.values())]

    async def _find(self, application: _FollowedApplication) -> dict[str, BatchJobExecution]:
        """Ask for every open execution: those in a window together, and what is not found there by id."""
        found: dict[str, BatchJobExecution] = {}
        for _ in range(2):
            offset = self._client.clock_offset
            asked = plan(application.wanted(offset), application.started)
            if asked.window is None:
                break
            found = await self._list_window(application, asked.window, asked.stragglers)
            now_known = self._client.clock_offset or 0.0
            if application.open.keys() <= found.keys() or abs(now_known - (offset or 0.0)) <= (
                _CLOCKS_APART if offset is None else _UNCERTAINTY
            ):
                break
        now = self._now()
        stragglers = [
            wanted.execution_id
            for wanted in application.wanted(self._client.clock_offset)
            if wanted.execution_id not in found
            and (application.open[wanted.execution_id].status is not None or now - wanted.since > LIST_LAG)
        ]
        for batch in batches([each for each in stragglers if _can_be_asked_for(each)]):
            found |= await self._list(application.id, execution_ids=batch)
        application.note_missing(stragglers, found, now)
        return found

    async def _list_window(
        self, application: _FollowedApplication, window: float, stragglers: Sequence[str]
    ) -> dict[str, BatchJobExecution]:
        """List what started since, up to where nothing more is wanted."""
        started_after = datetime.fromtimestamp(window - 1.0, UTC)  # what is shown may be rounded
        listed: list[float] = []
        found = await self._list(
            application.id,
            started_after=started_after,
            sought=application.open.keys() - set(stragglers),
            listed=listed,
        )
        application.started = sorted(listed)
        await application.others.note(found.values(), application.open, self._now())
        return found

    async def _list(
        self,
        application_id: str,
        *,
        execution_ids: Sequence[str] | None = None,
        started_after: datetime | None = None,
        sought: Collection[str] | None = None,
        listed: list[float] | None = None,
    ) -> dict[str, BatchJobExecution]:
        """List page by page, up to the last or to where all that is sought was seen; `listed` takes all start times."""
        found: dict[str, BatchJobExecution] = {}
        left = None if sought is None else set(sought)
        ends, token = ListEnd("ListBatchJobExecutions"), None
        while True:
            page = await self._call(
                partial(
                    self._client.get_batch_job_executions_page,
                    application_id,
                    execution_ids=execution_ids,
                    started_after=started_after,
                    next_token=token,
                )
            )
            found |= {execution.execution_id: execution for execution in page.executions}
            if listed is not None:
                listed += [execution.start_time.timestamp() for execution in page.executions]
            if left is not None:
                left -= found.keys()
            token = ends.next_token(page.next_token, page.executions)
            if token is None or left == set():
                return found

    async def _ask_alone(
        self, application: _FollowedApplication, found: dict[str, BatchJobExecution]
    ) -> dict[str, bool]:
        """Ask alone for each execution that no list shows any more.

        Gives those that the service does not know, and whether they are to be looked for no longer.
        """
        lost: dict[str, bool] = {}
        now = self._now()
        for execution_id in application.long_missing(now):
            for_good = application.is_gone(execution_id, now)
            try:
                found[execution_id] = await self._call(
                    partial(self._client.get_batch_job_execution, application.id, execution_id)
                )
            except ResourceNotFoundException as error:
                if error.resource_id == application.id:
                    raise
                lost[execution_id] = for_good
            except InvalidRequestError:  # no service can have given this id
                lost[execution_id] = True
        return lost

    def _now(self) -> float:
        """The time by the service's clock."""
        return self._clock() + (self._client.clock_offset or 0.0)


class _FollowedApplication:
    """The open executions of one application, and what was listed of it last."""

    def __init__(self, id_: str, others: OthersExecutions) -> None:
        self.id = id_
        self.others = others
        self.open: dict[str, TrackedExecution] = {}
        self.started: Sequence[float] = ()
        self.missing: dict[str, _Missing] = {}
        self.gone: set[str] = set()  # what is looked for no longer
        self.failure: CallError | None = None

    def follow(self, execution: TrackedExecution) -> None:
        """Take in an execution that has not ended."""
        if execution.execution_id not in self.gone:
            self.open.setdefault(execution.execution_id, execution)

    def update(self, execution: TrackedExecution) -> None:
        """Take note of what was seen of an execution."""
        if execution.ended:
            del self.open[execution.execution_id]
            self.missing.pop(execution.execution_id, None)
            if execution.gone:
                self.gone.add(execution.execution_id)
        else:
            self.open[execution.execution_id] = execution

    def wanted(self, offset: float | None) -> list[OpenExecution]:
        """Give the open executions, the oldest first; one that was not seen yet started about when it was sent."""
        early = (_CLOCKS_APART if offset is None else _UNCERTAINTY) - (offset or 0.0)
        return sorted(
            OpenExecution(each.sent_at - early if each.start_time is None else each.start_time, each.execution_id)
            for each in self.open.values()
        )

    def note_missing(self, asked: Sequence[str], found: Collection[str], now: float) -> None:
        """Take note of which of the executions that were asked for by id no list shows."""
        self.missing = {
            execution_id: each._replace(missed=each.missed + 1)
            for execution_id in asked
            if execution_id not in found
            for each in [self.missing.get(execution_id, _Missing(now))]
        }

    def long_missing(self, now: float) -> list[str]:
        """Give the executions that are to be asked for alone now."""
        due = [
            execution_id
            for execution_id, each in self.missing.items()
            if self.open[execution_id].ended or ask_alone_at(each.missed, each.since, now, each.asked)
        ]
        for execution_id in due:
            self.missing[execution_id] = self.missing[execution_id].asked_once_more()
        return due

    def is_gone(self, execution_id: str, now: float) -> bool:
        """Whether an execution was missing for so long, now or before, that it is looked for no longer."""
        return self.open[execution_id].ended or now - self.missing[execution_id].since >= GONE_AFTER

    def leave_what_is_gone(self) -> None:
        """Look no longer for what was gone before, and is still."""
        for execution_id in [id_ for id_, execution in self.open.items() if execution.ended]:
            self.update(self.open[execution_id])


class _Missing(NamedTuple):
    """An execution that looks have missed: since when, how many, and how often it was asked for alone."""

    since: float
    missed: int = 0
    asked: int = 0

    def asked_once_more(self) -> _Missing:
        return self._replace(asked=self.asked + 1)


def _can_be_asked_for(execution_id: str) -> bool:
    try:
        check_identifier("execution_id", execution_id)
    except InvalidRequestError:
        return False
    return True


def _after(before: TrackedExecution, now: BatchJobExecution | None, gone_for_good: bool | None) -> TrackedExecution:
    """What is known of an execution after a look; `gone_for_good` is None unless the service does not know it."""
    if now is None:
        return before if gone_for_good is None else replace(before, ended=gone_for_good, gone=True)
    return seen(before, now)


def seen(before: TrackedExecution, now: BatchJobExecution) -> TrackedExecution:
    """What is known of an execution once the service has said how it is now."""
    return replace(
        before,
        gone=False,
        status=now.status,
        return_code=now.return_code,
        # as they are read back, so that what was seen before looks the same
        start_time=as_stored(now.start_time.timestamp()),
        end_time=None if now.end_time is None else as_stored(now.end_time.timestamp()),
        ended=has_ended(now.status, has_end_time=now.end_time is not None),
    )


def observation(execution: TrackedExecution) -> Observation:
    """What is to be written of an execution."""
    return Observation(
        execution.number,
        execution.execution_id,
        execution.status,
        execution.return_code,
        execution.start_time,
        execution.end_time,
        execution.ended,
        execution.gone,
    )
