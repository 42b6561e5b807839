"""Which executions the attempts in doubt may have started, and which somebody else must have.

Another ledger or another program may start the same jobs, or this ledger may be an old copy of itself.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Container, Hashable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from heapq import heappop, heappush
from math import inf
from operator import itemgetter
from typing import Any

from m2async.certainty.adopt import Attempt, Id, ListedExecution, Margins
from m2async.certainty.calibration import ANY_TIME, Calibration
from m2async.ledger import ForeignExecution
from m2async.service import Job

_SHOWN = 100
"""Executions of a job that are shown as what a row may be, where they may be any row's."""


def not_explained(
    executions: Iterable[ListedExecution], attempts: Iterable[Attempt[Any]], margins: Margins
) -> list[ListedExecution]:
    """Give the executions that are more than the attempts of their application and job can have started.

    Arguments:
        executions: those that no row has claimed.
        attempts: every attempt that is under way or in doubt; each may have started one, within its window.
        margins: what is not known exactly about times.

    As many as possible are explained: each in turn, in the order of their start, by the attempt whose window ends first
    (F. Glover, "Maximum matching in a convex bipartite graph", 1967).
    """
    windows_of: dict[tuple[str, Hashable], list[tuple[float, float]]] = defaultdict(list)
    for attempt in attempts:
        windows_of[attempt.application_id, attempt.job].append(margins.window(attempt))
    listed_of: dict[tuple[str, Hashable], list[ListedExecution]] = defaultdict(list)
    for execution in sorted(executions, key=lambda each: each.start_time):
        listed_of[execution.application_id, execution.job].append(execution)
    return [each for of, listed in listed_of.items() for each in _left_over(listed, sorted(windows_of[of]))]


def foreign_among(
    executions: Sequence[ListedExecution],
    attempts: Sequence[Attempt[Any]],
    calibration: Calibration,
    *,
    unasked: Container[Hashable] = (),
    or_later: bool = False,
) -> list[ListedExecution]:
    """Give those that nothing explains, as far as the list can be relied on.

    `or_later` takes attempts for what started anything after them, too: a start can be stamped when its job leaves a
    queue, and how long others were in it says nothing of this one.

    Where it is not known when it shows things to have started, an attempt may have started what shows any time; where
    no job of a kind was seen to be listed as it was sent, one of any name. So some may be taken for ours that are not.
    That must not be where it lets a job start twice: `unasked` are the jobs that will be sent without being looked for,
    and of those all are given that nothing explains if the list is right.
    """
    margins = calibration.margins
    if not calibration.is_sound:
        margins = replace(margins, uncertainty=ANY_TIME)
    if or_later:
        attempts = [replace(attempt, ended_at=None, in_doubt=False) for attempt in attempts]
    left = _not_explained_as_listed(executions, attempts, calibration, margins)
    of_unasked = not_explained(executions, attempts, calibration.margins)
    foreign = {execution.execution_id for execution in left}
    foreign |= {execution.execution_id for execution in of_unasked if execution.job in unasked}
    return [execution for execution in executions if execution.execution_id in foreign]


class OutOfTime:
    """Executions that show a start at which no attempt can have started them, as far as is known of start times.

    Attempts in doubt may have started them all the same, or somebody else. An attempt that was sent after one was seen
    did not start it, whatever its time is said to be. They are kept by their ids while a run goes on.
    """

    def __init__(self) -> None:
        self._seen: dict[str, ListedExecution] = {}
        self._looks = 0
        self._listed: dict[str, int] = {}  # at which look it was listed first, of each that nothing has claimed
        self._opened: dict[Hashable, int] = {}  # at which look they were seen first, of all attempts that are open

    @property
    def ids(self) -> Set[str]:
        """Give the ids of all that was listed and that nothing has claimed."""
        return self._listed.keys()

    def by_job(self) -> dict[Hashable, tuple[str, ...]]:
        """Give their ids by the jobs that they are of: of each job the first hundred."""
        found = defaultdict[Hashable, list[str]](list)
        for id_, execution in self._seen.items():
            found[execution.job].append(id_)
        return {job: tuple(ids[:_SHOWN]) for job, ids in found.items()}

    def look(
        self,
        executions: Sequence[ListedExecution],
        attempts: Sequence[Attempt[Any]],
        calibration: Calibration,
        *,
        explained: Set[str],
        last: Mapping[Hashable, int],
    ) -> None:
        """Take note of those that a list shows, and forget those that are explained, or are within a window now.

        `last` is the number of the last attempt of each row: what was listed before that is not of a row sent again.
        """
        self._looks += 1
        opened = {each.id: (each.id, last.get(each.id)) for each in attempts}
        self._opened = {attempt: self._opened.get(attempt, self._looks) for attempt in opened.values()}
        for execution in executions:
            self._listed.setdefault(execution.execution_id, self._looks)
        margins = calibration.margins
        found = {each.execution_id for each in _not_explained_as_listed(executions, attempts, calibration, margins)}
        found |= self._listed_before(executions, attempts, calibration, opened)
        shown = {execution.execution_id: execution for execution in executions}
        kept = {id_: each for id_, each in self._seen.items() if id_ not in shown}
        kept |= {id_: each for id_, each in shown.items() if id_ in found}
        self._seen = {id_: each for id_, each in kept.items() if id_ not in explained}
        self._listed = {id_: look for id_, look in self._listed.items() if id_ not in explained}

    def _listed_before(
        self,
        executions: Iterable[ListedExecution],
        attempts: Iterable[Attempt[Any]],
        calibration: Calibration,
        opened: Mapping[Hashable, Hashable],
    ) -> set[str]:
        """Give those that were listed before any of the attempts was open in whose windows they are."""
        spans_of: dict[tuple[str, Hashable], list[tuple[float, float, int]]] = defaultdict(list)
        for attempt in attempts:
            span = *calibration.margins.window(attempt), self._opened[opened[attempt.id]]
            spans_of[attempt.application_id, _as_listed(attempt.job, calibration)].append(span)
        listed_of: dict[tuple[str, Hashable], list[ListedExecution]] = defaultdict(list)
        for execution in sorted(executions, key=lambda each: each.start_time):
            listed_of[execution.application_id, _as_listed(execution.job, calibration)].append(execution)
        return {
            execution.execution_id
            for of, listed in listed_of.items()
            for execution, first in zip(listed, _first_open(listed, sorted(spans_of[of])), strict=True)
            if first > self._listed[execution.execution_id]
        }


