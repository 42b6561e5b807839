"""What became of attempts whose answer was lost: list what the service started, match, decide.

The matching itself is `adopt.py`'s. This brings it what it needs, in the order that it needs it in: first the
executions, then the open attempts and what is claimed, so that no execution stands without its attempt; and it sees
to what the matching takes for granted, namely that the clocks agree and that jobs are listed as they were sent.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Protocol

from m2async.certainty.adopt import Attempt, Decision, ListedExecution, Margins, decide, listing_windows
from m2async.ledger import Ledger, OpenAttempt
from m2async.service import BatchJobExecution, Job

RowId = tuple[int, int]
"""A row of a ledger: its run's id and its number."""


class ListsExecutions(Protocol):
    """What a reconciler needs of a client; M2Client is one."""

    @property
    def clock_offset(self) -> float | None:
        """How far the service's clock is ahead of the local one, in seconds; None if that is not known yet."""

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
    wanted: Collection[RowId],
    echoes: Mapping[str, Job],
) -> dict[RowId, Decision]:
    """Decide the rows of an application that are in doubt.

    Arguments:
        client: lists the executions.
        ledger: knows the open attempts, of all runs, and what is claimed.
        application_id: whose rows to decide.
        settled_before: attempts that ended later than this, in seconds of the epoch, are too young to be decided: the
            service's list may lag behind, and its starts too.
        margins: what is not known exactly about times, once the clocks' difference is known.
        wanted: the rows to decide; others just compete for executions.
        echoes: what some executions were started as, by their ids: where the service lists none of them in the same
            terms, an execution of a job that nobody attempted is held for one that may be anybody's.

    Raises the CallError of a list that cannot be had; nothing is decided then.
    """
    listed = await _list(client, ledger, application_id, settled_before, margins, wanted)
    # From here on nothing is listed: attempts and claims are younger than the list, as the matching needs it.
    attempts = await _attempts(client, ledger, application_id, settled_before, wanted)
    claimed = await ledger.claimed(application_id, {execution.execution_id for execution in listed})
    if not any(echoes.get(execution.execution_id) == execution.job for execution in listed):
        attempted = {attempt.job for attempt in attempts}
        listed = [e if e.job in attempted or e.execution_id in claimed else replace(e, job=None) for e in listed]
    decisions = decide(attempts, listed, claimed=claimed, margins=margins)
    return {row: decision for row, decision in decisions.items() if row in wanted}


async def _list(
    client: ListsExecutions,
    ledger: Ledger,
    application_id: str,
    settled_before: float,
    margins: Margins,
    wanted: Collection[RowId],
) -> list[ListedExecution]:
    """List what may matter, by the service's clock: the first list tells what that clock says."""
    listed: list[ListedExecution] = []
    for _ in range(3):
        attempts = await _attempts(client, ledger, application_id, settled_before, wanted)
        offset = client.clock_offset
        listed = [
            ListedExecution(
                execution.execution_id, execution.application_id, execution.job, execution.start_time.timestamp()
            )
            for window in listing_windows(attempts, margins).get(application_id, [])
            async for execution in client.list_batch_job_executions(
                application_id, started_after=window.started_after, started_before=window.started_before
            )
        ]
        now_known = client.clock_offset
        if offset == now_known or abs((offset or 0.0) - (now_known or 0.0)) <= margins.uncertainty:
            break
    return listed


async def _attempts(
    client: ListsExecutions,
    ledger: Ledger,
    application_id: str,
    settled_before: float,
    wanted: Collection[RowId],
) -> list[Attempt[RowId]]:
    """Open attempts by the service's clock: those that are not wanted, or too young, just compete."""

    def is_in_doubt(attempt: OpenAttempt) -> bool:
        settled = attempt.ended_at is not None and attempt.ended_at <= settled_before
        return settled and (attempt.run_id, attempt.number) in wanted

    offset = client.clock_offset or 0.0
    return [
        Attempt(
            (attempt.run_id, attempt.number),
            attempt.application_id,
            attempt.job,
            attempt.sent_at + offset,
            None if attempt.ended_at is None else attempt.ended_at + offset,
            in_doubt=is_in_doubt(attempt),
        )
        for attempt in await ledger.open_attempts(application_id)
    ]
