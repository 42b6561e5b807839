"""The end of a job's submission: its log event, and the outcome that goes with it."""

from __future__ import annotations

from m2async.errors import CallError
from m2async.events import Events
from m2async.submitting.intake import Submission
from m2async.submitting.outcomes import Rejected, Started, Unknown, rejected, started, unknown


class Endings:
    """Logs how jobs end, and makes their outcomes."""

    def __init__(self, events: Events) -> None:
        self._events = events

    def started(
        self, job: Submission, execution_id: str, request_id: str | None = None, *, adopted: bool = False
    ) -> Started:
        """End a job that was started."""
        self._events.started(job.key, job.request, execution_id, request_id, job.attempts, job.elapsed, adopted=adopted)
        return started(job, execution_id, request_id, adopted=adopted)

    def rejected(self, job: Submission, error: CallError) -> Rejected:
        """End a job that was surely not started."""
        self._events.rejected(job.key, job.request, error, job.attempts, job.elapsed)
        return rejected(job, error)

    def unknown(self, job: Submission, error: CallError, candidates: tuple[str, ...] = ()) -> Unknown:
        """End a job of which it is not known whether it was started."""
        self._events.unknown(job.key, job.request, error, job.attempts, job.elapsed)
        return unknown(job, error, candidates)
