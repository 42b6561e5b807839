"""Which execution belongs to which call of unknown effect: a pure matching, decided as a whole.

A StartBatchJob call whose answer was lost may have started its job or not. The service has no client token and shows
no parameters, so the only traces are an execution's application, its job and its start time. This module weighs all
open attempts against all unclaimed executions at once, and says only what holds in every possible world.

**What is taken for granted.** An attempt started at most one execution, which shows a start time within its window
(`Margins.window`). An execution belongs to at most one attempt, or to somebody else: then it is *foreign*. All that
this side may have started is accounted for: its id is claimed, or its attempt is among those passed in. An execution
belongs only to an attempt of its own application and job; where the service did not say its job, to any attempt of
the application, or to nobody here.

**The possible worlds** are the ways to give executions to attempts under these rules that leave the fewest executions
foreign (those of unsaid job do not count: nothing says that they are of a job that was attempted). Fewest, because
otherwise nothing could ever be claimed: any execution may be foreign and any attempt without effect. While nobody
else starts the same job no execution is foreign, so the truth is one of these worlds, and what holds in all is true.

**What is said of a job** follows from the worlds:

- `NotStarted` if it has no execution in any of them, and `Adopted` if it has the same executions in all of them, at
  least one; and in none of them is an execution of its application and job foreign and within `Margins.vicinity` of one
  of its windows. Somebody who is seen to start this very job may as well have started the execution that seems to be
  ours; and an execution that no attempt explains may be ours, if its time is further off than it is taken to be.
- `StartedTogether`, by the same caution, if it and others have as many executions between them as attempts in every
  world: all of them were started, and only which execution is whose differs from world to world. Each of them has one
  attempt of unknown effect, and all are to be decided.
- `Ambiguous` in every other case. It is not for ever: an attempt in flight that is answered, with an id or a refusal,
  takes worlds away and, where nothing is foreign, never adds one. So what was decided stays, and more can be.

**How it is computed.** For each application and job, an attempt's candidates are neighbours in the order of start, so
a maximum matching is found greedily (F. Glover, "Maximum matching in a convex bipartite graph", 1967). The worlds are
the maximum matchings, and one tells all: an edge is in some of them if it is in this one, or lies on an alternating
cycle or on an alternating path of even length from an unmatched node (C. Berge, "Two theorems in graph theory", 1957;
A. L. Dulmage and N. S. Mendelsohn, "Coverings of bipartite graphs", 1958). Edges are never listed: all is done on
ranges, after sorting in at most O(n log² n) for n attempts and O(m) for m executions.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Container, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Generic, TypeVar, overload

from m2async.certainty.worlds import Worlds
from m2async.clock import CLOCK_TOLERANCE

Id = TypeVar("Id", bound=Hashable)
MOST_TOGETHER = 500
"""Attempts of which it is said that they were started together, at most: each of them names the executions of all."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_SECOND = 253_402_300_799
"""The last second that a timestamp can bear: the end of the year 9999."""


@dataclass(frozen=True, slots=True)
class Attempt(Generic[Id]):
    """One StartBatchJob call that was sent and whose effect is not known.

    Arguments:
        id: whose attempt it is, in the caller's terms. Several attempts may bear one id, as those of a job that was
            sent again after doubt: they are decided together, and which of them started what does not matter.
        application_id: the application it was sent to.
        job: what was to be started, as ListedExecution has it: any hashable value but None, such as a `jobs.Job`.
        sent_at: when its first byte may have been sent, in seconds of the epoch by the local clock.
        ended_at: when it was given up or answered, by the same clock; None while it is in flight. Where a crash took
            that time away, the time of the recovery is a safe bound.
        in_doubt: whether to decide it. True only if it ended at least a settling delay before the executions were
            listed, and the delay covers `Margins.late` as well as the lag of the list. Otherwise it just competes for
            executions, and its id is not decided.

    Raises ValueError for an attempt that is in flight and in doubt, and for one without a job.
    """

    id: Id
    application_id: str
    job: Hashable
    sent_at: float
    ended_at: float | None
    in_doubt: bool

    def __post_init__(self) -> None:
        if self.in_doubt and self.ended_at is None:
            raise ValueError(f"attempt {self.id!r} is in flight, so it cannot be decided")
        if self.job is None:
            raise ValueError(f"attempt {self.id!r} has no job")


