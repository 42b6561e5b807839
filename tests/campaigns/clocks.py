"""Runs on clocks that misbehave: is any job started twice, or lost, and how many stay unknown?

    python -m tests.campaigns.clocks [--runs 2000] [--seed N]

Each run is one of a few dozen jobs in simulated time: with the real ledger, the real matching and what reads the
service's clock; only the service, the machine and their clocks are played. Of the calls that get no answer some have
started their job. Meanwhile the machine sleeps, stands still as a virtual one that is paused, its clock is set, the
process is killed and begins anew; answers come slowly; start times are of another clock, in units of up to a minute, or
stamped when a job leaves its queue; and the list shows an execution late. In some of the runs all rows are of one name,
sent under the law of certainty/law.py and decided by windows as narrow as the run's start times allow.

Ends with an error if a job was started twice or is lost, if an execution is taken for somebody else's, or if a row is
unknown that would not be with clocks that behave, unless it was in doubt or under way when they jumped.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import random
import sys
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, TypeAlias
from unittest.mock import patch

from m2async import ScriptJob, StartBatchJob
from m2async.certainty import ApplicationOfRun, Certainty
from m2async.certainty.adopt import Attempt, ListedExecution, Margins, NotStarted, StartedTogether, decide
from m2async.certainty.doubts import write_decision
from m2async.certainty.explained import OutOfTime
from m2async.certainty.reconcile import Reconciled, learn_start_times, reconcile
from m2async.certainty.start_times import Precision
from m2async.clock import ServiceClock
from m2async.ledger import ClockSetBackError, Ledger, RowState, Run, open_ledger
from m2async.ledger.sqlite import clocks
from m2async.service import BatchJobExecution
from m2async.submitting.lane import Lane
from tests.ledger.samples import APPLICATION

SETTLE = 5.0
RESENDS = 3

Play: TypeAlias = "Callable[[random.Random], Habits]"


@dataclass(frozen=True)
class Habits:
    """How the clocks of a world behave."""

    jumps: float = 0.0  # how often a minute the machine sleeps, stands still, or its clock is set
    crashes: float = 0.0  # how often a minute the process is killed
    wrong_by: float = 0.0  # seconds that the machine's clock is off at first
    drift: float = 0.0
    slow_answers: float = 0.0  # seconds that the body of a list comes behind its head, at most
    unit: float = 0.001
    stamped_ahead: float = 0.0
    queue: float = 0.0  # seconds that a job waits until its start is stamped, at most
    lag: float = 0.0  # seconds until the list shows an execution, at most

    @property
    def behave(self) -> bool:
        """Whether the clocks are as they should be."""
        return self == Habits(lag=self.lag, crashes=self.crashes)


@dataclass
class Execution:
    """Something that the service started, for which row."""

    id: str
    number: int
    job: ScriptJob
    stamps: Sequence[float]  # when it was started, and when it leaves its queue
    leaves_at: float
    listed_from: float

    def shown(self, now: float) -> float:
        """Its start time, as the service gives it now."""
        return self.stamps[now >= self.leaves_at]


@dataclass
class World:
    """The true time, the machine's clocks, and the service."""

    draw: random.Random
    habits: Habits
    now: float = 1_790_000_000.0
    paused: float = 0.0  # seconds that the machine's uptime does not count
    set_by: float = 0.0  # seconds that its clock was set
    began: float = 0.0  # what steady time is ahead of uptime
    executions: list[Execution] = field(default_factory=list)
    jumped_at: list[float] = field(default_factory=list)

    def uptime(self) -> float:
        return (self.now - self.paused) * (1 + self.habits.drift)

    def wall(self) -> float:
        return self.now + self.set_by

    def local(self) -> float:
        """Steady time, as the process has it."""
        return self.began + self.uptime()

    def new_process(self) -> None:
        self.began = self.wall() - self.uptime()

    def wait(self, seconds: float) -> None:
        """Let time go by, and whatever happens meanwhile."""
        while seconds > 0:
            step = min(seconds, self.draw.expovariate(self.habits.jumps / 60) if self.habits.jumps else math.inf)
            self.now += step
            seconds -= step
            if seconds > 0:
                self.jump()

    def jump(self) -> None:
        """Let the machine sleep or stand still, or set its clock."""
        self.jumped_at.append(self.now)
        by = self.draw.choice([3.0, 20.0, 90.0, 3_600.0, 40_000.0]) * self.draw.uniform(0.5, 1.5)
        kind = self.draw.choice(["sleep", "pause", "pause", "set", "set back"])
        if kind == "sleep":
            self.now += by
        elif kind == "pause":  # the clocks stand still as well, until the wall is set right
            self.now += by
            self.paused += by
            self.set_by = self.draw.choice([0.0, -by])
        else:
            self.set_by += by if kind == "set" else -by

    def start(self, number: int, job: ScriptJob) -> str:
        """Start an execution now."""
        habits, execution_id = self.habits, f"e-{len(self.executions)}"
        leaves_at = self.now + self.draw.uniform(0, habits.queue)
        stamps = [math.floor((at + habits.stamped_ahead) / habits.unit) * habits.unit for at in (self.now, leaves_at)]
        listed_from = self.now + self.draw.uniform(0, habits.lag)
        self.executions.append(Execution(execution_id, number, job, stamps, leaves_at, listed_from))
        return execution_id


