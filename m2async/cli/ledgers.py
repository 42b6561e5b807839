"""`m2async runs`, `status` and `export`: what the ledger knows."""

from __future__ import annotations

import csv
import io
import os
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from m2async.cli.hints import hint
from m2async.cli.output import Form, emit, emit_json, emit_list, emit_text, say
from m2async.cli.progress import Waiting
from m2async.cli.running import Signals, run
from m2async.errors import CallError
from m2async.figures import count_results
from m2async.ledger import (
    ExecutionClaimedError,
    ExecutionCount,
    ForeignExecution,
    IllegalTransitionError,
    Ledger,
    LedgerRow,
    Orders,
    RowState,
    RunView,
    TrackedExecution,
    open_ledger,
)
from m2async.service import Result
from m2async.submitting import outcome_of, why_refused
from m2async.texts import holds_controls, is_formula, plural

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
    "candidates",
)
_OF_CSV = ("error_code", "error_message")  # what an export as JSON has otherwise
_ODD = {"with a formula, as a spreadsheet takes it": is_formula, "with control characters": holds_controls}
_MOST_TOLD = 5
"""Jobs that somebody else started, too, of which each has a line."""

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


def ledger_address(url: str | None) -> str:
    """The ledger that is named, if one is: an empty name is for the ledger to refuse, and not the default one."""
    return default_ledger() if url is None else url


def existing_ledger(url: str | None) -> AbstractAsyncContextManager[Ledger]:
    """Open the ledger that is named, which must exist, or the default one."""
    return open_ledger(ledger_address(url), must_exist=url is not None)


def say_ledger(ledger: Ledger, *, is_new: bool = False) -> None:
    """Say which ledger is used, and whether it is new: it knows nothing then of what was started before."""
    say(f"ledger {ledger.address}" + (" is new: it knows of no earlier run" if is_new else ""))


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

    async def read(
        ledger: Ledger,
    ) -> tuple[
        dict[str, Any],
        list[dict[str, Any]],
        list[dict[str, Any]],
        list[ExecutionCount],
        list[ForeignExecution],
        Orders,
    ]:
        view = await ledger.run(run_name)
        counts, executions, sent_to = await view.counts(), await view.execution_counts(), view.info.sent_to
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
        if any(alike.judgement.result is Result.FAILURE or alike.is_untold for alike in executions):
            troubles += [
                _failure_line(execution)
                async for execution in view.all_executions()
                if execution.judgement.result is Result.FAILURE or execution.is_untold
            ]
        summary = {"run": run_name, **{state.label: counts[state] for state in RowState}, **results_of(executions)}
        summary["sent_to"] = sent_to and ("rehearsal" if sent_to.is_rehearsal else str(sent_to))
        return summary, ends, troubles, executions, await view.foreign(), await view.orders()

    summary, ends, troubles, executions, foreign, orders = with_ledger(url, read)
    say_foreign(foreign)
    if form == "table":
        sent_to = summary.pop("sent_to")
        emit_list([summary], tuple(summary), form)
        if sent_to is not None:
            emit_text(f"sent to: {sent_to}")
        if orders.stopped or orders.paused:
            told = "stopped" if orders.stopped else "paused"
            emit_text(f"{told} until {hint('unpause', run_name, ledger=url)}")
        if together := sum(alike.rows for alike in executions if alike.ends):
            emit_text(
                f"{plural(together, 'started job')} without an execution id: which of a group's executions is whose "
                "cannot be told; m2async export lists them"
            )
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
    """Print every row of a run, with the fields of a line of `submit`.

    They are exact, so that they read back; what a spreadsheet would make of them is said.
    """
    odd: Counter[str] = Counter()

    async def write(ledger: Ledger) -> None:
        view = await ledger.run(run_name)
        if form == "csv":
            emit(_csv_line(_FIELDS))
        with Waiting("rows written", view.info.jobs, hidden=sys.stdout.isatty()) as waiting:
            async for row, execution in view.jobs():
                fields = _exported(row, execution)
                if form == "jsonl":
                    left_out = _OF_CSV if _is_of_group(row) else (*_OF_CSV, "candidates")
                    emit_json({name: fields[name] for name in fields if name not in left_out})
                else:
                    fields["candidates"] = " ".join(fields["candidates"])
                    cells = ["" if fields[name] is None else str(fields[name]) for name in _FIELDS]
                    odd.update(what for cell in cells for what, is_so in _ODD.items() if is_so(cell))
                    emit(_csv_line(cells))
                waiting.advance()

    with_ledger(url, write)
    if odd:
        found = "; ".join(f"{plural(count, 'cell')} {what}" for what, count in odd.items())
        say(f"m2async: the rows are exact: import their columns as text, or take --format jsonl: {found}")


def _is_of_group(row: LedgerRow) -> bool:
    """Whether the row was started, and which execution is its own cannot be told."""
    return row.state is RowState.STARTED and row.execution_id is None


