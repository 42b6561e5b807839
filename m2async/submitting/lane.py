"""What is under way of one name, and whether a further one may go: arithmetic on times that are passed in.

A name is an application and a job: what the service shows of an execution. Times are in seconds of one clock that never
goes back.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Hashable
from typing import NamedTuple

from m2async.certainty import Apart, Certainty, Law
from m2async.clock import CLOCK_TOLERANCE

WIDE = 2 * (CLOCK_TOLERANCE + 1.0)
"""Seconds by which windows of attempts are wider than these, by the clocks alone."""


class _Doubt(NamedTuple):
    """When an attempt whose answer was lost ended; whether its window is narrow where start times bound it at all.

    One that an earlier process left has no end: it is waited for until it is decided. Of one that is given up it will
    never be known what became of it.
    """

    ended: float
    is_narrow: bool
    is_given_up: bool = False

    def until(self, apart: Apart, wide: float) -> float:
        """Say from when on a further attempt's window does not touch its own; infinite if it must be decided first."""
        if self.is_narrow and apart.closely is not None:
            return self.ended + apart.closely
        return self.ended + (wide if self.is_given_up and apart.by_clocks == math.inf else apart.by_clocks)


class Lane:
    """The attempts of one name.

    Arguments:
        certainty: what is aimed at.
        late: seconds after its end in which an attempt may start its job, for all that is known of most.
    """

    __slots__ = ("_certainty", "_doubts", "_holds", "_law", "_sent", "_under_way", "_wide", "reserved")

    def __init__(self, certainty: Certainty, late: float) -> None:
        self.reserved: set[Hashable] = set()  # jobs that were let through and are about to be sent
        self._certainty = certainty
        self._wide = late + WIDE
        self._law = Law(certainty.target)
        self._under_way: dict[Hashable, float] = {}  # since when, the oldest first
        self._sent: deque[float] = deque()  # since the oldest that is under way
        self._doubts: dict[Hashable, _Doubt] = {}
        self._holds: dict[Hashable, float] = {}

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing that a further job could have to wait for, nor less that may be under way."""
        return not (self._under_way or self._doubts or self._holds or self.reserved or self.share_lost)

    @property
    def share_lost(self) -> float:
        """The share of answers that is lost lately; 0 if none was."""
        return self._law.share_lost

    def left_until(self, now: float) -> float:
        """Say until when it waits, at most, for what an earlier process left in doubt; now if for nothing of it."""
        if any(doubt.ended == math.inf for doubt in self._doubts.values()):
            return math.inf
        return max(now, *self._holds.values()) if self._holds else now

    def opens_at(self, now: float, apart: Apart, *, reserved: int = 0) -> float:
        """Say from when on a further job may be sent; infinite where something must end first.

        Arguments:
            now: the time.
            apart: how far attempts must be apart that their windows do not touch.
            reserved: how many count as sent besides.
        """
        if self._holds:
            self._holds = {job: until for job, until in self._holds.items() if until > now}
        if self._certainty.is_exact:
            is_free = not (self._under_way or self._doubts or reserved)
            return max(self._holds.values(), default=now) if is_free else math.inf
        until = [doubt.until(apart, self._wide) for doubt in self._doubts.values()]
        opens_at = max([now, *self._holds.values(), *until])
        if opens_at > now:
            return opens_at
        self._doubts.clear()  # whose windows are over
        if not self._under_way:
            return now if reserved < self._most else math.inf
        oldest = next(iter(self._under_way.values()))
        while self._sent[0] < oldest:
            self._sent.popleft()
        hangs = now - oldest >= 1.0 and now - oldest >= self._law.patience
        return math.inf if hangs or len(self._sent) + reserved >= self._most else now

    def send(self, job: Hashable, now: float) -> None:
        """Take note that a job is sent now, and not before, as where its turn came in a pause."""
        self.reserved.discard(job)
        self._under_way.pop(job, None)
        self._sent.append(now)
        self._under_way[job] = now

    def is_under_way(self, job: Hashable) -> bool:
        """Whether a job was sent and has not ended."""
        return job in self._under_way

    def answered(self, job: Hashable, now: float) -> None:
        """Take note of an answer to a job that is under way."""
        self._law.answered(now - self._under_way.get(job, now))

    def lost(self, job: Hashable, now: float, *, is_narrow: bool) -> None:
        """Take note that a job's answer is lost; its window is narrow where start times bound it now and later."""
        self._law.lost()
        self._doubts[job] = _Doubt(now, is_narrow)

    def look_for(self, job: Hashable) -> None:
        """Take note of a job that an earlier process left in doubt: it is waited for until it is decided."""
        self._doubts[job] = _Doubt(math.inf, is_narrow=False)

    def leave(self, job: Hashable) -> None:
        """Take note that a job is not about to be sent any more, or that its attempt ended."""
        self.reserved.discard(job)
        if self._under_way.pop(job, None) is not None and not self._under_way:
            self._sent.clear()

    def decided(self, job: Hashable, *, is_known: bool = True) -> None:
        """Take note that it is known what became of a job, or never will be: then its window counts till it is over."""
        doubt = self._doubts.pop(job, None)
        if is_known or self._certainty.is_exact:
            self._holds.pop(job, None)
        elif doubt is not None and doubt.ended < math.inf:
            self._doubts[job] = doubt._replace(is_given_up=True)

    def hold(self, job: Hashable, until: float) -> None:
        """Let nothing be sent before a time, unless it is known first what became of a job of an earlier process."""
        self._holds[job] = until

    @property
    def _most(self) -> float:
        most = self._law.most_under_way
        return most if most == math.inf else math.floor(most)
