"""Lists of executions for what is in doubt: at a pace of their own, and asked for again where they fail in passing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import datetime
from functools import partial

from m2async.certainty import ListsExecutions
from m2async.errors import CallError
from m2async.pacing import Calls, RetryPolicy
from m2async.service import BatchJobExecution, every_execution

_RATE = 5.0
_BURST = 10.0


class PatientLists:
    """Lists executions as a client does, page by page where it gives pages.

    Arguments:
        client: what is asked.
        patience: seconds for which a call is made again that fails in passing.
        troubled: told each such failure, and the seconds that are waited then.
    """

    def __init__(
        self,
        client: ListsExecutions,
        *,
        patience: float,
        troubled: Callable[[CallError, float], None] = lambda error, seconds: None,
    ) -> None:
        policy = RetryPolicy(base=0.5, cap=5.0, patience=patience, unreachable=patience)
        self._client = client
        self._call = Calls(_RATE, troubled, burst=_BURST, policy=policy)

    @property
    def clock_offset(self) -> float | None:
        """As the client's."""
        return self._client.clock_offset

    async def list_batch_job_executions(
        self, application_id: str, /, *, started_after: datetime | None = None, started_before: datetime | None = None
    ) -> AsyncIterator[BatchJobExecution]:
        """Iterate over an application's executions within a window of time."""
        window = {"started_after": started_after, "started_before": started_before}
        page = getattr(self._client, "get_batch_job_executions_page", None)

        async def whole() -> list[BatchJobExecution]:
            return [each async for each in self._client.list_batch_job_executions(application_id, **window)]

        if page is None:
            for execution in await self._call(whole):
                yield execution
            return
        async for execution in every_execution(
            lambda token: self._call(partial(page, application_id, **window, next_token=token))
        ):
            yield execution
