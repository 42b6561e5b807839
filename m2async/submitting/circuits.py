"""Jobs of applications that refuse them all: held until a probe finds that the application runs again."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from m2async.errors import CallError
from m2async.pacing import Circuit
from m2async.submitting.intake import Submission


class Circuits:
    """A circuit for each application that refused a job, and the jobs that wait for it to close.

    Arguments:
        hold: seconds that an application may refuse its jobs until they are given up.
        probe: seconds until the first probe; each further one comes after twice as long.
        requeue: is given each job that may be sent again.
        give_up: is given each job that waited for nothing, and what its application answers.
    """

    def __init__(
        self,
        *,
        hold: float,
        probe: float,
        requeue: Callable[[Submission], None],
        give_up: Callable[[Submission, CallError], None],
    ) -> None:
        self._hold = hold
        self._probe = probe
        self._requeue = requeue
        self._give_up = give_up
        self._open: dict[str, _Open] = {}
        self._paused = False

    @property
    def held(self) -> dict[str, tuple[CallError, int]]:
        """The applications that are not called at present: what they answer, and how many jobs wait."""
        return {application: (one.error, len(one.jobs)) for application, one in self._open.items()}

    def admit(self, job: Submission) -> bool:
        """Whether a job may be sent now; else it is held, or given up."""
        one = self._open.get(job.request.application_id)
        if one is None or one.circuit.try_admit(_now()):
            return True
        self._keep(one, job)
        return False

    def refused(self, job: Submission, error: CallError) -> None:
        """Hold a job that its application refused because it does not run, and those that come after it."""
        application = job.request.application_id
        one = self._open.get(application)
        if one is None:
            one = self._open[application] = _Open(Circuit(self._probe), error, _now() + self._hold)
        one.error = error
        one.circuit.refused(error.code, job.admitted_at, _now())
        self._keep(one, job)

    def answered(self, job: Submission) -> None:
        """Take note that an application took a job, or had something else against it."""
        one = self._open.get(job.request.application_id)
        if one is None:
            return
        one.circuit.answered(job.admitted_at)
        if one.circuit.reason is None:
            del self._open[job.request.application_id]
            for held in one.take_all():
                self._requeue(held)

    def unanswered(self, job: Submission) -> None:
        """Take note that nobody knows what an application answered."""
        one = self._open.get(job.request.application_id)
        if one is not None:
            one.circuit.unanswered(job.admitted_at)
            self._set_timer(one)

    def pause(self) -> None:
        """Give up nothing, and let no probe go, until `unpause`."""
        self._paused = True
        for one in self._open.values():
            one.stop_timer()

    def unpause(self) -> None:
        """Go on after a pause; what is held is held anew."""
        if self._paused:
            self._paused = False
            for one in self._open.values():
                one.hold_until = _now() + self._hold
                self._set_timer(one)

    def take_all(self) -> list[Submission]:
        """Give back all that wait, and wait for nothing more."""
        return [job for one in self._open.values() for job in one.take_all()]

    def _keep(self, one: _Open, job: Submission) -> None:
        if _now() >= one.hold_until and not self._paused:
            self._give_up(job, one.error)
            return
        one.jobs.append(job)
        job.set_aside()
        self._set_timer(one)

    def _set_timer(self, one: _Open) -> None:
        """See to the next probe, or to the end of the waiting."""
        one.stop_timer()
        if one.jobs and not self._paused:
            at = min(one.circuit.retry_at, one.hold_until)
            one.timer = asyncio.get_running_loop().call_at(at, self._look_after, one)

    def _look_after(self, one: _Open) -> None:
        one.timer = None
        if _now() >= one.hold_until:
            for job in one.take_all():
                self._give_up(job, one.error)
        elif one.circuit.retry_at <= _now():
            self._requeue(one.jobs.popleft())  # as the probe
        self._set_timer(one)


class _Open:
    """A circuit that is open, until when jobs are held for it, and those jobs."""

    def __init__(self, circuit: Circuit, error: CallError, hold_until: float) -> None:
        self.circuit = circuit
        self.error = error
        self.hold_until = hold_until
        self.jobs: deque[Submission] = deque()
        self.timer: asyncio.TimerHandle | None = None

    def stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def take_all(self) -> list[Submission]:
        self.stop_timer()
        jobs = list(self.jobs)
        self.jobs.clear()
        return jobs


def _now() -> float:
    return asyncio.get_running_loop().time()
