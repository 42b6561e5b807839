"""How the service's list behaves, by the executions in it of which it is known when they were started, and as what.

A start time may be stamped by another clock than that of the answers, be in coarse units, or be stamped anew when a job
leaves its queue; a job may be listed in other terms than it was sent in; and a list may show an execution late. None of
that is documented, so it is read off the run's own executions, the *witnesses*: their answers came with their ids.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from m2async.certainty.adopt import Attempt, ListedExecution, Margins
from m2async.ledger import AnsweredAttempt
from m2async.service import Job

ANY_TIME = 15 * 3_600.0
"""Seconds that start times may be off where nothing tells how far: as much as time zones are, and one hour."""

_UNITS = (3_600.0, 900.0, 600.0, 300.0, 60.0, 30.0, 15.0, 10.0, 5.0, 2.0, 1.0)
_ENOUGH = 5
"""Witnesses that must agree before others' start times are taken to be like theirs."""

_FURTHER = 1.5
"""By which factor others' start times may be further off than those of the witnesses."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What the witnesses tell of a list.

    Arguments:
        margins: how far start times may be off,
        ahead: besides so many seconds that they all are ahead.
        seen: how many witnesses in the list say so.
        missing: how many are not in the list, although they should be.
        kinds: the kinds of job of which some were listed as they were sent.
        until: when the last of those seen was sent, in seconds of the epoch by the service's clock: of what came later
            it is not known yet whether start times are still as they were.
        is_right: whether none says that start times are off.
    """

    margins: Margins
    ahead: float
    seen: int
    missing: int
    kinds: frozenset[type[Job]]
    until: float = -math.inf
    is_right: bool = True

    @property
    def tells_times(self) -> bool:
        """Whether it can be told from a start time when something was started: unless few say that it is off."""
        return self.seen >= _ENOUGH or self.is_right

    @property
    def is_sound(self) -> bool:
        """Whether the list is known to show what was started, and when."""
        return self.seen >= _ENOUGH and not self.missing

    def apart(self, expected: Margins) -> float:
        """Give the seconds after an attempt's end from which on another's window does not touch its own.

        Infinite where start times are not known to be as good as expected.
        """
        is_known = self.is_sound and self.kinds and self.is_right and self.margins == expected
        return expected.late + 2 * (expected.uncertainty + expected.resolution) if is_known else math.inf

    def holds_for(self, attempt: Attempt[Any]) -> bool:
        """Whether the list is known to show what was started, and when, up to the end of an attempt."""
        return self.is_sound and attempt.ended_at is not None and attempt.ended_at <= self.until

    def corrected(self, execution: ListedExecution) -> ListedExecution:
        """Give an execution with its start time by the clock of the service's answers."""
        return replace(execution, start_time=execution.start_time - self.ahead)


def calibrate(
    listed: Sequence[ListedExecution],
    witnesses: Iterable[AnsweredAttempt],
    margins: Margins,
    covered: Collection[tuple[float, float]],
    *,
    settled_before: float,
) -> Calibration:
    """Say what answered attempts, whose execution ids are known, show of a list.

    Arguments:
        listed: the executions of one application.
        witnesses: answered attempts of it.
        margins: how far start times are taken to be off where nothing shows that it is more.
        covered: the spans of start times, in seconds of the epoch, of which the list should hold all executions,
        settled_before: but for those of attempts that ended later than this, by the service's clock.
    """
    found, unit, finest = {execution.execution_id: execution for execution in listed}, _unit(listed), margins.resolution
    margins = replace(margins, resolution=max(finest, unit))
    # How far a start time is ahead, at least by the end of its exchange, and at most by the beginning.
    least, most, seen, missing = -ANY_TIME, ANY_TIME, 0, 0
    kinds: set[type[Job]] = set()
    until = -math.inf
    for witness in witnesses:
        execution = found.get(witness.execution_id)
        if execution is None:
            missing += witness.ended_before <= settled_before and _is_covered(witness, margins, covered)
            continue
        if execution.job == witness.job:
            kinds.add(type(witness.job))
        if witness.ended_before - witness.sent_after <= margins.vicinity:  # of others the times are hardly known
            seen += 1
            until = max(until, witness.sent_after)
            least = max(least, execution.start_time - witness.ended_before)
            most = min(most, execution.start_time - witness.sent_after)
    around, ahead = margins.uncertainty + margins.resolution, 0.0
    is_right = least <= around and most >= -around
    if seen and is_right:  # as far as a coarse unit lets it be seen
        off = max(-least, most) if unit > finest else 0.0
        margins = replace(margins, uncertainty=max(margins.uncertainty, off))
    elif seen > 1 and least <= most + around:  # all by the same; what is apart by more than a unit jitters
        ahead, jitter = (least + most) / 2, least - most
        off = margins.uncertainty + (_FURTHER * jitter if jitter > unit else 0.0)
        margins = replace(margins, uncertainty=max(off, -jitter / 2))
    elif seen:
        off = _FURTHER * max(least, -most)
        # Where it is later than the exchange it may be stamped when a job leaves its queue, whenever that is.
        late = ANY_TIME if least > around else margins.late
        margins = replace(margins, uncertainty=off, vicinity=max(margins.vicinity, off), late=late)
    return Calibration(margins, ahead, seen, missing, frozenset(kinds), until, is_right)


def _unit(listed: Sequence[ListedExecution]) -> float:
    """Give the unit that start times are in, as far as it is to be seen, in seconds; 0 for one that does not matter."""
    times = [execution.start_time for execution in listed]
    return next((unit for unit in _UNITS if times and all(time % unit == 0 for time in times)), 0.0)


def _is_covered(witness: AnsweredAttempt, margins: Margins, covered: Collection[tuple[float, float]]) -> bool:
    around = margins.uncertainty + margins.resolution
    first, last = witness.sent_after - around, witness.ended_before + margins.late + around
    return any(start <= first and last <= end for start, end in covered)
