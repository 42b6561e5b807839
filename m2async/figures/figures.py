"""A run in figures: those that are cheap to read, and those that take a look at every row."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from enum import Enum

import msgspec

from m2async.clock import steady_time
from m2async.errors import EXCEPTION_OF_CODE, ThrottlingException
from m2async.figures.percentiles import Percentiles, Times
from m2async.ledger import (
    Activity,
    AttemptCount,
    Counts,
    ExecutionCount,
    LedgerRow,
    Orders,
    RowEvent,
    RowState,
    RunInfo,
    RunView,
    TrackedExecution,
)
from m2async.service import Job, RestartJob, Result

RESTARTS = "restarts"
"""The name that restarted executions count under, since each has its own."""

_SECOND = 1.0  # rates are per second: a shorter stretch would show a burst as a rate that never was
_RECENT = 10.0  # seconds that the current rate is taken from, at least
_LISTED = 20  # longest and failed jobs, and names
_REFUSALS = frozenset({RowEvent.REFUSED, RowEvent.REJECTED})


class Phase(Enum):
    """How far a run is."""

    EMPTY = "has no jobs"
    STARTING = "in progress"  # some process has it open for writing
    STOPPED = "stopped"  # jobs are left, and nobody sends them
    RUNNING = "all sent"  # what was started has not ended, as far as it was followed
    ENDED = "ended"


class AnswerStretch(msgspec.Struct, frozen=True, gc=False):
    """How many attempts were answered in the stretch that begins at `at`, seconds of the epoch.

    `refused` started nothing, for another reason than a throttle. Of `unknown` no answer says what became of them.
    """

    at: float
    started: int = 0
    throttled: int = 0
    refused: int = 0
    unknown: int = 0


class CodeCount(msgspec.Struct, frozen=True):
    """How many attempts ended with an error's code, and whether each of them surely started nothing."""

    code: str
    attempts: int
    surely_not_started: bool


class RunFigures(msgspec.Struct, frozen=True):
    """A run at the time `read_at`. It `began` with its first send and `ended` with its last answer.

    These are in seconds of the epoch. `stretches` have a length of `width` seconds each and follow one another
    without a gap. `curve` gives percentiles of the time from intent to answer, in seconds.
    """

    info: RunInfo
    read_at: float
    in_use: bool
    orders: Orders
    counts: Counts
    executions: Sequence[ExecutionCount]
    began: float | None = None
    ended: float | None = None
    width: float = 1.0
    stretches: Sequence[AnswerStretch] = ()
    codes: Sequence[CodeCount] = ()
    latency: Percentiles | None = None
    curve: Sequence[tuple[float, float]] = ()

    @property
    def phase(self) -> Phase:
        """How far the run is."""
        if self.in_use:
            return Phase.STARTING
        if not self.info.jobs:
            return Phase.EMPTY
        if self.counts[RowState.PENDING] or self.counts[RowState.INTENT]:
            return Phase.STOPPED
        return Phase.RUNNING if self.results[Result.OPEN] > self.untold else Phase.ENDED

    @property
    def results(self) -> dict[Result, int]:
        """How many of the started jobs succeeded, failed, and have not ended, as far as was seen."""
        return count_results(self.executions)

    @property
    def together(self) -> int:
        """How many of the started jobs share executions with others: which is whose cannot be told."""
        return sum(alike.rows for alike in self.executions if alike.ends)

    @property
    def untold(self) -> int:
        """How many of these count as not ended although all their executions have: those came to different things."""
        return sum(alike.rows for alike in self.executions if alike.is_untold)

    @property
    def tracked(self) -> int:
        """How many executions anything was seen of."""
        return sum(alike.rows for alike in self.executions if alike.status is not None or alike.gone)

    @property
    def answered(self) -> int:
        """Attempts that were answered, or whose answer was lost."""
        return sum(each.started + each.throttled + each.refused + each.unknown for each in self.stretches)

    @property
    def throttled(self) -> int:
        """Attempts that were throttled."""
        return sum(each.throttled for each in self.stretches)

    @property
    def duration(self) -> float | None:
        """Seconds from the first send to the last answer; None if nothing was sent."""
        return None if self.began is None or self.ended is None else self.ended - self.began

    @property
    def mean_rate(self) -> float | None:
        """Starts a second over the whole run; None if it took less than a second: a mean would say nothing."""
        if self.duration is None or self.duration < _SECOND:
            return None
        return sum(each.started for each in self.stretches) / self.duration

    @property
    def peak_rate(self) -> float:
        """Starts a second in the busiest stretch."""
        return max((each.started for each in self.stretches), default=0) / self.width

    @property
    def rate(self) -> float | None:
        """Starts a second of late; None if nobody has the run open for writing, or nothing was sent yet."""
        if not self.in_use or self.began is None:
            return None
        recent = max(_RECENT, 2 * self.width)
        since = max(self.began, self.read_at - recent)
        # A stretch that began earlier counts by its share after that time.
        started = sum(
            each.started * min(1.0, (each.at + self.width - since) / self.width)
            for each in self.stretches
            if each.at + self.width > since
        )
        return started / max(_SECOND, self.read_at - since)

    @property
    def remaining(self) -> float | None:
        """Seconds until the rest is sent at the current rate; None if that cannot be told."""
        left = self.counts[RowState.PENDING] + self.counts[RowState.INTENT]
        return None if not self.rate or not left else left / self.rate


