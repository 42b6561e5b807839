"""`m2async reconcile --logs`: what the candidates' logs say of jobs of which it is not known as which they started."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from m2async.cli.output import Form, emit, emit_list, say
from m2async.cli.progress import Waiting
from m2async.cli.service import Service
from m2async.following import JobLogs, LogEvidence, Telling
from m2async.ledger import LedgerRow
from m2async.texts import plural

_MOST_LINES = 5
"""Lines that are shown of what a candidate logged with the same value."""

Found = dict[tuple[str, Telling], list[str]]
"""The first lines by candidate and what they tell; one too many where there are more."""


async def read_evidence(rows: Sequence[LedgerRow], service: Service, logs_endpoint_url: str | None) -> Found:
    """Read what the candidates of rows logged, and give the lines that hold a value by which the rows differ.

    Raises LogsError.
    """
    evidence, found, silent = LogEvidence(rows), Found(), 0
    async with JobLogs(service.region, profile_name=service.profile, endpoint_url=logs_endpoint_url) as logs:
        with Waiting("candidates' logs read", len(evidence.application_of)) as waiting:
            for candidate, application_id in evidence.application_of.items():
                streams = await logs.streams(application_id, candidate)
                silent += not streams
                for stream in streams:
                    async for message in logs.messages(stream):
                        for line in message.splitlines():
                            for telling in evidence.found(candidate, line):
                                lines = found.setdefault((candidate, telling), [])
                                lines += [line] if len(lines) <= _MOST_LINES else []
                waiting.advance()
    if silent:
        say(f"m2async: there are no logs of {plural(silent, 'candidate')}, or not yet")
    return found


def shown_evidence(found: Found, key: str) -> list[dict[str, Any]]:
    """Give what was found of a row, for JSON."""
    return [
        {
            "execution_id": candidate,
            "parameter": telling.parameter,
            "value": telling.value,
            "lines": lines[:_MOST_LINES],
        }
        for (candidate, telling), lines in found.items()
        if telling.key == key
    ]


def emit_evidence(found: Found, rows: Sequence[LedgerRow]) -> None:
    """Print what was found as a table: row, candidate, parameter and line."""
    order: Mapping[str, int] = {row.key: row.number for row in rows}
    lines = [
        {"key": telling.key, "candidate": candidate, "found": f"{telling.parameter}={telling.value}", "line": line}
        for (candidate, telling), found_lines in sorted(found.items(), key=lambda each: order[each[0][1].key])
        for line in [*found_lines[:_MOST_LINES], *(["… and more lines"] if len(found_lines) > _MOST_LINES else [])]
    ]
    emit("")
    if lines:
        form: Form = "table"
        emit_list(lines, ("key", "candidate", "found", "line"), form)
    say(
        f"{plural(len({telling.key for _, telling in found}), 'job')} of {len(rows):,} named in the candidates' logs"
        if found
        else "No candidate's log names a value by which the jobs differ."
    )
