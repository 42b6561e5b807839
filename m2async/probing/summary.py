"""What a probe's calls come to, in figures and in sentences."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from m2async.figures import Times
from m2async.probing.findings import Findings, NotCancelled, Quota, RateStep, Span
from m2async.probing.plans import Estimates, Plan
from m2async.probing.record import Call, QuotaVerdict, SentStretch

SPANS = 60
"""Spans of a timeline, at most."""

_SPAN_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0)
_LATE = 0.01  # seconds from when on late calls are worth a note
_BELOW = (0.98, 0.95)  # of rate and burst, to be used

Asked = Literal["no application", "no job", "real jobs"]
"""What every call asked for: an application that does not exist, a job that none defines, or a job to be started."""


class Setting(NamedTuple):
    """What was asked of whom, and when the probe began in seconds of the epoch.

    `stand_in_starts` counts the execution ids of an endpoint that is no service, and so started nothing.
    """

    endpoint_url: str
    application_id: str
    job: str
    asked: Asked
    began: float
    run: str | None = None
    stand_in_starts: int = 0


class Starts(NamedTuple):
    """The executions that were started, and what became of each."""

    started: Sequence[str] = ()
    cancelled: Sequence[str] = ()
    had_ended: Sequence[str] = ()
    not_cancelled: Sequence[NotCancelled] = ()


def summarize(plan: Plan, setting: Setting, starts: Starts, *, ended_by: str | None) -> Findings:
    """Sum up what a plan's calls have shown; `ended_by` says what ended it before its own end."""
    calls = [call for done in plan.done for call in done.record.calls]
    estimates = plan.estimates()
    rate, burst = estimates.rate, estimates.burst
    latencies = _latencies(calls)
    sustained = _sustained(calls)
    throttles = Counter(call.quota for call in calls if call.verdict is QuotaVerdict.THROTTLED)
    return Findings(
        profile=plan.profile,
        endpoint_url=setting.endpoint_url,
        application_id=setting.application_id,
        job=setting.job,
        real_jobs=setting.asked == "real jobs",
        began=setting.began,
        seconds=_end(calls),
        rate=None if rate is None else _rounded(rate.value),
        rate_least=None if rate is None else _rounded(rate.least),
        rate_most=None if rate is None else _rounded(rate.most),
        burst=None if burst is None else round(burst.value),
        burst_least=None if burst is None else round(burst.least),
        burst_most=None if burst is None else round(burst.most),
        use_rate=None if rate is None else _rounded_down(_BELOW[0] * rate.value),
        use_burst=None if burst is None else max(1, math.floor(_BELOW[1] * burst.value)),
        sustained=_rounded(sustained),
        calls=len(calls),
        accepted=_count(calls, QuotaVerdict.ACCEPTED),
        throttled=_count(calls, QuotaVerdict.THROTTLED),
        unknown=_count(calls, QuotaVerdict.UNKNOWN),
        refused=_codes(calls, QuotaVerdict.ACCEPTED),
        unknown_codes=_codes(calls, QuotaVerdict.UNKNOWN),
        quotas=tuple(
            Quota(quota_code=code, service_code=service, calls=count)
            for (code, service), count in throttles.most_common()
        ),
        timeline=tuple(timeline(calls)),
        latency=latencies.percentiles(),
        latency_curve=tuple(latencies.curve()),
        steps=tuple(_step(done) for done in plan.done if done.stretch.kind == "step"),
        late=max((call.sent - call.due for call in calls), default=0.0),
        run=setting.run,
        started=tuple(starts.started),
        cancelled=tuple(starts.cancelled),
        had_ended=tuple(starts.had_ended),
        not_cancelled=tuple(starts.not_cancelled),
        interrupted=ended_by is not None,
        notes=tuple(_notes(plan, calls, estimates, setting, sustained, ended_by)),
    )


def timeline(calls: Sequence[Call]) -> Sequence[Span]:
    """Cut the calls' time into spans of equal length, so many that a chart can show them."""
    end = max((max(call.due, call.sent) for call in calls), default=0.0)
    length = next((seconds for seconds in _SPAN_SECONDS if end < SPANS * seconds), end / (SPANS - 1))
    due, counts = Counter(int(call.due / length) for call in calls), Counter[tuple[int, QuotaVerdict | None]]()
    for call in calls:
        counts[int(call.sent / length), call.verdict] += 1
    return [
        Span(
            begin=round(number * length, 6),
            end=round((number + 1) * length, 6),
            due=due[number],
            sent=sum(counts[number, verdict] for verdict in (*QuotaVerdict, None)),
            accepted=counts[number, QuotaVerdict.ACCEPTED],
            throttled=counts[number, QuotaVerdict.THROTTLED],
            unknown=counts[number, QuotaVerdict.UNKNOWN],
        )
        for number in range(int(end / length) + 1 if calls else 0)
    ]


