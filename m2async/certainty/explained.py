"""Which executions the attempts in doubt may have started, and which somebody else must have.

Another ledger or another program may start the same jobs, or this ledger may be an old copy of itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Hashable, Iterable, Sequence
from dataclasses import replace
from heapq import heappop, heappush
from typing import Any

from m2async.certainty.adopt import Attempt, ListedExecution, Margins
from m2async.certainty.calibration import ANY_TIME, Calibration
from m2async.ledger import ForeignExecution
from m2async.service import Job


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
) -> list[ListedExecution]:
    """Give those that nothing explains, as far as the list can be relied on.

    Where it is not known when it shows things to have started, an attempt may have started what shows any time; where
    no job of a kind was seen to be listed as it was sent, one of any name. So some may be taken for ours that are not.
    That must not be where it lets a job start twice: `unasked` are the jobs that will be sent without being looked for,
    and of those all are given that nothing explains if the list is right.
    """
    margins = calibration.margins
    if not calibration.is_sound:
        margins = replace(margins, uncertainty=ANY_TIME)

    def as_listed(job: Hashable) -> Hashable:
        return job if type(job) in calibration.kinds else type(job)

    left = not_explained(
        [replace(execution, job=as_listed(execution.job)) for execution in executions],
        [replace(attempt, job=as_listed(attempt.job)) for attempt in attempts],
        margins,
    )
    of_unasked = not_explained(executions, attempts, calibration.margins)
    foreign = {execution.execution_id for execution in left}
    foreign |= {execution.execution_id for execution in of_unasked if execution.job in unasked}
    return [execution for execution in executions if execution.execution_id in foreign]


def as_foreign(executions: Iterable[ListedExecution]) -> list[ForeignExecution]:
    """Give executions that nothing explains as a run keeps note of them: those whose job is said."""
    return [
        ForeignExecution(execution.execution_id, execution.application_id, execution.job, execution.start_time)
        for execution in executions
        if isinstance(execution.job, Job)
    ]


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
