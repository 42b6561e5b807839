"""The pipeline: read this first.

A request goes through a queue to one of a fixed number of workers. It takes a token, the ledger notes that it will be
sent, it is sent once, and the ledger notes the answer. From that follows whether the job has ended, stops the rest, or
is set aside and comes back to the queue later: because it is sent again (resends.py), waits for its application
(circuits.py), is looked for among the service's executions (certainty/doubts.py), or waits for another of its name
(lanes.py). What follows from a failure is decided in consequences.py.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from os import PathLike
from types import TracebackType
from typing import Any, Protocol, Self, assert_never, cast

import anyio
from anyio.abc import TaskGroup, TaskStatus
from structlog.typing import FilteringBoundLogger

from m2async.certainty import Adopted, Ambiguous, Decision, Doubts, ListsExecutions, NotStarted, OnUnknown, verdict
from m2async.errors import (
    CallCancelledError,
    CallError,
    M2AsyncError,
    M2ServiceException,
    NotSentError,
    SubmissionStoppedError,
    ThrottlingException,
)
from m2async.events import Events
from m2async.ledger import (
    IllegalTransitionError,
    Ledger,
    LedgerError,
    ManifestChangedError,
    Run,
    open_ledger,
)
from m2async.pacing import Pacer, RetryPolicy, TokenBucket, wait_before_resend
from m2async.service import StartBatchJob, StartBatchJobResponse
from m2async.submitting.circuits import Circuits
from m2async.submitting.consequences import Consequence, Failures, Step, consequence
from m2async.submitting.endings import Endings
from m2async.submitting.intake import Caller, Request, Submission, SubmissionStream, SubmittedJobs
from m2async.submitting.lanes import Lanes
from m2async.submitting.outcomes import Outcome
from m2async.submitting.recording import Recording
from m2async.submitting.resends import Resends
from m2async.submitting.tokens import Tokens

_OF_ONE_JOB = (IllegalTransitionError, ManifestChangedError)
"""Ledger errors that concern one job only: its key is in flight, or was used for another request."""


class StartsBatchJobs(Protocol):
    """What a submitter needs of a client; M2Client is one."""

    def start_batch_job(self, request: StartBatchJob, /) -> Awaitable[StartBatchJobResponse]:
        """Send the request once, or raise the CallError that says what became of it."""


class Submitter:
    """Starts batch jobs in bulk: paced, sent again where that is safe, each with an outcome.

    Arguments:
        client: an open M2Client, or whatever else starts a batch job in one attempt.
        rate: calls a second at most, those that are sent again included; None for no limit. It is lowered while
            the service shows by throttling that its quota is less.
        burst: how many calls may go out at once after a pause, 1 by default; goes with `rate`.
        adaptive: find the quota, and keep just below it; goes without `rate`.
        pacer: what several submitters share one quota by, instead of `rate` or `adaptive`.
        weight: the submitter's share of the `pacer`, in relation to the others'.
        application_buckets: token buckets of single applications, by their ids, besides the pacing of all.
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
    SubmissionStoppedError. A job whose application does not exist or does not run holds that application's
    jobs: after a pause one of them goes as a probe. If that goes on for `retry.hold` seconds, they are Rejected;
    with no attempt those that were not sent.
    """

    def __init__(
        self,
        client: StartsBatchJobs,
        *,
        rate: float | None = None,
        burst: float | None = None,
        adaptive: bool = False,
        pacer: Pacer | None = None,
        weight: float = 1.0,
        application_buckets: Mapping[str, TokenBucket] | None = None,
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
        if settle < 0:
            raise ValueError(f"settle must not be negative, not {settle}")
        self._client = client
        self._tokens = Tokens(
            rate=rate, burst=burst, adaptive=adaptive, pacer=pacer, weight=weight, buckets=application_buckets or {}
        )
        self._concurrency = concurrency
        self._ledger = ledger
        self._run = run
        self._on_unknown: OnUnknown = on_unknown
        self._settle = settle
        self._lanes = Lanes() if exact else None
        self._policy = retry or RetryPolicy()
        self._grace = grace
        self._events = Events(logger=logger, log_params=log_params)
        self._endings = Endings(self._events)
        self._recording = Recording(None)
        self._doubts: Doubts[Submission] | None = None
        self._resends = Resends(self._requeue, lambda: self.rate)
        self._circuits = Circuits(
            hold=self._policy.hold, probe=self._policy.probe, requeue=self._requeue, give_up=self._give_up
        )
        self._queue: asyncio.Queue[Submission] = asyncio.Queue()
        self._tasks: TaskGroup | None = None
        self._calls_under_way: set[anyio.CancelScope] = set()
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
        try:
            return await self._host.__aexit__(kind, exc, traceback)
        except BaseExceptionGroup as group:
            if group.exceptions == (exc,):  # what the block raised stays as it is
                return False
            raise

    async def submit(self, request: StartBatchJob, *, key: str | None = None) -> Outcome:
        """Start one job and wait for its outcome.

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
        self._put(Submission(request.job.name if key is None else key, request, caller))
        return await caller.outcome

    def submit_many(self, requests: Iterable[Request] | AsyncIterable[Request]) -> SubmittedJobs:
        """Start many jobs, and iterate over their outcomes in the order in which they end.

        `requests` is an iterable or async iterable of requests, of (key, request) pairs or of the ledger's
        rows, read no further ahead than the workers need; without a key, a request's number counted from
        1 is its key. A plain iterable is read in the event loop: it should not block.

        The iteration raises what reading `requests` raised, and SubmissionStoppedError if the
        submitter stopped, after the outcomes of what was sent.
        """
        return SubmissionStream(
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

    def set_rate(self, rate: float, burst: float = 1.0) -> None:
        """Pace by another rate and burst from now on; whoever shares the pacer is paced so too.

        Raises ValueError unless `rate` is above 0 and `burst` at least 1.
        """
        self._tokens.set_rate(rate, burst)

    def pause(self) -> None:
        """Send nothing more for now; calls under way are answered. `unpause` ends the pause.

        No job is given up meanwhile; applications that are held are held anew when it ends.
        """
        self._tokens.pause.begin()
        self._circuits.pause()

    def unpause(self) -> None:
        """End a pause."""
        self._tokens.pause.end()
        self._circuits.unpause()

    @property
    def rate(self) -> float | None:
        """The calls a second that are sent at most at present; None for no limit."""
        return self._tokens.rate

    @property
    def found_rate(self) -> float | None:
        """The quota that throttling showed, in calls a second; None if there was none, or not enough."""
        return self._tokens.found_rate

    @property
    def held(self) -> Mapping[str, tuple[CallError, int]]:
        """The applications that are not called at present: what they answer, and how many jobs wait for each."""
        return self._circuits.held

    @property
    def stopped_by(self) -> M2AsyncError | None:
        """What made it send nothing more, or None while it goes on."""
        return self._ended_by

    # A job's way

    def _put(self, job: Submission) -> None:
        self._check_open()
        self._queue.put_nowait(job)

    def _requeue(self, job: Submission) -> None:
        """Let a job that was set aside go on."""
        if self._ended_by is None:
            self._queue.put_nowait(job)
        else:
            self._interrupted(job)

    async def _work(self) -> None:
        with anyio.CancelScope() as scope:  # one for all its calls, since making one takes its time
            while True:
                job = await self._queue.get()
                try:
                    await self._take_on(job, scope)
                except asyncio.CancelledError:
                    self._interrupted(job)
                    raise
                except SubmissionStoppedError:
                    self._interrupted(job)
                except _OF_ONE_JOB as error:
                    self._circuits.unanswered(job)
                    job.failed(error)
                    self._leave_lane(job)

    def _interrupted(self, job: Submission) -> None:
        """End a job that waited for its first or next attempt, or to be found, when the submitter ended."""
        if job.in_doubt is None:
            job.stopped(self._stop_error())
        else:
            job.ended(self._endings.unknown(job, job.in_doubt))

    async def _take_on(self, job: Submission, scope: anyio.CancelScope) -> None:
        """Run a job until it has an outcome or must wait."""
        if self._lanes is not None and not self._lanes.enter(job):
            return
        outcome: Outcome | None = None
        if not job.is_entered:
            if job.results.abandoned:
                self._leave_lane(job)
                return
            job.begin()
            outcome = await self._enter(job)
            job.is_entered = True
            if outcome is None and job.in_doubt is not None and self._on_unknown != "resend":
                outcome = self._look_for(job, job.in_doubt)
                if outcome is None:
                    return
        if outcome is None:
            job.admitted_at = asyncio.get_running_loop().time()
            if not self._circuits.admit(job):
                return
            outcome = await self._attempt(job, scope)
        if outcome is not None:
            self._end_job(job, outcome)

    async def _enter(self, job: Submission) -> Outcome | None:
        """See what the ledger knows of a job from an earlier run of the program: one that is started is not sent."""
        try:
            return await self._recording.enter(job)
        except LedgerError as error:
            raise self._ledger_refused(error) from error

    def _end_job(self, job: Submission, outcome: Outcome) -> None:
        """Give a job its outcome once that is durable; the worker goes on meanwhile."""
        self._leave_lane(job)
        self._recording.when_written(job, partial(self._durable, job, outcome))

    def _durable(self, job: Submission, outcome: Outcome, error: LedgerError | None) -> None:
        if error is not None:
            self._stop(error)
        job.ended(outcome)

    def _leave_lane(self, job: Submission) -> None:
        following = None if self._lanes is None else self._lanes.leave(job)
        if following is not None:
            self._requeue(following)

    async def _attempt(self, job: Submission, scope: anyio.CancelScope) -> Outcome | None:
        """Take a token, note the intent, send the request once, and draw the consequence."""
        await self._tokens.take(job)
        await self._intend(job)
        while self._tokens.pause.active:  # it began while the intent was written
            self._recording.not_sent(job)
            await self._tokens.take(job)
            await self._intend(job)
        answer = await self._call(job, scope)
        if isinstance(answer, Consequence):
            return self._follow(job, answer)
        if self._doubts is not None:
            self._doubts.started(answer.execution_id, job.request.job)
        return self._endings.started(job, answer.execution_id, answer.request_id)

    async def _intend(self, job: Submission) -> None:
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

    async def _call(self, job: Submission, scope: anyio.CancelScope) -> StartBatchJobResponse | Consequence:
        """Send the request and write the answer, where no cancellation reaches but the deadline that `stop` sets.

        `scope` is the worker's own; past that deadline it stays cancelled, and ends the worker.
        """
        answer: StartBatchJobResponse | Consequence | None = None
        scope.shield = True
        self._calls_under_way.add(scope)
        try:
            try:
                answer = await self._client.start_batch_job(job.request)
            except CallError as error:
                answer = self._failed(job, error)
            else:
                self._succeeded(job)
            await self._write_answer(job, answer)
        except asyncio.CancelledError:
            if not scope.cancel_called:
                raise
        finally:
            self._calls_under_way.discard(scope)
            scope.shield = False
        if answer is None:
            answer = self._failed(job, CallCancelledError("the submitter was left before an answer came"))
            self._recording.failed(job, answer.error, again=False)
        return answer

    def _succeeded(self, job: Submission) -> None:
        """Let the pacing, the budget and the application's circuit know of a start."""
        self._service_answered = True
        self._tokens.succeeded(job)
        self._resends.succeeded()
        self._circuits.answered(job)

    def _failed(self, job: Submission, error: CallError) -> Consequence:
        """Decide what follows from a failed attempt, and let the pacing and the application's circuit know of it."""
        if error.may_have_started:
            job.in_doubt = error
            job.sends_in_doubt += 1
        self._service_answered |= not isinstance(error, NotSentError)
        seconds = self._tokens.pause.working_time() - job.failed_at if job.failures else 0.0
        failures = Failures(job.in_doubt is not None, job.sends_in_doubt, seconds, self._service_answered)
        what_follows = consequence(error, verdict(error, job.request, self._on_unknown), failures, self._policy)
        self._tokens.failed(job, error)
        if isinstance(error, ThrottlingException) or not isinstance(error, M2ServiceException):
            self._circuits.unanswered(job)
        elif not what_follows.holds_application:
            self._circuits.answered(job)
        return what_follows

    async def _write_answer(self, job: Submission, answer: StartBatchJobResponse | Consequence) -> None:
        """Write an answer into the ledger, and wait for it where the job or its lane must not go on before.

        Where it cannot be written, nothing more is sent.
        """
        try:
            if isinstance(answer, Consequence):
                await self._recording.failed(job, answer.error, again=answer.may_be_tried_again)
            else:
                self._recording.started(job, answer)
                if self._lanes is not None and job.written is not None:
                    await job.written
        except LedgerError as error:
            self._stop(error)

    # What follows from a failure

    def _follow(self, job: Submission, what_follows: Consequence) -> Outcome | None:
        """End a job whose attempt failed, or set it aside, and draw the consequence for the others."""
        error = what_follows.error
        if what_follows.stops:
            self._stop(error)
        if what_follows.holds_application:
            self._events.application_held(job.request.application_id, error)
        match what_follows.step:
            case Step.LOOK_FOR:
                return self._look_for(job, job.in_doubt or error)
            case Step.REJECT:
                return self._endings.rejected(job, error)
            case Step.GIVE_UP:
                if self._ended_by is None:
                    self._write_given_up(job)
                return self._endings.rejected(job, error)
            case Step.SEND_AGAIN | Step.HOLD if self._ended_by is not None:
                self._interrupted(job)
            case Step.SEND_AGAIN:
                self._send_again(job, error)
            case Step.HOLD:
                self._circuits.refused(job, error)
            case _:
                assert_never(what_follows.step)
        return None

    def _send_again(self, job: Submission, error: CallError) -> None:
        """Set a job aside until its next attempt."""
        if not job.failures:
            job.failed_at = self._tokens.pause.working_time()
        job.failures += 1
        wait = wait_before_resend(self._policy, job.failures, error)
        self._events.retry(job.key, job.request, error, job.attempts, wait)
        self._resends.after(wait, job, by_budget=error.may_have_started)

    def _give_up(self, job: Submission, error: CallError) -> None:
        """End a job whose application refused it, or would have, for too long."""
        if job.attempts:
            self._write_given_up(job)
        self._end_job(job, self._endings.rejected(job, error))

    def _write_given_up(self, job: Submission) -> None:
        try:
            self._recording.give_up(job)
        except LedgerError as error:
            self._stop(error)

    def _look_for(self, job: Submission, error: CallError) -> Outcome | None:
        """Set a job aside until its execution is looked for, or leave it unknown."""
        if self._doubts is None or job.row is None or self._ended_by is not None:
            return self._endings.unknown(job, error)
        job.set_aside()
        self._doubts.park(job, job.request.application_id, job.row.number)
        return None

    async def _decided(self, decisions: Sequence[tuple[Submission, Decision]]) -> None:
        """Go on with jobs that were looked for; what was found is written for all of them together."""
        with anyio.CancelScope(shield=True):  # what was found is written and told, then may anything end
            await asyncio.gather(*(self._carry_out(job, decision) for job, decision in decisions))

    async def _carry_out(self, job: Submission, decision: Decision) -> None:
        """Have it written what was found, and end the job with it, or have it sent again."""
        error = job.in_doubt
        assert error is not None  # noqa: S101 - only such jobs are looked for
        try:
            await self._recording.decided(job, decision)
        except LedgerError as failure:
            self._stop(failure)
            self._interrupted(job)
            return
        match decision:
            case Adopted():
                self._end_job(job, self._endings.started(job, decision.execution_id, adopted=True))
            case Ambiguous():
                self._end_job(job, self._endings.unknown(job, error, tuple(decision.candidates)))
            case NotStarted():
                job.in_doubt = None
                if self._ended_by is not None:
                    self._interrupted(job)
                elif job.sends_in_doubt <= self._policy.resends:
                    self._resends.by_budget(job)
                else:
                    self._give_up(job, error)

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
        while not self._queue.empty():
            self._interrupted(self._queue.get_nowait())
        for place in (self._lanes, self._resends, self._circuits, self._doubts):
            for job in place.take_all() if place is not None else ():
                self._interrupted(job)

    def _stop_error(self) -> SubmissionStoppedError:
        return SubmissionStoppedError(self._ended_by or NotSentError("the submitter was cancelled"))

    async def _open_ledger(self, stack: contextlib.AsyncExitStack, given: str | PathLike[str] | Ledger) -> None:
        ledger = given if isinstance(given, Ledger) else await stack.enter_async_context(open_ledger(given))
        run = self._run
        if not isinstance(run, Run):
            run = await stack.enter_async_context(await ledger.open_run(run))
        self._recording = Recording(run)
        if self._on_unknown == "adopt":
            lister, failed = cast("ListsExecutions", self._client), self._events.reconcile_failed
            self._doubts = Doubts(
                lister, ledger, run.info.id, settle=self._settle, decided=self._decided, failed=failed
            )

    async def _serve(self, *, task_status: TaskStatus[None]) -> None:
        """Run the workers, and the feeders of `submit_many`, until `_end` cancels them."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            for _ in range(self._concurrency):
                tasks.start_soon(self._work)
            tasks.start_soon(self._resends.run)
            if self._doubts is not None:
                tasks.start_soon(self._look_for_jobs, self._doubts)
            task_status.started()
        with anyio.CancelScope(shield=True):
            await self._recording.all_written()

    async def _look_for_jobs(self, doubts: Doubts[Submission]) -> None:
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
