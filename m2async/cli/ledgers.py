"""`m2async runs`, `status`, `export` and `resolve`: what the ledger knows, and the operator's word on it."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from m2async.cli.output import BAD_INPUT, Form, emit, emit_list, fail, say
from m2async.cli.progress import Waiting
from m2async.cli.running import Signals, run
from m2async.figures import count_results
from m2async.ledger import (
    ExecutionClaimedError,
    ExecutionCount,
    IllegalTransitionError,
    Ledger,
    LedgerRow,
    RowState,
    TrackedExecution,
    open_ledger,
)
from m2async.service import Result
from m2async.submitting import outcome_of

T = TypeVar("T")
_FIELDS = (
    "key",
    "application_id",
    "job",
    "state",
    "execution_id",
    "attempts",
    "adopted",
    "error_code",
    "error_message",
    "status",
    "return_code",
)
_RESULTS = {Result.SUCCESS: "succeeded", Result.FAILURE: "failed"}


class Book(NamedTuple):
    """Which ledger and which run; by default the user's own ledger, and the manifest's run."""

    url: str | None
    run: str | None


def default_ledger() -> str:
    """The ledger where none is named: in the user's folder for program state, which is made if it is not there.

    Source of the place: XDG Base Directory Specification.
    """
    folder = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "m2async"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return str(folder / "ledger.db")


def existing_ledger(url: str | None) -> AbstractAsyncContextManager[Ledger]:
    """Open the ledger that is named, which must exist, or the default one."""
    return open_ledger(url or default_ledger(), must_exist=url is not None)


def runs(url: str | None, form: Form) -> None:
    """List the runs, with their rows by state."""

    async def read(ledger: Ledger) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        with Waiting("runs read") as waiting:
            for summary in await ledger.runs():
                executions = await (await ledger.run(summary.info.name)).execution_counts()
                counts = {state.label: summary.counts[state] for state in RowState}
                rows.append({"run": summary.info.name, **counts, **results_of(executions)})
                waiting.advance()
        return rows

    emit_list(with_ledger(url, read), ("run", *(state.label for state in RowState), *_RESULTS.values()), form)


def status(url: str | None, run_name: str, form: Form) -> None:
    """Show how far a run is, what its executions came to, and every row that is rejected, unknown or failed."""

    async def read(ledger: Ledger) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
        view = await ledger.run(run_name)
        counts, executions = await view.counts(), await view.execution_counts()
        troubles = []
        with Waiting("jobs in trouble") as waiting:
            async for row in view.rows(RowState.INTENT, RowState.UNKNOWN, RowState.REJECTED):
                troubles.append(line(row))
                waiting.advance()
        ends = [
            {
                "status": alike.status,
                "return_code": alike.return_code,
                "result": alike.judgement.result.value,
                "jobs": alike.rows,
            }
            for alike in executions
        ]
        if any(alike.judgement.result is Result.FAILURE for alike in executions):
            troubles += [
                _failure_line(execution)
                async for execution in view.all_executions()
                if execution.judgement.result is Result.FAILURE
            ]
        summary = {"run": run_name, **{state.label: counts[state] for state in RowState}, **results_of(executions)}
        return summary, ends, troubles

    summary, ends, troubles = with_ledger(url, read)
    if form == "table":
        emit_list([summary], tuple(summary), form)
        if any(end["status"] for end in ends):
            emit("")
            emit_list(ends, ("status", "return_code", "result", "jobs"), form)
        if troubles:
            emit("")
            shown = [
                {
                    **trouble,
                    "error": (trouble["error"] or {}).get("code"),
                    "candidates": some(trouble["candidates"]),
                }
                for trouble in troubles
            ]
            emit_list(shown, ("key", "job", "state", "attempts", "error", "candidates"), form)
    else:
        emit_list([{**summary, "executions": ends, "rows": troubles}], tuple(summary), form)


def export(url: str | None, run_name: str, form: Literal["csv", "jsonl"]) -> None:
    """Print every row of a run, with the fields of a line of `submit`."""

    async def write(ledger: Ledger) -> None:
        view = await ledger.run(run_name)
        if form == "csv":
            emit(_csv_line(_FIELDS))
        with Waiting("rows written", view.info.rows, hidden=sys.stdout.isatty()) as waiting:
            async for row, execution in view.jobs():
                emit(_exported(row, execution, form))
                waiting.advance()

    with_ledger(url, write)


def resolve(url: str | None, run_name: str, key: str, started: str | None, *, not_started: bool) -> None:
    """Take the operator's word for what became of an unknown row."""
    if (started is None) is not not_started:
        fail("give either --started EXECUTION_ID or --not-started", BAD_INPUT)

    async def write(ledger: Ledger) -> LedgerRow:
        await ledger.run(run_name)  # a run that does not exist is not made
        async with await ledger.open_run(run_name, by_hand=True) as opened:
            row = await opened.row(key)
            if started is not None:
                await opened.claim(row.number, row.attempts, started, "an operator's word", inferred=False)
            else:
                await opened.not_started(row.number, row.attempts, "an operator's word")
            return await opened.row(key)

    row = with_ledger(url, write)
    say(f"{key} is {row.state.label}" + (f" as {row.execution_id}" if row.execution_id else ""))


