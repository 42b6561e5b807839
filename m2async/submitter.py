"""The pipeline: read this first.

A request goes through a bounded queue to one of a fixed number of workers, which takes a token, sends
the request once, and decides from the answer whether the job ended, is sent again, or stops the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterable, Callable, Coroutine, Iterable
from time import monotonic
from types import TracebackType
from typing import Any, Protocol, Self

import anyio
from anyio.abc import TaskGroup, TaskStatus
from structlog.typing import FilteringBoundLogger

from m2async.errors import CallCancelledError, CallError, NotSentError, SubmissionStoppedError
from m2async.events import Events
from m2async.intake import Caller, Job, Request, SubmittedJobs
from m2async.jobs import StartBatchJob
from m2async.outcomes import Outcome, Rejected, Started, Unknown
from m2async.pacing import Pacer, TokenBucket
from m2async.responses import StartBatchJobResponse
from m2async.retry import OnUnknown, RetryPolicy, Verdict, retry_from, verdict


class StartsBatchJobs(Protocol):
    """What a submitter needs of a client; M2Client is one."""

    async def start_batch_job(self, request: StartBatchJob, /) -> StartBatchJobResponse:
        """Send the request once, or raise the CallError that says what became of it."""


class Submitter:
    """Starts batch jobs in bulk: paced, sent again where that is safe, each with an outcome.

    Arguments:
        client: an open M2Client, or whatever else starts a batch job in one attempt.
        rate: calls a second at most, those that are sent again included; None for no limit.
        burst: how many calls may go out at once after a pause, 1 by default; goes with `rate`.
        concurrency: how many calls are under way at once, at most.
        on_unknown: what to do with a job that may have been started: "hold" reports it as unknown;
            "resend" sends it again, which can start it twice.
        retry: how long the attempts of one job go on.
        grace: seconds that the calls under way get to be answered when the submitter is left early;
            what is still open then is unknown.
        logger: a structlog logger to use instead of the host's pipeline.
        log_params: whether log events hold the jobs' parameters and the names of their secrets.

    Use it as an async context manager; it leaves no task behind. It stops by itself when the service
    denies access or does not accept the credentials, or when no connection can be made: every further
    job would meet the same. Jobs that were not sent then end in a SubmissionStoppedError. A job whose
    application does not exist or does not run closes that application: its further jobs are not sent,
    and are Rejected with no attempt.
    """

    def __init__(
        self,
        client: StartsBatchJobs,
        *,
        rate: float | None = None,
        burst: float | None = None,
        concurrency: int = 64,
        on_unknown: OnUnknown = "hold",
        retry: RetryPolicy | None = None,
        grace: float = 10.0,
        logger: FilteringBoundLogger | None = None,
        log_params: bool = False,
    ) -> None:
        if concurrency < 1:
            raise ValueError(f"concurrency must be at least 1, not {concurrency}")
        if on_unknown not in {"hold", "resend"}:
            raise ValueError(f"on_unknown must be 'hold' or 'resend', not {on_unknown!r}")
        if rate is None and burst is not None:
            raise ValueError("burst goes with rate, which is not given")
        self._client = client
        self._pacer = None if rate is None else Pacer(TokenBucket(rate, 1.0 if burst is None else burst))
        self._concurrency = concurrency
        self._on_unknown: OnUnknown = on_unknown
        self._policy = retry or RetryPolicy()
        self._grace = grace
        self._events = Events(logger=logger, log_params=log_params)
        self._queue: asyncio.Queue[Job] = asyncio.Queue(concurrency)
        self._tasks: TaskGroup | None = None
        self._calls_under_way: set[anyio.CancelScope] = set()
        self._closed_applications: dict[str, CallError] = {}
        self._service_answered = False
        self._ended_by: CallError | None = None

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            host = await stack.enter_async_context(anyio.create_task_group())
            await host.start(self._serve)
            self._host = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        self.stop("the submitter was left before the job was sent")
        return await self._host.__aexit__(kind, exc, traceback)

    async def submit(self, request: StartBatchJob, *, key: str | None = None) -> Outcome:
        """Start one job and wait for its outcome; waits in line while all workers are busy.

        `key` names the job in logs and in the outcome; by default it is the job's name. A caller that
        is cancelled while the call is under way gets no outcome, but the outcome is logged.

        Raises SubmissionStoppedError if the submitter stopped or was left, and the job was not started.
        """
        caller = Caller()
        await self._put(Job(request.job.name if key is None else key, request, caller))
        return await caller.outcome

    def submit_many(self, requests: Iterable[Request] | AsyncIterable[Request]) -> SubmittedJobs:
        """Start many jobs, and iterate over their outcomes in the order in which they end.

        `requests` is an iterable or async iterable of requests or of (key, request) pairs, read no
        further ahead than the workers need; without a key, a request's number counted from 1 is its
        key. A plain iterable is read in the event loop: it should not block.

        The iteration raises what reading `requests` raised, and SubmissionStoppedError if the
        submitter stopped, after the outcomes of what was sent.
        """
        return SubmittedJobs(
            requests, ahead=2 * self._concurrency, put=self._put, spawn=self._spawn, stop_error=self._stop_error
        )

    def stop(self, reason: str) -> None:
        """Send nothing more; calls under way get the grace to be answered.

        What was not sent ends in a SubmissionStoppedError that holds the reason.
        """
        self._end(NotSentError(reason))
        deadline = anyio.current_time() + self._grace
        for call in self._calls_under_way:
            call.deadline = min(call.deadline, deadline)

    @property
    def stopped_by(self) -> CallError | None:
        """What made it send nothing more, or None while it goes on."""
        return self._ended_by

    # A job's way

    async def _put(self, job: Job) -> None:
        self._check_open()
        await self._queue.put(job)
        if self._ended_by is not None:  # it ended while the queue was full
            self._empty_queue()

    async def _work(self) -> None:
        while True:
            job = await self._queue.get()
            job.taken = True
            if job.results.abandoned:
                continue
            try:
                outcome = await self._submit(job)
            except asyncio.CancelledError:
                self._interrupted(job)
                raise
            except SubmissionStoppedError:
                self._interrupted(job)
                return
            job.results.ended(outcome)

    def _interrupted(self, job: Job) -> None:
        """End a job that waited for its first or next attempt when the submitter ended."""
        if job.in_doubt is None:
            job.results.stopped(self._stop_error())
        else:
            job.results.ended(self._unknown(job, job.in_doubt))

    async def _submit(self, job: Job) -> Outcome:
        """Take one job to its outcome."""
        job.began = monotonic()
        closed = self._closed_applications.get(job.request.application_id)
        if closed is not None:
            return self._rejected(job, closed)
        try:
            return await self._attempt(job)
        except CallError as error:
            failure = error
        try:
            return await retry_from(
                failure,
                lambda: self._attempt(job),
                retryable=lambda error: self._verdict(job, error) is Verdict.RETRY,
                exhausted=lambda error, seconds: self._exhausted(job, error, seconds),
                before_wait=lambda error, wait: self._events.retry(job.key, job.request, error, job.attempts, wait),
                policy=self._policy,
            )
        except CallError as error:
            return self._failed(job, error)

    async def _attempt(self, job: Job) -> Started:
        """Take a token, send the request once, and record the execution id."""
        if self._pacer is not None:
            await self._pacer.acquire()
        if self._ended_by is not None:
            raise self._stop_error()
        job.attempts += 1
        try:
            response = await self._call(job)
        except CallError as error:
            if error.may_have_started:
                job.in_doubt = error
                job.sends_in_doubt += 1
            self._service_answered |= not isinstance(error, NotSentError)
            raise
        self._service_answered = True
        execution_id, request_id = response.execution_id, response.request_id
        self._events.started(job.key, job.request, execution_id, request_id, job.attempts, monotonic() - job.began)
        return Started(
            key=job.key,
            request=job.request,
            attempts=job.attempts,
            execution_id=execution_id,
            request_id=request_id,
        )

    async def _call(self, job: Job) -> StartBatchJobResponse:
        """Send the request where no cancellation reaches it, but for the deadline that `__aexit__` sets."""
        with anyio.CancelScope(shield=True) as scope:
            self._calls_under_way.add(scope)
            try:
                return await self._client.start_batch_job(job.request)
            finally:
                self._calls_under_way.discard(scope)
        raise CallCancelledError("the submitter was left before an answer came")

    # What follows from a failure

    def _verdict(self, job: Job, error: CallError) -> Verdict:
        return verdict(error, job.request, self._on_unknown)

    def _exhausted(self, job: Job, error: CallError, seconds: float) -> bool:
        """Whether a failure that could be retried is final, `seconds` after the job's first."""
        if error.may_have_started:
            return job.sends_in_doubt > self._policy.resends
        if isinstance(error, NotSentError) and not self._service_answered:
            return seconds >= self._policy.unreachable
        return seconds >= self._policy.patience

    def _failed(self, job: Job, error: CallError) -> Outcome:
        """End a job whose last attempt failed, and draw the consequence for the others."""
        outcome = self._rejected(job, error) if job.in_doubt is None else self._unknown(job, job.in_doubt)
        decision = self._verdict(job, error)
        if decision is Verdict.CLOSE_APPLICATION:
            self._closed_applications[job.request.application_id] = error
            self._events.application_closed(job.request.application_id, error)
        elif decision is Verdict.STOP or isinstance(error, NotSentError):
            self._events.stopped(error)
            self._end(error)
        return outcome

    def _end(self, cause: CallError) -> None:
        """Send nothing more: cancel everything but the calls under way, and tell whoever waits."""
        if self._ended_by is not None or self._tasks is None:
            return
        self._ended_by = cause
        self._tasks.cancel_scope.cancel()
        self._empty_queue()

    def _empty_queue(self) -> None:
        while not self._queue.empty():
            job = self._queue.get_nowait()
            job.taken = True
            job.results.stopped(self._stop_error())

    def _stop_error(self) -> SubmissionStoppedError:
        return SubmissionStoppedError(self._ended_by or NotSentError("the submitter was cancelled"))

    def _rejected(self, job: Job, error: CallError) -> Rejected:
        self._events.rejected(job.key, job.request, error, job.attempts, monotonic() - job.began)
        return Rejected(key=job.key, request=job.request, attempts=job.attempts, error=error)

    def _unknown(self, job: Job, error: CallError) -> Unknown:
        self._events.unknown(job.key, job.request, error, job.attempts, monotonic() - job.began)
        return Unknown(key=job.key, request=job.request, attempts=job.attempts, error=error)

    async def _serve(self, *, task_status: TaskStatus[None]) -> None:
        """Run the workers, and the feeders of `submit_many`, until `_end` cancels them."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            for _ in range(self._concurrency):
                tasks.start_soon(self._work)
            task_status.started()

    def _spawn(self, feed: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._check_open().start_soon(feed)

    def _check_open(self) -> TaskGroup:
        if self._ended_by is not None:
            raise self._stop_error()
        if self._tasks is None:
            raise RuntimeError("the submitter is not open: use it as 'async with Submitter(...) as submitter'")
        return self._tasks
