"""A job's way through the ledger: each step written before, or as soon as, it is so. Without a ledger, nothing.

Writes are made when they are called; waiting for them says that they are durable. So they hold also where
the waiting is cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from functools import partial
from typing import Any

from m2async.certainty import Decision, write_decision
from m2async.clock import steady_time
from m2async.errors import CallError, M2ServiceException
from m2async.ledger import LedgerError, LedgerRow, RowState, Run
from m2async.service import StartBatchJobResponse
from m2async.submitting.intake import Submission
from m2async.submitting.outcomes import Outcome, rejected, started, unknown


class Recording:
    """Writes what happens to jobs into a run."""

    def __init__(self, run: Run | None, *, clock: Callable[[], float] = steady_time) -> None:
        self._run = run
        self._clock = clock
        self._being_written: set[asyncio.Future[None]] = set()

    async def enter(self, job: Submission) -> Outcome | None:
        """See what the ledger has of a job: gives its outcome if it was started before, and then it is not sent.

        A job without a row gets one; one that was rejected is to be tried again; what is in doubt says so.
        """
        if job.row is None:
            if self._run is None:
                return None
            job.row = await self._run.add(job.key, job.request)
        row = job.row
        job.attempts = row.attempts
        if row.state is RowState.REJECTED and self._run is not None:
            await self._run.retry(row.number, row.attempts, "submitted again")
        elif row.state is RowState.UNKNOWN:
            job.in_doubt = remembered(row)
        return outcome_of(row) if row.state is RowState.STARTED else None

    def intend(self, job: Submission) -> Awaitable[None]:
        """Write that the job's next attempt will be sent, before its first byte is."""
        if self._run is None or job.row is None:
            return _COMPLETED
        return self._run.intend(job.row.number, job.attempts, self._clock(), resend=job.in_doubt is not None)

    def not_sent(self, job: Submission) -> Awaitable[None]:
        """Write that an attempt was intended and not sent."""
        if self._run is None or job.row is None:
            return _COMPLETED
        return self._run.refused(
            job.row.number, job.attempts, "NotSentError", "the submission stopped or paused before it was sent"
        )

    def started(self, job: Submission, response: StartBatchJobResponse) -> None:
        """Write the service's answer; `job.written` ends once it is durable."""
        if self._run is not None and job.row is not None:
            job.written = self._run.started(job.row.number, job.attempts, response.execution_id, response.request_id)

    def failed(self, job: Submission, error: CallError, *, again: bool) -> Awaitable[None]:
        """Write how an attempt failed; `again` says that the job, surely not started, may be tried again."""
        if self._run is None or job.row is None:
            return _COMPLETED
        write = self._run.unknown if error.may_have_started else self._run.refused if again else self._run.rejected
        request_id = error.request_id if isinstance(error, M2ServiceException) else None
        return write(job.row.number, job.attempts, error.code, error.message, request_id)

    def give_up(self, job: Submission) -> None:
        """Write that the job, surely not started, was tried often enough; `job.written` ends once it is durable."""
        if self._run is not None and job.row is not None:
            job.written = self._run.give_up(job.row.number, job.attempts, "tried often enough")

    def decided(self, job: Submission, decision: Decision) -> Awaitable[None]:
        """Write what was found out about the job's attempts in doubt."""
        assert self._run is not None  # noqa: S101 - only a ledger's row is looked for
        assert job.row is not None  # noqa: S101
        return write_decision(self._run, job.row.number, job.attempts, decision)

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
    """The outcome of a row that has ended, as the ledger has it."""
    if row.state is RowState.STARTED and row.execution_id is not None:
        return started(row, row.execution_id, row.request_id, adopted=row.adopted)
    error = remembered(row)
    if row.state is RowState.UNKNOWN:
        return unknown(row, error, row.candidates)
    return rejected(row, error)


class _Completed:
    """An awaitable that is done."""

    def __await__(self) -> Generator[Any, Any, None]:
        return
        yield


_COMPLETED = _Completed()
