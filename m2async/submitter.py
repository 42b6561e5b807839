"""The pipeline: read this first.

A request goes through a bounded queue to one of a fixed number of workers. It takes a token, the ledger notes that
it will be sent, it is sent once, and the ledger notes the answer. From that follows whether the job has ended, is sent
again, is looked for among the service's executions, or stops the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterable, Callable, Coroutine, Hashable, Iterable, Sequence
from functools import partial
from os import PathLike
from time import monotonic
from types import TracebackType
from typing import Any, Protocol, Self, cast

import anyio
from anyio.abc import TaskGroup, TaskStatus
from structlog.typing import FilteringBoundLogger

from m2async.adopt import Adopted, Ambiguous, Decision, NotStarted
from m2async.doubts import Doubts
from m2async.errors import CallCancelledError, CallError, M2AsyncError, NotSentError, SubmissionStoppedError
from m2async.events import Events
from m2async.intake import Caller, Job, Request, SubmittedJobs
from m2async.jobs import StartBatchJob
from m2async.ledger import (
    IllegalTransitionError,
    Ledger,
    LedgerError,
    ManifestChangedError,
    RowState,
    Run,
    open_ledger,
)
from m2async.outcomes import Outcome, Rejected, Started, Unknown
from m2async.pacing import Pacer, TokenBucket
from m2async.reconcile import ListsExecutions
from m2async.recording import Recording, outcome_of, remembered
from m2async.responses import StartBatchJobResponse
from m2async.retry import OnUnknown, RetryPolicy, Verdict, retry_from, verdict

_OF_ONE_JOB = (IllegalTransitionError, ManifestChangedError)
"""What the ledger has against a single job: another of its key is under way, or was another request."""


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
        ledger: where every step is written down, as `open_ledger` takes it, or an open Ledger. A job whose key
            was started before is not started again, also not by a later process.
        run: the run in the ledger, by name or as an open Run.
        on_unknown: what to do with a job that may have been started. "adopt", the default with a ledger, looks
            for its execution: it is started, or surely not and sent again, or else unknown. "hold", the
            default without one, reports it as unknown. "resend" sends it again, which can start it twice.
        settle: seconds after which the service's list shows an execution, and nothing starts late any more.
        exact: at most one start per application and job is unanswered at once, so that it can always be told
            what became of it; jobs of the same name then wait for each other.
        retry: how long the attempts of one job go on.
        grace: seconds that the calls under way get to be answered when the submitter is left early;
            what is still open then is unknown.
        logger: a structlog logger to use instead of the host's pipeline.
        log_params: whether log events hold the jobs' parameters and the names of their secrets.

    Use it as an async context manager; it leaves no task behind. It stops by itself when the service
    denies access or does not accept the credentials, when no connection can be made, or when the ledger cannot
    be written: every further job would meet the same. Jobs that were not sent then end in a
    SubmissionStoppedError. A job whose application does not exist or does not run closes that application:
    its further jobs are not sent, and are Rejected with no attempt.
    """

    def __init__(
        self,
        client: StartsBatchJobs,
        *,
        rate: float | None = None,
        burst: float | None = None,
        concurrency: int = 64,
        ledger: str | PathLike[str] | Ledger | None = None,
        run: str | Run = "default",
        on_unknown: OnUnknown | None = None,
        settle: float = 5.0,
        exact: bool = False,
        retry: RetryPolicy | None = None,
        grace: float = 10.0,
        logger: FilteringBoundLogger | None = None,
        log_params: bool = False,
    ) -> None:
        on_unknown = on_unknown or ("hold" if ledger is None else "adopt")
        if concurrency < 1:
            raise ValueError(f"concurrency must be at least 1, not {concurrency}")
        if on_unknown not in {"adopt", "hold", "resend"}:
            raise ValueError(f"on_unknown must be 'adopt', 'hold' or 'resend', not {on_unknown!r}")
        if on_unknown == "adopt" and ledger is None:
            raise ValueError("on_unknown='adopt' goes with a ledger, which is not given")
        if rate is None and burst is not None:
            raise ValueError("burst goes with rate, which is not given")
        if settle < 0:
            raise ValueError(f"settle must not be negative, not {settle}")
        self._client = client
        self._pacer = None if rate is None else Pacer(TokenBucket(rate, 1.0 if burst is None else burst))
        self._concurrency = concurrency
        self._ledger = ledger
        self._run = run
        self._on_unknown: OnUnknown = on_unknown
        self._settle = settle
        self._lanes: dict[Hashable, deque[Job]] | None = {} if exact else None
        self._policy = retry or RetryPolicy()
        self._grace = grace
        self._events = Events(logger=logger, log_params=log_params)
        self._recording = Recording(None)
        self._doubts: Doubts | None = None
        self._queue: asyncio.Queue[Job] = asyncio.Queue(concurrency)
        self._tasks: TaskGroup | None = None
        self._calls_under_way: set[anyio.CancelScope] = set()
        self._being_written: set[asyncio.Future[None]] = set()
        self._closed_applications: dict[str, CallError] = {}
        self._service_answered = False
        self._ended_by: M2AsyncError | None = None

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            if self._ledger is not None:
                await self._open_ledger(stack, self._ledger)
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

        `key` names the job in logs, in the ledger and in the outcome; without a ledger it is by default the
        job's name. A caller that is cancelled while the call is under way gets no outcome, but it is logged
        and written.

        Raises SubmissionStoppedError if the submitter stopped or was left, and the job was not started. With a
        ledger also ManifestChangedError if the key is another request's, and IllegalTransitionError if a job of
        this key is under way.
        """
        if key is None and self._ledger is not None:
            raise ValueError("with a ledger, a job needs a key: it is what tells a repetition from another job")
        caller = Caller()
        await self._put(Job(request.job.name if key is None else key, request, caller))
        return await caller.outcome

    def submit_many(self, requests: Iterable[Request] | AsyncIterable[Request]) -> SubmittedJobs:
        """Start many jobs, and iterate over their outcomes in the order in which they end.

        `requests` is an iterable or async iterable of requests, of (key, request) pairs or of the ledger's
        rows, read no further ahead than the workers need; without a key, a request's number counted from
        1 is its key. A plain iterable is read in the event loop: it should not block.

        The iteration raises what reading `requests` raised, and SubmissionStoppedError if the
        submitter stopped, after the outcomes of what was sent.
        """
        return SubmittedJobs(
            requests, ahead=3 * self._concurrency, put=self._put, spawn=self._spawn, stop_error=self._stop_error
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
    def stopped_by(self) -> M2AsyncError | None:
        """What made it send nothing more, or None while it goes on."""
        return self._ended_by

    # A job's way

    async def _put(self, job: Job) -> None:
        self._check_open()
        await self._queue.put(job)
        if self._ended_by is not None:  # it ended while the queue was full
            self._empty_queue()

    async def _work(self) -> None:
        with anyio.CancelScope() as scope:  # one for all its calls, since making one takes its time
            while True:
                job: Job | None = await self._queue.get()
                while job is not None:
                    job.taken = True
                    if not self._enter_lane(job):
                        break
                    if job.results.abandoned or await self._settled(job, scope):
                        job = self._leave_lane(job)
                    else:
                        break

    async def _settled(self, job: Job, scope: anyio.CancelScope) -> bool:
        """Take a job to its outcome; tells False if it is set aside until its execution is looked for."""
        try:
            outcome = await self._submit(job, scope)
        except asyncio.CancelledError:
            self._interrupted(job)
            raise
        except SubmissionStoppedError:
            self._interrupted(job)
            return True
        except _OF_ONE_JOB as error:
            job.results.failed(error)
            return True
        if outcome is not None:
            self._ended(job, outcome)
        return outcome is not None

    def _ended(self, job: Job, outcome: Outcome) -> None:
        """Give a job its outcome once that is durable; the worker goes on meanwhile."""
        written = job.written
        if written is None or written.done():
            job.results.ended(outcome)
            return
        self._being_written.add(written)
        written.add_done_callback(partial(self._durable, job, outcome))

    def _durable(self, job: Job, outcome: Outcome, written: asyncio.Future[None]) -> None:
        self._being_written.discard(written)
        error = written.exception()
        if isinstance(error, LedgerError):
            self._stop(error)
        job.results.ended(outcome)

    def _interrupted(self, job: Job) -> None:
        """End a job that waited for its first or next attempt, or to be found, when the submitter ended."""
        if job.in_doubt is None:
            job.results.stopped(self._stop_error())
        else:
            job.results.ended(self._unknown(job, job.in_doubt))

    async def _submit(self, job: Job, scope: anyio.CancelScope) -> Outcome | None:
        """Take one job to its outcome, or None if it is set aside."""
        job.began = monotonic()
        try:
            if job.row is None:
                await self._recording.enter(job)
            known = self._known(job)
            if known is None and job.row is not None and job.row.state is RowState.REJECTED:
                await self._recording.again(job)
        except LedgerError as error:
            raise self._ledger_refused(error) from error
        if known is not None:
            return known
        closed = self._closed_applications.get(job.request.application_id)
        if closed is not None:
            return self._rejected(job, closed)
        if job.in_doubt is not None and self._on_unknown != "resend":
            return self._in_doubt(job, job.in_doubt)
        try:
            return await self._attempt(job, scope)
        except CallError as error:
            failure = error
        try:
            return await retry_from(
                failure,
                lambda: self._attempt(job, scope),
                retryable=lambda error: self._verdict(job, error) is Verdict.RETRY,
                exhausted=lambda error, seconds: self._exhausted(job, error, seconds),
                before_wait=lambda error, wait: self._events.retry(job.key, job.request, error, job.attempts, wait),
                policy=self._policy,
            )
        except CallError as error:
            return self._failed(job, error)

    def _known(self, job: Job) -> Outcome | None:
        """What the ledger knows of a job from an earlier run of the program: one that is started is not sent."""
        row = job.row
        if row is None or job.reconciled:
            return None
        job.attempts = row.attempts
        if row.state is RowState.STARTED:
            return outcome_of(row)
        if row.state is RowState.UNKNOWN:
            job.in_doubt = remembered(row)
        return None

    async def _attempt(self, job: Job, scope: anyio.CancelScope) -> Started:
        """Take a token, note the intent, send the request once, and record the execution id."""
        if self._pacer is not None:
            await self._pacer.acquire()
        await self._intend(job)
        response = await self._call(job, scope)
        self._service_answered = True
        execution_id, request_id = response.execution_id, response.request_id
        if self._doubts is not None:
            self._doubts.started(execution_id, job.request.job)
        self._events.started(job.key, job.request, execution_id, request_id, job.attempts, monotonic() - job.began)
        return Started(
            key=job.key,
            request=job.request,
            attempts=job.attempts,
            execution_id=execution_id,
            request_id=request_id,
        )

    async def _intend(self, job: Job) -> None:
        """Have it written that the attempt comes, before its first byte goes.

        If the submitter ends or is cancelled meanwhile, nothing is sent, and that is written too.
        """
        if self._ended_by is not None:
            raise self._stop_error()
        job.attempts += 1
        try:
            await self._recording.intend(job)
        except LedgerError as error:
            job.attempts -= 1
            raise self._ledger_refused(error) from error
        except asyncio.CancelledError:
            self._recording.not_sent(job)
            raise
        if self.stopped_by is not None:  # meanwhile
            self._recording.not_sent(job)
            raise self._stop_error()

    async def _call(self, job: Job, scope: anyio.CancelScope) -> StartBatchJobResponse:
        """Send the request and write the answer, where no cancellation reaches but the deadline that `stop` sets.

        `scope` is the worker's own; past that deadline it stays cancelled, and ends the worker.
        """
        response: StartBatchJobResponse | None = None
        failure: CallError | None = None
        scope.shield = True
        self._calls_under_way.add(scope)
        try:
            try:
                response = await self._client.start_batch_job(job.request)
            except CallError as error:
                failure = self._doubted(job, error)
            await self._write_answer(job, response, failure)
        except asyncio.CancelledError:
            if not scope.cancel_called:
                raise
        finally:
            self._calls_under_way.discard(scope)
            scope.shield = False
        if response is not None:
            return response
        if failure is None:
            failure = self._doubted(job, CallCancelledError("the submitter was left before an answer came"))
            self._recording.failed(job, failure, again=False)
        raise failure

    def _doubted(self, job: Job, error: CallError) -> CallError:
        """Keep in mind that a failed attempt may have started the job."""
        if error.may_have_started:
            job.in_doubt = error
            job.sends_in_doubt += 1
        self._service_answered |= not isinstance(error, NotSentError)
        return error

    async def _write_answer(self, job: Job, response: StartBatchJobResponse | None, failure: CallError | None) -> None:
        """Write an answer into the ledger, and wait for it where the job or its lane must not go on before.

        Where it cannot be written, nothing more is sent.
        """
        try:
            if response is not None:
                self._recording.started(job, response)
                if self._lanes is not None and job.written is not None:
                    await job.written
            elif failure is not None:
                again = self._verdict(job, failure) in {Verdict.RETRY, Verdict.STOP}
                await self._recording.failed(job, failure, again=again)
        except LedgerError as error:
            self._stop(error)

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

    def _failed(self, job: Job, error: CallError) -> Outcome | None:
        """End a job whose last attempt failed, or set it aside, and draw the consequence for the others."""
        decision = self._verdict(job, error)
        if decision is Verdict.CLOSE_APPLICATION:
            self._closed_applications[job.request.application_id] = error
            self._events.application_closed(job.request.application_id, error)
        elif decision is Verdict.STOP or isinstance(error, NotSentError):
            self._stop(error)
        elif decision is Verdict.RETRY and job.in_doubt is None:
            self._give_up(job)
        if job.in_doubt is not None:
            return self._in_doubt(job, job.in_doubt)
        return self._rejected(job, error)

    def _give_up(self, job: Job) -> None:
        try:
            self._recording.give_up(job)
        except LedgerError as error:
            self._stop(error)

    def _in_doubt(self, job: Job, error: CallError) -> Outcome | None:
        """Set a job aside until its execution is looked for, or leave it unknown."""
        if self._doubts is None or self._ended_by is not None:
            return self._unknown(job, error)
        self._doubts.park(job)
        return None

    async def _decided(self, decisions: Sequence[tuple[Job, Decision]]) -> None:
        """Go on with jobs that were looked for; what was found is written for all of them together."""
        with anyio.CancelScope(shield=True):  # what was found is written and told, then may anything end
            again = await asyncio.gather(*(self._carry_out(job, decision) for job, decision in decisions))
        going_on = deque(
            following
            for (job, _), is_sent_again in zip(decisions, again, strict=True)
            if (following := job if is_sent_again else self._leave_lane(job)) is not None
        )
        try:
            while going_on:
                await self._queue.put(going_on[0])
                going_on.popleft()
        finally:
            if self._ended_by is not None:  # nobody takes them any more
                self._empty_queue()
                for job in going_on:
                    self._interrupted(job)

    async def _carry_out(self, job: Job, decision: Decision) -> bool:
        """Have it written what was found, and end the job with it; tells whether it is to be sent again instead."""
        error = job.in_doubt
        assert error is not None  # noqa: S101 - only such jobs are looked for
        try:
            await self._recording.decided(job, decision)
        except LedgerError as failure:
            self._stop(failure)
            self._interrupted(job)
            return False
        match decision:
            case Adopted():
                job.results.ended(self._adopted(job, decision.execution_id))
            case NotStarted():
                job.in_doubt = None
                if job.sends_in_doubt <= self._policy.resends:
                    return True
                self._give_up(job)
                self._ended(job, self._rejected(job, error))
            case Ambiguous():
                job.results.ended(self._unknown(job, error, tuple(decision.candidates)))
        return False

    def _ledger_refused(self, error: LedgerError) -> M2AsyncError:
        """What a job ends in whose intent could not be written: its own error, or the end of everything."""
        if isinstance(error, _OF_ONE_JOB):
            return error
        self._stop(error)
        return self._stop_error()

    def _stop(self, cause: M2AsyncError) -> None:
        if self._ended_by is None:
            self._events.stopped(cause)
            self._end(cause)

    def _end(self, cause: M2AsyncError) -> None:
        """Send nothing more: cancel everything but the calls under way, and tell whoever waits."""
        if self._ended_by is not None or self._tasks is None:
            return
        self._ended_by = cause
        self._tasks.cancel_scope.cancel()
        self._empty_queue()
        for job in [job for lane in (self._lanes or {}).values() for job in lane]:
            job.results.stopped(self._stop_error())
        if self._lanes is not None:
            self._lanes.clear()
        for job in self._doubts.take_all() if self._doubts is not None else ():
            self._interrupted(job)

    def _empty_queue(self) -> None:
        while not self._queue.empty():
            job = self._queue.get_nowait()
            job.taken = True
            self._interrupted(job)

    def _stop_error(self) -> SubmissionStoppedError:
        return SubmissionStoppedError(self._ended_by or NotSentError("the submitter was cancelled"))

    # Exact mode: one lane for each application and job, with one of its jobs under way

    def _enter_lane(self, job: Job) -> bool:
        """Whether a job may go on now; else it waits in its lane."""
        if self._lanes is None or job.reconciled:
            return True
        lane = (job.request.application_id, job.request.job)
        if lane in self._lanes and not job.in_lane:
            self._lanes[lane].append(job)
            return False
        self._lanes.setdefault(lane, deque())
        job.in_lane = True
        return True

    def _leave_lane(self, job: Job) -> Job | None:
        """Let the next job of the lane go on."""
        if self._lanes is None:
            return None
        lane = (job.request.application_id, job.request.job)
        waiting = self._lanes.get(lane)
        if not waiting:
            self._lanes.pop(lane, None)
            return None
        following = waiting.popleft()
        following.in_lane = True
        return following

    def _rejected(self, job: Job, error: CallError) -> Rejected:
        self._events.rejected(job.key, job.request, error, job.attempts, monotonic() - job.began)
        return Rejected(key=job.key, request=job.request, attempts=job.attempts, error=error)

    def _unknown(self, job: Job, error: CallError, candidates: tuple[str, ...] = ()) -> Unknown:
        self._events.unknown(job.key, job.request, error, job.attempts, monotonic() - job.began)
        return Unknown(key=job.key, request=job.request, attempts=job.attempts, error=error, candidates=candidates)

    def _adopted(self, job: Job, execution_id: str) -> Started:
        elapsed = monotonic() - job.began
        self._events.started(job.key, job.request, execution_id, None, job.attempts, elapsed, adopted=True)
        return Started(key=job.key, request=job.request, attempts=job.attempts, execution_id=execution_id, adopted=True)

    async def _open_ledger(self, stack: contextlib.AsyncExitStack, given: str | PathLike[str] | Ledger) -> None:
        ledger = given if isinstance(given, Ledger) else await stack.enter_async_context(open_ledger(given))
        run = self._run if isinstance(self._run, Run) else await ledger.open_run(self._run)
        if run is not self._run:
            await stack.enter_async_context(run)
        self._recording = Recording(run)
        if self._on_unknown == "adopt":
            lister = cast("ListsExecutions", self._client)
            self._doubts = Doubts(
                lister,
                ledger,
                run.info.id,
                settle=self._settle,
                decided=self._decided,
                failed=self._events.reconcile_failed,
            )

    async def _serve(self, *, task_status: TaskStatus[None]) -> None:
        """Run the workers, and the feeders of `submit_many`, until `_end` cancels them."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            for _ in range(self._concurrency):
                tasks.start_soon(self._work)
            if self._doubts is not None:
                tasks.start_soon(self._look_for_jobs, self._doubts)
            task_status.started()
        with anyio.CancelScope(shield=True):
            while self._being_written:
                await asyncio.wait(self._being_written)

    async def _look_for_jobs(self, doubts: Doubts) -> None:
        try:
            await doubts.run()
        except LedgerError as error:
            self._stop(error)

    def _spawn(self, feed: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._check_open().start_soon(feed)

    def _check_open(self) -> TaskGroup:
        if self._ended_by is not None:
            raise self._stop_error()
        if self._tasks is None:
            raise RuntimeError("the submitter is not open: use it as 'async with Submitter(...) as submitter'")
        return self._tasks
