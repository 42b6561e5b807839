"""What to ask the service next of executions that have not ended: decisions, on times that are passed in."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from math import ceil
from typing import NamedTuple

PAGE = 2_000
"""Executions that one list shows (MaxResults)."""

IDS = 10
"""Executions that one list can be asked for by their ids (IdentifierList)."""

LIST_LAG = 10.0
"""Seconds in which a new execution may be missing from the service's list."""

GONE_AFTER = 600.0
"""Seconds for which an execution is looked for that the service does not show; a later command looks once more."""

_MISSED = 3
_MISSED_FOR = 30.0

_WORTH_IT = 0.1  # of the executions changed since the last look: look sooner
_NOT_WORTH_IT = 0.01  # look later


class OpenExecution(NamedTuple):
    """An execution to ask for, which started not before `since`, in seconds of the epoch by the service's clock."""

    since: float
    execution_id: str


class Lookup(NamedTuple):
    """What to list: all that started at `window` or later, None for nothing, and besides these executions by id."""

    window: float | None
    stragglers: Sequence[str]


def plan(wanted: Sequence[OpenExecution], started: Sequence[float]) -> Lookup:
    """Find the fewest calls that ask for every execution.

    The oldest are asked for by their ids where a window that holds them would hold too many others.

    Arguments:
        wanted: the executions of one application, the oldest first.
        started: when the application's executions started that were listed last, in order: how many a window shows.
    """
    best, fewest = Lookup(wanted[0].since, ()) if wanted else Lookup(None, ()), _pages(wanted, 0, started)
    for stragglers in range(IDS, len(wanted) + IDS, IDS):
        if stragglers / IDS > fewest:
            break
        by_id = wanted[:stragglers]
        calls = ceil(len(by_id) / IDS) + _pages(wanted, stragglers, started)
        if calls < fewest:
            window = wanted[stragglers].since if stragglers < len(wanted) else None
            best, fewest = Lookup(window, [each.execution_id for each in by_id]), calls
    return best


def _pages(wanted: Sequence[OpenExecution], first: int, started: Sequence[float]) -> int:
    """How many pages a window takes that begins with one of those that are wanted."""
    if first >= len(wanted):
        return 0
    listed = len(started) - bisect_left(started, wanted[first].since)
    return ceil(max(listed, len(wanted) - first) / PAGE)


def batches(execution_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """Divide ids into as many as one call takes."""
    for first in range(0, len(execution_ids), IDS):
        yield execution_ids[first : first + IDS]


def ask_alone_at(missed: int, since: float, now: float, asked: int) -> bool:
    """Whether an execution was missing so often and so long that it has to be asked for alone.

    That is after half a minute, and again whenever it has been missing for twice as long, as what the service shows may
    be further behind.

    Arguments:
        missed: how many looks have missed it.
        since: when the first of them was.
        now: the present time, by the same clock.
        asked: how often it was asked for alone.
    """
    return missed >= _MISSED and now - since >= min(GONE_AFTER, _MISSED_FOR * 2**asked)


def next_interval(interval: float, changed: int, open_before: int, *, shortest: float, longest: float) -> float:
    """Seconds to the next look, after one at which so many of the executions that were open had changed.

    It aims at changes of 1 to 10 % a look: longer while less changes, shorter while more does.
    """
    if changed >= _WORTH_IT * open_before:
        interval /= 2
    elif not changed:
        interval *= 1.5
    elif changed < _NOT_WORTH_IT * open_before:
        interval *= 1.25
    return min(longest, max(shortest, interval))