def _notes(
    plan: Plan, calls: Sequence[Call], estimates: Estimates, setting: Setting, sustained: float, ended_by: str | None
) -> Iterable[str]:
    throttled = _count(calls, QuotaVerdict.THROTTLED)
    refused = _codes(calls, QuotaVerdict.ACCEPTED)
    if ended_by is not None:
        yield f"{ended_by}: these findings are from before that."
    if estimates.overloaded_at is not None:
        yield (
            f"Answers fell behind at {estimates.overloaded_at:,.0f} calls a second without a throttle. The service, or "
            "the way to it, is saturated; that is not a quota."
        )
    elif estimates.throttled_at_any_rate:
        yield (
            f"{throttled:,} calls were throttled, too few to depend on the rate. Someone else may use the quota, or "
            "throttling does not go by the rate."
        )
    elif estimates.unsteady:
        yield (
            "Calls were throttled, but the accepted ones fit no steady rate. The quota does not work like a token "
            f"bucket, or someone else uses it. At most {sustained:,.4g}/s were accepted over a second."
        )
    elif not throttled and sustained:
        yield f"No call was throttled: the quota is at least {sustained:,.4g}/s, the most that was offered."
    if estimates.rate is not None and estimates.burst is not None:
        yield (
            "Use a little less than was found (2 % of the rate, 5 % of the burst), as calls do not arrive as evenly "
            "as they are sent."
        )
    if setting.stand_in_starts:
        yield (
            f"{setting.stand_in_starts:,} calls were answered with an execution id for an application that does not "
            "exist. This endpoint is on this machine, so it is taken for a stand-in that starts no jobs."
        )
    yield from _on_validation(setting, throttled, refused)
    if unknown := _count(calls, QuotaVerdict.UNKNOWN):
        yield f"{unknown:,} calls may or may not have counted against the quota; the rate assumes that they did not."
    late = max((call.sent - call.due for call in calls), default=0.0)
    if late >= _LATE:
        share = sum(call.sent - call.due >= _LATE for call in calls) / len(calls)
        yield (
            f"The sender fell behind: {share:.1%} of the calls were sent {_LATE * 1000:.0f} ms or more after they were "
            f"due, {late * 1000:,.0f} ms at most. Latencies count from when they were due."
        )


def _on_validation(setting: Setting, throttled: int, refused: dict[str, int]) -> Iterable[str]:
    """Say whether calls count before they are validated: only then do harmless calls show the quota of jobs."""
    if not refused or setting.asked == "real jobs":
        return
    if throttled:
        yield (
            "Calls count before they are validated: calls that start nothing were throttled, so the quota found is "
            "the one that jobs meet."
        )
    else:
        yield (
            "Nothing was throttled, but every call failed validation; this says nothing about valid calls. "
            + (
                "To find out, name an application with -a; no job of it is started."
                if setting.asked == "no application"
                else "To find out, start and cancel real jobs, with --start-real-jobs."
            )
        )


def _step(done: SentStretch) -> RateStep:
    calls = done.record.calls
    offered = calls[-1].due - calls[0].due if len(calls) > 1 else 0.0
    return RateStep(
        rate=done.stretch.rate,
        seconds=_rounded(offered + 1 / done.stretch.rate),
        calls=len(calls),
        accepted=_count(calls, QuotaVerdict.ACCEPTED),
        throttled=_count(calls, QuotaVerdict.THROTTLED),
        unknown=_count(calls, QuotaVerdict.UNKNOWN),
        latency=_latencies(calls).percentiles(),
    )


def _latencies(calls: Iterable[Call]) -> Times:
    """Latencies as a client of an open loop sees them: from when a call was due, whenever it was sent."""
    return Times((call.answered - call.due, 1) for call in calls if call.answered is not None)


def _sustained(calls: Sequence[Call]) -> float:
    """The highest rate of accepted calls over a second or a little more; 0 for a shorter probe."""
    times = sorted(call.sent for call in calls if call.verdict is QuotaVerdict.ACCEPTED)
    best, first = 0.0, 0
    for number, at in enumerate(times):
        while at - times[first] >= 1:
            best = max(best, (number - first) / (at - times[first]))
            first += 1
    return best


def _codes(calls: Iterable[Call], verdict: QuotaVerdict) -> dict[str, int]:
    codes = Counter(call.code for call in calls if call.verdict is verdict and call.code is not None)
    return dict(codes.most_common())


def _count(calls: Iterable[Call], verdict: QuotaVerdict) -> int:
    return sum(call.verdict is verdict for call in calls)


def _end(calls: Sequence[Call]) -> float:
    return round(max((max(call.sent, call.answered or 0.0) for call in calls), default=0.0), 6)


def _rounded(rate: float) -> float:
    """To four digits."""
    return float(f"{rate:.4g}")


def _rounded_down(rate: float) -> float:
    """To three digits, and never up."""
    unit: float = 10.0 ** (math.floor(math.log10(rate)) - 2)
    return _rounded(math.floor(rate / unit + 1e-6) * unit)
