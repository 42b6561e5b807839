"""A token bucket and what it hands out, as arithmetic on a passed-in time."""

from __future__ import annotations

from typing import NamedTuple

_WHOLE = 1 - 1e-9  # a token, but for the rounding of times and rates


class Grant(NamedTuple):
    """A token that was handed out: its number, counted up from 1, when, and the rate that held then."""

    number: int
    at: float
    rate: float


class TokenBucket:
    """A token bucket: `rate` tokens a second flow in, at most `burst` are kept, and it starts full.

    Over any window of t seconds it grants at most `burst + rate * t` tokens; if they were changed, the largest burst
    and what flowed in at each rate. Times are seconds of one monotonic clock of the caller's; a
    time before the latest one seen counts as the latest one.

    Raises ValueError unless `rate` is above 0 and `burst` at least 1.
    """

    __slots__ = ("_filled_at", "_full_at", "_paused_until", "_tokens", "burst", "rate")

    def __init__(self, rate: float, burst: float = 1.0) -> None:
        _check(rate, burst)
        self.rate: float = rate
        self.burst: float = burst
        self._tokens = float(burst)
        self._filled_at = float("-inf")
        self._full_at = float("-inf")
        self._paused_until = float("-inf")

    def try_take(self, now: float) -> bool:
        """Take a token if there is one."""
        self._fill(now)
        if self._tokens < _WHOLE or self._filled_at < self._paused_until:
            return False
        self._tokens -= 1  # may leave a rounding error below zero, so that none is handed out for free
        return True

    def give_back(self, taken_at: float, now: float) -> None:
        """Return a token that was taken and not used.

        It is lost if the bucket had no room for it at some time since: it would have flowed over.
        """
        self._fill(now)
        if self._full_at <= taken_at:
            self._tokens = min(self.burst, self._tokens + 1)

    def add(self, tokens: float, now: float) -> None:
        """Put in tokens, or parts of one, besides what flows in; what there is no room for is lost."""
        self._fill(now)
        self._tokens += tokens
        self._note_fullness()

    def next_token_at(self, now: float) -> float:
        """The earliest time at which `try_take` succeeds, if nobody else takes a token before."""
        self._fill(now)
        if self._tokens < _WHOLE:
            now = self._filled_at + (1 - self._tokens) / self.rate
        return max(now, self._paused_until)

    def set_rate(self, rate: float, burst: float, now: float) -> None:
        """Let another rate and burst hold from `now` on; what a larger burst adds has to flow in first.

        Raises ValueError as the bucket itself does.
        """
        _check(rate, burst)
        self._fill(now)
        self.rate = rate
        if burst != self.burst:
            self.burst = burst
            self._note_fullness()

    def pause(self, until: float) -> None:
        """Grant nothing before `until`; tokens go on flowing in."""
        self._paused_until = max(self._paused_until, until)

    def _fill(self, now: float) -> None:
        if now > self._filled_at:
            self._tokens += (now - self._filled_at) * self.rate
            self._filled_at = now
            self._note_fullness()

    def _note_fullness(self) -> None:
        """Cut off what is too much, and note when there was no room for a token that comes back."""
        if self._tokens > self.burst - 1:
            self._full_at = self._filled_at
            self._tokens = min(self.burst, self._tokens)


def _check(rate: float, burst: float) -> None:
    if not 0 < rate < float("inf"):
        raise ValueError(f"rate must be above 0 and finite, not {rate}")
    if not 1 <= burst < float("inf"):
        raise ValueError(f"burst must be at least 1 and finite, not {burst}")
