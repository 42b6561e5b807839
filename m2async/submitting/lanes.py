"""Exact mode: one lane for each application and job, with one of its jobs under way."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable

from m2async.submitting.intake import Submission


class Lanes:
    """Lets at most one job of a lane go on; the others wait in it, first come, first served."""

    def __init__(self) -> None:
        self._waiting: dict[Hashable, deque[Submission]] = {}

    def enter(self, job: Submission) -> bool:
        """Whether a job may go on now; else it waits until `leave` gives it back."""
        lane = (job.request.application_id, job.request.job)
        if lane in self._waiting and not job.in_lane:
            self._waiting[lane].append(job)
            return False
        self._waiting.setdefault(lane, deque())
        job.in_lane = True
        return True

    def leave(self, job: Submission) -> Submission | None:
        """Take note that a job has ended; gives the next of its lane, which may go on."""
        lane = (job.request.application_id, job.request.job)
        waiting = self._waiting.get(lane)
        if not waiting:
            self._waiting.pop(lane, None)
            return None
        following = waiting.popleft()
        following.in_lane = True
        return following

    def take_all(self) -> list[Submission]:
        """Give back all that wait."""
        jobs = [job for lane in self._waiting.values() for job in lane]
        self._waiting.clear()
        return jobs