class Client:
    """Lists the world's executions, and reads the service's clock off every answer."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.clock = ServiceClock(world.local)
        if abs(world.wall() - world.now) > 300:  # the first signature is refused, in an answer with a date
            self.answered(world.local(), world.now)

    @property
    def clock_offset(self) -> float | None:
        return self.clock.offset

    def answered(self, sent_at: float, stamped: float) -> None:
        """Read an answer's date."""
        self.clock.read(float(math.floor(stamped)), sent_at, self.world.local())

    async def list_batch_job_executions(
        self, application_id: str, /, *, started_after: datetime | None = None, started_before: datetime | None = None
    ) -> AsyncIterator[BatchJobExecution]:
        assert started_after is not None
        assert started_before is not None
        world, sent_at = self.world, self.world.local()
        world.wait(world.draw.uniform(0.01, 0.1))
        stamped = world.now
        listed = [
            execution
            for execution in world.executions
            if started_after.timestamp() < execution.shown(world.now) < started_before.timestamp()
            and execution.listed_from <= world.now
        ]
        world.wait(world.draw.uniform(0.0, world.habits.slow_answers))
        self.answered(sent_at, stamped)
        for each in listed:
            yield BatchJobExecution(
                application_id,
                each.id,
                datetime.fromtimestamp(each.shown(world.now), UTC),
                "Running",
                batch_job_identifier={each.job.member: each.job.to_members()},
            )


@dataclass
class Audit:
    """What came of a run."""

    habits: Habits
    twice: int = 0
    lost: int = 0
    wrong: int = 0
    foreign: int = 0  # executions taken for somebody else's, of whom there is none
    unknown: int = 0
    unexplained: int = 0  # unknown rows that were neither in doubt nor under way when a clock jumped
    in_doubt: int = 0
    adopted: int = 0
    together: int = 0  # of the adopted, those that share executions with others
    sent_again: int = 0
    rows: int = 0
    names: int = 0  # of their jobs
    set_back: int = 0

    @property
    def problems(self) -> int:
        """What must not be; of many rows of one name some may look like somebody else's where start times are vague."""
        is_vague = self.names == 1 and (self.habits.queue > 0 or self.habits.unit > 1)
        return self.twice + self.lost + self.wrong + (0 if is_vague else self.foreign)


