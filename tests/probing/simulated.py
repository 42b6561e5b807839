"""A probe in virtual time: a plan's calls against a quota, with latency and jitter."""

from __future__ import annotations

import random
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count, islice

from m2async.probing.plans import Plan
from m2async.probing.record import Call, QuotaVerdict, Record, SentStretch

Quota = Callable[[float], bool]
"""Whether a call that arrives at a time is accepted."""


def play(
    plan: Plan,
    quota: Quota,
    *,
    latency: float = 0.005,
    jitter: float = 0.0,
    seed: int = 0,
    delay: Callable[[float], float] = lambda at: 0.0,
    stretches: int | None = None,
) -> int:
    """Make every call of a plan, or of its first stretches; gives how many there were.

    `jitter` is the most by which either way is delayed, and `delay` what a call takes that arrives at a time.
    """
    draw, now, calls = random.Random(seed), 0.0, 0
    numbers = count()
    for stretch in islice(plan.stretches(), stretches):
        record, begin = Record(), now + stretch.rest
        plan.done.append(SentStretch(stretch, record))
        events: list[tuple[float, int, str, Call | None, bool]] = []
        offsets = iter(stretch.offsets)

        def plan_next() -> None:
            offset = next(offsets, None)  # noqa: B023
            if offset is not None:
                heappush(events, (begin + offset, next(numbers), "send", None, False))  # noqa: B023

        plan_next()
        ended = False
        while events:
            at, _, kind, call, accepted = heappop(events)
            if kind == "send":
                ended = ended or stretch.over(record, at)
                if not ended:
                    now = at
                    there = at + latency / 2 + jitter * draw.random()
                    heappush(events, (there, next(numbers), "arrive", record.sent(at, at), False))
                    plan_next()
            elif kind == "arrive":
                back = at + delay(at) + latency / 2 + jitter * draw.random()
                heappush(events, (back, next(numbers), "answer", call, quota(at)))
            else:
                assert call is not None
                now = at
                record.answered(call, at, QuotaVerdict.ACCEPTED if accepted else QuotaVerdict.THROTTLED)
                ended = ended or stretch.over(record, at)
        calls += len(record.calls)
    return calls
