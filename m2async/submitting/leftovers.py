"""Rows that an earlier process left in doubt: looked for at the start, although nobody waits for their outcomes."""

from __future__ import annotations

from contextvars import Context, copy_context

from m2async.certainty import Doubts
from m2async.clock import steady_time
from m2async.events import Events
from m2async.ledger import RowState, Run
from m2async.submitting.intake import Submission
from m2async.submitting.lane import WIDE
from m2async.submitting.lanes import Lanes
from m2async.submitting.recording import remembered


class Leftovers:
    """The rows in doubt of a run, until what became of them is found, or somebody submits them again."""

    def __init__(self) -> None:
        self._jobs: dict[int, Submission] = {}
        self._successors: dict[Submission, Submission] = {}

    async def look_for(self, run: Run, doubts: Doubts[Submission] | None, events: Events) -> None:
        """Say what was left open, and have the rows in doubt looked for."""
        counts = await run.counts()
        if counts[RowState.UNKNOWN] or counts[RowState.PENDING]:
            events.left(run.info.name, counts[RowState.UNKNOWN], counts[RowState.PENDING])
        if doubts is None:
            return
        nobody, rows = _Nobody(), [row async for row in run.rows(RowState.UNKNOWN)]
        for row in sorted(rows, key=lambda row: row.ended_at or 0.0):
            self._jobs[row.number] = job = Submission(row.key, row.request, nobody, row)
            job.begin()
            job.is_entered, job.attempts, job.in_doubt = True, row.attempts, remembered(row)
            doubts.park(job, row.request.application_id, row.number, ended_at=row.ended_at)

    async def hold(self, run: Run, lanes: Lanes, *, settle: float) -> None:
        """Let the names of rows that may still start wait, wherever in the manifest those rows are."""
        now = steady_time()
        async for row in run.rows(RowState.UNKNOWN):
            until = settle + WIDE - max(0.0, now - (row.ended_at or now))
            lanes.hold(row, min(until, settle + WIDE))

    def take_over(self, job: Submission) -> bool:
        """Let a job that was submitted take the place of its row, if that is being looked for."""
        left = None if job.row is None else self._jobs.pop(job.row.number, None)
        if left is not None:
            self._successors[left] = job
        return left is not None

    def waiting(self, job: Submission) -> Submission:
        """Give the job that took this one's place, or else itself: it is looked for no more."""
        if isinstance(job.results, _Nobody) and job.row is not None:
            self._jobs.pop(job.row.number, None)
        return self._successors.pop(job, job)


class _Nobody:
    """Waits for no outcome: what is found is in the ledger, and logged in the context of who opened the submitter."""

    abandoned = True

    def __init__(self) -> None:
        self.context: Context = copy_context()

    def set_aside(self) -> bool:
        return False

    def ended(self, outcome: object, *, was_set_aside: bool) -> None:
        pass

    def stopped(self, error: object, *, was_set_aside: bool) -> None:
        pass

    def failed(self, error: object, *, was_set_aside: bool) -> None:
        pass
