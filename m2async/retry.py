"""What follows from a failed attempt, and how long to wait before the next: the only file that knows tenacity."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import Literal, TypeVar

import anyio
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception
from tenacity.wait import wait_base, wait_exception, wait_random_exponential

from m2async.errors import (
    AccessDeniedException,
    AuthenticationException,
    CallError,
    ConfigurationError,
    ConflictException,
    CredentialsError,
    M2ServiceException,
    NotSentError,
    ResourceNotFoundException,
    ThrottlingException,
)
from m2async.jobs import StartBatchJob

OnUnknown = Literal["adopt", "hold", "resend"]
_T = TypeVar("_T")


class Verdict(Enum):
    """What follows from a failed attempt to start a job."""

    RETRY = "back off and send again"
    REJECT = "this job is rejected, the rest go on"
    ADOPT = "find out what became of it; then it is started, or surely not and sent again, or unknown"
    HOLD = "this job's fate is unknown and nobody guesses; the rest go on"
    CLOSE_APPLICATION = "this job is rejected, and nothing more is sent to its application"
    STOP = "nothing more is sent at all"


def verdict(error: CallError, request: StartBatchJob, on_unknown: OnUnknown) -> Verdict:
    """Decide what follows from a failed attempt.

    Only two kinds of failure are retried at once: those after which the job was surely not started and
    that may pass (a throttled call, a connection that could not be made), and, if the caller says
    `on_unknown="resend"`, those after which it may have been.
    """
    match error:
        case CredentialsError() | ConfigurationError() | AuthenticationException() | AccessDeniedException():
            return Verdict.STOP
        case ThrottlingException() | NotSentError():
            return Verdict.RETRY
        case _ if error.may_have_started:
            return {"adopt": Verdict.ADOPT, "hold": Verdict.HOLD, "resend": Verdict.RETRY}[on_unknown]
        case ConflictException():
            return Verdict.CLOSE_APPLICATION
        case ResourceNotFoundException() if error.resource_id in {None, request.application_id}:
            return Verdict.CLOSE_APPLICATION
        case _:
            return Verdict.REJECT


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long one job's attempts go on; times in seconds.

    The wait before attempt n + 1 is drawn evenly from 0 to `base * 2 ** (n - 1)`, at most `cap` ("full
    jitter": M. Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015), on top of the
    `Retry-After` that the service gave.

    Attempts end `patience` after the first failure; `unreachable` after it where no connection could
    be made and the service never answered before; and at `resends` sends of a job that may have
    been started.
    """

    base: float = 0.1
    cap: float = 5.0
    patience: float = 600.0
    unreachable: float = 5.0
    resends: int = 4


async def retry_from(
    failure: CallError,
    attempt: Callable[[], Awaitable[_T]],
    *,
    retryable: Callable[[CallError], bool],
    exhausted: Callable[[CallError, float], bool],
    before_wait: Callable[[CallError, float], None],
    policy: RetryPolicy,
) -> _T:
    """Go on after a first attempt that failed: wait and repeat, until one succeeds or the failure is final.

    `exhausted` is asked with the failure and the seconds since the first; `before_wait` is told each
    failure and the seconds that are waited for. Raises the last failure.
    """
    failures = [failure]

    async def next_attempt() -> _T:
        if failures:
            raise failures.pop()
        return await attempt()

    def stop(state: RetryCallState) -> bool:
        return exhausted(_failure(state), state.seconds_since_start or 0.0)

    def before_sleep(state: RetryCallState) -> None:
        before_wait(_failure(state), state.next_action.sleep if state.next_action else 0.0)

    retrying = AsyncRetrying(
        sleep=anyio.sleep,
        stop=stop,
        wait=backoff(policy),
        retry=retry_if_exception(lambda exc: isinstance(exc, CallError) and retryable(exc)),
        before_sleep=before_sleep,
        reraise=True,
    )
    return await retrying(next_attempt)


def backoff(policy: RetryPolicy) -> wait_base:
    """The wait of `policy`, as tenacity takes it: full jitter on top of `Retry-After`."""
    return wait_random_exponential(multiplier=policy.base, max=policy.cap) + wait_exception(_retry_after)


def _retry_after(error: BaseException) -> float:
    return (error.retry_after or 0.0) if isinstance(error, M2ServiceException) else 0.0


def _failure(state: RetryCallState) -> CallError:
    failure = state.outcome.exception() if state.outcome else None
    assert isinstance(failure, CallError), failure  # noqa: S101 - nothing else is retryable
    return failure