async def by_exact_times(
    client: Client, of: ApplicationOfRun, *, settled_before: float, wanted: Collection[int]
) -> Reconciled:
    """Decide as if all clocks were known to be right, and the list to be whole: the reference for those that are."""
    rows = {(of.run.info.id, number) for number in wanted}
    opened = await of.open_attempts()
    attempts = [
        Attempt(
            (attempt.run_id, attempt.number),
            of.id,
            attempt.job,
            attempt.sent_at,
            attempt.ended_at,
            in_doubt=(attempt.run_id, attempt.number) in rows
            and attempt.ended_at is not None
            and attempt.ended_at <= settled_before,
        )
        for attempt in opened
    ]
    listed = [
        ListedExecution(each.id, of.id, each.job, each.shown(client.world.now))
        for each in client.world.executions
        if each.listed_from <= client.world.now
    ]
    claimed = await of.ledger.claimed(of.id, [each.execution_id for each in listed])
    found = decide(attempts, listed, claimed=claimed, margins=of.margins)
    last = {(attempt.run_id, attempt.number): attempt.attempt for attempt in opened}
    for row, decision in found.items():
        if isinstance(decision, StartedTogether):
            together: Sequence[Any] = decision.ids
            found[row] = replace(decision, ids=tuple((each[1], last[each]) for each in together))
    return Reconciled({row[1]: decision for row, decision in found.items() if row in rows}, [], may_change=False)


async def play(
    seed: int, habits: Play, find: Callable[..., Awaitable[Reconciled]] = reconcile, *, of_one_name: bool = False
) -> Audit:
    """Play one run; `find` decides what is in doubt."""
    draw = random.Random(seed)
    world = World(draw, habits(draw))
    world.set_by = world.habits.wrong_by
    world.new_process()
    local = world.local  # one object, as the clock that is the machine's own is known by that
    with patch.multiple(clocks, steady_time=local, uptime=world.uptime, time=world.wall):
        async with open_ledger("memory:", clock=local) as ledger:
            return await _play(world, ledger, find, of_one_name=of_one_name)


