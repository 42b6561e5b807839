"""What follows from a failed attempt, and how long to wait before the next: the only file that knows tenacity."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Literal, TypeVar

import anyio
from tenacity import AsyncRetrying, Future, RetryCallState, retry_if_exception
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
from m2async.service import StartBatchJob

OnUnknown = Literal["adopt", "hold", "resend"]
_T = TypeVar("_T")


class Verdict(Enum):
    """What follows from a failed attempt to start a job."""

    RETRY = "back off and send again"
    REJECT = "this job is rejected, the rest go on"
    ADOPT = "find out what became of it; then it is started, or surely not and sent again, or unknown"
    HOLD = "this job's fate is unknown and nobody guesses; the rest go on"
    HOLD_APPLICATION = "it and its application's other jobs wait; one goes as a probe after a pause"
    STOP = "nothing more is sent at all"


def verdict(error: CallError, request: StartBatchJob, on_unknown: OnUnknown) -> Verdict:
    """Decide what follows from a failed attempt.

    Only two kinds of failure are retried by themselves: those after which the job was surely not started and
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
            return Verdict.HOLD_APPLICATION
        case ResourceNotFoundException() if error.resource_id in {None, request.application_id}:
            return Verdict.HOLD_APPLICATION
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
    been started. Jobs of an application that does not run wait for it for `hold`; the first of them
    goes as a probe after `probe`, a further one each time after twice as long.
    """

    base: float = 0.1
    cap: float = 5.0
    patience: float = 600.0
    unreachable: float = 5.0
    resends: int = 4
    hold: float = 60.0
    probe: float = 5.0


def wait_before_resend(policy: RetryPolicy, failures: int, error: CallError) -> float:
    """Seconds to wait after an attempt that failed with `error`, the last of so many."""
    state = RetryCallState(retry_object=None, fn=None, args=(), kwargs={})  # type: ignore[arg-type] # not looked at
    state.attempt_number = failures
    state.outcome = Future(failures)
    state.outcome.set_exception(error)
    return _backoff(policy)(state)


@lru_cache
def _backoff(policy: RetryPolicy) -> wait_base:
    """The wait of `policy`, as tenacity takes it: full jitter on top of `Retry-After`."""
    return wait_random_exponential(multiplier=policy.base, max=policy.cap) + wait_exception(_retry_after)


async def repeated(
    call: Callable[[], Awaitable[_T]],
    policy: RetryPolicy,
    *,
    reached: Callable[[], bool],
    before_wait: Callable[[CallError, float], None],
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
) -> _T:
    """Make a call that can be made twice without harm, such as a list, until it succeeds or its failure is final.

    It is made again after a throttle, a 5xx, a timeout and where no connection could be made, as long as the policy's
    `patience` goes, or `unreachable` while `reached` says that the service never answered. `before_wait` is told each
    failure and the seconds that are waited for. Raises the last failure.
    """

    def is_final(state: RetryCallState) -> bool:
        is_out_of_reach = isinstance(_failure(state), NotSentError) and not reached()
        return (state.seconds_since_start or 0.0) >= (policy.unreachable if is_out_of_reach else policy.patience)

    def before_sleep(state: RetryCallState) -> None:
        before_wait(_failure(state), state.next_action.sleep if state.next_action else 0.0)

    retrying = AsyncRetrying(
        sleep=sleep,
        stop=is_final,
        wait=_backoff(policy),
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


def _retry_after(error: BaseException) -> float:
    return (error.retry_after or 0.0) if isinstance(error, M2ServiceException) else 0.0
