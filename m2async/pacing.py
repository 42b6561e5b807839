"""Pacing: a token bucket as arithmetic on a passed-in time, and a first-come, first-served wait for its tokens."""

from __future__ import annotations

import asyncio
from collections import deque

_WHOLE = 1 - 1e-9  # a token, but for the rounding of times and rates


class TokenBucket:
    """A token bucket: `rate` tokens a second flow in, at most `burst` are kept, and it starts full.

    Over any window of t seconds it grants at most `burst + rate * t` tokens. Times are seconds of one
    monotonic clock of the caller's; a time before the latest one seen counts as the latest one.

    Raises ValueError unless `rate` is above 0 and `burst` at least 1.
    """

    __slots__ = ("_filled_at", "_tokens", "burst", "rate")

    def __init__(self, rate: float, burst: float = 1.0) -> None:
        if not 0 < rate < float("inf"):
            raise ValueError(f"rate must be above 0 and finite, not {rate}")
        if not 1 <= burst < float("inf"):
            raise ValueError(f"burst must be at least 1 and finite, not {burst}")
        self.rate = rate
        self.burst = burst
        self._tokens = float(burst)
        self._filled_at = float("-inf")

    def try_take(self, now: float) -> bool:
        """Take a token if there is one."""
        self._fill(now)
        if self._tokens < _WHOLE:
            return False
        self._tokens -= 1  # may leave a rounding error below zero, so that none is handed out for free
        return True

    def give_back(self) -> None:
        """Return a token that was taken and not used."""
        self._tokens = min(self.burst, self._tokens + 1)

    def next_token_at(self, now: float) -> float:
        """The earliest time at which `try_take` succeeds, if nobody else takes a token before."""
        self._fill(now)
        if self._tokens >= _WHOLE:
            return now
        return self._filled_at + (1 - self._tokens) / self.rate

    def _fill(self, now: float) -> None:
        if now > self._filled_at:
            gained = (now - self._filled_at) * self.rate
            self._tokens = min(self.burst, self._tokens + gained)
            self._filled_at = now


class Pacer:
    """Waits for a bucket's tokens in the order of arrival, with one timer whatever the number of waiters.

    A waiter that is cancelled leaves the queue; if its token was already granted, the next one gets it.
    """

    def __init__(self, bucket: TokenBucket) -> None:
        self.bucket = bucket
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    async def acquire(self) -> None:
        """Wait for a token and take it."""
        loop = asyncio.get_running_loop()
        if not self._waiters and self.bucket.try_take(loop.time()):
            return
        waiter = loop.create_future()
        self._waiters.append(waiter)
        self._grant()
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.bucket.give_back()
            self._grant()
            raise

    def _grant(self) -> None:
        """Hand out what tokens there are, and set the timer for the next one if somebody waits for it."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiters:
            if self._waiters[0].done():  # cancelled while it waited
                self._waiters.popleft()
            elif self.bucket.try_take(now):
                self._waiters.popleft().set_result(None)
            else:
                self._timer = loop.call_at(self.bucket.next_token_at(now), self._grant)
                return
