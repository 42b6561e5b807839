"""How a submission is shown: a line for each job on stdout, the summary on stderr."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal

from m2async.cli.output import emit, emit_json, emit_lines, say
from m2async.cli.screen import TextTable
from m2async.errors import HeldError, M2AsyncError
from m2async.ledger import LedgerRow
from m2async.service import StartBatchJob
from m2async.submitting import Outcome, Rejected, Started, Unknown
from m2async.texts import plural, visible


class OutcomeLines:
    """Prints outcomes as a table or as lines of JSON, and counts them by state."""

    def __init__(self, form: Literal["table", "jsonl"]) -> None:
        self.counts: Counter[str] = Counter()
        self._json = form == "jsonl"
        self._rows = 0
        self._widths = (3, 3)
        self._table: TextTable | None = None

    def fit(self, rows: int, *, key_width: int, job_width: int) -> None:
        """Take note of how many rows there are, and of how wide their keys and jobs are, in characters."""
        self._rows = rows
        self._widths = (max(3, key_width), max(3, job_width))

    def request(self, key: str, request: StartBatchJob, after: Sequence[str]) -> None:
        """Print what would be sent for a job, and the keys of the jobs that it comes after."""
        if self._json:
            named = {"key": key, "application_id": request.application_id, "job": request.job.name}
            order = {"after": after} if after else {}
            emit_json({**named, **order, "request": request.to_api()})
        else:
            line = f"{visible(key):<{self._widths[0]}}  POST {request.path}  {request.body().decode()}"
            emit(f"{line}  after {'; '.join(after)}" if after else line)

    def outcome(self, outcome: Outcome, *, attempts_before: int = 0) -> None:
        """Print how a job ended; it had so many attempts before this command, which do not count."""
        self.counts[outcome.state] += 1
        self.counts["together"] += isinstance(outcome, Started) and outcome.execution_id is None
        self.counts["sent again"] += max(0, outcome.attempts - attempts_before - 1)
        self._show(outcome)

    def before(self, outcome: Outcome) -> None:
        """Print a job that was started before this command."""
        self.counts["started before"] += 1
        self._show(outcome)

    def _show(self, outcome: Outcome) -> None:
        if self._json:
            emit_json(outcome.to_line())
            return
        if self._table is None:
            self._table = TextTable(("KEY", "JOB", "STATE", "EXECUTION ID"), (*self._widths, 8, 80), least=26)
            emit_lines(self._table.head())
        emit_lines(self._table.row((outcome.key, outcome.request.job.name, outcome.state, _ended_in(outcome))))

    def not_sent(self, key: str, request: StartBatchJob, cause: M2AsyncError) -> None:
        """Print that the run stopped before a job; a table leaves it to the summary."""
        if self._json:
            self.outcome(Rejected(key=key, request=request, attempts=0, error=cause))
        else:
            self.counts["skipped"] += 1

    def held(self, row: LedgerRow, reason: str) -> None:
        """Print that a job was not started, and because of which other one."""
        self.outcome(Rejected(key=row.key, request=row.request, attempts=0, error=HeldError(reason)))

    def summary(self, seconds: float, hint: Callable[[str], str] | None) -> None:
        """Say how the run went, and what to do; `hint` writes out a command on the run, if it can be gone on with."""
        rows = self._rows - self.counts["started before"]
        parts = [f"{self.counts['started']:,} of {rows:,} jobs started in {seconds:,.1f} s"]
        parts += [
            f"{self.counts[what]:,} {what}"
            for what in ("rejected", "unknown", "skipped", "sent again", "started before")
            if self.counts[what]
        ]
        say("; ".join(parts))
        if self.counts["unknown"]:
            way = f": {hint('reconcile')}" if hint is not None else "."
            say(f"An unknown job may be running: look for its execution before you start it again{way}")
        if together := self.counts["together"]:
            say(
                f"{plural(together, 'started job')} without an execution id: of each group that lists the same "
                "executions, all were started, one each; which is whose cannot be told."
            )
        if self.counts["skipped"] and hint is not None:
            say(f"To go on with the run: {hint('resume')}")


def _ended_in(outcome: Outcome) -> str:
    match outcome:
        case Started():
            return outcome.execution_id or f"one of {', '.join(outcome.candidates)}"
        case Rejected() | Unknown():
            return f"{outcome.error.code}: {outcome.error.message}"
