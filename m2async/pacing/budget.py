"""How many failed calls may be sent again."""

from __future__ import annotations

from m2async.pacing.bucket import TokenBucket

RATIO = 0.2
PER_SECOND = 2.0
SHARE = 0.1
UNPACED = 200.0
RESERVE = 100.0


class RetryBudget(TokenBucket):
    """A token bucket for sending again what failed and was not throttled.

    Every success earns RATIO of a resend. Besides, PER_SECOND resends flow in, or SHARE of the rate at which calls are
    paced if that is more (of UNPACED, where they are not paced): so a few failures never wait, the rest at the end of
    a run does not take for ever, and a service that fails every call sees a trickle instead of a storm. RESERVE resends
    are kept at most, and are there from the beginning. So in t seconds with n successes no more than
    `RESERVE + RATIO * n + flow * t` calls are sent again. Finagle's retry budget has the same shape, and botocore's
    standard mode the same reserve.

    A Pacer over it makes resends wait, first come, first served: none is lost.
    """

    def __init__(self) -> None:
        super().__init__(PER_SECOND, RESERVE)

    def succeeded(self, now: float, calls: int = 1) -> None:
        """Take note of so many successes."""
        self.add(RATIO * calls, now)

    def paced_at(self, rate: float | None, now: float) -> None:
        """Let the flow follow the rate at which calls are paced, in calls a second; None for no limit."""
        flow = max(PER_SECOND, SHARE * (UNPACED if rate is None else rate))
        if flow != self.rate:
            self.set_rate(flow, RESERVE, now)
