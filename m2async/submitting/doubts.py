"""Jobs whose answer was lost, set aside until the service's list of executions can say what became of them."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Sequence

import anyio

from m2async.certainty import Ambiguous, Decision, ListsExecutions, Margins, RowId, reconcile
from m2async.clock import steady_time
from m2async.errors import CallError
from m2async.ledger import Ledger
from m2async.service import Job
from m2async.submitting.intake import Submission

_ECHOES = 1_000
"""How many executions whose job is known are kept to compare the list with."""

_ROUNDS = 4
"""How often a job is looked for: what is still in flight elsewhere may, once answered, make it clear."""


class Doubts:
    """Looks for jobs a settling delay after their attempt, those of one application together.

    `settle` is in seconds. Each job comes to `decided` once, together with others, with what was found; the last
    `Ambiguous` stands. `failed` is told of an application whose executions cannot be listed.
    """

    def __init__(
        self,
        client: ListsExecutions,
        ledger: Ledger,
        run_id: int,
        *,
        settle: float,
        decided: Callable[[Sequence[tuple[Submission, Decision]]], Awaitable[None]],
        failed: Callable[[str, CallError], None],
        clock: Callable[[], float] = steady_time,
    ) -> None:
        self._client = client
        self._ledger = ledger
        self._run_id = run_id
        self._settle = settle
        self._margins = Margins(late=settle)
        self._decided = decided
        self._failed = failed
        self._clock = clock
        self._parked: deque[tuple[float, Submission]] = deque()  # with the time from when on each can be decided
        self._looked_for: dict[Submission, None] = {}
        self._arrived = asyncio.Event()
        # the latest executions, and as what they were started
        self._echoes: deque[tuple[str, Job]] = deque(maxlen=_ECHOES)

    def started(self, execution_id: str, job: Job) -> None:
        """Take note of an execution whose job is known: the list is compared with it."""
        self._echoes.append((execution_id, job))

    def park(self, job: Submission) -> None:
        """Set a job aside whose attempt has just ended, or had ended before this process began."""
        self._parked.append((self._clock() + self._settle, job))
        self._arrived.set()

    def take_all(self) -> list[Submission]:
        """Give back the jobs that are set aside: they are not looked for any more."""
        jobs = [*self._looked_for, *(job for _, job in self._parked)]
        self._looked_for.clear()
        self._parked.clear()
        return jobs

    async def run(self) -> None:
        """Decide jobs as they become due, until cancelled; raises the LedgerError that ends it."""
        while True:
            while not self._parked:
                self._arrived.clear()
                await self._arrived.wait()
            due, _ = self._parked[0]
            await anyio.sleep(max(0.0, due - self._clock()))
            jobs_of: dict[str, list[Submission]] = defaultdict(list)
            while self._parked and self._parked[0][0] <= self._clock():
                _, job = self._parked.popleft()
                self._looked_for[job] = None
                jobs_of[job.request.application_id].append(job)
            for application_id, jobs in jobs_of.items():
                await self._decide(application_id, jobs)

    async def _decide(self, application_id: str, jobs: list[Submission]) -> None:
        """Look for the jobs of one application; what cannot be told yet is set aside once more."""
        rows = {(self._run_id, job.row.number): job for job in jobs if job.row is not None}
        decisions: dict[RowId, Decision] = {}
        try:
            decisions = await reconcile(
                self._client,
                self._ledger,
                application_id,
                settled_before=self._clock() - self._settle,
                margins=self._margins,
                wanted=rows.keys(),
                echoes=dict(self._echoes),
            )
        except CallError as error:  # such as a throttled list: the next round asks again
            self._failed(application_id, error)
        decided: list[tuple[Submission, Decision]] = []
        for row, job in rows.items():
            decision = decisions.get(row, Ambiguous((), surely_started=False))
            job.reconciled += 1
            if job not in self._looked_for:  # taken back meanwhile
                continue
            del self._looked_for[job]
            if isinstance(decision, Ambiguous) and job.reconciled < _ROUNDS:
                self.park(job)
            else:
                decided.append((job, decision))
        await self._decided(decided)
