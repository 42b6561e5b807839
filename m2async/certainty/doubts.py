"""Jobs whose answer was lost, set aside until the service's list of executions can say what became of them."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Generic, Protocol, TypeVar, cast

import anyio

from m2async.certainty.adopt import Adopted, Ambiguous, Decision, Margins, NotStarted, StartedTogether
from m2async.certainty.application import ApplicationOfRun
from m2async.certainty.explained import OutOfTime, StartedLater
from m2async.certainty.reconcile import ListsExecutions, Reconciled, learn_start_times, reconcile
from m2async.certainty.start_times import Apart, Precision
from m2async.clock import CLOCK_TOLERANCE, steady_time
from m2async.errors import CallError
from m2async.ledger import HistoryEntry, Ledger, RunView

_LOOKS = 4
"""How often a job is looked for, at most, while another look may see more."""

_FIRST_LOOK = 30
"""Answers after which it is looked for the first time how far start times are off."""

_RECENT = 4
"""Rows around which those that were answered lately are looked for."""

_NOTHING_KNOWN = Ambiguous((), surely_started=False)

T = TypeVar("T")


class DecidesRows(Protocol):
    """What writes decisions on rows; a Run does."""

    async def history(self, number: int) -> list[HistoryEntry]:
        """Give what happened to a row."""

    def claim(self, number: int, attempt: int, execution_id: str, note: str) -> Awaitable[None]:
        """Write that an attempt in doubt started this execution."""

    def claim_together(
        self, number: int, rows: Sequence[tuple[int, int]], execution_ids: Sequence[str], note: str
    ) -> Awaitable[None]:
        """Write that these rows' attempts in doubt started these executions, one each; `number` is one of them."""

    def confirm(self, number: int, attempt: int, note: str) -> Awaitable[None]:
        """Write that the others started nothing."""

    def not_started(self, number: int, attempt: int, note: str) -> Awaitable[None]:
        """Write that none of the attempts started anything."""

    def candidates(self, number: int, execution_ids: Sequence[str]) -> Awaitable[None]:
        """Write which executions may be those of the attempts in doubt."""


