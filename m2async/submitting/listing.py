"""List the executions of an application around the time of a run: with patience, but not without end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from math import ceil, floor, inf
from typing import Protocol

from m2async.certainty import TellsClock
from m2async.clock import CLOCK_TOLERANCE
from m2async.errors import AccessDeniedException, CallError
from m2async.events import Events
from m2async.pacing import RetryPolicy, repeated
from m2async.service import BatchJobExecution, ExecutionsPage

_MOST_PAGES = 10  # of one list, of 2,000 executions each
_POLICY = RetryPolicy(patience=3.0, unreachable=1.0)
_ONCE = RetryPolicy(patience=0.0, unreachable=0.0)


class ListsPages(TellsClock, Protocol):
    """What is needed of a client; M2Client is one."""

    async def get_batch_job_executions_page(
        self,
        application_id: str,
        /,
        *,
        started_after: datetime | None = None,
        started_before: datetime | None = None,
        next_token: str | None = None,
    ) -> ExecutionsPage:
        """Get one page of an application's executions."""


class ExecutionsList:
    """The executions of an application that have been listed so far, by their ids.

    `covered` are the spans of start times, in seconds of the epoch, of which all are there, but for those that were
    `passed_over`, as they cannot be read.
    """

    def __init__(self, client: ListsPages, application_id: str, *, patient: bool) -> None:
        self.found: dict[str, BatchJobExecution] = {}
        self.covered: list[tuple[float, float]] = []
        self.passed_over: int = 0
        self._client = client
        self._id = application_id
        self._policy = _POLICY if patient else _ONCE
        self._asked: list[tuple[float, float]] = []

    def covers(self, after: float, before: float) -> bool:
        """Tell whether all that shows a start time of this span is there; clocks may differ a little."""
        return _holds(self.covered, after, before)

    async def add(self, after: float, before: float = inf) -> bool:
        """List those that show start times of a span, and tell whether that was not asked for before.

        Raises the CallError of a call that keeps failing.
        """
        if _holds(self._asked, after, before):
            return False
        self._asked.append((after, before))
        started_after = datetime.fromtimestamp(max(0, floor(after) - 1), UTC)  # filters may be exclusive
        started_before = None if before == inf else datetime.fromtimestamp(max(0, ceil(before) + 1), UTC)
        token: str | None = None
        for _ in range(_MOST_PAGES):
            page = await self._page(started_after, started_before, token)
            self.found |= {execution.execution_id: execution for execution in page.executions}
            self.passed_over += page.passed_over
            token = page.next_token
            if token is None:
                self.covered.append((after, before))
                break
        return True

    async def _page(
        self, started_after: datetime, started_before: datetime | None, token: str | None
    ) -> ExecutionsPage:
        async def call() -> ExecutionsPage:
            return await self._client.get_batch_job_executions_page(
                self._id, started_after=started_after, started_before=started_before, next_token=token
            )

        return await repeated(call, self._policy, reached=lambda: False, before_wait=lambda error, seconds: None)


def _holds(spans: Sequence[tuple[float, float]], after: float, before: float) -> bool:
    return any(first <= after + CLOCK_TOLERANCE and before - CLOCK_TOLERANCE <= last for first, last in spans)


class RefusedLists(Mapping[str, CallError]):
    """The applications whose executions could not be listed when that was last tried, and why."""

    def __init__(self, events: Events) -> None:
        self._errors: dict[str, CallError] = {}
        self._events = events

    def note(self, application_id: str, error: CallError | None) -> None:
        """Take note of how a list went: None if it was given."""
        if error is None:
            if self._errors.pop(application_id, None) is not None:
                self._events.listed_again(application_id)
            return
        self._errors[application_id] = error
        self._events.reconcile_failed(application_id, error)

    def __getitem__(self, application_id: str) -> CallError:
        return self._errors[application_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._errors)

    def __len__(self) -> int:
        return len(self._errors)


def why_refused(error: CallError) -> str:
    """Say why executions are not listed, and which permission that needs."""
    if isinstance(error, AccessDeniedException):
        return "the permission m2:ListBatchJobExecutions is missing"
    return f"ListBatchJobExecutions: {error.code}: {error.message}"
