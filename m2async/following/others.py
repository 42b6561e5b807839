"""Executions that the lists of a run's tracking show and that somebody else started."""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable
from dataclasses import replace
from typing import NamedTuple

from m2async.certainty import ApplicationOfRun, ListedExecution, Margins, as_foreign, attempt_of, not_explained
from m2async.clock import CLOCK_TOLERANCE
from m2async.events import Events
from m2async.service import BatchJobExecution, Job

_EXACT = Margins(resolution=0.0, uncertainty=0.0, late=0.0)


class _Seen(NamedTuple):
    """An execution of a job, and a time of the service's at which it was surely there."""

    execution: ListedExecution
    job: Job
    at: float


class OthersExecutions:
    """What was listed of an application and is not known to be the run's own, until it is told whose it is.

    When one began is not asked: any attempt that was sent before it was seen may have started it. So an attempt under
    way is waited for, as its answer says which execution is its own; and each one in doubt explains one.
    """

    def __init__(self, of: ApplicationOfRun, events: Events) -> None:
        self._of = of
        self._events = events
        self._waiting: dict[str, _Seen] = {}
        self._done: set[str] = set()  # of which it is known whose they are
        self._is_new = True
        self._named: dict[Job, bool] = {}

    async def note(self, listed: Collection[BatchJobExecution], own: Container[str], now: float) -> None:
        """Take in what was listed at a time of the service's; `own` are the run's open executions, by their ids."""
        if self._is_new:
            self._is_new = False
            self._done |= {execution.execution_id for execution in await self._of.run.foreign()}
        self._done |= {execution.execution_id for execution in listed if execution.execution_id in own}
        for execution in listed:
            id_ = execution.execution_id
            if id_ in self._done or id_ in self._waiting:
                continue
            job = execution.job if execution.application_id == self._of.id else None
            if job is None:
                self._done.add(id_)
            else:
                seen = ListedExecution(id_, self._of.id, job, execution.start_time.timestamp())
                self._waiting[id_] = _Seen(seen, job, now + CLOCK_TOLERANCE)

    async def tell(self, own: Container[str], *, at_last: bool = False) -> None:
        """Tell apart what is waiting, have the run keep note of what is somebody else's, and log it.

        `own` was read since it was listed. What an attempt under way may have started waits on, unless it is the last
        time.
        """
        self._leave(id_ for id_ in self._waiting if id_ in own)
        if not self._waiting:
            return
        # Attempts before claims: one that is answered meanwhile is then among the one or the other.
        opened = await self._of.open_attempts()
        self._leave(await self._of.ledger.claimed(self._of.id, self._waiting))
        await self._leave_jobs_of_others()
        first_sent: dict[Job, float] = {}
        for attempt in opened:
            if attempt.ended_at is None and not at_last:
                first_sent[attempt.job] = min(attempt.sent_after, first_sent.get(attempt.job, attempt.sent_after))
        settled = {
            id_: each
            for id_, each in self._waiting.items()
            if not (each.job in first_sent and first_sent[each.job] <= each.at)
        }
        left = not_explained(
            [replace(each.execution, start_time=each.at) for each in settled.values()],
            [replace(attempt_of(attempt), ended_at=None) for attempt in opened if at_last or attempt.ended_at],
            _EXACT,
        )
        for each in await self._of.run.note_foreign(as_foreign(settled[one.execution_id].execution for one in left)):
            self._events.foreign_execution(each.application_id, each.job.name, each.execution_id, each.start_time)
        self._leave(execution.execution_id for execution in left)

    async def _leave_jobs_of_others(self) -> None:
        """Leave out the jobs that no row of the run names."""
        new = {each.job for each in self._waiting.values()} - self._named.keys()
        if new:
            named = await self._of.run.named_jobs(self._of.id, new)
            self._named |= {job: job in named for job in new}
        self._leave(id_ for id_, each in self._waiting.items() if not self._named[each.job])

    def _leave(self, ids: Iterable[str]) -> None:
        for id_ in list(ids):
            del self._waiting[id_]
            self._done.add(id_)