def _exported(row: LedgerRow, execution: TrackedExecution | None, form: Literal["csv", "jsonl"]) -> str:
    fields = line(row)
    fields["status"] = None if execution is None else execution.status
    fields["return_code"] = None if execution is None else execution.return_code
    if form == "jsonl":
        del fields["candidates"]
        return json.dumps(fields, ensure_ascii=False)
    error = fields["error"] or {}
    fields |= {"error_code": error.get("code"), "error_message": error.get("message")}
    return _csv_line(["" if fields[name] is None else fields[name] for name in _FIELDS])


def results_of(executions: Iterable[ExecutionCount]) -> dict[str, int]:
    """How many of a run's jobs succeeded, and how many failed."""
    results = count_results(executions)
    return {word: results[result] for result, word in _RESULTS.items()}


def _failure_line(execution: TrackedExecution) -> dict[str, Any]:
    """A failed execution as a row of `status`."""
    error = {"code": execution.status or "Gone", "message": execution.judgement.reason}
    return {**execution_line(execution, "failed", error), "candidates": []}


def execution_line(execution: TrackedExecution, state: str, error: dict[str, str] | None = None) -> dict[str, Any]:
    """The fields of a started row, as `submit` prints them."""
    return {
        "key": execution.key,
        "application_id": execution.application_id,
        "job": execution.job.name,
        "state": state,
        "execution_id": execution.execution_id,
        "attempts": execution.attempts,
        "adopted": execution.adopted,
        "error": error,
    }


def line(row: LedgerRow) -> dict[str, Any]:
    """The fields of a row, as `submit` prints them; a row that was not sent yet is pending."""
    fields = outcome_of(row).to_line()
    fields["state"] = row.state.label
    if row.error_code is None:
        fields["error"] = None
    fields["candidates"] = list(row.candidates)
    return fields


def some(candidates: Sequence[str]) -> str:
    """The candidates as one cell of a table: the first, and how many there are besides."""
    more = len(candidates) - 1
    return "" if more < 0 else candidates[0] + (f" and {more:,} more" if more else "")


def with_ledger(url: str | None, use: Callable[[Ledger], Awaitable[T]]) -> T:
    """Open the ledger and use it; ends the command with a message if that fails."""

    async def using(_: Signals) -> T:
        async with existing_ledger(url) as ledger:
            return await use(ledger)

    return run(using, bad_input=(IllegalTransitionError, ExecutionClaimedError))


def _csv_line(cells: Any) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="").writerow(cells)
    return buffer.getvalue()
