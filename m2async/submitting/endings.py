"""The end of a job's submission: its log event, and the outcome that goes with it."""

from __future__ import annotations

from m2async.certainty import Adopted, StartedTogether
from m2async.errors import CallError
from m2async.events import Events
from m2async.submitting.intake import Submission
from m2async.submitting.outcomes import Rejected, Started, Unknown, rejected, started, unknown


class UnwantedError(Exception):
    """Nobody waits for the job any more, and it was not sent."""


class Endings:
    """Logs how jobs end, and makes their outcomes."""

    def __init__(self, events: Events) -> None:
        self._events = events

    def started(self, job: Submission, execution_id: str, request_id: str | None = None) -> Started:
        """End a job that was started."""
        job.tell(self._events.started, job.key, job.request, execution_id, request_id, job.attempts, job.elapsed)
        return started(job, execution_id, request_id, before=job.sent_nothing)

    def found(self, job: Submission, decision: Adopted | StartedTogether) -> Started:
        """End a job that was found to have been started: as an execution, or as one of several."""
        id_ = decision.execution_id if isinstance(decision, Adopted) else None
        candidates = () if isinstance(decision, Adopted) else decision.execution_ids
        job.tell(
            self._events.started,
            job.key,
            job.request,
            id_,
            None,
            job.attempts,
            job.elapsed,
            adopted=True,
            candidates=candidates,
        )
        return started(job, id_, adopted=True, before=job.sent_nothing, candidates=candidates)

    def rejected(self, job: Submission, error: CallError) -> Rejected:
        """End a job that was surely not started."""
        job.tell(self._events.rejected, job.key, job.request, error, job.attempts, job.elapsed)
        return rejected(job, error)

    def unknown(self, job: Submission, error: CallError, candidates: tuple[str, ...] = ()) -> Unknown:
        """End a job of which it is not known whether it was started."""
        job.tell(self._events.unknown, job.key, job.request, error, job.attempts, job.elapsed)
        return unknown(job, error, candidates, before=job.sent_nothing)
