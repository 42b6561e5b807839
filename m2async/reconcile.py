"""What became of attempts whose answer was lost: list what the service started, match, decide.

The matching itself is `adopt.py`'s; this brings it what it needs, in the order that it needs it in: first the
executions, then the open attempts and what is claimed, so that no execution stands without its attempt.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from datetime import datetime
from typing import Protocol

from m2async.adopt import Attempt, Decision, ListedExecution, Margins, decide, listing_windows
from m2async.ledger import Ledger, OpenAttempt
from m2async.responses import BatchJobExecution

RowId = tuple[int, int]
"""A row of a ledger: its run's id and its number."""


class ListsExecutions(Protocol):
    """What a reconciler needs of a client; M2Client is one."""

    def list_batch_job_executions(
        self,
        application_id: str,
        /,
        *,
        started_after: datetime | None = None,
        started_before: datetime | None = None,
    ) -> AsyncIterator[BatchJobExecution]:
        """Iterate over an application's executions within a window of time."""


async def reconcile(
    client: ListsExecutions,
    ledger: Ledger,
    application_id: str,
    *,
    settled_before: float,
    margins: Margins,
    wanted: Collection[RowId] | None = None,
) -> dict[RowId, Decision]:
    """Decide the rows of an application that are in doubt.

    Arguments:
        client: lists the executions.
        ledger: knows the open attempts, of all runs, and what is claimed.
        application_id: whose rows to decide.
        margins: what is not known exactly about times.
        settled_before: attempts that ended later than this, in seconds of the epoch, are too young to be decided: the
            service's list may lag behind, and its starts too.
        wanted: only these rows, of any run; by default all.

    Raises the CallError of a list that cannot be had; nothing is decided then.
    """
    attempts = _attempts(await ledger.open_attempts(application_id), settled_before, wanted)
    windows = listing_windows(attempts, margins).get(application_id, [])
    if not windows:
        return {}
    listed = [
        ListedExecution(
            execution.execution_id, execution.application_id, execution.job, execution.start_time.timestamp()
        )
        for window in windows
        async for execution in client.list_batch_job_executions(
            application_id, started_after=window.started_after, started_before=window.started_before
        )
    ]
    attempts = _attempts(await ledger.open_attempts(application_id), settled_before, wanted)
    claimed = await ledger.claimed(application_id, {execution.execution_id for execution in listed})
    decisions = decide(attempts, listed, claimed=claimed, margins=margins)
    return {row: decision for row, decision in decisions.items() if wanted is None or row in wanted}


def _attempts(
    open_attempts: list[OpenAttempt], settled_before: float, wanted: Collection[RowId] | None
) -> list[Attempt[RowId]]:
    """Open attempts as the matching takes them: those that are not wanted, or too young, just compete."""
    return [
        Attempt(
            (attempt.run_id, attempt.number),
            attempt.application_id,
            attempt.job,
            attempt.sent_at,
            attempt.ended_at,
            in_doubt=(
                attempt.ended_at is not None
                and attempt.ended_at <= settled_before
                and (wanted is None or (attempt.run_id, attempt.number) in wanted)
            ),
        )
        for attempt in open_attempts
    ]
