"""Finding an unknown quota and keeping below it, as arithmetic on passed-in times; docs/pacing.md gives the reasons."""

from __future__ import annotations

import math

from m2async.pacing.bucket import Grant
from m2async.pacing.estimate import NOTHING_KNOWN, Bounds, Throttles

_FIRST_RATE = 20.0  # calls a second, until an answer came
_LEAST_RATE = 0.1
_LEAST_SHARE = 0.01  # of a given rate: throttles that come at any rate must not bring it to a halt
_WIDTH = 0.02  # how far the rate goes below and above the quota found
_CYCLE_CALLS = 80  # from one throttle to the next, if the estimate is good
_CYCLE_SECONDS = 10.0  # this long at most: others who share the quota must not wait for longer
_BURST_SECONDS = 0.005  # a timer that is late by that much loses nothing
_FEW = 6  # accepted calls; with fewer, the throttles may be due to others who send more
_WELL_KNOWN = 50  # accepted calls that an estimate rests on
_MARGIN = 0.01  # by this a given rate is lowered where only jitter throttles it
_MARGIN_SECONDS = 60.0


class AdaptiveRate:
    """The rate at which to send, learned from which calls are throttled.

    Without arguments it looks for an unknown quota. The rate doubles until calls are throttled; what was accepted
    between throttles then tells the quota. From there the rate rises slowly, from a little below the quota to a little
    above, until a throttle shows where it is now. If none comes for long, it rises faster and faster.

    With a `rate` in calls a second and a `burst` it is a guard: it keeps them, and goes lower only if throttles show
    that the service allows less, down to a hundredth of the rate.

    `rate` and `burst` are what a bucket should have now, and `paused_until` is the time before which nothing should be
    sent. Times are seconds of the clock that the grants are stamped with.
    """

    def __init__(self, rate: float | None = None, burst: float | None = None) -> None:
        self._given = None if rate is None else (rate, 1.0 if burst is None else burst)
        self._at_given = rate is not None
        self._seeking = rate is None
        self._found = _FIRST_RATE if rate is None else rate
        self.rate: float = self._found
        self.burst: float = 1.0 if self._given is None else self._given[1]
        self.paused_until: float = -math.inf
        self._throttles = Throttles()
        self._calls_known = 0.0  # on how many accepted calls the quota found rests
        self._began: float | None = None  # calls sent since then let the rate grow
        self._answered_at = -math.inf  # the latest sending time of an accepted call
        self._lowered_at = -math.inf  # calls sent before knew nothing of the present rate
        self._one_signal = False  # whether throttles of such calls tell nothing new
        self._retry_after = 0.0
        self._margin = 0.0
        self._latency = 0.0
        self._deviation = 0.0
        self._checked: Grant | None = None  # from here on it is measured whether the rate is used
        self._previous: Grant | None = None
        self._allowed = 0.0

    @property
    def found_rate(self) -> float | None:
        """The quota that was found, in calls a second, or None if no throttle told one."""
        return None if self._seeking or self._at_given else self._found

    def answered(self, grant: Grant, now: float) -> None:
        """Take note that a call was not throttled, whatever else its answer was."""
        self._measure(now - grant.at)
        if grant.at <= self._answered_at:
            return
        self._answered_at = grant.at
        if self._at_given:
            self._forget_margin()
            return
        if self._began is None:
            self._began = grant.at
        self._hold_if_unused(grant)
        self._grow(grant.at - self._began)

    def throttled(self, grant: Grant, now: float, retry_after: float | None = None) -> None:
        """Take note that a call was throttled, and of the seconds that its answer said to wait, if it did."""
        self._measure(now - grant.at)
        self._throttles.add(grant)
        self._retry_after = retry_after or 0.0
        self.paused_until = max(self.paused_until, now + self._retry_after)
        if self._at_given:
            if not self._given_is_wrong(grant, now):
                return
            self._at_given = False
        if grant.at > self._lowered_at:
            if self._seeking and self._throttles.calls_since_another(grant) > 4:
                return  # others may have emptied the bucket
            self._lower(grant, now)
        elif not self._one_signal:
            bounds = self._bounds(now)
            if bounds.accepted >= _FEW:
                self._found = _within(self._found, bounds)
                self._calls_known = max(self._calls_known, bounds.accepted)
        self._set(self._found * (1 - self._width()))

    # Upwards

    def _grow(self, seconds: float) -> None:
        """Set the rate after `seconds` without a throttle, as far as answers are in."""
        if self._seeking:
            # The longer answers take, the more is sent before the first throttle is known: so begin higher, grow slower
            first = _FIRST_RATE * min(max(1.0, self._latency / 0.2), 4.0)
            doubling = max(min(0.35 + 4 * self._latency, 1.6), self._latency)
            rate = first * 2 ** min(seconds / doubling, 20.0)
        else:
            rate = self._found * (1 + self._deviation_from_found(max(0.0, seconds)))
        if self._given is not None and rate >= self._given[0]:
            self._at_given = True
            self._margin = 0.0
        self._set(rate)

    def _deviation_from_found(self, seconds: float) -> float:
        cycle, width = self._cycle(), self._width()
        if seconds < cycle:
            return width * (2 * seconds / cycle - 1)
        doubling = max(0.25, 1.5 * self._latency, cycle / 8)
        return width * 2 ** min((seconds - cycle) / doubling, 12.0)

    def _cycle(self) -> float:
        """Seconds until the next throttle, if the quota is what was found."""
        certainty = min(max(0.2, self._calls_known / _WELL_KNOWN), 1.0)
        by_calls = min(_CYCLE_CALLS / self._found, _CYCLE_SECONDS) * certainty
        return max(1 + self._calls_known / 100, by_calls) + 2 * self._latency + 30 * self._retry_after

    def _width(self) -> float:
        return max(_WIDTH, 0.5 / (self._calls_known + 2))

    def _hold_if_unused(self, grant: Grant) -> None:
        """Keep the rate from growing while less is sent than it allows: nothing would be learned."""
        checked, previous = self._checked, self._previous
        self._previous = grant
        if checked is None or previous is None:
            self._checked, self._allowed = grant, 0.0
            return
        self._allowed += (grant.at - previous.at) * min(previous.rate, grant.rate)
        seconds = grant.at - checked.at
        if seconds >= max(0.1, 10 / grant.rate):
            if grant.number - checked.number < 0.75 * self._allowed and self._began is not None:
                self._began += seconds
            self._checked, self._allowed = grant, 0.0

    # Downwards

    def _lower(self, grant: Grant, now: float) -> None:
        """Lower the rate after the first throttled call that was sent at the present one."""
        rate, bounds = min(self.rate, grant.rate), self._bounds(now)
        self._one_signal = False
        if self._seeking:
            self._seeking = False
            guess = 0.4 * rate
            self.paused_until = max(self.paused_until, now + min(self._latency, 0.25))
        else:
            guess = self._guess(grant, rate)
        if self._one_signal or bounds.accepted < (10 if self._calls_known >= 5 else _FEW):
            bounds = NOTHING_KNOWN
        self._found = max(_LEAST_RATE, min(_within(guess, bounds), rate))
        self._lowered_at = now
        self._began = max(now, self.paused_until)
        self._checked = None

    def _guess(self, grant: Grant, rate: float) -> float:
        """The quota, from how long it took until a call was throttled."""
        since = math.inf if self._began is None else self._answered_at - self._began
        part = since / self._cycle()
        guess = rate * (1 - self._width())
        if part > 1.6:  # the quota has risen, or more was kept in its bucket than was known
            guess = math.sqrt(self._found * guess)
        elif part > 0.7:  # as expected
            guess = (self._found + guess) / 2
            self._one_signal = self._calls_known >= _WELL_KNOWN and self._latency < 0.5
        calls = self._throttles.calls_since_another(grant)
        if part > 0.5:
            change = abs(guess / self._found - 1)
            self._calls_known = min(2 * calls + 5, 100, 1 / max(change, 0.001))
        else:
            self._calls_known = min(self._calls_known, max(0.8 * self._calls_known, calls))
        return guess

    def _given_is_wrong(self, grant: Grant, now: float) -> bool:
        """Whether throttles show that less is accepted than the given rate; else they come from jitter."""
        assert self._given is not None  # noqa: S101 - only then the rate is at the given one
        rate, burst = self._given
        bounds = self._bounds(now, gap=60)
        # With a burst of 1 the service's bucket loses what comes late: jitter alone makes it accept less
        least = 0.8 * rate if burst < 2 else self.rate
        if bounds.accepted >= 20 and bounds.most < least:
            self._found = rate
            return True
        repeated = burst < 2 or self._throttles.calls_since_another(grant) < 200
        if repeated and grant.at > self._lowered_at:
            self._margin = min(self._margin + _MARGIN, 2 * _MARGIN)
            self._lowered_at = now
            self._set(rate)
        return False

    def _forget_margin(self) -> None:
        if self._margin and self._answered_at - self._lowered_at > _MARGIN_SECONDS:
            self._margin = max(0.0, self._margin - _MARGIN)
            self._lowered_at = self._answered_at
            self._set(self.rate)

    # Both

    def _bounds(self, now: float, gap: int = 8) -> Bounds:
        return self._throttles.bounds(
            until=now - self._latency - 2.5 * self._deviation,
            gap=gap,
            shortest=2 * self._deviation,
            slack=min(1.0, self.rate * self._deviation),
        )

    def _measure(self, seconds: float) -> None:
        """Smooth the time that answers take, as RFC 6298 does."""
        if not self._latency:
            self._latency, self._deviation = seconds, seconds / 8
        error = seconds - self._latency
        self._latency += error / 8
        self._deviation += (abs(error) - self._deviation) / 8

    def _set(self, rate: float) -> None:
        if self._at_given and self._given is not None:
            self.rate, self.burst = self._given[0] * (1 - self._margin), self._given[1]
            return
        self.rate = max(rate, _LEAST_RATE, 0.0 if self._given is None else _LEAST_SHARE * self._given[0])
        self.burst = 1.0 + self.rate * _BURST_SECONDS
        if self._given is not None:
            self.burst = min(self.burst, self._given[1])


def _within(rate: float, bounds: Bounds) -> float:
    return max(_LEAST_RATE, min(max(rate, bounds.least), bounds.most))
