"""Whose turn it is: weighted fair between flows, first come, first served within one."""

from __future__ import annotations

import asyncio
from collections import deque
from heapq import heappop, heappush, heapreplace
from math import inf
from typing import Any

from m2async.pacing.bucket import TokenBucket

Waiter = asyncio.Future[Any]
"""Who waits; it is passed over once it is done."""


class Flow:
    """One of those who share a Pacer: while all of them wait, its share is its weight in the sum of the weights.

    Raises ValueError unless `weight` is above 0 and finite.
    """

    def __init__(self, weight: float = 1.0) -> None:
        if not 0 < weight < inf:
            raise ValueError(f"weight must be above 0 and finite, not {weight}")
        self.weight = weight
        self.start: float = 0.0  # this and the following are the business of Turns
        self.lines: dict[TokenBucket | None, Line] = {}
        self.ready: list[tuple[int, Line]] = []
        self.has_turns = False


class Line:
    """Those of a flow who need a token of the same second bucket."""

    def __init__(self, flow: Flow, bucket: TokenBucket | None) -> None:
        self.flow = flow
        self.bucket = bucket
        self.waiters: deque[tuple[int, Waiter]] = deque()


class Turns:
    """Queues of waiters, and whose turn is next.

    Between flows it is start-time fair queueing (P. Goyal, H. Vin, H. Cheng, SIGCOMM 1996), with a turn as the unit of
    work. Those whose own bucket is empty are passed over until it has a token: they hold up nobody else. A turn costs
    O(log n) in the number of flows and own buckets, whatever the number of waiters.
    """

    def __init__(self) -> None:
        self._count = 0
        self._virtual_time = 0.0
        self._flows: list[tuple[float, int, Flow]] = []
        self._blocked: list[tuple[float, int, Line]] = []
        self._blocked_lines: dict[TokenBucket | None, int] = {}

    def add(self, waiter: Waiter, flow: Flow, bucket: TokenBucket | None, now: float) -> None:
        """Put a waiter at the end of its line; with a `bucket`, it needs a token of that as well."""
        line = flow.lines.get(bucket)
        if line is None:
            line = flow.lines[bucket] = Line(flow, bucket)
            line.waiters.append((self._next_number(), waiter))
            self._place(line, now)
        else:
            line.waiters.append((self._next_number(), waiter))

    def clear(self) -> None:
        """Forget all who wait."""
        for _, _, line in self._blocked:
            line.flow.lines.pop(line.bucket, None)
        for _, _, flow in self._flows:
            flow.lines.clear()
            flow.ready.clear()
            flow.has_turns = False
        self._flows.clear()
        self._blocked.clear()
        self._blocked_lines.clear()

    def must_wait(self, bucket: TokenBucket | None) -> bool:
        """Whether one who comes now has to wait for somebody else's turn."""
        return bool(self._flows) or bucket in self._blocked_lines

    def next_at(self, now: float) -> float | None:
        """When there may be a turn: now, or later if all wait for their own buckets, or None if nobody waits."""
        if self._flows:
            return now
        return self._blocked[0][0] if self._blocked else None

    def take(self, now: float) -> tuple[Waiter, TokenBucket | None] | None:
        """Take out the waiter whose turn it is, with a token of its own bucket, if it needs one."""
        self._unblock(now)
        while self._flows:
            start, _, flow = self._flows[0]
            _, line = heappop(flow.ready)
            bucket = line.bucket
            served = None
            if not line.waiters[0][1].done() and (bucket is None or bucket.try_take(now)):
                served = line.waiters.popleft()[1]
                self._virtual_time = start
                flow.start = start + 1 / flow.weight
            self._place(line, now)
            if not flow.ready:
                flow.has_turns = False
                heappop(self._flows)
            elif served is not None:
                heapreplace(self._flows, (flow.start, self._next_number(), flow))
            if served is not None:
                return served, bucket
        return None

    def _place(self, line: Line, now: float) -> None:
        """Put a line where it belongs: with those of its flow who can go, aside, or away."""
        waiters, flow, bucket = line.waiters, line.flow, line.bucket
        while waiters and waiters[0][1].done():
            waiters.popleft()
        if not waiters:
            del flow.lines[bucket]
            return
        token_at = -inf if bucket is None else bucket.next_token_at(now)
        if token_at > now:
            heappush(self._blocked, (token_at, self._next_number(), line))
            self._blocked_lines[bucket] = self._blocked_lines.get(bucket, 0) + 1
            return
        heappush(flow.ready, (waiters[0][0], line))
        if not flow.has_turns:
            flow.has_turns = True
            flow.start = max(flow.start, self._virtual_time)
            heappush(self._flows, (flow.start, self._next_number(), flow))

    def _unblock(self, now: float) -> None:
        while self._blocked and self._blocked[0][0] <= now:
            _, _, line = heappop(self._blocked)
            self._blocked_lines[line.bucket] -= 1
            if not self._blocked_lines[line.bucket]:
                del self._blocked_lines[line.bucket]
            self._place(line, now)

    def _next_number(self) -> int:
        """Count arrivals; the number also decides between what is otherwise equal."""
        self._count += 1
        return self._count