def count_results(executions: Iterable[ExecutionCount]) -> dict[Result, int]:
    """Count the started jobs by what they came to, as far as was seen."""
    results = dict.fromkeys(Result, 0)
    for alike in executions:
        results[alike.judgement.result] += alike.rows
    return results


async def read_figures(view: RunView) -> RunFigures:
    """Read the figures that take no look at every row: cheap enough for once a second.

    Raises LedgerError.
    """
    in_use = await view.in_use()
    counts = await view.counts()
    executions = await view.execution_counts()
    activity = await view.activity()
    latencies = Times(await view.latencies())
    width, stretches = _stretches(activity)
    return RunFigures(
        info=view.info,
        read_at=steady_time(),
        in_use=in_use,
        orders=await view.orders(),
        counts=counts,
        executions=executions,
        began=activity.began,
        ended=activity.ended,
        width=width,
        stretches=stretches,
        codes=_codes(activity.attempts),
        latency=latencies.percentiles(),
        curve=list(latencies.curve()),
    )


def _stretches(activity: Activity) -> tuple[float, list[AnswerStretch]]:
    """Give the stretches without a gap, of a second at least, and their length."""
    width = max(_SECOND, activity.width)
    if activity.began is None or activity.ended is None:
        return width, []
    counted: dict[int, Counter[str]] = {}
    for count in activity.attempts:
        if kind := _kind(count):
            counted.setdefault(math.floor(count.at / width + 1e-6), Counter())[kind] += count.attempts
    if not counted:
        return width, []
    return width, [
        AnswerStretch(index * width, **counted.get(index, Counter())) for index in range(min(counted), max(counted) + 1)
    ]


def _kind(count: AttemptCount) -> str | None:
    """The field of a stretch that an answer counts in; None if it is no answer."""
    match count.event:
        case RowEvent.STARTED:
            return "started"
        case RowEvent.UNKNOWN | RowEvent.CRASH:
            return "unknown"
        case RowEvent.REFUSED | RowEvent.REJECTED:
            return "throttled" if is_throttle(count.code) else "refused"
        case _:
            return None


def is_throttle(code: str | None) -> bool:
    """Whether an error's code says that the quota was exceeded."""
    return code is not None and EXCEPTION_OF_CODE.get(code) is ThrottlingException


