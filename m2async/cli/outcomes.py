"""How a submission is shown: a line for each job on stdout, the summary on stderr."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from m2async.cli.output import emit, emit_json, say, table_line
from m2async.errors import HeldError, M2AsyncError
from m2async.ledger import LedgerRow
from m2async.service import StartBatchJob
from m2async.submitting import Outcome, Rejected, Started, Unknown

_EXECUTION_ID_WIDTH = 26
_KEY_WIDTH, _JOB_WIDTH = 28, 12  # at most, on a terminal of 80 columns, beside state and execution id


class OutcomeLines:
    """Prints outcomes as a table or as lines of JSON, and counts them by state."""

    def __init__(self, form: Literal["table", "jsonl"]) -> None:
        self.counts: Counter[str] = Counter()
        self._json = form == "jsonl"
        self._rows = 0
        self._widths = (3, 3, 8)
        self._headed = False

    def fit(self, rows: int, *, key_width: int, job_width: int) -> None:
        """Take note of how many rows there are, and of how wide their keys and jobs are, in characters."""
        self._rows = rows
        key, job = max(3, key_width), max(3, job_width)
        if sys.stdout.isatty():
            key, job = min(key, _KEY_WIDTH), min(job, _JOB_WIDTH)
        self._widths = (key, job, 8)

    def request(self, key: str, request: StartBatchJob, after: Sequence[str]) -> None:
        """Print what would be sent for a job, and the keys of the jobs that it comes after."""
        if self._json:
            named = {"key": key, "application_id": request.application_id, "job": request.job.name}
            order = {"after": after} if after else {}
            emit_json({**named, **order, "request": request.to_api()})
        else:
            line = f"{table_line([key], self._widths[:1])}  POST {request.path}  {request.body().decode()}"
            emit(f"{line}  after {'; '.join(after)}" if after else line)

    def outcome(self, outcome: Outcome, *, before: bool = False) -> None:
        """Print how a job ended, now or in an earlier process."""
        self.counts[outcome.state] += 1
        if not before:
            self.counts["sent again"] += max(0, outcome.attempts - 1)
        if self._json:
            emit_json(outcome.to_line())
            return
        if not self._headed:
            self._headed = True
            self._row("KEY", "JOB", "STATE", "EXECUTION ID")
        self._row(outcome.key, outcome.request.job.name, outcome.state, _ended_in(outcome))

    def not_sent(self, key: str, request: StartBatchJob, cause: M2AsyncError) -> None:
        """Print that the run stopped before a job; a table leaves it to the summary."""
        if self._json:
            self.outcome(Rejected(key=key, request=request, attempts=0, error=cause))
        else:
            self.counts["skipped"] += 1

    def held(self, row: LedgerRow, reason: str) -> None:
        """Print that a job was not started, and because of which other one."""
        self.outcome(Rejected(key=row.key, request=row.request, attempts=0, error=HeldError(reason)))

    def summary(self, seconds: float) -> None:
        """Say how the run went."""
        parts = [f"{self.counts['started']:,} of {self._rows:,} jobs started in {seconds:,.1f} s"]
        parts += [
            f"{self.counts[what]:,} {what}"
            for what in ("rejected", "unknown", "skipped", "sent again")
            if self.counts[what]
        ]
        say("; ".join(parts))
        if self.counts["unknown"]:
            say("An unknown job may be running: look for its execution before you start it again (m2async resolve).")

    def _row(self, key: str, job: str, state: str, ended_in: str) -> None:
        cells = table_line((key, job, state, ended_in), (*self._widths, max(_EXECUTION_ID_WIDTH, len(ended_in))))
        emit(cells)


def _ended_in(outcome: Outcome) -> str:
    match outcome:
        case Started():
            return outcome.execution_id
        case Rejected() | Unknown():
            return f"{outcome.error.code}: {outcome.error.message}"
