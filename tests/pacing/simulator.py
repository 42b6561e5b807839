"""Senders, workers and a service with a quota, in virtual time."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Protocol

from m2async.pacing import Grant
from m2async.pacing.bucket import TokenBucket


class Law(Protocol):
    """What decides on the rate: the package's controller, or one that it is compared with."""

    rate: float
    burst: float
    paused_until: float

    @property
    def found_rate(self) -> float | None: ...

    def answered(self, grant: Grant, now: float) -> None: ...

    def throttled(self, grant: Grant, now: float, retry_after: float | None = None) -> None: ...


class Quota(Protocol):
    """The service's side of a quota."""

    def accepts(self, now: float) -> bool: ...

    def set_rate(self, rate: float, now: float) -> None: ...


class BucketQuota:
    """A quota as AWS describes its own: a token bucket that starts full."""

    def __init__(self, rate: float, burst: float) -> None:
        self._bucket = TokenBucket(rate, burst)

    def accepts(self, now: float) -> bool:
        return self._bucket.try_take(now)

    def set_rate(self, rate: float, now: float) -> None:
        self._bucket.set_rate(rate, self._bucket.burst, now)


class NginxQuota:
    """nginx's `limit_req zone=... burst=B nodelay`: a leaky bucket in milliseconds and thousandths of requests."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = round(rate * 1000)
        self._burst = round(burst * 1000)
        self._excess = 0
        self._last: int | None = None

    def accepts(self, now: float) -> bool:
        at = int(now * 1000)
        if self._last is None:
            self._last = at
            return True
        excess = max(0, self._excess - self._rate * (at - self._last) // 1000 + 1000)
        if excess > self._burst:
            return False
        self._excess, self._last = excess, at
        return True

    def set_rate(self, rate: float, now: float) -> None:
        self._rate = round(rate * 1000)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A service and those who send to it; times in seconds, rates in calls a second."""

    rate: float
    burst: float
    latency: float
    workers: int
    seconds: float = 60.0
    jitter: float = 0.1
    """How far latency varies, as a share of it."""
    scatter: float = 0.001
    """How much longer one call takes to arrive than another, at most."""
    steps: Sequence[tuple[float, float]] = ()
    """At what time the quota changes to which rate."""
    joins: Sequence[float] = (0.0,)
    """When each sender begins."""
    retry_after: bool = False
    """Whether a throttle says to wait for 1 s."""
    nginx: bool = False
    seed: int = 0


@dataclass(slots=True)
class Sender:
    """One process: its law, its bucket, its workers, and what it saw."""

    law: Law
    bucket: TokenBucket
    idle: int
    answers: list[tuple[float, bool]] = field(default_factory=list)
    """When each call was sent, and whether it was accepted."""
    rates: list[tuple[float, float]] = field(default_factory=list)
    number: int = 0
    due: float | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a scenario."""

    scenario: Scenario
    senders: Sequence[Sender]

    def allowed(self, begin: float, end: float) -> float:
        """What the quota's rate allows between two times, the burst apart."""
        total, rate, since = 0.0, self.scenario.rate, 0.0
        for at, following in [*self.scenario.steps, (self.scenario.seconds, 0.0)]:
            total += rate * max(0.0, min(at, end) - max(since, begin))
            rate, since = following, at
        return total

    def used(self, begin: float = 0.0, end: float = math.inf) -> float:
        """Accepted calls, as a share of what the quota allows; the burst counts from the beginning only."""
        end = min(end, self.scenario.seconds)
        burst = self.scenario.burst if begin == 0 else 0.0
        return self.accepted(begin, end) / (burst + self.allowed(begin, end))

    def accepted(self, begin: float, end: float) -> int:
        return sum(ok and begin <= at < end for sender in self.senders for at, ok in sender.answers)

    def throttled(self, begin: float = 0.0, end: float = math.inf) -> float:
        """Throttled answers, as a share of all."""
        seen = [ok for sender in self.senders for at, ok in sender.answers if begin <= at < end]
        return seen.count(False) / max(1, len(seen))

    def share(self, sender: int, begin: float = 0.0) -> float:
        """One sender's share of the accepted calls."""
        own = sum(ok for at, ok in self.senders[sender].answers if at >= begin)
        return own / max(1, self.accepted(begin, math.inf))


_SEND, _ARRIVE, _ANSWER, _STEP = 0, 1, 2, 3


def simulate(scenario: Scenario, law: Callable[[], Law], *, keep_rates: bool = False) -> Result:
    """Play a scenario: every sender sends whenever a worker is idle and its bucket has a token."""
    draw = random.Random(scenario.seed)
    quota: Quota = (NginxQuota if scenario.nginx else BucketQuota)(scenario.rate, scenario.burst)
    events: list[tuple[float, int, int, Grant | None, bool]] = []
    senders = []
    for index, at in enumerate(scenario.joins):
        one = law()
        senders.append(Sender(one, TokenBucket(one.rate, one.burst), scenario.workers))
        heappush(events, (at, _SEND, index, None, True))
        senders[index].due = at
    for at, rate in scenario.steps:
        heappush(events, (at, _STEP, 0, Grant(0, rate, rate), True))
    latency, jitter = scenario.latency, scenario.jitter
    while events:
        now, kind, index, grant, accepted = heappop(events)
        if now >= scenario.seconds and kind in {_SEND, _STEP}:
            continue
        if kind == _STEP:
            assert grant is not None
            quota.set_rate(grant.at, now)
            continue
        if kind == _ARRIVE:
            back = latency * (0.6 + jitter * (2 * draw.random() - 1))
            heappush(events, (now + back, _ANSWER, index, grant, quota.accepts(now)))
            continue
        sender = senders[index]
        if kind == _SEND:
            if sender.due != now:
                continue  # it was put off or forward meanwhile
            sender.due = None
        else:
            assert grant is not None
            sender.idle += 1
            sender.answers.append((grant.at, accepted))
            if accepted:
                sender.law.answered(grant, now)
            else:
                sender.law.throttled(grant, now, 1.0 if scenario.retry_after else None)
            if sender.law.rate != sender.bucket.rate or sender.law.burst != sender.bucket.burst:
                sender.bucket.set_rate(sender.law.rate, sender.law.burst, now)
                if keep_rates:
                    sender.rates.append((now, sender.law.rate))
            if sender.law.paused_until > now:
                sender.bucket.pause(sender.law.paused_until)
        while now < scenario.seconds and sender.idle and sender.bucket.try_take(now):
            sender.idle -= 1
            sender.number += 1
            there = 0.4 * latency + scenario.scatter * draw.random()
            heappush(events, (now + there, _ARRIVE, index, Grant(sender.number, now, sender.bucket.rate), True))
        if sender.idle:
            due = sender.bucket.next_token_at(now)
            if due != sender.due:
                sender.due = due
                heappush(events, (due, _SEND, index, None, True))
    return Result(scenario, senders)