class Doubts(Generic[T]):
    """Looks for jobs a settling delay after their attempt, those of one application together.

    Arguments:
        client: lists the executions.
        ledger: knows the open attempts, of all runs, and what is claimed.
        run: the run that the jobs' rows are in.
        settle: the delay, in seconds.
        decided: is given each job once, together with others, with what was found; the last `Ambiguous` stands.
        listed: is told of each application whose executions were asked for, and the error if they cannot be listed.
            What it raises ends the looking.
        foreign: is told once of each execution of the run's jobs that somebody else started: its application, its
            job's name, its id, and its start time in seconds of the epoch.
        knows_place: whether the client's calls go where the run was sent before it was opened.
        looks: how often a job is looked for, at most, while it is ambiguous and another look may see more.
        clock: gives the time in seconds of the epoch.
    """

    def __init__(
        self,
        client: ListsExecutions,
        ledger: Ledger,
        run: RunView,
        *,
        settle: float,
        decided: Callable[[Sequence[tuple[T, Decision]]], Awaitable[None]],
        listed: Callable[[str, CallError | None], None],
        foreign: Callable[[str, str, str, float], object],
        knows_place: bool = True,
        looks: int = _LOOKS,
        clock: Callable[[], float] = steady_time,
    ) -> None:
        self._client = client
        self._ledger = ledger
        self._run = run
        self._settle = settle
        self._margins = Margins(late=settle)
        self._decided = decided
        self._listed = listed
        self._foreign = foreign
        self._knows_place = knows_place
        self._looks = looks
        self._clock = clock
        self._learning = _Learning()
        self._parked: dict[str, deque[_Parked[T]]] = defaultdict(deque)  # by application
        self._looking: set[str] = set()  # applications at which jobs are looked for
        self._looked_for: dict[_Parked[T], None] = {}
        self._arrived = asyncio.Event()

    def park(self, job: T, application_id: str, number: int, *, ended_at: float | None = None) -> None:
        """Set a job aside whose row has this number and whose last attempt ended then, by default just now.

        Jobs come in the order of these ends. An end that is yet to come was read off another clock: it is not waited
        for, as no other job would be decided before.
        """
        now = self._clock()
        ended_at = now if ended_at is None else min(ended_at, now + CLOCK_TOLERANCE)
        self._park(_Parked(job, application_id, number, ended_at, ended_at + self._settle))

    def answered(self, application_id: str, number: int) -> None:
        """Take note that a row was answered: its execution shows what start times mean."""
        self._learning.answered(application_id, number)

    def apart(self, application_id: str) -> Apart:
        """Say how far two attempts must be apart that their windows do not touch."""
        return self._learning.precision[application_id].apart

    async def learn(self) -> None:
        """Learn what start times mean once enough was answered, until cancelled."""
        async with _side_by_side() as begin:
            while True:
                begin(self._learn, await self._learning.due())

    async def _learn(self, application_id: str) -> None:
        try:
            await learn_start_times(self._client, self._application(application_id))
            self._listed(application_id, None)
        except CallError as error:
            self._listed(application_id, error)

    def take_all(self) -> list[T]:
        """Give back the jobs that are set aside: they are not looked for any more."""
        jobs = [parked.job for parked in (*self._looked_for, *chain.from_iterable(self._parked.values()))]
        self._looked_for.clear()
        self._parked.clear()
        return jobs

    async def run(self) -> None:
        """Decide jobs as they become due, until cancelled; raises the LedgerError that ends it."""
        while True:
            while not any(self._parked.values()):
                self._arrived.clear()
                await self._arrived.wait()
            await self.decide_all()

    async def decide_all(self) -> None:
        """Decide the jobs that are set aside, each when it is due, until none is left.

        No application waits for another: the lists of one may hang, or be very long.
        """
        async with _side_by_side() as begin:
            while waiting := [id_ for id_, parked in self._parked.items() if parked or id_ in self._looking]:
                for application_id in waiting:
                    if application_id not in self._looking:
                        self._looking.add(application_id)
                        begin(self._decide_all_of, application_id)
                self._arrived.clear()
                await self._arrived.wait()

    async def _decide_all_of(self, application_id: str) -> None:
        """Decide the jobs of one application, until none is left."""
        try:
            while parked := self._parked[application_id]:
                await anyio.sleep(max(0.0, parked[0].due - self._clock()))
                due: list[_Parked[T]] = []
                while (parked := self._parked[application_id]) and parked[0].due <= self._clock():
                    due.append(parked.popleft())
                self._looked_for.update(dict.fromkeys(due))
                if due:
                    await self._decide(application_id, due)
        finally:
            self._looking.discard(application_id)
            self._arrived.set()

    async def _decide(self, application_id: str, due: Sequence[_Parked[T]]) -> None:
        """Look for the jobs of one application; what cannot be told yet is set aside once more.

        Those that wait, for their first look or another one, may be told together with the others.
        """
        found = Reconciled({}, [], may_change=True)
        settled_before = self._clock() - self._settle
        waiting = list(self._parked[application_id])
        wanted = [each.number for each in (*due, *waiting)]
        try:
            of = self._application(application_id)
            found = await reconcile(self._client, of, settled_before=settled_before, wanted=wanted)
            self._listed(application_id, None)
        except CallError as error:  # such as a throttled list: the next look asks again
            self._listed(application_id, error)
        for each in found.foreign:
            self._foreign(each.application_id, each.job.name, each.execution_id, each.start_time)
        decided: list[tuple[T, Decision]] = []
        for parked in due:
            if parked not in self._looked_for:  # taken back meanwhile
                continue
            del self._looked_for[parked]
            decision = found.decisions.get(parked.number, _NOTHING_KNOWN)
            parked.looks += 1
            is_open = isinstance(decision, Ambiguous) and (
                found.may_change or self._may_be_listed_late(parked, decision)
            )
            if is_open and parked.looks < self._looks:
                parked.due = self._clock() + self._settle
                self._park(parked)
            else:
                decided.append((parked.job, decision))
        decided += self._told_early(application_id, waiting, found.decisions)
        await self._decided(decided)

    def _told_early(
        self, application_id: str, waiting: Iterable[_Parked[T]], decisions: Mapping[int, Decision]
    ) -> list[tuple[T, Decision]]:
        """Take out those that wait, unless they were taken back meanwhile, of which is known what became of them."""
        told = {
            each: decision
            for each in waiting
            if not isinstance(decision := decisions.get(each.number, _NOTHING_KNOWN), Ambiguous)
        }
        parked = self._parked[application_id]
        still_here = [each for each in parked if each in told]
        if still_here:
            self._parked[application_id] = deque(each for each in parked if each not in told)
        return [(each.job, told[each]) for each in still_here]

    def _application(self, application_id: str) -> ApplicationOfRun:
        of = self._learning
        return ApplicationOfRun(
            self._client, self._ledger, self._run, application_id, self._margins, self._knows_place,
            of.precision[application_id], tuple(of.recent[application_id]), of.out_of_time[application_id],
            of.started_later[application_id],
        )  # fmt: skip

    def _may_be_listed_late(self, parked: _Parked[T], decision: Ambiguous) -> bool:
        """Whether nothing was found of an attempt of late: the list may lag behind by more than it should."""
        return not decision.candidates and self._clock() < parked.ended_at + self._looks * self._settle

    def _park(self, parked: _Parked[T]) -> None:
        self._parked[parked.application_id].append(parked)
        self._arrived.set()


