"""Cancelling executions of a run: one call after another, at a pace, and what came of each."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from typing import Literal, NamedTuple, Protocol

from m2async.client import M2Client
from m2async.errors import (
    AccessDeniedException,
    AuthenticationException,
    CallError,
    ConfigurationError,
    ConflictException,
    CredentialsError,
    InvalidRequestError,
)
from m2async.ledger import RunView, TrackedExecution
from m2async.pacing import Calls
from m2async.service import BatchJobExecution

OF_ALL = (AccessDeniedException, AuthenticationException, CredentialsError, ConfigurationError)
"""What every further call would meet as well."""


CancelOutcome = Literal["cancelling", "had ended", "not cancelled"]
"""What came of a cancellation."""


class Cancellation(NamedTuple):
    """What came of cancelling an execution, and why; `key` is None where several rows share it with others."""

    key: str | None
    execution_id: str
    outcome: CancelOutcome
    reason: str


class Fate(NamedTuple):
    """What came of cancelling an execution, and why."""

    outcome: CancelOutcome
    reason: str


class CancelsExecutions(Protocol):
    """What cancelling needs of a client; M2Client is one."""

    async def cancel_batch_job_execution(
        self, application_id: str, execution_id: str, /, *, auth_secrets_manager_arn: str | None = None
    ) -> None:
        """Cancel an execution."""

    async def get_batch_job_execution(self, application_id: str, execution_id: str, /) -> BatchJobExecution:
        """Get one execution."""


async def cancel_executions(
    client: M2Client, calls: Calls, view: RunView, executions: Iterable[TrackedExecution]
) -> AsyncGenerator[Cancellation, None]:
    """Cancel those that have not ended, and tell of each what came of it; raises what every further call would meet."""
    for execution in executions:
        if execution.ended and not execution.gone:
            reason = execution.own_judgement.reason
            yield Cancellation(_key(execution), execution.execution_id, "had ended", reason)
        else:
            yield await _cancel(client, calls, view, execution)


async def _cancel(client: M2Client, calls: Calls, view: RunView, execution: TrackedExecution) -> Cancellation:
    secret = (await view.row(execution.key)).request.auth_secrets_manager_arn
    fate = await cancel_execution(client, calls, execution.application_id, execution.execution_id, secret=secret)
    return Cancellation(_key(execution), execution.execution_id, *fate)


def _key(execution: TrackedExecution) -> str | None:
    return None if execution.known_id is None else execution.key


async def cancel_execution(
    client: CancelsExecutions, calls: Calls, application_id: str, execution_id: str, *, secret: str | None = None
) -> Fate:
    """Cancel an execution, and tell what came of it; raises what every further call would meet.

    `secret` is the ARN of the secret that the job was started with.
    """
    try:
        await calls(
            lambda: client.cancel_batch_job_execution(application_id, execution_id, auth_secrets_manager_arn=secret)
        )
        return Fate("cancelling", "")
    except OF_ALL:
        raise
    except InvalidRequestError as error:  # an id that an earlier version took as it came
        return Fate("not cancelled", error.message)
    except CallError as error:
        try:
            if isinstance(error, ConflictException):
                now = await calls(lambda: client.get_batch_job_execution(application_id, execution_id))
                if now.is_terminal:
                    return Fate("had ended", f"as {now.status}")
        except OF_ALL:
            raise
        except CallError:
            pass  # what it was refused with says more
        return Fate("not cancelled", f"{error.code}: {error.message}")
