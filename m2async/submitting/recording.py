"""A job's way through the ledger: each step written before, or as soon as, it is so. Without a ledger, nothing.

Writes are made when they are called; waiting for them says that they are durable. So they hold also where
the waiting is cancelled.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Generator
from functools import partial
from typing import Any

from m2async.certainty import Adopted, Ambiguous, Decision, NotStarted, StartedTogether, write_decision
from m2async.clock import steady_time
from m2async.errors import CallError, M2ServiceException
from m2async.ledger import (
    ExecutionClaimedError,
    IllegalTransitionError,
    LedgerError,
    LedgerRow,
    RowNotFoundError,
    RowState,
    Run,
)
from m2async.service import RowNumber, StartBatchJobResponse
from m2async.submitting.intake import Submission
from m2async.submitting.outcomes import Outcome, rejected, started, unknown

_NEVER_AGAIN = sys.maxsize
"""Sends in doubt: more than any policy allows."""


class Recording:
    """Writes what happens to jobs into a run."""

    def __init__(
        self,
        run: Run | None,
        *,
        clock: Callable[[], float] = steady_time,
        clock_offset: Callable[[], float | None] = lambda: None,
    ) -> None:
        self._run = run
        self._clock = clock
        self._clock_offset = clock_offset
        self._being_written: set[asyncio.Future[None]] = set()

    async def enter(self, job: Submission) -> Outcome | None:
        """See what the ledger has of a job: gives its outcome if it was started before, and then it is not sent.

        A job without a row gets one; one that was rejected is to be tried again; what is in doubt says so.
        """
        if job.row is None:
            if self._run is None:
                return None
            job.row = await self._row_of(job, self._run)
            job.key = job.row.key
        row = job.row
        job.attempts = row.attempts
        if row.state is RowState.REJECTED and self._run is not None:
            await self._run.retry(row.number, row.attempts, "submitted again")
        elif row.state is RowState.UNKNOWN:
            job.in_doubt = remembered(row)
        return outcome_of(row) if row.state is RowState.STARTED else None

    async def _row_of(self, job: Submission, run: Run) -> LedgerRow:
        if isinstance(job.key, RowNumber):
            return await run.add_unnamed(job.key, job.request, job.results)
        return await run.add(job.key, job.request)

    def intend(self, job: Submission) -> Awaitable[None]:
        """Write that the job's next attempt will be sent, before its first byte is."""
        if self._run is None or job.row is None:
            return _COMPLETED
        self._run.note_clock(self._clock_offset())
        return self._run.intend(
            job.row.number, job.attempts, self._clock(), not_after=job.not_after, resend=job.in_doubt is not None
        )

    def not_sent(self, job: Submission) -> Awaitable[None]:
        """Write that an attempt was intended and not sent: it does not count."""
        job.attempts -= 1
        if self._run is None or job.row is None:
            return _COMPLETED
        return self._run.withdrawn(
            job.row.number,
            job.attempts + 1,
            "NotSentError",
            "the submission stopped or paused, or its caller gave up, before it was sent",
        )

    def started(self, job: Submission, response: StartBatchJobResponse) -> None:
        """Write the service's answer; `job.written` ends once it is durable."""
        if self._run is not None and job.row is not None:
            job.written = self._run.started(job.row.number, job.attempts, response.execution_id, response.request_id)

    def failed(self, job: Submission, error: CallError, *, again: bool) -> Awaitable[None]:
        """Write how an attempt failed; `again` says that the job, surely not started, may be tried again."""
        if self._run is None or job.row is None:
            return _COMPLETED
        self._run.note_clock(self._clock_offset())
        request_id = error.request_id if isinstance(error, M2ServiceException) else None
        what = (job.row.number, job.attempts, error.code, error.message, request_id)
        if error.may_have_started:
            return self._run.unknown(*what, ended_by_service=error.ended_by_service)
        return self._run.refused(*what) if again else self._run.rejected(*what)

    def give_up(self, job: Submission) -> None:
        """Write that the job, surely not started, was tried often enough; `job.written` ends once it is durable."""
        if self._run is not None and job.row is not None:
            job.written = self._run.give_up(job.row.number, job.attempts, "tried often enough")

    async def decided(self, job: Submission, decision: Decision) -> Decision:
        """Write what was found out about a job's attempts in doubt; gives what stands, as an operator may be first."""
        assert self._run is not None  # noqa: S101 - only a ledger's row is looked for
        assert job.row is not None  # noqa: S101
        try:
            await write_decision(self._run, job.row.number, job.attempts, decision)
            if isinstance(decision, NotStarted) and not await self._is_still_given(job):
                job.sends_in_doubt = _NEVER_AGAIN
            if not isinstance(decision, Ambiguous):
                return decision
        except (IllegalTransitionError, ExecutionClaimedError):
            decision = Ambiguous((), surely_started=False)
        row = await self._run.row(job.key)
        if row.state is RowState.STARTED:
            id_ = row.execution_id
            return StartedTogether((), row.candidates) if id_ is None else Adopted((id_,))
        return NotStarted() if row.state is RowState.PENDING else decision

    async def _is_still_given(self, job: Submission) -> bool:
        """Whether the manifest has the job, when it was given again; otherwise it must not be sent again."""
        assert self._run is not None  # noqa: S101 - only a ledger's row is looked for
        try:
            await self._run.row(job.key)
        except RowNotFoundError:
            return False
        return True

    def when_written(self, job: Submission, then: Callable[[LedgerError | None], None]) -> None:
        """Call `then` once a job's answer is durable, or with what kept it from being so.

        A write that was cancelled counts as written.
        """
        written = job.written
        if written is None:
            then(None)
        elif written.done():
            self._tell(then, written)
        else:
            self._being_written.add(written)
            written.add_done_callback(partial(self._tell, then))

    async def all_written(self) -> None:
        """Wait until every answer is durable."""
        while self._being_written:
            await asyncio.wait(self._being_written)

    def _tell(self, then: Callable[[LedgerError | None], None], written: asyncio.Future[None]) -> None:
        self._being_written.discard(written)
        error = None if written.cancelled() else written.exception()
        then(error if isinstance(error, LedgerError) else None)


async def until_the_ledger_fails(work: Callable[[], Awaitable[None]], stop: Callable[[LedgerError], None]) -> None:
    """Do some work, and if the ledger's failing ends it, stop the rest as well."""
    try:
        await work()
    except LedgerError as error:
        stop(error)


def remembered(row: LedgerRow) -> CallError:
    """The error of a row's last attempt, as the ledger has it."""
    return _RememberedError(row.error_code or "", row.error_message or "")


class _RememberedError(CallError):
    """What the ledger remembers of an attempt of an earlier process that may have started its job."""

    may_have_started = True

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self._code = code

    @property
    def code(self) -> str:
        return self._code


def outcome_of(row: LedgerRow) -> Outcome:
    """The outcome of a row that has ended before, as the ledger has it."""
    if row.state is RowState.STARTED:
        of_group = () if row.execution_id is not None else row.candidates
        return started(row, row.execution_id, row.request_id, adopted=row.adopted, before=True, candidates=of_group)
    error = remembered(row)
    if row.state is RowState.UNKNOWN:
        return unknown(row, error, row.candidates, before=True)
    return rejected(row, error)


class _Completed:
    """An awaitable that is done."""

    def __await__(self) -> Generator[Any, Any, None]:
        return
        yield


_COMPLETED = _Completed()