class StartedLater:
    """Executions that attempts in doubt may have started later than a service is taken to start a job.

    Of each attempt those count that the first look of late showed which says that it started nothing: had all been
    explained then, it would not be looked for any more. So others of its name may go on meanwhile.
    """

    def __init__(self) -> None:
        self._first: dict[Hashable, tuple[float, Set[str]]] = {}  # when that was, and what nothing had claimed

    def look(
        self,
        executions: Sequence[ListedExecution],
        attempts: Sequence[Attempt[Id]],
        margins: Margins,
        *,
        unclaimed: Set[str],
        last: Mapping[Id, int],
        now: float,
        is_complete: bool,
    ) -> dict[Id, Sequence[str]]:
        """Give the executions that attempts may have started late, by the ids of these.

        Arguments:
            executions: those of which it is not known whose they are. One whose job is not said may be of any.
            attempts: those that seem to have started nothing.
            margins: what is not known exactly about times.
            unclaimed: the ids of all that are listed and that nothing has claimed.
            last: the number of the last attempt of each row: one that was sent again is looked for anew.
            now: when this look began; the first is not to be longer ago than `Margins.vicinity`.
            is_complete: whether the list shows all that was started; else the next look may be the first.
        """
        self._first = {key: look for key, look in self._first.items() if look[0] >= now - margins.vicinity}
        shown_to: dict[Set[str], list[Attempt[Id]]] = defaultdict(list)
        for attempt in attempts:
            key = attempt.id, last[attempt.id]
            _, shown = self._first.setdefault(key, (now, unclaimed)) if is_complete else (now, unclaimed)
            shown_to[shown].append(attempt)
        found: dict[Id, Sequence[str]] = {}
        for shown, its_attempts in shown_to.items():
            found |= _started_later([each for each in executions if each.execution_id in shown], its_attempts, margins)
        return found


def _started_later(
    executions: Iterable[ListedExecution], attempts: Iterable[Attempt[Id]], margins: Margins
) -> dict[Id, Sequence[str]]:
    """Give those of the executions that show a start after the windows of attempts, by the ids of these."""
    listed_of: dict[tuple[str, Hashable], list[tuple[float, str]]] = defaultdict(list)
    for each in executions:
        listed_of[each.application_id, each.job].append((each.start_time, each.execution_id))
    for listed in listed_of.values():
        listed.sort()
    found: dict[Id, Sequence[str]] = {}
    for attempt in attempts:
        _, last = margins.window(attempt)
        for job in (attempt.job, None):
            listed = listed_of.get((attempt.application_id, job), [])
            first = bisect_right(listed, last, key=itemgetter(0))
            if first < len(listed):
                later = (id_ for _, id_ in listed[first : first + _SHOWN])
                found[attempt.id] = (*found.get(attempt.id, ()), *later)
    return found


def as_foreign(executions: Iterable[ListedExecution]) -> list[ForeignExecution]:
    """Give executions that nothing explains as a run keeps note of them: those whose job is said."""
    return [
        ForeignExecution(execution.execution_id, execution.application_id, execution.job, execution.start_time)
        for execution in executions
        if isinstance(execution.job, Job)
    ]


def _not_explained_as_listed(
    executions: Iterable[ListedExecution],
    attempts: Iterable[Attempt[Any]],
    calibration: Calibration,
    margins: Margins,
) -> list[ListedExecution]:
    """Give those that nothing explains, where a job of a kind that was never listed as sent may be any of that kind."""
    given = {execution.execution_id: execution for execution in executions}
    left = not_explained(
        [replace(execution, job=_as_listed(execution.job, calibration)) for execution in given.values()],
        [replace(attempt, job=_as_listed(attempt.job, calibration)) for attempt in attempts],
        margins,
    )
    return [given[each.execution_id] for each in left]


def _as_listed(job: Hashable, calibration: Calibration) -> Hashable:
    return job if type(job) in calibration.kinds else type(job)


def _first_open(executions: Iterable[ListedExecution], spans: Sequence[tuple[float, float, int]]) -> Iterator[float]:
    """Give the least number of the spans that hold each execution; both are in the order of their beginnings."""
    opened, begun = list[tuple[int, float]](), 0
    for execution in executions:
        while begun < len(spans) and spans[begun][0] <= execution.start_time:
            _, last, number = spans[begun]
            heappush(opened, (number, last))
            begun += 1
        while opened and opened[0][1] < execution.start_time:
            heappop(opened)
        yield opened[0][0] if opened else inf


def _left_over(executions: Sequence[ListedExecution], windows: Sequence[tuple[float, float]]) -> list[ListedExecution]:
    """Give the executions, in the order of their start, that are left over; the windows begin in order, too."""
    left, opened, begun = [], list[float](), 0
    for execution in executions:
        while begun < len(windows) and windows[begun][0] <= execution.start_time:
            heappush(opened, windows[begun][1])
            begun += 1
        while opened and opened[0] < execution.start_time:
            heappop(opened)
        if opened:
            heappop(opened)
        else:
            left.append(execution)
    return left