@dataclass(frozen=True, slots=True)
class ListedExecution:
    """One execution as the service lists it.

    `job` is None if the service did not say in known terms what was started; `start_time` is in seconds of the epoch by
    the service's clock.
    """

    execution_id: str
    application_id: str
    job: Hashable
    start_time: float


@dataclass(frozen=True, slots=True)
class Margins:
    """What is not known exactly about times; all in seconds, finite and not negative.

    Arguments:
        resolution: the unit of the start times that the service lists: 1 for whole seconds, 0.001 for milliseconds.
        uncertainty: how far the service's clock may be from the local one, either way. Too small a value takes an
            execution for foreign and its attempt for not started, so it belongs on the safe side. A known offset is to
            be added to the attempts' times beforehand.
        late: how long after an attempt's end the service may still start its job. The settling delay is the natural
            value: what starts later than that is not waited for either.
        vicinity: how far from an attempt's window a foreign execution of the same job makes it unclear. If
            others start that job evenly at some rate and none is seen within `vicinity` of a window of w seconds, then
            one is within the window with a probability of at most about 3 * w / (2 * vicinity) (the "rule of three",
            95 % confidence).

    Raises ValueError for a value that is negative or not finite.
    """

    resolution: float = 1.0
    uncertainty: float = CLOCK_TOLERANCE
    late: float = 5.0
    vicinity: float = 60.0

    def __post_init__(self) -> None:
        for name in ("resolution", "uncertainty", "late", "vicinity"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be a finite number of seconds and not negative, not {value}")

    def window(self, attempt: Attempt[Id]) -> tuple[float, float]:
        """Give the earliest and the latest start time that an execution started by the attempt can show.

        The service starts it after the first byte was sent and, as bytes may wait in buffers and a server may go on
        after its client is gone or has been told of an error, at most `late` after the attempt's end. At that moment
        the service's clock is within `uncertainty` of the local one. What it shows is that time cut or rounded to its
        resolution, so it can be up to one unit early (cut) or late (rounded up). While the attempt is in flight there
        is no upper bound. An end before the sending means that the local clock was set back in between; then
        either of the two may be wrong, and the window spans both.
        """
        around = self.uncertainty + self.resolution
        if attempt.ended_at is None:
            return attempt.sent_at - around, math.inf
        first, last = sorted((attempt.sent_at, attempt.ended_at))
        return first - around, last + self.late + around


@dataclass(frozen=True, slots=True)
class Adopted:
    """The job was started, and as these executions, in the order of their start: more than one if it was resent."""

    execution_ids: tuple[str, ...]

    @property
    def execution_id(self) -> str:
        """The execution that was started first."""
        return self.execution_ids[0]


@dataclass(frozen=True, slots=True)
class NotStarted:
    """No listed execution can be the job's, so it may be sent again."""


@dataclass(frozen=True, slots=True)
class StartedTogether:
    """The jobs of these ids were started as these executions, one each: only which is whose cannot be told.

    `ids` are in the order in which they were sent, `execution_ids` in that of their start; there are as many of them.
    """

    ids: tuple[Hashable, ...]
    execution_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ambiguous:
    """It cannot be told which executions are the job's, if any.

    `candidates` are the ids of all executions that its windows allow, those of its job before those of unsaid job, each
    in the order of their start; where there are none, those of its job nearby that are foreign in some world.
    `surely_started` says that one of its attempts has an execution in every possible world and none nearby is foreign:
    only its id cannot be told.
    """

    candidates: Sequence[str]
    surely_started: bool


Decision = Adopted | NotStarted | StartedTogether | Ambiguous
"""What is found out about a job whose answer was lost."""


@dataclass(frozen=True, slots=True)
class ListingWindow:
    """The arguments of ListBatchJobExecutions that show what a decision needs."""

    started_after: datetime
    started_before: datetime


_DEFAULT_MARGINS = Margins()


def decide(
    attempts: Iterable[Attempt[Id]],
    executions: Iterable[ListedExecution],
    *,
    claimed: Container[str] = frozenset(),
    margins: Margins = _DEFAULT_MARGINS,
) -> dict[Id, Decision]:
    """Decide every id whose attempts are all in doubt.

    Arguments:
        attempts: every attempt of unknown effect: in doubt, settling, and in flight, and also those of jobs that have
            been started by another attempt. To be read after the executions were listed, as `claimed` is, so that no
            execution stands without its attempt.
        executions: what was listed, at least all that started within the `listing_windows`; one that is listed twice
            counts once. If some are missing, an adopted id is still the job's, but a job may be not started wrongly.
        claimed: the ids of executions that are known to belong to something else.
        margins: what is not known exactly about times.

    Gives the ids in the order of their first attempt. No execution is adopted by two of them.
    """
    open_attempts = list(attempts)
    attempts_of: dict[tuple[str, Hashable], list[int]] = defaultdict(list)
    for number, attempt in enumerate(open_attempts):
        attempts_of[attempt.application_id, attempt.job].append(number)
    listed_of = _by_job(executions, claimed)

    findings: dict[int, _AttemptFinding] = {}
    together: dict[Id, StartedTogether] = {}
    once = {id_ for id_, count in Counter(attempt.id for attempt in open_attempts).items() if count == 1}
    for (application_id, job), numbers in attempts_of.items():
        listed = listed_of.get((application_id, job), _NOTHING_LISTED)
        unsaid = listed_of.get((application_id, None), _NOTHING_LISTED)
        its_attempts = [open_attempts[number] for number in numbers]
        found = _examine(its_attempts, listed, unsaid, margins)
        findings.update(zip(numbers, found, strict=True))
        together |= _together(its_attempts, found, once)

    findings_of: dict[Id, list[_AttemptFinding]] = defaultdict(list)
    for number, attempt in enumerate(open_attempts):
        findings_of[attempt.id].append(findings[number])
    waiting = {attempt.id for attempt in open_attempts if not attempt.in_doubt}
    return {id_: together.get(id_) or _decision(found) for id_, found in findings_of.items() if id_ not in waiting}


def listing_windows(
    attempts: Iterable[Attempt[Id]], margins: Margins = _DEFAULT_MARGINS
) -> dict[str, list[ListingWindow]]:
    """Tell for each application what to list before its attempts in doubt are decided.

    The windows span those of the attempts in doubt and their `vicinity`, in which foreign executions would show; the
    others need nothing listed. They reach one unit of the service's resolution, at least a second, further out, as its
    filters may be exclusive and may compare times that are cut or rounded; and they end on whole seconds, which every
    form of a timestamp carries. Those that overlap or touch are merged; they come in the order of time.
    """
    unit = math.ceil(max(1.0, margins.resolution))
    spans: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for attempt in attempts:
        if attempt.in_doubt:
            earliest, latest = margins.window(attempt)
            after = math.floor(earliest - margins.vicinity) - unit
            before = math.ceil(latest + margins.vicinity) + unit
            spans[attempt.application_id].append((after, before))
    return {
        application_id: [ListingWindow(_datetime(after), _datetime(before)) for after, before in _merged(windows)]
        for application_id, windows in spans.items()
    }


def listing_window(first: float, last: float) -> ListingWindow:
    """Tell what to list for the start times of a stretch of time, in seconds of the epoch."""
    return ListingWindow(_datetime(math.floor(first) - 1), _datetime(math.ceil(last) + 1))


# From what was found about each attempt to what is said about an id


@dataclass(frozen=True, slots=True)
class _AttemptFinding:
    """What all worlds say about one attempt.

    `execution` is the one it has in some world, as its start time and id. `is_fixed` says that the id to which the
    attempt belongs keeps the same executions through it and its like in all worlds; `is_certain`, that the attempt
    itself has an execution in all of them. `foreign` are those in its vicinity that are foreign in some of them.
    `cluster` is the mark that it shares with those with which it may exchange executions.
    """

    candidates: tuple[_ExecutionRange, ...]
    execution: tuple[float, str] | None
    is_fixed: bool
    is_certain: bool
    foreign: _ExecutionRange
    cluster: Hashable

    @property
    def is_clear(self) -> bool:
        """Whether none in its vicinity is foreign in any of them."""
        return not self.foreign


def _together(
    attempts: Sequence[Attempt[Id]], findings: Sequence[_AttemptFinding], once: Container[Id]
) -> dict[Id, StartedTogether]:
    """Find those of one application and job that have as many executions together as attempts.

    Attempts that may exchange executions, and each have one in every world, share exactly those. `once` are the ids
    that have one attempt.
    """
    sharing: dict[Hashable, list[int]] = defaultdict(list)
    for number, finding in enumerate(findings):
        if finding.execution is not None:
            sharing[finding.cluster].append(number)
    together: dict[Id, StartedTogether] = {}
    for numbers in sharing.values():
        if 1 < len(numbers) <= MOST_TOGETHER and all(
            findings[number].is_certain
            and findings[number].is_clear
            and attempts[number].in_doubt
            and attempts[number].id in once
            for number in numbers
        ):
            ids = [attempts[number].id for number in sorted(numbers, key=lambda n: _in_order(attempts[n]))]
            executions = sorted(execution for n in numbers if (execution := findings[n].execution) is not None)
            group = StartedTogether(tuple(ids), tuple(execution_id for _, execution_id in executions))
            together |= dict.fromkeys(ids, group)
    return together


def _in_order(attempt: Attempt[Id]) -> tuple[float, float, str]:
    return attempt.sent_at, attempt.ended_at or 0.0, repr(attempt.id)


def _decision(findings: Sequence[_AttemptFinding]) -> Decision:
    is_fixed = all(finding.is_fixed for finding in findings)
    is_clear = all(finding.is_clear for finding in findings)
    executions = sorted(finding.execution for finding in findings if finding.execution is not None)
    if is_fixed and is_clear:
        return Adopted(tuple(execution_id for _, execution_id in executions)) if executions else NotStarted()
    candidates = _Candidates([span for finding in findings for span in finding.candidates])
    return Ambiguous(
        candidates or _Candidates([finding.foreign for finding in findings]),
        is_clear and any(finding.is_certain for finding in findings),
    )


# The executions of one application and job, in the order of their start


class _Listed:
    """Executions in the order of their start; their positions in it are what the matching works on."""

    __slots__ = ("ids", "starts")

    def __init__(self, starts: list[float], ids: list[str]) -> None:
        self.starts = starts
        self.ids = ids

    @classmethod
    def of(cls, executions: Iterable[ListedExecution]) -> _Listed:
        ordered = sorted((execution.start_time, execution.execution_id) for execution in executions)
        return cls([start for start, _ in ordered], [execution_id for _, execution_id in ordered])

    def __len__(self) -> int:
        return len(self.ids)

    def only(self, positions: Sequence[int]) -> _Listed:
        """Give some of them, by their positions in ascending order."""
        return _Listed([self.starts[position] for position in positions], [self.ids[p] for p in positions])

    def between(self, earliest: float, latest: float) -> _ExecutionRange:
        """Give those that started within the two times, both included."""
        return _ExecutionRange(self, bisect_left(self.starts, earliest), bisect_right(self.starts, latest))


@dataclass(frozen=True, slots=True, eq=False)
class _ExecutionRange:
    """Consecutive executions: the positions from `first` up to, but not including, `end`."""

    listed: _Listed
    first: int
    end: int

    def __len__(self) -> int:
        return self.end - self.first


class _Candidates(Sequence[str]):
    """The ids of some spans, each once, without a copy: thousands of attempts may share thousands of candidates."""

    __slots__ = ("_spans",)

    def __init__(self, spans: Iterable[_ExecutionRange]) -> None:
        ranges_of: dict[_Listed, list[tuple[int, int]]] = defaultdict(list)
        for span in spans:
            ranges_of[span.listed] += [(span.first, span.end)] if span else []
        self._spans = [
            _ExecutionRange(listed, first, end)
            for listed, ranges in ranges_of.items()
            for first, end in _merged(ranges)
        ]

    def __len__(self) -> int:
        return sum(map(len, self._spans))

    def __iter__(self) -> Iterator[str]:
        for span in self._spans:
            yield from span.listed.ids[span.first : span.end]

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...
    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        return tuple(self)[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and not isinstance(other, str) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return repr(tuple(self))


_NOTHING_LISTED = _Listed([], [])


def _by_job(executions: Iterable[ListedExecution], claimed: Container[str]) -> dict[tuple[str, Hashable], _Listed]:
    unclaimed = {execution.execution_id: execution for execution in executions if execution.execution_id not in claimed}
    executions_of: dict[tuple[str, Hashable], list[ListedExecution]] = defaultdict(list)
    for execution in unclaimed.values():
        executions_of[execution.application_id, execution.job].append(execution)
    return {key: _Listed.of(group) for key, group in executions_of.items()}


# All possible worlds of one application and job


def _examine(
    attempts: Sequence[Attempt[Id]], listed: _Listed, unsaid: _Listed, margins: Margins
) -> list[_AttemptFinding]:
    """Find what all worlds say about each attempt of one application and job."""
    windows = [margins.window(attempt) for attempt in attempts]
    spans = [listed.between(*window) for window in windows]
    others = [unsaid.between(*window) for window in windows]
    worlds = Worlds([(span.first, span.end) for span in spans], len(listed))

    foreign = listed.only(worlds.foreign)
    ids_in: dict[Hashable, set[Id]] = defaultdict(set)
    for number, attempt in enumerate(attempts):
        ids_in[worlds.cluster[number]].add(attempt.id)

    findings: list[_AttemptFinding] = []
    for number, (earliest, latest) in enumerate(windows):
        span, other, position = spans[number], others[number], worlds.execution[number]
        # In some world it has no execution of its job, so that it may have one of unsaid job there.
        may_have_other = bool(other) and not worlds.is_certain[number]
        # Whether it may swap its execution for a foreign one need not be asked: then it is not clear in any case.
        keeps_its_own = not span or len(ids_in[worlds.cluster[number]]) == 1
        findings.append(
            _AttemptFinding(
                candidates=(span, other),
                execution=None if position is None else (listed.starts[position], listed.ids[position]),
                is_fixed=keeps_its_own and not may_have_other,
                is_certain=worlds.is_certain[number],
                foreign=foreign.between(earliest - margins.vicinity, latest + margins.vicinity),
                cluster=worlds.cluster[number],
            )
        )
    return findings


# Ranges and times


def _merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Merge the ranges that overlap or touch."""
    merged: list[tuple[int, int]] = []
    for first, end in sorted(ranges):
        if merged and first <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(merged[-1][1], end)
        else:
            merged.append((first, end))
    return merged


def _datetime(seconds: int) -> datetime:
    return _EPOCH + timedelta(seconds=min(max(seconds, 0), _LAST_SECOND))
