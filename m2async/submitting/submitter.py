"""The pipeline: read this first.

A request goes through a queue to one of a fixed number of workers. It takes a token, the ledger notes that it will be
sent, it is sent once, and the ledger notes the answer (attempts.py). From that follows whether the job has ended, stops
the rest (end.py), or is set aside and comes back to the queue later: because it is sent again (resends.py), waits for
its application (circuits.py), is looked for among the service's executions (certainty/doubts.py), or waits for another
of its name (lanes.py). What follows from a failure is decided in consequences.py, and told by feedback.py.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from os import PathLike
from types import TracebackType
from typing import Any, Self, assert_never

import anyio
from anyio.abc import TaskGroup
from structlog.typing import FilteringBoundLogger

from m2async.certainty import Adopted, Ambiguous, Apart, Decision, Doubts, NotStarted, OnUnknown, StartedTogether
from m2async.errors import CallCancelledError, CallError, NotSentError, SubmissionStoppedError, WrongEventLoopError
from m2async.events import Events
from m2async.ledger import Ledger, LedgerError, RowState, Run
from m2async.loops import Home, OwnTask
from m2async.pacing import Pacer, RetryPolicy, TokenBucket
from m2async.service import StartBatchJob
from m2async.submitting.attempts import Attempts
from m2async.submitting.circuits import Circuits
from m2async.submitting.consequences import Consequence, Step
from m2async.submitting.denials import Denials
from m2async.submitting.end import OF_ONE_JOB, End
from m2async.submitting.endings import Endings, UnwantedError
from m2async.submitting.entering import EnteredRun, enter_run
from m2async.submitting.feedback import Feedback
from m2async.submitting.intake import Caller, HeldJobs, JobStream, Request, Submission, SubmittedJobs
from m2async.submitting.lanes import Lanes, NotYetError
from m2async.submitting.leftovers import Leftovers
from m2async.submitting.options import check_numbers, checked_certainty, checked_on_unknown
from m2async.submitting.outcomes import Outcome
from m2async.submitting.recording import Recording, until_the_ledger_fails
from m2async.submitting.resends import Resends
from m2async.submitting.sender import Sender, StartsBatchJobs
from m2async.submitting.standing import WatchedSubmitter
from m2async.submitting.steering import Steering
from m2async.submitting.tokens import Tokens
from m2async.submitting.under_way import CallsUnderWay

_UNSTARTED = (RowState.PENDING, RowState.INTENT, RowState.REJECTED, RowState.UNKNOWN)


class Submitter(WatchedSubmitter):
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
        certainty: how sure it is to be what became of each job, with on_unknown="adopt": "careful", the default, for
            at most one in a thousand unknown; another share above 0 and below 1, such as 0.01 or "1%"; "exact" for one
            job of a name at once, which goes with any on_unknown; "fast" where nothing waits. Jobs of a name wait for
            each other as far as that needs.
        exact: short for certainty="exact".
        retry: how long the attempts of one job go on, and how much of a `Retry-After` is heeded.
        grace: seconds that the calls under way get to be answered when the submitter is left early;
            what is still open then is unknown.
        start_anyway: send although the service shows executions of the run's jobs that the ledger does not explain.
        logger: a structlog logger to use instead of the host's pipeline. Events of a job bear the context variables
            of whoever submitted it, all others of whoever opened the submitter.
        log_params: whether log events hold the jobs' parameters and the names of their secrets.

    Use it as an async context manager; it leaves no task behind. Entering it raises SentElsewhereError if the run
    was sent to another endpoint, region or account before, and UnexplainedExecutionsError. It stops by itself when
    all applications deny access that jobs came for so far or that a planned run names, when the service does not accept
    the credentials, when no connection can be made, or when the ledger cannot be written: every further job would meet
    the same; and when it fails itself. Jobs that were not sent then end in a SubmissionStoppedError. A job whose
    application denies access, does not exist or does not run holds that application's jobs: after a pause one of them
    goes as a probe. If that goes on for `retry.hold` seconds, they are Rejected; with no attempt those that were not
    sent. What comes by `submit` may be for any application, so that there denied access stops nothing. Where a
    middleware or another's client fails, that is the job's MiddlewareError: Rejected before it was sent, Unknown after
    it.
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
        certainty: str | float | None = None,
        exact: bool = False,
        retry: RetryPolicy | None = None,
        grace: float = 10.0,
        start_anyway: bool = False,
        logger: FilteringBoundLogger | None = None,
        log_params: bool = False,
    ) -> None:
        check_numbers(concurrency, settle)
        on_unknown = checked_on_unknown(on_unknown, has_ledger=ledger is not None)
        self._client = client
        self._sender = Sender(client)
        self._policy = retry or RetryPolicy()
        self._tokens = Tokens(
            rate=rate, burst=burst, adaptive=adaptive, pacer=pacer, weight=weight, buckets=application_buckets or {},
            policy=self._policy,
        )  # fmt: skip
        self._concurrency = concurrency
        self._ledger = ledger
        self._run = run
        self._on_unknown = on_unknown
        self._settle = settle
        self._lanes = Lanes(
            checked_certainty(certainty, on_unknown, exact=exact),
            settle=settle if on_unknown == "adopt" else None,
            apart=self._apart,
            requeue=self._requeue,
        )
        self._under_way = CallsUnderWay(grace)
        self._start_anyway = start_anyway
        self._events = Events(logger=logger, log_params=log_params)
        self._end = End(self._events)
        self._endings = Endings(self._events)
        self._recording = Recording(None)
        self._doubts: Doubts[Submission] | None = None
        self._resends = Resends(self._requeue, self._tokens, self._policy, self._events)
        self._leftovers = Leftovers()
        self._steering: Steering | None = None
        self._circuits = Circuits(
            hold=self._policy.hold, probe=self._policy.probe, requeue=self._requeue, give_up=self._give_up
        )
        self._denials = Denials()
        self._feedback = Feedback(
            self._tokens, self._lanes, self._resends, self._circuits, self._denials,
            policy=self._policy, on_unknown=on_unknown,
        )  # fmt: skip
        self._queue: asyncio.Queue[Submission] = asyncio.Queue()
        self._entered: EnteredRun | None = None
        self._tasks: TaskGroup | None = None
        self.warnings: Sequence[str] = ()  # what is to be known of the run that was opened

    async def __aenter__(self) -> Self:
        self._home = Home("the submitter")
        async with contextlib.AsyncExitStack() as stack:
            if self._ledger is not None:
                await self._open_ledger(stack, self._ledger)
            self._attempts = Attempts(
                self._home, self._end, tokens=self._tokens, lanes=self._lanes, recording=self._recording,
                sender=self._sender, under_way=self._under_way, feedback=self._feedback,
            )  # fmt: skip
            self._tasks = await stack.enter_async_context(OwnTask(self._serving()))
            self._host = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        if self._home.is_forked:  # what is left here is another process's, which goes on with it
            return None
        self.stop("the submitter was left before the job was sent")
        return await self._host.__aexit__(kind, exc, traceback)

    async def submit(self, request: StartBatchJob, *, key: str | None = None) -> Outcome:
        """Start one job and wait for its outcome.

        `key` names the job in logs, in the ledger and in the outcome; without a ledger it is by default the
        job's name. A caller that is cancelled before its job was sent takes it back: it is not started. One that is
        cancelled while the call is under way gets no outcome, but it is logged and written.

        Raises SubmissionStoppedError if the submitter stopped or was left, and the job was not started. With a
        ledger also ManifestChangedError if the key is another request's, and IllegalTransitionError if a job of
        this key is under way.
        """
        if key is None and self._ledger is not None:
            raise ValueError("with a ledger, a job needs a key: it is what tells a repetition from another job")
        caller = Caller()
        self._denials.expect_others()
        self._put(Submission(request.job.name if key is None else str(key), request, caller))
        return await caller.outcome

    def submit_many(self, requests: Iterable[Request] | AsyncIterable[Request]) -> SubmittedJobs:
        """Start many jobs, and iterate over their outcomes in the order in which they end.

        `requests` is an iterable or async iterable of requests, (key, request) pairs or a ledger's rows, read no
        further ahead than the workers need; a plain one is read in the event loop, and should not block. Without a
        key a request is called by its number. With a ledger, the nth of equal requests without keys in a call is the
        nth that the run has, whatever their order; it is started if there is none.

        Log events of the jobs, and what stands around their calls, see the context variables of this call. `requests`
        is read in a copy of them, and what it sets there does not count.

        The iteration raises what reading `requests` raised, and SubmissionStoppedError if the
        submitter stopped, after the outcomes of what was sent.
        """
        stream = JobStream(
            requests, ahead=3 * self._concurrency, put=self._put, spawn=self._spawn, stop_error=self._end.error
        )
        return HeldJobs(stream)

    def stop(self, reason: str) -> None:
        """Send nothing more; calls under way get the grace to be answered, from their first byte on.

        What was not sent ends in a SubmissionStoppedError that holds the reason.
        """
        self._home.check()
        self._end.come(NotSentError(reason))
        self._under_way.end()

    async def look_for_others(self) -> Sequence[str]:
        """Look for what others started since the run was made: it is logged and noted. Gives what was not looked at."""
        entered = self._entered
        return [] if entered is None else await entered.look_for_others(self._client, self._events, settle=self._settle)

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

    # A job's way

    def _put(self, job: Submission) -> None:
        self._check_open()
        self._denials.expect((job.request.application_id,))
        self._queue.put_nowait(job)

    def _requeue(self, job: Submission) -> None:
        """Let a job that was set aside go on."""
        if self._end.cause is None:
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
                except UnwantedError:
                    self._drop(job)
                except WrongEventLoopError as error:  # of the pacer or the ledger
                    self._end.stop(error)
                    self._interrupted(job)
                except OF_ONE_JOB as error:
                    self._circuits.unanswered(job)
                    job.failed(error)
                except (KeyboardInterrupt, SystemExit):
                    self._broken(job)
                    raise
                except GeneratorExit:  # the event loop is gone
                    raise
                except BaseException as error:  # noqa: BLE001 - no error of a call: a fault of ours
                    self._end.failed(error)
                    self._under_way.end()
                    self._broken(job)

    def _broken(self, job: Submission) -> None:
        """End a job in the midst of which the submitter failed."""
        if job.in_doubt is None and job.may_have_been_sent:
            job.in_doubt = CallCancelledError("the submitter failed before it was known what came of it")
        self._interrupted(job)

    def _interrupted(self, job: Submission) -> None:
        """End a job that waited for its first or next attempt, or to be found, when the submitter ended."""
        job = self._leftovers.waiting(job)
        if job.in_doubt is None:
            job.stopped(self._end.error())
        else:
            job.ended(self._endings.unknown(job, job.in_doubt))

    def _drop(self, job: Submission) -> None:
        """Send a job no more that nobody waits for; what may have been started is told all the same."""
        self._circuits.unanswered(job)
        self._lanes.leave(job)
        if job.in_doubt is not None:
            self._endings.unknown(job, job.in_doubt)

    async def _take_on(self, job: Submission, scope: anyio.CancelScope) -> None:
        """Run a job until it has an outcome or must wait."""
        if not job.is_wanted():
            raise UnwantedError
        outcome: Outcome | None = None
        if not job.is_entered:
            job.begin()
            outcome = await self._enter(job)
            job.is_entered = True
            if outcome is None and job.in_doubt is not None and self._on_unknown != "resend":
                outcome = self._look_for(job, job.in_doubt, None if job.row is None else job.row.ended_at)
                if outcome is None:
                    self._lanes.look_for(job)
                    return
        if outcome is not None:
            self._end_job(job, outcome)
        elif self._lanes.enter(job):
            must_wait = False
            try:
                job.admitted_at = asyncio.get_running_loop().time()
                if self._circuits.admit(job) and (outcome := await self._attempt(job, scope)) is not None:
                    self._end_job(job, outcome)
            except NotYetError:
                must_wait = True
                self._circuits.unanswered(job)
            finally:
                self._lanes.leave(job)
            if must_wait:
                self._lanes.wait(job)

    async def _enter(self, job: Submission) -> Outcome | None:
        """See what the ledger knows of a job from an earlier run of the program: one that is started is not sent."""
        try:
            return await self._recording.enter(job)
        except LedgerError as error:
            raise self._end.refused(error) from error

    def _end_job(self, job: Submission, outcome: Outcome) -> None:
        """Give a job its outcome once that is durable; the worker goes on meanwhile."""
        self._recording.when_written(job, partial(self._durable, job, outcome))

    def _durable(self, job: Submission, outcome: Outcome, error: LedgerError | None) -> None:
        if error is not None:
            self._end.stop(error)
        job.ended(outcome)

    async def _attempt(self, job: Submission, scope: anyio.CancelScope) -> Outcome | None:
        """Send a job once, and draw the consequence."""
        answer = await self._attempts.make(job, scope)
        if isinstance(answer, Consequence):
            return self._follow(job, answer)
        if self._doubts is not None and job.row is not None:
            self._doubts.answered(job.request.application_id, job.row.number)
        return self._endings.started(job, answer.execution_id, answer.request_id)

    # What follows from a failure

    def _follow(self, job: Submission, what_follows: Consequence) -> Outcome | None:
        """End a job whose attempt failed, or set it aside, and draw the consequence for the others."""
        error = what_follows.error
        if what_follows.stops:
            self._end.stop(error)
        if what_follows.holds_application:
            self._events.application_held(job.request.application_id, error)
        match what_follows.step:
            case Step.LOOK_FOR:
                return self._look_for(job, job.in_doubt or error)
            case Step.REJECT:
                return self._endings.rejected(job, error)
            case Step.GIVE_UP:
                if self._end.cause is None:
                    self._write_given_up(job)
                return self._endings.rejected(job, error)
            case Step.SEND_AGAIN | Step.HOLD if self._end.cause is not None:
                self._interrupted(job)
            case Step.SEND_AGAIN:
                self._resends.after(job, error)
            case Step.HOLD:
                self._circuits.refused(job, error)
            case _:
                assert_never(what_follows.step)
        return None

    def _give_up(self, job: Submission, error: CallError) -> None:
        """End a job whose application refused it, or would have, for too long."""
        if not job.is_wanted():
            self._drop(job)
            return
        if job.attempts:
            self._write_given_up(job)
        self._end_job(job, self._endings.rejected(job, error))

    def _write_given_up(self, job: Submission) -> None:
        try:
            self._recording.give_up(job)
        except LedgerError as error:
            self._end.stop(error)

    def _look_for(self, job: Submission, error: CallError, ended_at: float | None = None) -> Outcome | None:
        """Set a job aside until its execution is looked for, or leave it unknown; it was in doubt at `ended_at`."""
        if self._doubts is None or job.row is None or self._end.cause is not None:
            self._lanes.decided(job, goes_again=False)
            return self._endings.unknown(job, error)
        job.set_aside()
        if not self._leftovers.take_over(job):
            self._doubts.park(job, job.request.application_id, job.row.number, ended_at=ended_at)
        return None

    async def _decided(self, decisions: Sequence[tuple[Submission, Decision]]) -> None:
        """Go on with jobs that were looked for; what was found is written for all of them together."""
        with anyio.CancelScope(shield=True):  # what was found is written and told, then may anything end
            await asyncio.gather(*(self._carry_out(self._leftovers.waiting(job), found) for job, found in decisions))
        self._lanes.look_again()

    async def _carry_out(self, job: Submission, decision: Decision) -> None:
        """Have it written what was found, and end the job with it, or have it sent again."""
        error = job.in_doubt
        assert error is not None  # noqa: S101 - only such jobs are looked for
        try:
            decision = await self._recording.decided(job, decision)
        except LedgerError as failure:
            self._end.stop(failure)
            self._interrupted(job)
            return
        is_known = not isinstance(decision, Ambiguous)
        self._lanes.decided(job, goes_again=isinstance(decision, NotStarted), is_known=is_known)
        match decision:
            case Adopted() | StartedTogether():
                self._end_job(job, self._endings.found(job, decision))
            case Ambiguous():
                self._end_job(job, self._endings.unknown(job, error, tuple(decision.candidates)))
            case NotStarted():
                job.in_doubt = None
                if job.results.abandoned:
                    self._lanes.leave(job)
                    job.tell(self._events.not_started, job.key, job.request, job.attempts)
                elif self._end.cause is not None:
                    self._interrupted(job)
                elif job.sends_in_doubt <= self._policy.resends:
                    self._resends.by_budget(job)
                else:
                    self._lanes.leave(job)
                    self._give_up(job, error)

    def _wind_up(self, tasks: TaskGroup) -> None:
        """Cancel everything but the calls under way, and tell whoever waits."""
        tasks.cancel_scope.cancel()
        while not self._queue.empty():
            self._interrupted(self._queue.get_nowait())
        for place in (self._lanes, self._resends, self._circuits, self._doubts):
            for job in place.take_all() if place is not None else ():
                self._interrupted(job)

    async def _open_ledger(self, stack: contextlib.AsyncExitStack, given: str | PathLike[str] | Ledger) -> None:
        entered = await enter_run(
            stack, self._client, given, self._run, self._events,
            settle=self._settle, start_anyway=self._start_anyway, on_unknown=self._on_unknown,
        )  # fmt: skip
        run, self.warnings, self._entered = entered.run, entered.warnings, entered
        if run is not self._run:  # else whoever opened it heeds what it is told
            self._steering = Steering(run, self, stop=self.stop)
            await self._steering.begin()
        if run.info.planned:
            self._denials.expect(await run.applications(*_UNSTARTED))
        self._recording = Recording(run, clock_offset=self._sender.clock_offset)
        if self._on_unknown == "adopt" and hasattr(self._client, "list_batch_job_executions"):
            self._doubts = entered.doubts(self._client, self._decided, self._events, settle=self._settle)
            await self._leftovers.hold(run, self._lanes, settle=self._settle)
        if not run.info.planned:  # else the same manifest brings its rows again
            await self._leftovers.look_for(run, self._doubts, self._events)

    @contextlib.asynccontextmanager
    async def _serving(self) -> AsyncGenerator[TaskGroup, None]:
        """Run the workers, and the feeders of `submit_many`, until `_wind_up` cancels them."""
        try:
            async with anyio.create_task_group() as tasks:
                self._end.may_come(partial(self._wind_up, tasks))
                for _ in range(self._concurrency):
                    tasks.start_soon(self._work)
                tasks.start_soon(self._resends.run)
                if self._doubts is not None:
                    tasks.start_soon(until_the_ledger_fails, self._doubts.run, self._end.stop)
                    tasks.start_soon(until_the_ledger_fails, self._doubts.learn, self._end.stop)
                if self._steering is not None:
                    tasks.start_soon(self._steering.follow)
                try:
                    yield tasks
                finally:
                    if self._end.cause is None:  # it was neither left nor stopped
                        self.stop("the submitter failed")
        finally:
            with anyio.CancelScope(shield=True):
                await self._recording.all_written()

    def _spawn(self, feed: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._check_open().start_soon(feed)

    def _apart(self, application_id: str) -> Apart:
        return Apart() if self._doubts is None else self._doubts.apart(application_id)

    def _check_open(self) -> TaskGroup:
        if self._tasks is not None:
            self._home.check()
        if self._end.cause is not None:
            raise self._end.error()
        if self._tasks is None:
            raise RuntimeError("the submitter is not open: use it as 'async with Submitter(...) as submitter'")
        return self._tasks
