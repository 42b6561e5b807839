"""How many attempts of one name may be under way: so few that what is lost of them can be told apart.

A job whose answer is lost is in doubt, and parameters are never echoed. Two doubts of one name whose windows of
possible start times touch cannot be told apart if one of them has started and the other has not. So with m attempts
whose windows could touch and a share p of answers lost, about p² (m - 1) of the rows are in such doubt at most: with
m = 1 + t/p² what ends unknown stays below the target t. `python -m benchmarks.one_name` measures it.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

CAREFUL = 0.001
"""The share of rows that may end unknown, by default."""

_LOST_BEFORE, _ANSWERS_BEFORE = 0.1, 20.0
"""What the share is taken to be before much is known: a tenth of twenty answers."""

_FADE = 0.999
"""What an answer weighs of the one after it: about the last thousand count."""

_AT_MOST = 3.0
"""After n answers in a row without a loss the share is at most 3 / n (the "rule of three", 95 % confidence)."""

_LATELY = 50
_PATIENCE, _TIMES_SLOWEST = 1.0, 3.0


@dataclass(frozen=True, slots=True)
class Certainty:
    """How sure it is to be what became of each job: the least share of rows that may end unknown.

    Arguments:
        target: the share, above 0 and below 1; 0 for one job of a name under way at once, and 1 where nothing waits.
    """

    target: float = CAREFUL

    @property
    def is_exact(self) -> bool:
        """Whether one job of a name goes at once, and the next when it has ended."""
        return self.target <= 0

    @property
    def is_fast(self) -> bool:
        """Whether nothing waits."""
        return self.target >= 1

    @classmethod
    def of(cls, given: str | float) -> Certainty:
        """Read `exact`, `careful`, `fast`, or a share as a number or as a text such as `0.001` or `0.1%`.

        Raises ValueError for anything else.
        """
        if given in _TARGETS:
            return cls(_TARGETS[given])
        share = given
        if isinstance(share, str):
            text = share.strip()
            try:
                share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
            except ValueError:
                share = math.nan
        if isinstance(share, bool) or not isinstance(share, float | int) or not 0 < share < 1:
            raise ValueError(
                f"certainty must be 'exact', 'careful', 'fast', or a share above 0 and below 1 such as 0.001 or 0.1%, "
                f"not {given!r}"
            )
        return cls(float(share))


_TARGETS: dict[str | float, float] = {"exact": 0.0, "careful": CAREFUL, "fast": 1.0}


class Law:
    """The answers of one name, and how many attempts may be under way because of them.

    Arguments:
        target: the share of rows that may end unknown.
    """

    __slots__ = ("_answers", "_answers_in_a_row", "_lost", "_slowest", "_target")

    def __init__(self, target: float) -> None:
        self._target = target
        self._lost, self._answers = _LOST_BEFORE, _ANSWERS_BEFORE
        self._answers_in_a_row: int | None = None  # since the last loss
        self._slowest: deque[float] = deque(maxlen=_LATELY)

    def answered(self, seconds: float) -> None:
        """Take note of an answer, whatever it said, that took so long."""
        self._lost, self._answers = self._lost * _FADE, self._answers * _FADE + 1
        self._slowest.append(seconds)
        if self._answers_in_a_row is not None:
            self._answers_in_a_row += 1

    def lost(self) -> None:
        """Take note of an answer that was lost."""
        self._lost, self._answers = self._lost * _FADE + 1, self._answers * _FADE + 1
        self._answers_in_a_row = 0

    @property
    def share_lost(self) -> float:
        """The share of answers that is lost lately; 0 as long as none was."""
        if self._answers_in_a_row is None:
            return 0.0
        share = self._lost / self._answers
        return min(share, _AT_MOST / self._answers_in_a_row) if self._answers_in_a_row else share

    @property
    def most_under_way(self) -> float:
        """How many attempts whose windows could touch may be under way; infinite as long as no answer was lost."""
        share = self.share_lost
        return 1 + self._target / share**2 if share else math.inf

    @property
    def patience(self) -> float:
        """Seconds after which an attempt that is under way is taken to hang, so that others wait for its end."""
        return max(_PATIENCE, _TIMES_SLOWEST * max(self._slowest, default=0.0))
