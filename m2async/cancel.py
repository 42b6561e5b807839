"""Cancelling executions of a run: one call after another, at a pace, and what came of each."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import Literal, NamedTuple, TypeVar

from m2async.client import M2Client
from m2async.errors import (
    AccessDeniedException,
    AuthenticationException,
    CallError,
    ConfigurationError,
    ConflictException,
    CredentialsError,
)
from m2async.ledger import RunView, TrackedExecution
from m2async.pacing import Pacer, TokenBucket
from m2async.retry import RetryPolicy, repeated

T = TypeVar("T")
OF_ALL = (AccessDeniedException, AuthenticationException, CredentialsError, ConfigurationError)
"""What every further call would meet as well."""


class Cancellation(NamedTuple):
    """What came of cancelling an execution, and why."""

    key: str
    execution_id: str
    outcome: Literal["cancelling", "had ended", "not cancelled"]
    reason: str


class Calls:
    """Calls one after another, `rate` a second at most; each is made again where it fails in passing.

    `troubled` is told each such failure, and the seconds that are waited then.
    """

    def __init__(self, rate: float, troubled: Callable[[CallError, float], None]) -> None:
        self._pacer = Pacer(TokenBucket(rate, 1.0))
        self._troubled = troubled

    async def __call__(self, call: Callable[[], Awaitable[T]]) -> T:
        async def paced() -> T:
            await self._pacer.acquire()
            return await call()

        return await repeated(paced, RetryPolicy(patience=60.0), reached=lambda: True, before_wait=self._troubled)


async def cancel_executions(
    client: M2Client, calls: Calls, view: RunView, executions: Iterable[TrackedExecution]
) -> AsyncGenerator[Cancellation, None]:
    """Cancel those that have not ended, and tell of each what came of it; raises what every further call would meet."""
    for execution in executions:
        if execution.ended:
            yield Cancellation(execution.key, execution.execution_id, "had ended", execution.judgement.reason)
        else:
            yield await _cancel(client, calls, view, execution)


async def _cancel(client: M2Client, calls: Calls, view: RunView, execution: TrackedExecution) -> Cancellation:
    application_id, execution_id, key = execution.application_id, execution.execution_id, execution.key
    secret = (await view.row(key)).request.auth_secrets_manager_arn
    try:
        await calls(
            lambda: client.cancel_batch_job_execution(application_id, execution_id, auth_secrets_manager_arn=secret)
        )
    except OF_ALL:
        raise
    except CallError as error:
        if isinstance(error, ConflictException):
            now = await calls(lambda: client.get_batch_job_execution(application_id, execution_id))
            if now.is_terminal:
                return Cancellation(key, execution_id, "had ended", f"as {now.status}")
        return Cancellation(key, execution_id, "not cancelled", f"{error.code}: {error.message}")
    return Cancellation(key, execution_id, "cancelling", "")
