"""Control laws that the package's own was compared with, in docs/pacing.md; each in its usual, simple form."""

from __future__ import annotations

import math

from m2async.pacing import Grant


class _Law:
    """Doubles the rate until the first throttle, as all of them do, and then leaves it to the law."""

    first_rate = 20.0

    def __init__(self) -> None:
        self.rate = self.first_rate
        self.burst = 1.0
        self.paused_until = -math.inf
        self._began: float | None = None
        self._seeking = True
        self._lowered_at = -math.inf
        self._latency = 0.0

    @property
    def found_rate(self) -> float | None:
        return None if self._seeking else self.rate

    def answered(self, grant: Grant, now: float) -> None:
        self._measure(now - grant.at)
        if self._began is None:
            self._began = grant.at
        if self._seeking:
            self._set(self.first_rate * 2 ** max(0.0, (grant.at - self._began) / max(0.5, self._latency)))
        else:
            self._raise(grant, now)

    def throttled(self, grant: Grant, now: float, retry_after: float | None = None) -> None:
        self._measure(now - grant.at)
        if grant.at > self._lowered_at:  # one signal for all calls that were under way
            self._lowered_at = now
            self._seeking = False
            self._lower(grant, now)

    def _raise(self, grant: Grant, now: float) -> None:
        raise NotImplementedError

    def _lower(self, grant: Grant, now: float) -> None:
        raise NotImplementedError

    def _measure(self, seconds: float) -> None:
        self._latency += (seconds - self._latency) / 8 if self._latency else seconds

    def _set(self, rate: float) -> None:
        self.rate = max(0.5, rate)
        self.burst = 1.0 + 0.005 * self.rate


class Aimd(_Law):
    """Additive increase, by `step` calls a second each second; multiplicative decrease at a throttle, to `factor`."""

    def __init__(self, step: float, factor: float) -> None:
        super().__init__()
        self._step = step
        self._factor = factor

    def _raise(self, grant: Grant, now: float) -> None:
        self._set(self.rate + self._step / self.rate)  # there are `rate` answers a second

    def _lower(self, grant: Grant, now: float) -> None:
        self._set(self._factor * self.rate)


class Cubic(_Law):
    """CUBIC (RFC 9438) on the rate; botocore's adaptive retry mode has a `scale` of 0.4 and a `factor` of 0.7."""

    def __init__(self, scale: float, factor: float) -> None:
        super().__init__()
        self._scale = scale
        self._factor = factor
        self._last_max = 0.0

    def _raise(self, grant: Grant, now: float) -> None:
        flat_after = math.cbrt((1 - self._factor) * self._last_max / self._scale)
        self._set(self._scale * (now - self._lowered_at - flat_after) ** 3 + self._last_max)

    def _lower(self, grant: Grant, now: float) -> None:
        self._last_max = self.rate
        self._set(self._factor * self.rate)


class Gradient(_Law):
    """By latency, as concurrency limiters do: up by the rate's root while they are fast, to `factor` at a throttle."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self._factor = factor
        self._fastest = math.inf
        self._raised_at = -math.inf

    def _raise(self, grant: Grant, now: float) -> None:
        self._fastest = min(self._fastest, now - grant.at)
        if now - self._raised_at >= max(0.2, self._latency):
            self._raised_at = now
            self._set(self.rate * min(1.0, max(0.5, self._fastest / self._latency)) + math.sqrt(self.rate))

    def _lower(self, grant: Grant, now: float) -> None:
        self._set(self._factor * self.rate)


class EstimateOnly(_Law):
    """A direct estimate alone: what was accepted since the throttle before, and 2 % more to look for the limit."""

    def __init__(self) -> None:
        super().__init__()
        self._throttled = 0
        self._anchor: tuple[float, int] | None = None

    def throttled(self, grant: Grant, now: float, retry_after: float | None = None) -> None:
        self._throttled += 1
        super().throttled(grant, now, retry_after)

    def _raise(self, grant: Grant, now: float) -> None:
        pass

    def _lower(self, grant: Grant, now: float) -> None:
        accepted = grant.number - self._throttled
        estimate = self.rate / 2
        if self._anchor is not None and grant.at > self._anchor[0]:
            estimate = (accepted - self._anchor[1]) / (grant.at - self._anchor[0])
        self._anchor = (grant.at, accepted)
        self._set(1.02 * estimate)
