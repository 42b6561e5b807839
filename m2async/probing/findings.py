"""What a probe found; everything that its text, its JSON and its page show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from m2async.figures import Percentiles

LoadProfile = Literal["ramp", "constant", "steps"]
"""By which plan a probe offers its calls."""


class Quota(msgspec.Struct, frozen=True, kw_only=True):
    """A quota as ThrottlingExceptions named it, and how many did; both codes are None where they named none."""

    quota_code: str | None
    service_code: str | None
    calls: int


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of the probe's time: `begin` and `end` in seconds from its first call, and its calls.

    `due` were due in it and `sent` were sent in it; `accepted`, `throttled` and `unknown` were sent in it, too.
    """

    begin: float
    end: float
    due: int
    sent: int
    accepted: int
    throttled: int
    unknown: int


class RateStep(msgspec.Struct, frozen=True, kw_only=True):
    """One step of the profiles "steps" and "constant": `rate` calls a second were offered for `seconds`."""

    rate: float
    seconds: float
    calls: int
    accepted: int
    throttled: int
    unknown: int
    latency: Percentiles | None


class NotCancelled(msgspec.Struct, frozen=True, kw_only=True):
    """An execution that the probe started and could not cancel, and why."""

    execution_id: str
    reason: str


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """What a probe sent and what it found; times in seconds, rates in calls a second.

    profile: "ramp" looks for the quota, "constant" offers one rate, "steps" several.
    endpoint_url, application_id, job: where to, and what every call asked to start, by name.
    real_jobs: whether the calls were meant to start jobs.
    began: when it began, in seconds of the epoch.
    seconds: from the first call's due time to the last answer.

    rate, rate_least, rate_most: the sustained rate of the quota and its bounds; None where no steady quota was found.
    burst, burst_least, burst_most: how many calls it allows at once after a pause; None where that was not found.
    use_rate, use_burst: what to give to `m2async submit`; None where the rate was not found.
    sustained: the highest rate of accepted calls that was seen over a second or more, whatever limited it.

    calls: all that were sent; each is one of `accepted` (the quota let it pass), `throttled` or `unknown`.
    refused: those accepted by the quota and refused for another reason, by error code.
    unknown_codes: those of which it is not known whether they counted, by error code.
    quotas: what throttled calls said of their quota.

    timeline: spans of equal length, in order, without gaps.
    latency: from when a call was due to its answer, of all calls that were answered.
    latency_curve: (percentile, seconds), rising.
    steps: what came of each step, in order; empty for "ramp".
    late: the longest time by which a call was sent after it was due.

    run: the ledger run with the calls of real jobs, else None.
    started, cancelled, had_ended, not_cancelled: the executions that were started, and what became of each.
    interrupted: whether it was stopped before it had found out what it could.
    notes: sentences for the reader, the most important first.
    """

    profile: LoadProfile
    endpoint_url: str
    application_id: str
    job: str
    real_jobs: bool
    began: float
    seconds: float
    rate: float | None
    rate_least: float | None
    rate_most: float | None
    burst: int | None
    burst_least: int | None
    burst_most: int | None
    use_rate: float | None
    use_burst: int | None
    sustained: float
    calls: int
    accepted: int
    throttled: int
    unknown: int
    refused: Mapping[str, int]
    unknown_codes: Mapping[str, int]
    quotas: tuple[Quota, ...]
    timeline: tuple[Span, ...]
    latency: Percentiles | None
    latency_curve: tuple[tuple[float, float], ...]
    steps: tuple[RateStep, ...]
    late: float
    run: str | None
    started: tuple[str, ...]
    cancelled: tuple[str, ...]
    had_ended: tuple[str, ...]
    not_cancelled: tuple[NotCancelled, ...]
    interrupted: bool
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The fields of `--output json`: those above, by their names."""
        fields: dict[str, Any] = msgspec.to_builtins(self)
        return fields
