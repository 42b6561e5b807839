"""A probe as a page."""

from __future__ import annotations

from collections.abc import Iterator

from m2async.pages import Pages
from m2async.probing import Findings
from m2async.report import drawings
from m2async.texts import number, percent, plural, seconds

_KINDS = ("accepted", "throttled", "unknown")
_LISTED = 100  # executions and steps


def probe_page(findings: Findings) -> str:
    """Make the page of what a probe found."""
    return Pages("m2async.report").render(
        "probe.html",
        findings=findings,
        headline=_headline(findings),
        rate=_within(findings.rate, findings.rate_least, findings.rate_most),
        burst=_within(findings.burst, findings.burst_least, findings.burst_most),
        charts=list(_charts(findings)),
        listed=_LISTED,
    )


def _headline(findings: Findings) -> str:
    if findings.interrupted:
        return "The probe was stopped before its end"
    if findings.rate is None:
        return "No steady quota was found"
    burst = "" if findings.burst is None else f", bursts of {plural(findings.burst, 'call')}"
    return f"The quota is about {number(findings.rate)} calls a second{burst}"


def _within(value: float | None, least: float | None, most: float | None) -> tuple[str, str]:
    """What was found, and its bounds."""
    if value is None:
        return "not found", ""
    return number(value), "" if least is None or most is None else f"between {number(least)} and {number(most)}"


def _charts(findings: Findings) -> Iterator[drawings.Chart]:
    if findings.timeline:
        counts = {kind: [getattr(span, kind) for span in findings.timeline] for kind in _KINDS}
        finding = (
            f"{plural(findings.calls, 'call')} in {seconds(findings.seconds)}; {findings.throttled:,} were throttled, "
            f"{percent(findings.throttled, findings.calls)} of them."
        )
        width = findings.timeline[0].end - findings.timeline[0].begin
        yield drawings.over_time("Accepted and throttled over time", finding, counts, width)
    if findings.latency is not None and findings.latency_curve:
        yield drawings.latency(findings.latency, findings.latency_curve, "Each counts from when the call was due.")
