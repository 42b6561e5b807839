"""What throttled calls tell of a quota: how much was accepted between them, and in what time."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from typing import NamedTuple

from m2async.pacing.bucket import Grant

_REMEMBERED = 400
_ENOUGH = 100  # accepted calls, so that one more or less is 1 %


class Bounds(NamedTuple):
    """Between what rates a quota is, in calls a second, and how many accepted calls say so."""

    least: float
    most: float
    accepted: int


NOTHING_KNOWN = Bounds(0.0, math.inf, 0)


class Throttles:
    """The latest throttled calls, in the order of sending.

    A throttle says that the service's bucket was empty. Between two of them, d seconds apart, as many calls were
    accepted as flowed in, one more or one less: n accepted calls put the rate between (n - 1) / d and (n + 1) / d. The
    upper bound holds as long as the bucket did not overflow between them, so only runs of throttles count that follow
    each other closely.
    """

    def __init__(self) -> None:
        self._grants: list[Grant] = []

    def add(self, grant: Grant) -> None:
        """Note a throttled call; their answers may come in any order."""
        insort(self._grants, grant)
        del self._grants[:-_REMEMBERED]

    def calls_since_another(self, grant: Grant) -> float:
        """How many calls before `grant` another one was throttled; infinite if none was."""
        index = bisect_left(self._grants, grant)
        return grant.number - self._grants[index - 1].number if index else math.inf

    def bounds(self, *, until: float, gap: int, shortest: float, slack: float) -> Bounds:
        """Give the bounds that the newest run of throttles agrees on.

        Arguments:
            until: the time up to which calls were sent whose answers are all in.
            gap: the most calls between one throttle and the next of a run.
            shortest: pairs that are closer in time, in seconds, say nothing, as calls may have overtaken another.
            slack: by how many calls counts may be wrong for the same reason.
        """
        grants = self._grants
        last = len(grants) - 1
        while last >= 0 and grants[last].at > until:
            last -= 1
        found = NOTHING_KNOWN
        for first in range(last - 1, -1, -1):
            if grants[first + 1].number - grants[first].number > gap:
                break
            seconds = grants[last].at - grants[first].at
            if seconds <= shortest:
                continue
            accepted = grants[last].number - grants[first].number - (last - first)
            least, most = (accepted - 1 - slack) / seconds, (accepted + 1 + slack) / seconds
            if least > found.most or most < found.least:
                break  # it was another quota then
            found = Bounds(max(found.least, least), min(found.most, most), accepted)
            if accepted >= _ENOUGH:
                break
        return found
