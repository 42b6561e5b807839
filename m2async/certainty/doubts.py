"""Jobs whose answer was lost, set aside until the service's list of executions can say what became of them."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import anyio

from m2async.certainty.adopt import Adopted, Ambiguous, Decision, Margins, NotStarted
from m2async.certainty.reconcile import ListsExecutions, RowId, reconcile
from m2async.clock import steady_time
from m2async.errors import CallError
from m2async.ledger import Ledger, Run
from m2async.service import Job

_ECHOES = 1_000
"""How many executions whose job is known are kept to compare the list with."""

_LOOKS = 4
"""How often a job is looked for: what is still in flight elsewhere may, once answered, make it clear."""

T = TypeVar("T")


class Doubts(Generic[T]):
    """Looks for jobs a settling delay after their attempt, those of one application together.

    Arguments:
        client: lists the executions.
        ledger: knows the open attempts, of all runs, and what is claimed.
        run_id: the run that the jobs' rows are in.
        settle: the delay, in seconds.
        decided: is given each job once, together with others, with what was found; the last `Ambiguous` stands.
        failed: is told of an application whose executions cannot be listed. What it raises ends the looking.
        looks: how often a job is looked for while it is ambiguous, at most.
        clock: gives the time in seconds of the epoch.
    """

    def __init__(
        self,
        client: ListsExecutions,
        ledger: Ledger,
        run_id: int,
        *,
        settle: float,
        decided: Callable[[Sequence[tuple[T, Decision]]], Awaitable[None]],
        failed: Callable[[str, CallError], None],
        looks: int = _LOOKS,
        clock: Callable[[], float] = steady_time,
    ) -> None:
        self._client = client
        self._ledger = ledger
        self._run_id = run_id
        self._settle = settle
        self._margins = Margins(late=settle)
        self._decided = decided
        self._failed = failed
        self._looks = looks
        self._clock = clock
        self._parked: deque[_Parked[T]] = deque()
        self._looked_for: dict[RowId, _Parked[T]] = {}
        self._arrived = asyncio.Event()
        # the latest executions, and as what they were started
        self._echoes: deque[tuple[str, Job]] = deque(maxlen=_ECHOES)

    def started(self, execution_id: str, job: Job) -> None:
        """Take note of an execution whose job is known: the list is compared with it."""
        self._echoes.append((execution_id, job))

    def park(self, job: T, application_id: str, number: int, *, ended_at: float | None = None) -> None:
        """Set a job aside whose row has this number and whose last attempt ended then, by default just now.

        Jobs come in the order of these ends.
        """
        due = (self._clock() if ended_at is None else ended_at) + self._settle
        self._park(_Parked(job, application_id, (self._run_id, number), due))

    def take_all(self) -> list[T]:
        """Give back the jobs that are set aside: they are not looked for any more."""
        jobs = [parked.job for parked in (*self._looked_for.values(), *self._parked)]
        self._looked_for.clear()
        self._parked.clear()
        return jobs

    async def run(self) -> None:
        """Decide jobs as they become due, until cancelled; raises the LedgerError that ends it."""
        while True:
            while not self._parked:
                self._arrived.clear()
                await self._arrived.wait()
            await self.decide_all()

    async def decide_all(self) -> None:
        """Decide the jobs that are set aside, each when it is due, until none is left."""
        while self._parked:
            await anyio.sleep(max(0.0, self._parked[0].due - self._clock()))
            rows_of: dict[str, list[RowId]] = defaultdict(list)
            while self._parked and self._parked[0].due <= self._clock():
                parked = self._parked.popleft()
                self._looked_for[parked.row] = parked
                rows_of[parked.application_id].append(parked.row)
            for application_id, rows in rows_of.items():
                await self._decide(application_id, rows)

    async def _decide(self, application_id: str, rows: Sequence[RowId]) -> None:
        """Look for the jobs of one application; what cannot be told yet is set aside once more."""
        decisions: dict[RowId, Decision] = {}
        try:
            decisions = await reconcile(
                self._client,
                self._ledger,
                application_id,
                settled_before=self._clock() - self._settle,
                margins=self._margins,
                wanted=frozenset(rows),
                echoes=dict(self._echoes),
            )
        except CallError as error:  # such as a throttled list: the next look asks again
            self._failed(application_id, error)
        decided: list[tuple[T, Decision]] = []
        for row in rows:
            parked = self._looked_for.pop(row, None)
            if parked is None:  # taken back meanwhile
                continue
            decision = decisions.get(row, Ambiguous((), surely_started=False))
            parked.looks += 1
            if isinstance(decision, Ambiguous) and parked.looks < self._looks:
                parked.due = self._clock() + self._settle
                self._park(parked)
            else:
                decided.append((parked.job, decision))
        await self._decided(decided)

    def _park(self, parked: _Parked[T]) -> None:
        self._parked.append(parked)
        self._arrived.set()


@dataclass(slots=True)
class _Parked(Generic[T]):
    """A job that is set aside, until when, and how often it was looked for."""

    job: T
    application_id: str
    row: RowId
    due: float
    looks: int = 0


async def write_decision(run: Run, number: int, attempts: int, decision: Decision) -> None:
    """Write what was found out about the attempts in doubt of a row; `attempts` is the number of the last.

    Where a job has no candidates and still is ambiguous, it could not be looked for: candidates of before stay.
    """
    match decision:
        case Adopted():
            await run.claim(number, attempts, decision.execution_id, "its one match among the executions")
        case NotStarted():
            await run.not_started(number, attempts, "no execution can be its own")
        case Ambiguous() if decision.candidates:
            await run.candidates(number, tuple(decision.candidates))
