"""What follows from a failed attempt, for its job and for the others: decided once, and without I/O."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from m2async.certainty import Verdict
from m2async.errors import AccessDeniedException, CallError, NotSentError, SignatureTooLateError
from m2async.pacing import RetryPolicy


class Step(Enum):
    """What happens next to a job whose attempt failed."""

    SEND_AGAIN = "it is sent again after a wait"
    HOLD = "it waits until its application runs again"
    LOOK_FOR = "it may have been started: its execution is looked for"
    GIVE_UP = "it was surely not started, and was tried often enough"
    REJECT = "it was surely not started, and trying again would not help"


class Consequence(NamedTuple):
    """What follows from a failed attempt.

    `verdict` is what the error says by itself. `step` is what happens next to the job, and `stops` says that nothing
    more is sent at all, since every further call would meet the same.
    """

    error: CallError
    verdict: Verdict
    step: Step
    stops: bool

    @property
    def may_be_tried_again(self) -> bool:
        """Whether the job, if it was surely not started, may be tried again by whoever goes on with the run."""
        return self.verdict in {Verdict.RETRY, Verdict.STOP, Verdict.HOLD_APPLICATION}

    @property
    def holds_application(self) -> bool:
        """Whether the application's other jobs would meet the same."""
        return self.verdict is Verdict.HOLD_APPLICATION


class Failures(NamedTuple):
    """What a job's attempts have shown so far, this one included.

    Arguments:
        in_doubt: whether one of them may have started the job.
        sends_in_doubt: how many may have.
        seconds: how long ago the first failure was that was to be followed by another attempt, pauses not counted.
        was_reached: whether the service ever answered any call.
        is_denied_everywhere: whether all applications deny access that jobs are for.
    """

    in_doubt: bool
    sends_in_doubt: int
    seconds: float
    was_reached: bool
    is_denied_everywhere: bool


def consequence(error: CallError, verdict: Verdict, failures: Failures, policy: RetryPolicy) -> Consequence:
    """Say what follows from an attempt that failed with `error`, of which `verdict` was given."""
    is_final = verdict is Verdict.RETRY and _is_exhausted(error, failures, policy)
    stops = (
        verdict is Verdict.STOP
        or (is_final and _is_of_all(error))
        or (failures.is_denied_everywhere and isinstance(error, AccessDeniedException))
    )
    if verdict is Verdict.RETRY and not is_final:
        step = Step.SEND_AGAIN
    elif failures.in_doubt:
        step = Step.LOOK_FOR
    elif verdict is Verdict.HOLD_APPLICATION and not stops:
        step = Step.HOLD
    elif is_final and not stops:
        step = Step.GIVE_UP
    else:
        step = Step.REJECT
    return Consequence(error, verdict, step, stops)


def _is_of_all(error: CallError) -> bool:
    """Whether other jobs would end in the same: where no connection can be made, but not where a turn came late."""
    return isinstance(error, NotSentError) and not isinstance(error, SignatureTooLateError)


def _is_exhausted(error: CallError, failures: Failures, policy: RetryPolicy) -> bool:
    """Whether a failure after which the job could be sent again is final."""
    if error.may_have_started:
        return failures.sends_in_doubt > policy.resends
    if isinstance(error, NotSentError) and not failures.was_reached:
        return failures.seconds >= policy.unreachable
    return failures.seconds >= policy.patience