def _codes(attempts: Sequence[AttemptCount]) -> list[CodeCount]:
    """Count the errors by code, the most frequent first."""
    counted: Counter[tuple[str, bool]] = Counter()
    for count in attempts:
        if count.code is not None and _kind(count):
            counted[count.code, count.event in _REFUSALS] += count.attempts
    return [CodeCount(code, number, sure) for (code, sure), number in counted.most_common()]


# What takes every row


class NameFigures(msgspec.Struct, frozen=True):
    """What became of the jobs of a name; `durations` are None where none was seen to end."""

    name: str
    jobs: int
    started: int
    succeeded: int
    failed: int
    durations: Percentiles | None


class JobFigures(msgspec.Struct, frozen=True):
    """What the rows of a run came to.

    `maybe_twice` are started, and an earlier attempt may have started them as well. `longest`, `failed` and
    `names` are cut to what a page can list: `failed` of `failed_jobs`, `names` of `distinct_names`, the most frequent
    first.
    """

    sent_again: int
    maybe_twice: int
    durations: Percentiles | None
    longest: Sequence[TrackedExecution]
    failed: Sequence[TrackedExecution]
    failed_jobs: int
    names: Sequence[NameFigures]
    distinct_names: int


class JobTally:
    """Takes the rows of a run one by one."""

    def __init__(self) -> None:
        self._sent_again = self._maybe_twice = 0
        self._names: dict[str, _Name] = {}
        self._longest: list[tuple[float, int, TrackedExecution]] = []
        self._failed: list[TrackedExecution] = []
        self._failed_jobs = 0

    def add(self, row: LedgerRow, execution: TrackedExecution | None) -> None:
        """Count a row, with what is known of its execution."""
        self._sent_again += max(0, row.attempts - 1)
        self._maybe_twice += row.state is RowState.STARTED and row.doubts > 0
        name = self._names.setdefault(_name_of(row.request.job), _Name())
        name.jobs += 1
        if execution is None:
            return
        name.started += 1
        result = execution.judgement.result
        name.succeeded += result is Result.SUCCESS
        if result is Result.FAILURE:
            name.failed += 1
            self._failed_jobs += 1
            if len(self._failed) < _LISTED:
                self._failed.append(execution)
        if (seconds := duration_of(execution)) is not None:
            name.seconds[seconds] += 1
            entry = (seconds, -row.number, execution)
            if len(self._longest) < _LISTED:
                heapq.heappush(self._longest, entry)
            else:
                heapq.heappushpop(self._longest, entry)

    def figures(self) -> JobFigures:
        """Sum up."""
        most = heapq.nsmallest(_LISTED, self._names.items(), key=lambda item: (-item[1].jobs, item[0]))
        everything = Counter[float]()
        for name in self._names.values():
            everything.update(name.seconds)
        return JobFigures(
            sent_again=self._sent_again,
            maybe_twice=self._maybe_twice,
            durations=Times(everything.items()).percentiles(),
            longest=[execution for _, _, execution in sorted(self._longest, reverse=True)],
            failed=self._failed,
            failed_jobs=self._failed_jobs,
            names=[
                NameFigures(name, of.jobs, of.started, of.succeeded, of.failed, Times(of.seconds.items()).percentiles())
                for name, of in most
            ],
            distinct_names=len(self._names),
        )


class _Name:
    """The jobs of a name, while they are counted."""

    __slots__ = ("failed", "jobs", "seconds", "started", "succeeded")

    def __init__(self) -> None:
        self.jobs = self.started = self.succeeded = self.failed = 0
        self.seconds = Counter[float]()


def _name_of(job: Job) -> str:
    return RESTARTS if isinstance(job, RestartJob) else job.name


def duration_of(execution: TrackedExecution) -> float | None:
    """How long an execution ran, in seconds, by the service's times; None while it has not ended."""
    if execution.start_time is None or execution.end_time is None:
        return None
    return max(0.0, execution.end_time - execution.start_time)
