"""The wait for a token: one timer and a queue of futures."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from m2async.loops import Home
from m2async.pacing.adaptive import AdaptiveRate
from m2async.pacing.bucket import Grant, TokenBucket
from m2async.pacing.turns import Flow, Turns

_WORTH_A_TIMER = 0.001  # seconds


class Pacer:
    """Hands out a bucket's tokens in the order of arrival, with one timer whatever the number of waiters.

    Arguments:
        bucket: whose tokens they are; one for each account, region and operation.
        controller: sets the bucket's rate and burst, from what it is told of the calls' answers.

    A waiter that is cancelled leaves the queue; if its token was already granted, the next one gets it. Every method
    is called in the event loop. One event loop after another may use it, as where each invocation has its own: its
    tokens and what it learned stay.

    Raises WrongEventLoopError where another event loop still uses it, and in a process forked from the one that did.
    """

    def __init__(self, bucket: TokenBucket, controller: AdaptiveRate | None = None) -> None:
        self.bucket = bucket
        self.controller = controller
        self._turns = Turns()
        self._flow = Flow()
        self._wanted: dict[asyncio.Future[Grant | None], Callable[[], bool]] = {}
        self._granted = 0
        self._home: Home | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._wakes_at = 0.0
        self._follow_controller(float("-inf"))

    def try_acquire(self, *, own: TokenBucket | None = None) -> Grant | None:
        """Take a token if there is one and nobody waits; `own` as in `acquire`."""
        now = self._own_loop().time()
        if self._turns.must_wait(own) or not self.bucket.try_take(now):
            return None
        if own is not None and not own.try_take(now):
            self.bucket.give_back(now, now)
            return None
        return self._grant(now)

    async def acquire(self, *, flow: Flow | None = None, own: TokenBucket | None = None) -> Grant:
        """Wait for a token and take it; the arguments are those of `acquire_if`."""
        grant = await self.acquire_if(lambda: True, flow=flow, own=own)
        assert grant is not None  # noqa: S101 - it was wanted
        return grant

    async def acquire_if(
        self, wanted: Callable[[], bool], *, flow: Flow | None = None, own: TokenBucket | None = None
    ) -> Grant | None:
        """Wait for a token and take it, or give None if it is wanted no more when the turn comes: the next one gets it.

        Arguments:
            wanted: whether the token still is, asked when the turn comes.
            flow: for whom, where several share the pacer by weight.
            own: a second bucket, such as one application's, that a token is needed of as well; while it has none,
                others go first.
        """
        grant = self.try_acquire(own=own)
        if grant is not None:
            if wanted():
                return grant
            self.give_back(grant, own=own)
            return None
        loop = self._own_loop()
        waiter: asyncio.Future[Grant | None] = loop.create_future()
        self._wanted[waiter] = wanted
        self._turns.add(waiter, flow or self._flow, own, loop.time())
        self._set_timer(loop)
        try:
            return await waiter
        except asyncio.CancelledError:
            granted = waiter.result() if waiter.done() and not waiter.cancelled() else None
            if granted is not None:
                self.give_back(granted, own=own)
            raise
        finally:
            self._wanted.pop(waiter, None)

    def give_back(self, grant: Grant, *, own: TokenBucket | None = None) -> None:
        """Take back a token that was not used, for the next one who waits; `own` as in `acquire`."""
        now = self._own_loop().time()
        self.bucket.give_back(grant.at, now)
        if own is not None:
            own.give_back(grant.at, now)
        self._hand_out()

    def answered(self, grant: Grant) -> None:
        """Tell the controller of a call that was not throttled, whatever else its answer was."""
        if self.controller is not None:
            loop = self._own_loop()
            now = loop.time()
            self.controller.answered(grant, now)
            if self._follow_controller(now):
                self._set_timer(loop)

    def throttled(self, grant: Grant, retry_after: float | None = None) -> None:
        """Tell of a throttled call, and for how many seconds all are to wait, if its answer said so."""
        loop = self._own_loop()
        now = loop.time()
        if self.controller is not None:
            self.controller.throttled(grant, now, retry_after)
            self._follow_controller(now)
        elif retry_after:
            self.bucket.pause(now + retry_after)

    def set_rate(self, rate: float, burst: float) -> None:
        """Pace by another rate and burst from now on; a controller goes on as a guard under them."""
        loop = self._own_loop()
        self.bucket.set_rate(rate, burst, loop.time())
        if self.controller is not None:
            self.controller = AdaptiveRate(rate, burst)
        self._hand_out()

    def _follow_controller(self, now: float) -> bool:
        """Let the bucket be as the controller says; tells whether its rate or burst changed."""
        controller, bucket = self.controller, self.bucket
        if controller is None:
            return False
        bucket.pause(controller.paused_until)
        if controller.rate == bucket.rate and controller.burst == bucket.burst:
            return False
        bucket.set_rate(controller.rate, controller.burst, now)
        return True

    def _own_loop(self) -> asyncio.AbstractEventLoop:
        """Give the event loop that runs here, which the pacer now belongs to; one before may not need it any more."""
        home = self._home
        if home is None or not home.is_here:
            if home is not None and (home.is_forked or self._is_needed_in(home.loop)):
                home.check()
            home = self._home = Home("the pacer")
            # Whoever waited in a loop that is gone waits no more, and its timer never comes.
            self._turns.clear()
            self._wanted.clear()
            self._timer = None
        return home.loop

    def _is_needed_in(self, loop: asyncio.AbstractEventLoop) -> bool:
        return not loop.is_closed() and (loop.is_running() or self._timer is not None)

    def _grant(self, now: float) -> Grant:
        self._granted += 1
        return Grant(self._granted, now, self.bucket.rate)

    def _hand_out(self) -> None:
        """Hand out what tokens there are, and set the timer for the next one if somebody waits for it."""
        loop = self._own_loop()
        now = loop.time()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self.bucket.try_take(now):
            turn = self._turns.take(now)
            if turn is None:
                self.bucket.give_back(now, now)
                break
            waiter, own = turn
            if self._wanted[waiter]():
                waiter.set_result(self._grant(now))
                continue
            waiter.set_result(None)
            self.bucket.give_back(now, now)
            if own is not None:
                own.give_back(now, now)
        self._set_timer(loop)

    def _set_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        """Set the timer for the next token, if somebody waits."""
        now = loop.time()
        turn_at = self._turns.next_at(now)
        if turn_at is None:
            return
        wake_at = max(turn_at, self.bucket.next_token_at(now))
        if self._timer is not None:
            if self._wakes_at <= wake_at + _WORTH_A_TIMER:
                return
            self._timer.cancel()
        self._wakes_at = wake_at
        self._timer = loop.call_at(wake_at, self._hand_out)
