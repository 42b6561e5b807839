"""When a submitter's next call may go: at the pace that it was given or shares, and not in a pause."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress

from m2async.errors import CallError, M2ServiceException, ThrottlingException, WrongEventLoopError
from m2async.pacing import AdaptiveRate, Flow, Pacer, RetryPolicy, TokenBucket
from m2async.submitting.intake import Submission
from m2async.submitting.pause import Pause


class Tokens:
    """Gives each attempt a token, and lets the pacing know of its answer.

    The arguments are those of Submitter; `buckets` are those of single applications, and `policy` says how much of a
    `Retry-After` is heeded.

    Raises ValueError where `burst` is given without `rate`, or more than one of `rate`, `adaptive` and `pacer`.
    """

    def __init__(
        self,
        *,
        rate: float | None,
        burst: float | None,
        adaptive: bool,
        pacer: Pacer | None,
        weight: float,
        buckets: Mapping[str, TokenBucket],
        policy: RetryPolicy,
    ) -> None:
        if rate is None and burst is not None:
            raise ValueError("burst goes with rate, which is not given")
        if (rate is not None) + adaptive + (pacer is not None) > 1:
            raise ValueError("give only one of rate, adaptive and pacer")
        self.pause: Pause = Pause()
        self._pacer = pacer or (_guarded(rate, burst) if adaptive or rate is not None else None)
        self._flow = Flow(weight)
        self._buckets = buckets
        self._policy = policy
        self._alone = {bucket: Pacer(bucket) for bucket in buckets.values()}  # where nothing else paces

    @property
    def rate(self) -> float | None:
        """The calls a second that are sent at most at present; None for no limit."""
        return None if self._pacer is None else self._pacer.bucket.rate

    @property
    def found_rate(self) -> float | None:
        """The quota that throttling showed, in calls a second; None if there was none, or not enough."""
        controller = None if self._pacer is None else self._pacer.controller
        return None if controller is None else controller.found_rate

    def set_rate(self, rate: float, burst: float) -> None:
        """Give tokens at another rate and burst from now on."""
        if self._pacer is None:
            self._pacer = _guarded(rate, burst)
        else:
            self._pacer.set_rate(rate, burst)

    async def take(self, job: Submission, may_send: Callable[[], bool]) -> bool:
        """Wait for the token of a job's next attempt; a pause is waited out first.

        `may_send` is asked when the turn comes. Where it says no, and for a job that nobody waits for any more, there
        is no token: gives False then.
        """

        def is_wanted() -> bool:
            return job.is_wanted() and may_send()

        while True:
            pacer = job.pacer = self._pacer_of(job)
            if pacer is not None:
                flow = self._flow if pacer is self._pacer else None
                job.grant = await pacer.acquire_if(is_wanted, flow=flow, own=self._own(job, pacer))
                if job.grant is None:
                    return False
            job.pauses = self.pause.begun
            if self.is_turn_of(job):
                return pacer is not None or may_send()
            self.give_back(job)
            await self.pause.over()

    def is_turn_of(self, job: Submission) -> bool:
        """Whether a job that took its token may go still: no pause began meanwhile, and nothing began to pace it."""
        return not self.pause.active and job.pauses == self.pause.begun and job.pacer is self._pacer_of(job)

    def give_back(self, job: Submission) -> None:
        """Give back the token of an attempt that does not come."""
        grant, job.grant = job.grant, None
        if job.pacer is not None and grant is not None:
            with _whoever_has_the_pacer_now:
                job.pacer.give_back(grant, own=self._own(job, job.pacer))

    def succeeded(self, job: Submission) -> None:
        """Let the pacing know of a call that succeeded."""
        if job.pacer is not None and job.grant is not None:
            with _whoever_has_the_pacer_now:
                job.pacer.answered(job.grant)

    def failed(self, job: Submission, error: CallError) -> None:
        """Let the pacing know of a call that failed; only an answer of the service says something of the quota."""
        if job.pacer is None or job.grant is None:
            return
        with _whoever_has_the_pacer_now:
            if isinstance(error, ThrottlingException):
                job.pacer.throttled(job.grant, self._policy.heeded(error.retry_after))
            elif isinstance(error, M2ServiceException):
                job.pacer.answered(job.grant)

    def _pacer_of(self, job: Submission) -> Pacer | None:
        """What paces a job: what paces all, or else its application's own bucket, if it has one."""
        if self._pacer is not None or not self._buckets:
            return self._pacer
        own = self._buckets.get(job.request.application_id)
        return None if own is None else self._alone[own]

    def _own(self, job: Submission, pacer: Pacer) -> TokenBucket | None:
        """The second bucket that a job needs a token of."""
        own = self._buckets.get(job.request.application_id)
        return None if own is pacer.bucket else own


_whoever_has_the_pacer_now = suppress(WrongEventLoopError)
"""What was sent stays as it is, also where another event loop took the pacer over meanwhile."""


def _guarded(rate: float | None, burst: float | None) -> Pacer:
    """Make a pacer that keeps to the rate, or without one finds it, and goes down where the service throttles."""
    controller = AdaptiveRate(rate, burst)
    return Pacer(TokenBucket(controller.rate, controller.burst), controller)