async def _play(
    world: World, ledger: Ledger, find: Callable[..., Awaitable[Reconciled]], *, of_one_name: bool
) -> Audit:
    draw = world.draw
    rows = draw.randint(60, 150) if of_one_name else draw.randint(4, 30)
    names = 1 if of_one_name else draw.choice([rows, rows, max(1, rows // 3)])
    jobs = [ScriptJob(f"JOB{n % names}") for n in range(rows)]
    share_lost, share_started = draw.choice([0.05, 0.3]), draw.choice([0.2, 0.5, 0.9])
    pace = draw.choice([0.02, 0.1, 0.5] if of_one_name else [0.05, 1.0, 10.0])
    audit = Audit(world.habits, rows=rows, names=names)
    doubts: dict[int, tuple[float, float]] = {}  # of rows in doubt: when their attempts began and ended, truly
    sends: Counter[int] = Counter()

    async def begin_anew() -> tuple[Run, Client]:
        """The process is killed, and somebody starts it again; with a clock that is right if it was set back."""
        await run.aclose()
        world.wait(draw.choice([0.5, 30.0, 600.0]))
        world.new_process()
        try:
            return await ledger.open_run("night"), Client(world)
        except ClockSetBackError:
            audit.set_back += 1
            return await ledger.open_run("night", by_hand=True), Client(world)

    run = await ledger.open_run("night")
    await run.plan((f"row-{n}", StartBatchJob(APPLICATION, job)) for n, job in enumerate(jobs))
    client = Client(world)
    law = UnderLaw(world, is_obeyed=of_one_name)
    pending = list(range(1, rows + 1))
    looks: Counter[int] = Counter()
    while pending or any(looks[number] < 4 for number in doubts):
        if draw.random() < world.habits.crashes * pace / 60 or (pending and draw.random() < world.habits.crashes / 60):
            run, client = await begin_anew()
            law = law.after_a_crash()
        if audit.set_back:  # an operator decides
            break
        of = ApplicationOfRun(
            client, ledger, run, APPLICATION, Margins(late=SETTLE), precision=law.precision, recent=tuple(law.recent),
            out_of_time=law.out_of_time,
        )  # fmt: skip
        may_send = bool(pending) and law.may_send()
        if may_send:
            number = pending.pop(0)
            sends[number] += 1
            law.send(number)
            crashed = await attempt(world, client, run, number, jobs[number - 1], share_lost, share_started, doubts)
            if crashed:
                run, client = await begin_anew()
                law = law.after_a_crash()
                continue
            await law.ended(number, client, of, is_lost=number in doubts)
            world.wait(draw.expovariate(1 / pace))
        else:
            world.wait(SETTLE)
        wanted = [number for number in doubts if looks[number] < 4]
        if not wanted or (may_send and draw.random() < (0.95 if of_one_name else 0.7)):
            continue
        found = await find(client, of, settled_before=world.local() - SETTLE, wanted=wanted)
        for number, decision in found.decisions.items():
            row = (await run.page(after=number - 1, limit=1))[0]
            await write_decision(run, number, row.attempts, decision)
            looks[number] += 1
            row = (await run.page(after=number - 1, limit=1))[0]
            if row.state is not RowState.UNKNOWN:
                doubts.pop(number)
                looks[number] = 0
            if row.state is not RowState.UNKNOWN or looks[number] == 4:
                law.lane.decided(number, is_known=row.state is not RowState.UNKNOWN)
            if isinstance(decision, NotStarted):
                audit.sent_again += 1
                if sends[number] <= RESENDS:
                    pending.append(number)
    await hold_against_the_truth(world, run, doubts, audit)
    await run.aclose()
    return audit


class UnderLaw:
    """One name's lane in one process, and what that learned of start times; unless it is obeyed, it never waits."""

    def __init__(self, world: World, *, is_obeyed: bool) -> None:
        self.world = world
        self.is_obeyed = is_obeyed
        self.lane = Lane(Certainty(), SETTLE)
        self.precision = Precision()
        self.recent: deque[int] = deque(maxlen=4)
        self.out_of_time = OutOfTime()
        self.answers = 0

    def after_a_crash(self) -> UnderLaw:
        """Give what the next process begins with."""
        law = UnderLaw(self.world, is_obeyed=self.is_obeyed)
        law.lane.hold("what it left", self.world.uptime() + SETTLE + 6.0)
        return law

    def may_send(self) -> bool:
        """Wait until a job may be sent; tells whether one may before something is decided."""
        opens_at = self.lane.opens_at(self.world.uptime(), self.precision.apart)
        if self.is_obeyed and opens_at != math.inf:
            self.world.wait(opens_at - self.world.uptime())
        return not self.is_obeyed or opens_at != math.inf

    def send(self, number: int) -> None:
        self.lane.send(number, self.world.uptime())

    async def ended(self, number: int, client: Client, of: ApplicationOfRun, *, is_lost: bool) -> None:
        """Take note of an answer or of none; learn of start times where they are not known."""
        if is_lost:
            self.lane.lost(number, self.world.uptime(), is_narrow=self.precision.bounds is not None)
        else:
            self.lane.answered(number, self.world.uptime())
            self.recent.append(number)
            self.answers += 1
        self.lane.leave(number)
        if self.is_obeyed and self.precision.bounds is None and self.answers % 30 == 29:
            await learn_start_times(client, of)


async def attempt(
    world: World,
    client: Client,
    run: Run,
    number: int,
    job: ScriptJob,
    share_lost: float,
    share_started: float,
    doubts: dict[int, tuple[float, float]],
) -> bool:
    """Send one attempt; tells whether the process was killed before it ended."""
    draw = world.draw
    row = (await run.page(after=number - 1, limit=1))[0]
    began, sent_at = world.now, world.local()
    run.note_clock(client.clock_offset)
    await run.intend(number, row.attempts + 1, sent_at)
    is_lost = draw.random() < share_lost
    world.wait(draw.uniform(0.01, 0.2))
    execution_id = None
    if not is_lost or draw.random() < share_started:
        execution_id = world.start(number, job)
    stamped = world.now
    if is_lost:
        world.wait(draw.choice([0.0, 1.0, 3.0]))
        doubts[number] = began, world.now
        if draw.random() < world.habits.crashes / 30:
            return True
        if draw.random() < 0.5:
            client.answered(sent_at, stamped)  # a 500, which has a date
        run.note_clock(client.clock_offset)
        await run.unknown(number, row.attempts + 1, "ConnectionLostError", "lost", ended_by_service=True)
        return False
    world.wait(draw.uniform(0.01, 0.2))
    client.answered(sent_at, stamped)
    assert execution_id is not None
    await run.started(number, row.attempts + 1, execution_id)
    return False


async def hold_against_the_truth(world: World, run: Run, doubts: dict[int, tuple[float, float]], audit: Audit) -> None:
    """Compare the rows with what was really started."""
    executions_of: dict[int, list[str]] = {}
    for execution in world.executions:
        executions_of.setdefault(execution.number, []).append(execution.id)
    async for row in run.rows():
        executions = executions_of.get(row.number, [])
        audit.twice += len(executions) > 1
        audit.adopted += row.adopted
        match row.state:
            case RowState.STARTED:
                its = row.candidates if row.execution_id is None else (row.execution_id,)
                audit.wrong += not {*its} & {*executions}
                audit.together += row.execution_id is None
            case RowState.UNKNOWN:
                audit.unknown += 1
                began, ended = doubts[row.number]
                audit.unexplained += not any(began <= at <= ended + 4 * SETTLE + 30 for at in world.jumped_at)
            case _:
                audit.lost += bool(executions)
    audit.in_doubt += len(doubts)
    audit.foreign += len(await run.foreign())


def well(draw: random.Random) -> Habits:
    """Clocks that behave."""
    return Habits(lag=draw.choice([0.0, 4.0]), crashes=draw.choice([0.0, 2.0]))


def jumping(draw: random.Random) -> Habits:
    """Clocks that are right, but for the moments in which they jump."""
    return Habits(lag=draw.choice([0.0, 4.0]), crashes=draw.choice([0.0, 2.0]), jumps=draw.choice([0.5, 2.0]))


def badly(draw: random.Random) -> Habits:
    """Clocks of which some do not."""
    return Habits(
        jumps=draw.choice([0.0, 0.0, 1.0, 4.0]),
        crashes=draw.choice([0.0, 2.0]),
        wrong_by=draw.choice([0.0, 0.0, 30.0, -30.0, 3_600.0, -250.0]),
        drift=draw.choice([0.0, 1e-4, -1e-4]),
        slow_answers=draw.choice([0.0, 0.0, 12.0]),
        unit=draw.choice([0.001, 0.001, 1.0, 10.0, 60.0]),
        stamped_ahead=draw.choice([0.0, 0.0, 0.0, 30.0, -30.0, 3_600.0, -7_200.0]),
        queue=draw.choice([0.0, 0.0, 0.0, 10.0, 300.0]),
        lag=draw.choice([0.0, 4.0]),
    )


async def campaign(
    runs: int,
    seed: int,
    habits: Play,
    find: Callable[..., Awaitable[Reconciled]] = reconcile,
    *,
    of_one_name: bool = False,
) -> list[Audit]:
    """Play so many runs."""
    audits = []
    for number in range(runs):
        audit = await play(seed + number, habits, find, of_one_name=of_one_name)
        if audit.problems:
            print(f"seed {seed + number}: {audit}")
        audits.append(audit)
    return audits


def told(name: str, audits: list[Audit]) -> str:
    """One line on some runs."""
    sums = {
        what: sum(getattr(audit, what) for audit in audits)
        for what in (
            "rows",
            "twice",
            "lost",
            "wrong",
            "adopted",
            "sent_again",
            "unknown",
            "unexplained",
            "set_back",
            "foreign",
        )
    }
    return f"{name:<24} {len(audits):>6} runs  " + "  ".join(f"{count:,} {what}" for what, count in sums.items())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    well_audits = asyncio.run(campaign(given.runs // 4, given.seed, well))
    print(told("clocks that behave", well_audits))
    exact = asyncio.run(campaign(given.runs // 4, given.seed, well, by_exact_times))
    print(told("the same, by exact times", exact))
    jumped = asyncio.run(campaign(given.runs // 2, given.seed, jumping))
    print(told("clocks that jump", jumped))
    audits = asyncio.run(campaign(given.runs, given.seed, badly))
    print(told("clocks that do not", audits))
    of_one_name = []
    for name, habits in (("behave", well), ("jump", jumping), ("do not", badly)):
        of_one_name += asyncio.run(campaign(given.runs // 5, given.seed, habits, of_one_name=True))
        print(told(f"one name, clocks {name}", of_one_name[-(given.runs // 5) :]))
    return int(any(audit.problems for audit in (*well_audits, *jumped, *audits, *of_one_name)))


if __name__ == "__main__":
    sys.exit(main())
