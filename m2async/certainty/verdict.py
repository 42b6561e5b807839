"""What follows from a failed attempt, by what its error says of the job."""

from __future__ import annotations

from enum import Enum
from typing import Literal

from m2async.errors import (
    AccessDeniedException,
    AuthenticationException,
    CallError,
    ConfigurationError,
    ConflictException,
    CredentialsError,
    NotSentError,
    ResourceNotFoundException,
    ThrottlingException,
    WrongEventLoopError,
)
from m2async.service import StartBatchJob

OnUnknown = Literal["adopt", "hold", "resend"]
"""What to do with a job that may have been started; see Submitter."""


class Verdict(Enum):
    """What follows from a failed attempt to start a job."""

    RETRY = "back off and send again"
    REJECT = "this job is rejected, the rest go on"
    ADOPT = "find out what became of it; then it is started, or surely not and sent again, or unknown"
    HOLD = "this job's fate is unknown and nobody guesses; the rest go on"
    HOLD_APPLICATION = "it and its application's other jobs wait; one goes as a probe after a pause"
    STOP = "nothing more is sent at all"


def verdict(error: CallError, request: StartBatchJob, on_unknown: OnUnknown) -> Verdict:
    """Decide what follows from a failed attempt.

    Whether the job may have been started is the error's to say, and comes before all else: what may have been is
    sent again only if the caller says `on_unknown="resend"`, whatever else the error is. Of the others, those are
    retried by themselves that may pass: a throttled call, a connection that could not be made.
    """
    if error.may_have_started:
        return {"adopt": Verdict.ADOPT, "hold": Verdict.HOLD, "resend": Verdict.RETRY}[on_unknown]
    match error:
        case CredentialsError() | ConfigurationError() | WrongEventLoopError() | AuthenticationException():
            return Verdict.STOP
        case ThrottlingException() | NotSentError():
            return Verdict.RETRY
        case AccessDeniedException():
            return Verdict.HOLD_APPLICATION
        case ConflictException() | ResourceNotFoundException() if error.resource_id in {None, request.application_id}:
            return Verdict.HOLD_APPLICATION
        case _:
            return Verdict.REJECT
