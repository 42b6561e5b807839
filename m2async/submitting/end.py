"""The end of a submitter: what brings it, and what jobs are told that were not sent before."""

from __future__ import annotations

from collections.abc import Callable

from m2async.errors import InvalidRequestError, M2AsyncError, NotSentError, SubmissionStoppedError, UnexpectedError
from m2async.events import Events
from m2async.ledger import IllegalTransitionError, LedgerError, ManifestChangedError

OF_ONE_JOB = (IllegalTransitionError, ManifestChangedError, InvalidRequestError)
"""Errors of the ledger that end one job alone: its key is in flight, another request's, or none."""


class End:
    """Comes once, by what causes it first, while the submitter is open."""

    def __init__(self, events: Events) -> None:
        self.cause: M2AsyncError | None = None
        self._events = events
        self._carry_out: Callable[[], None] | None = None

    def may_come(self, carry_out: Callable[[], None]) -> None:
        """Take note that the submitter is open, and of what is to be done when it ends."""
        self._carry_out = carry_out

    def stop(self, cause: M2AsyncError) -> None:
        """End it by what every further job would meet, and log that."""
        if self.cause is None:
            self._events.stopped(cause)
            self.come(cause)

    def failed(self, error: BaseException) -> None:
        """End it because of a fault of its own."""
        self.stop(UnexpectedError.of(error))

    def come(self, cause: M2AsyncError) -> None:
        """End it: from now on nothing more is sent."""
        if self.cause is None and self._carry_out is not None:
            self.cause = cause
            self._carry_out()

    def error(self) -> SubmissionStoppedError:
        """What a job ends in that was not sent."""
        return SubmissionStoppedError(self.cause or NotSentError("the submitter was cancelled"))

    def refused(self, error: LedgerError) -> M2AsyncError:
        """What a job ends in whose intent could not be written: its own error, or the end of everything."""
        if isinstance(error, OF_ONE_JOB):
            return error
        self.stop(error)
        return self.error()
