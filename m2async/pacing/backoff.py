"""How long to wait before a call is made again, and how long to go on: the only file that knows tenacity."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TypeVar

import anyio
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception
from tenacity.wait import wait_exception, wait_random_exponential

from m2async.errors import CallError, M2ServiceException, NotSentError, ThrottlingException

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long one job's attempts go on; times in seconds.

    The wait before attempt n + 1 is drawn evenly from 0 to `base * 2 ** (n - 1)`, at most `cap` ("full
    jitter": M. Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015), on top of the
    `Retry-After` that the service gave.

    Attempts end `patience` after the first failure, or `unreachable` after it if no connection could
    be made and the service never answered before. Of a `Retry-After`, `max_retry_after` is heeded at
    most, and never more than `patience`: a service, or what stands before it, may say a year. A job
    that may have started is sent at most
    `resends` more times. Jobs of an application that does not run wait for it for `hold`; the first
    of them goes as a probe after `probe`, a further one each time after twice as long.
    """

    base: float = 0.1
    cap: float = 5.0
    patience: float = 600.0
    unreachable: float = 5.0
    resends: int = 4
    hold: float = 60.0
    probe: float = 5.0
    max_retry_after: float = 60.0

    def __post_init__(self) -> None:
        if not self.max_retry_after >= 0:
            raise ValueError(f"max_retry_after must not be negative, not {self.max_retry_after}")

    def heeded(self, retry_after: float | None) -> float:
        """Seconds that are waited for a `Retry-After`."""
        return max(0.0, min(retry_after or 0.0, self.max_retry_after, self.patience))


def wait_before_resend(policy: RetryPolicy, failures: int, error: CallError) -> float:
    """Seconds to wait after an attempt that failed with `error`, the last of so many."""
    backoff = _backoff(policy)
    state = RetryCallState(backoff, None, (), {})
    state.attempt_number = failures
    state.set_exception((type(error), error, error.__traceback__))
    return backoff.wait(state)


@lru_cache
def _backoff(policy: RetryPolicy) -> AsyncRetrying:
    """The wait of `policy`, as tenacity takes it: full jitter on top of `Retry-After`."""
    wait = wait_random_exponential(multiplier=policy.base, max=policy.cap) + wait_exception(partial(_heeded, policy))
    return AsyncRetrying(wait=wait)


async def repeated(
    call: Callable[[], Awaitable[_T]],
    policy: RetryPolicy,
    *,
    reached: Callable[[], bool],
    before_wait: Callable[[CallError, float], None],
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    in_line: Callable[[], float] = lambda: 0.0,
) -> _T:
    """Make a call that can be made twice without harm, such as a list, until it succeeds or its failure is final.

    It is made again after a throttle, a 5xx, a timeout or a failed connection, for the policy's `patience`; for
    `unreachable` if `reached` says that the service never answered. The seconds that it was `in_line` for its turns do
    not count. `before_wait` is told each failure and the seconds that are waited then. Raises the last failure.
    """
    began = anyio.current_time()

    def is_final(state: RetryCallState) -> bool:
        is_out_of_reach = isinstance(_failure(state), NotSentError) and not reached()
        tried_for = anyio.current_time() - began - in_line()
        return tried_for >= (policy.unreachable if is_out_of_reach else policy.patience)

    def before_sleep(state: RetryCallState) -> None:
        before_wait(_failure(state), state.next_action.sleep if state.next_action else 0.0)

    retrying = _backoff(policy).copy(
        sleep=sleep,
        stop=is_final,
        retry=retry_if_exception(_may_pass),
        before_sleep=before_sleep,
        reraise=True,
    )

    async def once() -> _T:  # tenacity awaits only what is defined with async
        return await call()

    return await retrying(once)


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, CallError) and (
        isinstance(error, ThrottlingException | NotSentError) or error.may_have_started
    )


def _failure(state: RetryCallState) -> CallError:
    failure = state.outcome.exception() if state.outcome else None
    assert isinstance(failure, CallError), failure  # noqa: S101 - nothing else is retried
    return failure


def _heeded(policy: RetryPolicy, error: BaseException) -> float:
    return policy.heeded(error.retry_after) if isinstance(error, M2ServiceException) else 0.0
