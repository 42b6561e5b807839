"""How fast calls may go, how long to wait before one goes again, and the wait for a turn."""

from __future__ import annotations

from m2async.pacing.adaptive import AdaptiveRate
from m2async.pacing.backoff import RetryPolicy, repeated, wait_before_resend
from m2async.pacing.bucket import Grant, TokenBucket
from m2async.pacing.budget import RetryBudget
from m2async.pacing.calls import Calls
from m2async.pacing.circuit import Circuit
from m2async.pacing.pacer import Pacer
from m2async.pacing.turns import Flow

__all__ = [
    "AdaptiveRate",
    "Calls",
    "Circuit",
    "Flow",
    "Grant",
    "Pacer",
    "RetryBudget",
    "RetryPolicy",
    "TokenBucket",
    "repeated",
    "wait_before_resend",
]
