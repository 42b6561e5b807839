"""Calls that can be made twice without harm, at a pace of their own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from m2async.errors import CallError
from m2async.pacing.backoff import RetryPolicy, repeated
from m2async.pacing.bucket import TokenBucket
from m2async.pacing.pacer import Pacer

T = TypeVar("T")
_A_MINUTE = RetryPolicy(patience=60.0, unreachable=60.0)


class Calls:
    """Makes calls at a pace, and makes a call again that fails in passing.

    Arguments:
        rate: calls a second at most.
        troubled: told each such failure, and the seconds that are waited then.
        burst: how many calls may go out at once after a pause.
        policy: how long a call is repeated, its waits for a turn not counted.
        sleep: waits for some seconds.
    """

    def __init__(
        self,
        rate: float,
        troubled: Callable[[CallError, float], None],
        *,
        burst: float = 1.0,
        policy: RetryPolicy = _A_MINUTE,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        self._pacer = Pacer(TokenBucket(rate, burst))
        self._troubled = troubled
        self._policy = policy
        self._reached = False
        self._sleep = sleep

    async def __call__(self, call: Callable[[], Awaitable[T]]) -> T:
        in_line = 0.0

        async def paced() -> T:
            nonlocal in_line
            since = anyio.current_time()
            await self._pacer.acquire()
            in_line += anyio.current_time() - since
            answer = await call()
            self._reached = True
            return answer

        return await repeated(
            paced, self._policy, reached=lambda: self._reached, before_wait=self._troubled, sleep=self._sleep,
            in_line=lambda: in_line,
        )  # fmt: skip