def _exported(row: LedgerRow, execution: TrackedExecution | None) -> dict[str, Any]:
    """The fields of a row in any form of an export."""
    fields = line(row)
    fields["status"] = None if execution is None else execution.known_status
    fields["return_code"] = None if execution is None else execution.known_return_code
    error = fields["error"] or {}
    return fields | {"error_code": error.get("code"), "error_message": error.get("message")}


def results_of(executions: Iterable[ExecutionCount]) -> dict[str, int]:
    """How many of a run's jobs succeeded, and how many failed."""
    results = count_results(executions)
    return {word: results[result] for result, word in _RESULTS.items()}


def _failure_line(execution: TrackedExecution) -> dict[str, Any]:
    """A failed execution as a row of `status`, or one that may have."""
    error = {"code": execution.known_status or ("Untold" if execution.ends else "Gone")}
    error["message"] = execution.judgement.reason
    state = RowState.STARTED.label if execution.is_untold else "failed"
    return {**execution_line(execution, state, error), "candidates": list(execution.candidates)}


def execution_line(execution: TrackedExecution, state: str, error: dict[str, str] | None = None) -> dict[str, Any]:
    """The fields of a started row, as `submit` prints them."""
    return {
        "key": execution.key,
        "application_id": execution.application_id,
        "job": execution.job.name,
        "state": state,
        "execution_id": execution.known_id,
        "attempts": execution.attempts,
        "adopted": execution.adopted,
        "error": error,
        **({"candidates": list(execution.candidates)} if execution.candidates else {}),
    }


def line(row: LedgerRow) -> dict[str, Any]:
    """The fields of a row, as `submit` prints them; a row that was not sent yet is pending."""
    fields = outcome_of(row).to_line()
    fields["state"] = row.state.label
    if row.error_code is None:
        fields["error"] = None
    fields["candidates"] = list(row.candidates)
    return fields


async def named_group(view: RunView, execution: TrackedExecution) -> str:
    """Say which rows and executions one belongs with, where which is its own cannot be told."""
    others = await view.together(execution.group) if execution.group is not None else []
    keys = [each.key for each in others if each.key != execution.key]
    return (
        f"{execution.key} was started together with {some(keys) or 'others'}, as one of "
        f"{', '.join(execution.candidates)}; which is its own cannot be told"
    )


def some_of(execution: TrackedExecution) -> str:
    """The execution as a cell of a table: its id, or that it is one of several."""
    return execution.known_id or f"one of {some(execution.candidates)}"


def some(candidates: Sequence[str]) -> str:
    """The candidates as one cell of a table: the first, and how many there are besides."""
    more = len(candidates) - 1
    return "" if more < 0 else candidates[0] + (f" and {more:,} more" if more else "")


def with_ledger(url: str | None, use: Callable[[Ledger], Awaitable[T]]) -> T:
    """Open the ledger and use it; ends the command with a message if that fails."""

    async def using(_: Signals) -> T:
        async with existing_ledger(url) as ledger:
            if url is None and await ledger.is_new():
                say_ledger(ledger, is_new=True)
            return await use(ledger)

    return run(using, bad_input=(IllegalTransitionError, ExecutionClaimedError))


def say_foreign(executions: Sequence[ForeignExecution]) -> None:
    """Say that somebody else starts the run's jobs, and what follows from it: a line for each of the first jobs."""
    by_job: dict[tuple[str, str], list[ForeignExecution]] = {}
    for execution in executions:
        by_job.setdefault((execution.job.name, execution.application_id), []).append(execution)
    for (job, application_id), seen in islice(by_job.items(), _MOST_TOLD):
        say(
            f"Somebody else started {_executions(len(seen))} of {job} in application {application_id}, first "
            f"{seen[0].execution_id}. If the answer for a job of this name is lost, the job stays unknown."
        )
    others = [len(seen) for seen in islice(by_job.values(), _MOST_TOLD, None)]
    if others:
        jobs = "another job" if len(others) == 1 else f"{len(others):,} other jobs"
        say(
            f"The same holds for {_executions(sum(others))} of {jobs} of this run: {len(executions):,} executions in "
            "all are somebody else's."
        )


def _executions(count: int) -> str:
    return "an execution" if count == 1 else f"{count:,} executions"


def say_refused(refused: Mapping[str, CallError], unknown: int) -> None:
    """Say why nothing could be listed, and what followed from it: one line a reason."""
    applications_of: dict[str, list[str]] = {}
    for application_id, error in refused.items():
        applications_of.setdefault(why_refused(error), []).append(application_id)
    for reason, (first, *others) in applications_of.items():
        which = f"application {first}" + (f" and {len(others):,} others" if others else "")
        say(f"The executions of {which} cannot be listed: {reason}.")
    if refused and unknown:
        say(f"As long as that is so, it is not to be known what became of {plural(unknown, 'job')}.")


def _csv_line(cells: Any) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="").writerow(cells)
    return buffer.getvalue()