class _Learning:
    """What is known of start times, by application, and when to look for more."""

    def __init__(self) -> None:
        self.out_of_time: dict[str, OutOfTime] = defaultdict(OutOfTime)
        self.started_later: dict[str, StartedLater] = defaultdict(StartedLater)
        self.precision: dict[str, Precision] = defaultdict(Precision)
        self.recent: dict[str, deque[int]] = defaultdict(partial(deque, maxlen=_RECENT))
        self._answers: Counter[str] = Counter()
        self._look_at: dict[str, int] = defaultdict(lambda: _FIRST_LOOK)
        self._due: asyncio.Queue[str] = asyncio.Queue()

    def answered(self, application_id: str, number: int) -> None:
        self.recent[application_id].append(number)
        self._answers[application_id] += 1
        precision, look_at = self.precision[application_id], self._look_at[application_id]
        if precision.bounds is None and not precision.is_refuted and self._answers[application_id] >= look_at:
            self._look_at[application_id] = 2 * self._answers[application_id]
            self._due.put_nowait(application_id)

    async def due(self) -> str:
        """Give the next application of which more is to be learned, when it is."""
        return await self._due.get()


@asynccontextmanager
async def _side_by_side() -> AsyncGenerator[Callable[..., None], None]:
    """Give what begins work beside other work: the first error ends all of it, and is raised as it is."""
    failures: list[Exception] = []
    async with anyio.create_task_group() as tasks:

        async def work_on(work: Callable[..., Awaitable[None]], *of: object) -> None:
            try:
                await work(*of)
            except Exception as error:  # noqa: BLE001 - raised below
                failures.append(error)
                tasks.cancel_scope.cancel()

        def begin(work: Callable[..., Awaitable[None]], *of: object) -> None:
            tasks.start_soon(partial(work_on, work, *of))

        yield begin
    if failures:
        raise failures[0]


@dataclass(slots=True, eq=False)
class _Parked(Generic[T]):
    """A job that is set aside, when its last attempt ended, until when it waits, and how often it was looked for."""

    job: T
    application_id: str
    number: int
    ended_at: float
    due: float
    looks: int = 0


async def write_decision(run: DecidesRows, number: int, attempts: int, decision: Decision) -> None:
    """Write what was found out about the attempts in doubt of a row; `attempts` is the number of the last.

    Where a job has no candidates and still is ambiguous, it could not be looked for: candidates of before stay.
    """
    match decision:
        case Adopted():
            note = "its one match among the executions"
            in_doubt = [entry.attempt for entry in await run.history(number) if entry.open]
            # several are of one job, and which of them started it does not matter
            await run.claim(number, in_doubt[0] if in_doubt else attempts, decision.execution_id, note)
            if len(in_doubt) > 1 == len(decision.execution_ids):
                await run.confirm(number, attempts, note)
        case NotStarted():
            await run.not_started(number, attempts, "no execution can be its own")
        case StartedTogether():
            # each of them has it written, as none knows which comes first; what stands already is no error
            rows = cast("Sequence[tuple[int, int]]", decision.ids)
            note = f"one of {len(rows):,} executions that as many attempts started"
            await run.claim_together(number, rows, decision.execution_ids, note)
        case Ambiguous() if decision.candidates:
            await run.candidates(number, tuple(decision.candidates))
