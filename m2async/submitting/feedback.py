"""What an answer tells pacing, lanes, budget and circuits; and, after a failure, what follows from it."""

from __future__ import annotations

from m2async.certainty import OnUnknown, verdict
from m2async.errors import CallError, M2ServiceException, MiddlewareError, ThrottlingException
from m2async.pacing import RetryPolicy
from m2async.submitting.circuits import Circuits
from m2async.submitting.consequences import Consequence, Failures, consequence
from m2async.submitting.denials import Denials
from m2async.submitting.intake import Submission
from m2async.submitting.lanes import Lanes
from m2async.submitting.resends import Resends
from m2async.submitting.strangers import StrangersAnswers
from m2async.submitting.tokens import Tokens


class Feedback:
    """Takes each answer once, in the order in which they come."""

    def __init__(
        self,
        tokens: Tokens,
        lanes: Lanes,
        resends: Resends,
        circuits: Circuits,
        denials: Denials,
        *,
        policy: RetryPolicy,
        on_unknown: OnUnknown,
    ) -> None:
        self._tokens = tokens
        self._lanes = lanes
        self._resends = resends
        self._circuits = circuits
        self._denials = denials
        self._policy = policy
        self._on_unknown: OnUnknown = on_unknown
        self._service_answered = False
        self._strangers = StrangersAnswers()

    def succeeded(self, job: Submission) -> None:
        """Let the pacing, the budget and the application's circuit know of a start."""
        self._service_answered = True
        self._strangers.are_all(job.key, None)
        self._tokens.succeeded(job)
        self._lanes.answered(job)
        self._resends.succeeded()
        self._circuits.answered(job)
        self._denials.answered(job.request.application_id)

    def failed(self, job: Submission, error: CallError) -> Consequence:
        """Decide what follows from a failed attempt, and let the pacing and the application's circuit know of it."""
        if error.may_have_started:
            job.in_doubt = error
            job.sends_in_doubt += 1
        self._service_answered |= isinstance(error, M2ServiceException) or (
            error.may_have_started and not isinstance(error, MiddlewareError)
        )
        if isinstance(error, M2ServiceException):
            self._denials.answered(job.request.application_id, error)
        seconds = self._tokens.pause.working_time() - job.failed_at if job.failures else 0.0
        failures = Failures(
            job.in_doubt is not None, job.sends_in_doubt, seconds, self._service_answered, self._denials.are_everywhere
        )
        what_follows = consequence(error, verdict(error, job.request, self._on_unknown), failures, self._policy)
        if self._strangers.are_all(job.key, error):
            what_follows = what_follows._replace(stops=True)
        self._tokens.failed(job, error)
        self._lanes.answered(job, error)
        if isinstance(error, ThrottlingException) or not isinstance(error, M2ServiceException):
            self._circuits.unanswered(job)
        elif not what_follows.holds_application:
            self._circuits.answered(job)
        return what_follows
