"""One lane for each application and job: how many of its jobs may be under way, and those that wait for it.

A lane is asked when a worker takes a job on, and once more when the job's turn for a token comes: what has to wait then
takes none. So a name that waits costs the others nothing.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Hashable
from heapq import heappop, heappush
from itertools import count
from typing import NamedTuple

from m2async.certainty import Apart, Certainty
from m2async.errors import CallError, NotSentError
from m2async.ledger import LedgerRow
from m2async.service import StartBatchJob
from m2async.submitting.intake import Submission
from m2async.submitting.lane import Lane

_REMEMBERED = 4_096
"""Names of which the answers are remembered while nothing of them is under way."""


class NotYetError(Exception):
    """The job's turn came, but of its name nothing may be sent now."""


class WaitingName(NamedTuple):
    """A name whose jobs wait for others of the same name, or did.

    Arguments:
        application_id: the application.
        job: the job's name.
        jobs: how many wait now.
        seconds: for how long jobs of it have waited, in all.
        share_lost: the share of its answers that is lost lately; 0 if none was.
        left: seconds that it waits at most for jobs that an earlier process left in doubt; 0 if for none.
    """

    application_id: str
    job: str
    jobs: int
    seconds: float
    share_lost: float
    left: float = 0.0


class Lanes:
    """Lets jobs go on as the certainty that is aimed at allows; the others wait, those that were sent before first.

    Arguments:
        certainty: what is aimed at.
        settle: seconds that an attempt may still start its job, unless the service itself ended it; None where jobs
            whose answer is lost are not looked for, and nothing waits for them.
        apart: says of an application how far attempts must be apart, as Lane has it.
        requeue: is given each job that may go on.
    """

    def __init__(
        self,
        certainty: Certainty,
        *,
        settle: float | None,
        apart: Callable[[str], Apart],
        requeue: Callable[[Submission], None],
    ) -> None:
        self._certainty = certainty
        self._settle = settle
        self._apart = apart
        self._requeue = requeue
        self._lanes: dict[Hashable, _WaitingLane] = {}
        self._numbers = count()

    @property
    def waits_for_writing(self) -> bool:
        """Whether the next job of a lane goes only when the answer before is durable."""
        return self._certainty.is_exact

    @property
    def waiting(self) -> list[WaitingName]:
        """The names of which jobs wait, or did."""
        return [
            WaitingName(
                each.request.application_id,
                each.request.job.name,
                len(each.jobs),
                each.waited(_now()),
                each.lane.share_lost,
                each.lane.left_until(_now()) - _now(),
            )
            for each in self._lanes.values()
            if each.has_waited
        ]

    def enter(self, job: Submission) -> bool:
        """Whether a job may go on now, to be asked again by `may_send`; else it waits until it is given back."""
        if self._certainty.is_fast:
            return True
        waiting = self._lane_of(job.to_send)
        if job in waiting.lane.reserved:
            return True
        if waiting.jobs or not self._opens(waiting):
            self._wait(waiting, job)
            return False
        waiting.lane.reserved.add(job)
        return True

    def may_send(self, job: Submission) -> bool:
        """Whether a job may be sent now; then it counts as sent."""
        if self._certainty.is_fast:
            return True
        lane, now = self._lane_of(job.to_send).lane, _now()
        if not lane.is_under_way(job) and lane.opens_at(now, self._apart(job.to_send.application_id)) > now:
            return False
        lane.send(job, now)
        return True

    def answered(self, job: Submission, error: CallError | None = None) -> None:
        """Take note of how a job's attempt ended: it was started, or failed with an error."""
        if self._certainty.is_fast:
            return
        lane = self._lane_of(job.to_send).lane
        if error is not None and error.may_have_started:
            if self._settle is not None:
                bounds_it = error.ended_by_service and self._apart(job.to_send.application_id).closely is not None
                lane.lost(job, _now(), is_narrow=bounds_it)
        elif not isinstance(error, NotSentError):
            lane.answered(job, _now())

    def leave(self, job: Submission) -> None:
        """Take note that nothing of a job is under way any more, nor about to be."""
        waiting = None if self._certainty.is_fast else self._lanes.get(_name_of(job.to_send))
        if waiting is not None:
            waiting.lane.leave(job)
            self._let_go(waiting)

    def wait(self, job: Submission) -> None:
        """Keep a job whose turn came too early until it may go on."""
        waiting = self._lane_of(job.to_send)
        self._wait(waiting, job)
        self._let_go(waiting)

    def look_for(self, job: Submission) -> None:
        """Take note of a job that an earlier process left in doubt: where one goes at once, it is that one."""
        if self._certainty.is_exact:
            self._lane_of(job.to_send).lane.look_for(job)

    def decided(self, job: Submission, *, goes_again: bool, is_known: bool = True) -> None:
        """Take note that it is decided what became of a job in doubt, or that this will never be known.

        One that `goes_again` may have to go first.
        """
        waiting = None if self._certainty.is_fast else self._lanes.get(_name_of(job.to_send))
        if waiting is not None:
            waiting.lane.decided(job, is_known=is_known)
            waiting.lane.decided(None if job.row is None else job.row.number, is_known=is_known)
            if goes_again and self._certainty.is_exact:
                waiting.lane.reserved.add(job)
            self._let_go(waiting)

    def look_again(self) -> None:
        """Let jobs go on that were waiting for more to be known of start times."""
        for waiting in list(self._lanes.values()):
            if waiting.jobs:
                self._let_go(waiting)

    def hold(self, row: LedgerRow, seconds: float) -> None:
        """Let nothing of a row's name be sent for so long, unless it is known before what became of the row."""
        if not self._certainty.is_fast and seconds > 0:
            self._lane_of(row.request).lane.hold(row.number, _now() + seconds)

    def take_all(self) -> list[Submission]:
        """Give back all that wait."""
        jobs = []
        for waiting in self._lanes.values():
            jobs += [job for _, _, job in sorted(waiting.jobs)]
            waiting.jobs.clear()
            waiting.stop_timer()
            waiting.end(_now())
        return jobs

    def _lane_of(self, request: StartBatchJob) -> _WaitingLane:
        name = _name_of(request)
        waiting = self._lanes.get(name)
        if waiting is None:
            waiting = self._lanes[name] = _WaitingLane(request, Lane(self._certainty, self._settle or 0.0))
        return waiting

    def _opens(self, waiting: _WaitingLane) -> bool:
        """Whether a further job may go on now; if that is known, it is looked again when it may."""
        lane, now = waiting.lane, _now()
        opens_at = lane.opens_at(now, self._apart(waiting.request.application_id), reserved=len(lane.reserved))
        waiting.stop_timer()
        if now < opens_at < math.inf:
            waiting.timer = asyncio.get_running_loop().call_at(opens_at, self._let_go, waiting)
        return opens_at <= now

    def _wait(self, waiting: _WaitingLane, job: Submission) -> None:
        job.set_aside()
        if job.place is None:
            job.place = next(self._numbers)
        waiting.begin(_now())
        heappush(waiting.jobs, (not job.attempts, job.place, job))

    def _let_go(self, waiting: _WaitingLane) -> None:
        while waiting.jobs and self._opens(waiting):
            _, _, job = heappop(waiting.jobs)
            waiting.lane.reserved.add(job)
            self._requeue(job)
        if not waiting.jobs:
            waiting.end(_now())
        if not waiting.jobs and waiting.lane.is_idle and len(self._lanes) > _REMEMBERED:
            waiting.stop_timer()
            self._lanes.pop(_name_of(waiting.request), None)


class _WaitingLane:
    """A lane, and the jobs that wait in it, the next one first."""

    def __init__(self, request: StartBatchJob, lane: Lane) -> None:
        self.request = request  # the first of the name
        self.lane = lane
        self.jobs: list[tuple[bool, int, Submission]] = []
        self.timer: asyncio.TimerHandle | None = None
        self.has_waited = False
        self._waited = 0.0
        self._since: float | None = None

    def begin(self, now: float) -> None:
        """Take note that jobs wait from now on, unless some do already."""
        self.has_waited = True
        if self._since is None:
            self._since = now

    def end(self, now: float) -> None:
        """Take note that none waits any more."""
        self._waited, self._since = self.waited(now), None

    def waited(self, now: float) -> float:
        """Give the seconds in which jobs have waited."""
        return self._waited + (0.0 if self._since is None else now - self._since)

    def stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


def _name_of(request: StartBatchJob) -> Hashable:
    return request.application_id, request.job


def _now() -> float:
    return asyncio.get_running_loop().time()
