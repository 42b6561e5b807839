"""Jobs that are sent again: after a wait, and where their failure was no throttle as far as the budget goes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from m2async.errors import CallError, M2ServiceException
from m2async.events import Events
from m2async.pacing import Pacer, RetryBudget, RetryPolicy, wait_before_resend
from m2async.submitting.intake import Submission
from m2async.submitting.tokens import Tokens


class Resends:
    """Keeps jobs until they may be sent again; `requeue` is given each of them then.

    `tokens` tell how fast calls are paced, and how time goes by but for pauses.
    """

    def __init__(
        self, requeue: Callable[[Submission], None], tokens: Tokens, policy: RetryPolicy, events: Events
    ) -> None:
        self._requeue = requeue
        self._tokens = tokens
        self._policy = policy
        self._events = events
        self._timers: dict[Submission, asyncio.TimerHandle] = {}
        self._line: deque[Submission] = deque()
        self._successes = 0  # that the budget was not told of yet
        self._arrived = asyncio.Event()
        self.cut: float | None = None  # the first `Retry-After` of which only a part was heeded, in seconds
        self._budget = RetryBudget()
        self._pacer = Pacer(self._budget)

    def after(self, job: Submission, error: CallError) -> None:
        """Let a job wait after an attempt that failed; if that may have started it, then in line for the budget."""
        if not job.failures:
            job.failed_at = self._tokens.pause.working_time()
        job.failures += 1
        wait = wait_before_resend(self._policy, job.failures, error)
        self._note_what_is_asked(job, error)
        job.tell(self._events.retry, job.key, job.request, error, job.attempts, wait)
        self._timers[job] = asyncio.get_running_loop().call_later(wait, self._due, job, error.may_have_started)

    def _note_what_is_asked(self, job: Submission, error: CallError) -> None:
        """Take note of a `Retry-After` that is not heeded whole, and log the first one."""
        asked = error.retry_after if isinstance(error, M2ServiceException) else None
        if self.cut is None and asked is not None and asked > (heeded := self._policy.heeded(asked)):
            self.cut = asked
            job.tell(self._events.retry_after_cut, error, asked, heeded)

    def by_budget(self, job: Submission) -> None:
        """Put a job into the line for the budget."""
        job.set_aside()
        self._line.append(job)
        self._arrived.set()

    def succeeded(self) -> None:
        """Take note of a call that succeeded: it earns a part of a resend."""
        self._successes += 1

    def take_all(self) -> list[Submission]:
        """Give back all that wait."""
        for timer in self._timers.values():
            timer.cancel()
        jobs = [*self._timers, *self._line]
        self._timers.clear()
        self._line.clear()
        return jobs

    async def run(self) -> None:
        """Let those in the line go on as the budget allows, until cancelled."""
        while True:
            while not self._line:
                self._arrived.clear()
                await self._arrived.wait()
            now = asyncio.get_running_loop().time()
            self._budget.paced_at(self._tokens.rate, now)
            self._budget.succeeded(now, self._successes)
            self._successes = 0
            await self._pacer.acquire()
            if self._line:
                self._requeue(self._line.popleft())

    def _due(self, job: Submission, by_budget: bool) -> None:
        del self._timers[job]
        if by_budget:
            self.by_budget(job)
        else:
            self._requeue(job)
