"""One application's circuit: whether it is called at all, as arithmetic on a passed-in time."""

from __future__ import annotations

import math

FIRST_PAUSE = 5.0
"""Seconds until the first probe, unless told."""

LONGEST_PAUSE = 300.0
"""Seconds from one probe to the next, at most."""


class Circuit:
    """Keeps calls from an application that refuses them all, and finds out when it accepts them again.

    It is closed at first and admits every call. A refusal opens it for `first_pause` seconds; then one call at a time
    is admitted as a probe. If the probe is refused too, the next pause is twice as long, up to LONGEST_PAUSE; any other
    answer closes the circuit. Times are seconds of one monotonic clock of the caller's.
    """

    __slots__ = ("_first_pause", "_opened_at", "_pause", "_probing", "_until", "reason")

    def __init__(self, first_pause: float = FIRST_PAUSE) -> None:
        self.reason: str | None = None
        """Why it is open, or None while it is closed."""
        self._opened_at = -math.inf
        self._until = -math.inf
        self._first_pause = first_pause
        self._pause = 0.0
        self._probing = False

    @property
    def retry_at(self) -> float:
        """When a call may be admitted again: infinite while a probe is under way, and in the past when closed."""
        return math.inf if self._probing else self._until

    def try_admit(self, now: float) -> bool:
        """Admit a call, whose fate must then be told by one of the methods below."""
        if self.reason is None:
            return True
        if self._probing or now < self._until:
            return False
        self._probing = True
        return True

    def refused(self, reason: str, sent_at: float, now: float) -> None:
        """The application refused a call; those that were sent before the circuit opened say nothing new."""
        if sent_at < self._opened_at or (self.reason is not None and not self._probing):
            return
        self._pause = self._first_pause if self.reason is None else min(2 * self._pause, LONGEST_PAUSE)
        self.reason = reason
        self._opened_at = now
        self._until = now + self._pause
        self._probing = False

    def answered(self, sent_at: float) -> None:
        """The application answered a call in any other way."""
        if sent_at >= self._opened_at and (self.reason is None or self._probing):
            self.reason = None
            self._until = -math.inf
            self._probing = False

    def unanswered(self, sent_at: float) -> None:
        """A call that was admitted was not sent, or nobody knows its answer: another may be the probe."""
        if sent_at >= self._opened_at:
            self._probing = False
