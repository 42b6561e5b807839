"""Looking at a run again and again: its figures and its latest troubles, at the pace that the ledger can bear."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import NamedTuple

from m2async.clock import steady_time
from m2async.figures.figures import RunFigures, read_figures
from m2async.ledger import Ledger, LedgerRow, RowState, RunNotFoundError, RunView, TrackedExecution
from m2async.service import Result

SHORTEST = 1.0
"""Seconds from one look to the next, at least."""

_SHARE = 10.0  # the wait is so many times what a look costs
_LISTED = 50  # troubles that are listed
_READ = 500  # of each kind, before the latest are chosen


class Trouble(NamedTuple):
    """A job that is not as it should be: what it is, why, and when that was last written, in seconds of the epoch."""

    key: str
    job: str
    what: str
    reason: str
    at: float


class Look(NamedTuple):
    """What was seen of a run; `troubles` are the latest of `in_trouble` jobs, the latest first."""

    figures: RunFigures
    troubles: Sequence[Trouble]
    in_trouble: int


class Rhythm:
    """When to look again: looking takes a tenth of the time at most.

    The first look is not counted: it costs more than those that follow.
    """

    def __init__(self) -> None:
        self._is_first = True

    def wait_after(self, cost: float) -> float:
        """Give the seconds to wait after a look that took so many."""
        self._is_first, is_first = False, self._is_first
        return SHORTEST if is_first else max(SHORTEST, _SHARE * cost)


class Looks:
    """Looks at one run.

    Figures come from counts. Troubles may need every row, so they are read only when their number has changed, and no
    more often than their cost allows.
    """

    def __init__(self, view: RunView, clock: Callable[[], float] = perf_counter) -> None:
        self._view = view
        self._clock = clock
        self._troubles: Sequence[Trouble] = ()
        self._seen: tuple[int, ...] = (0, 0, 0)
        self._read_again_at = 0.0

    async def look(self) -> Look:
        """Look at it now; raises LedgerError."""
        figures = await read_figures(self._view)
        found = (figures.counts[RowState.UNKNOWN], figures.counts[RowState.REJECTED], figures.results[Result.FAILURE])
        began = self._clock()
        if found != self._seen and (began >= self._read_again_at or not figures.in_use):
            self._troubles = await _troubles(self._view, *found)
            self._seen, ended = found, self._clock()
            self._read_again_at = ended + _SHARE * (ended - began)
        return Look(figures, self._troubles, sum(found))


async def _troubles(view: RunView, unknown: int, rejected: int, failed: int) -> list[Trouble]:
    found: list[Trouble] = []
    if unknown:
        found += map(_of_row, await view.page(RowState.UNKNOWN, limit=_READ))
    if rejected:
        found += map(_of_row, await view.page(RowState.REJECTED, limit=_READ))
    if failed:
        found += map(_of_execution, await _failures(view))
    found.sort(key=lambda trouble: trouble.at, reverse=True)
    return found[:_LISTED]


async def _failures(view: RunView) -> list[TrackedExecution]:
    failures: list[TrackedExecution] = []
    async for execution in view.all_executions():
        if execution.judgement.result is Result.FAILURE:
            failures.append(execution)
            if len(failures) == _READ:
                break
    return failures


def _of_row(row: LedgerRow) -> Trouble:
    reason = f"{row.error_code}: {row.error_message}" if row.error_code else row.note or ""
    at = row.ended_at or row.sent_at or 0.0
    return Trouble(row.key, row.request.job.name, row.state.label, reason, at)


def _of_execution(execution: TrackedExecution) -> Trouble:
    at = execution.end_time or execution.sent_at
    return Trouble(execution.key, execution.job.name, "failed", execution.judgement.reason, at)


async def glance(ledger: Ledger) -> list[RunFigures]:
    """Look at all runs, the latest first: their states and results, not what was answered when."""
    glances = []
    for summary in reversed(await ledger.runs()):
        try:
            view = await ledger.run(summary.info.name)
            in_use = await view.in_use()
            executions = await view.execution_counts()
            orders = await view.orders()
        except RunNotFoundError:  # it was removed meanwhile
            continue
        glances.append(RunFigures(summary.info, steady_time(), in_use, orders, summary.counts, executions))
    return glances
