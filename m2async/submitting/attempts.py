"""One attempt of a job: it takes a token, is noted, is sent once, and its answer is noted."""

from __future__ import annotations

import asyncio
from functools import partial

import anyio

from m2async.errors import CallCancelledError, M2ServiceException
from m2async.ledger import LedgerError
from m2async.loops import Home, in_context
from m2async.service import SENDING, Sending, StartBatchJobResponse
from m2async.submitting.consequences import Consequence
from m2async.submitting.end import End
from m2async.submitting.endings import UnwantedError
from m2async.submitting.feedback import Feedback
from m2async.submitting.intake import Submission
from m2async.submitting.lanes import Lanes, NotYetError
from m2async.submitting.recording import Recording
from m2async.submitting.sender import Sender
from m2async.submitting.tokens import Tokens
from m2async.submitting.under_way import CallsUnderWay


class Attempts:
    """Makes attempts, each in the order that makes a crash at any point harmless.

    Arguments:
        home: where they are made; elsewhere nothing is sent.
        end: once it came, nothing is sent, and it comes where the ledger cannot be written.
        tokens: give each attempt its turn.
        lanes: are asked, when its turn comes, whether the job's name may go.
        recording: writes the intent and the answer.
        sender: sends it.
        under_way: knows the call while it is made.
        feedback: is told the answer, and says what follows from a failure.
    """

    def __init__(
        self,
        home: Home,
        end: End,
        *,
        tokens: Tokens,
        lanes: Lanes,
        recording: Recording,
        sender: Sender,
        under_way: CallsUnderWay,
        feedback: Feedback,
    ) -> None:
        self._home = home
        self._end = end
        self._tokens = tokens
        self._lanes = lanes
        self._recording = recording
        self._sender = sender
        self._under_way = under_way
        self._feedback = feedback

    async def make(self, job: Submission, scope: anyio.CancelScope) -> StartBatchJobResponse | Consequence:
        """Send a job once, and give the answer, or what follows from having none.

        `scope` is the worker's own; once cancelled it stays so, and ends the worker. Raises NotYetError where the job's
        name must wait, UnwantedError where nobody waits for the job, and what it ends in if it cannot be sent.
        """
        await self._get_ready(job)
        while not self._may_begin(job) or (answer := await self._call(job, scope)) is None:  # as in a pause
            self._withdraw(job)
            await self._get_ready(job)
        return answer

    async def _get_ready(self, job: Submission) -> None:
        """Take a token, and have it written that the attempt comes; if then it must not, that is written too."""
        has_turn = await self._tokens.take(job, partial(self._lanes.may_send, job))
        self._home.check()
        if not self._may_be_sent(job):
            self._tokens.give_back(job)
            raise UnwantedError() if self._end.cause is None else self._end.error()
        if not has_turn:
            raise NotYetError
        job.attempts += 1
        job.not_after = self._sender.latest_date()
        try:
            await self._recording.intend(job)
        except asyncio.CancelledError:
            self._withdraw(job)
            raise
        except Exception as error:
            job.attempts -= 1
            if isinstance(error, LedgerError):
                raise self._end.refused(error) from error
            raise

    def _may_be_sent(self, job: Submission) -> bool:
        return self._end.cause is None and job.is_wanted()

    def _may_begin(self, job: Submission) -> bool:
        """Whether its first byte may go now: asked before the call, and by the client when that is about to go."""
        return self._tokens.is_turn_of(job) and self._may_be_sent(job)

    def _withdraw(self, job: Submission) -> None:
        """Write that an attempt that was intended does not come, and leave its token to another."""
        self._recording.not_sent(job)
        self._tokens.give_back(job)

    async def _call(self, job: Submission, scope: anyio.CancelScope) -> StartBatchJobResponse | Consequence | None:
        """Send the request and write the answer, where no cancellation reaches but that of `CallsUnderWay.end`.

        Gives None if it was held back.
        """
        answer: StartBatchJobResponse | Consequence | None = None
        sending = Sending(partial(self._may_begin, job))
        context = job.context.copy()
        context.run(SENDING.set, sending)
        self._under_way.add(scope, sending)
        try:
            brought = await in_context(context, partial(self._sender.send, job.to_send, job.not_after, sending))
            if isinstance(brought, StartBatchJobResponse):
                answer = brought
                self._feedback.succeeded(job)
            else:
                held_back = sending.was_held_back or not self._may_be_sent(job)
                if not held_back or sending.has_begun is not False or isinstance(brought, M2ServiceException):
                    answer = self._feedback.failed(job, brought)
            if answer is not None:
                await self._write_answer(job, answer)
        except asyncio.CancelledError:
            if not scope.cancel_called:
                raise
        finally:
            self._under_way.remove(scope)
        if answer is None:
            if sending.has_begun is False:
                return None
            answer = self._feedback.failed(job, CallCancelledError("the submitter was left before an answer came"))
            self._recording.failed(job, answer.error, again=False)
        return answer

    async def _write_answer(self, job: Submission, answer: StartBatchJobResponse | Consequence) -> None:
        """Write an answer into the ledger, and wait for it where the job or its lane must not go on before.

        Where it cannot be written, nothing more is sent.
        """
        try:
            if isinstance(answer, Consequence):
                await self._recording.failed(job, answer.error, again=answer.may_be_tried_again)
            else:
                self._recording.started(job, answer)
                if self._lanes.waits_for_writing and job.written is not None:
                    await job.written
        except LedgerError as error:
            self._end.stop(error)
