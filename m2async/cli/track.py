"""`m2async track`: follow a run's executions to their ends, and say what each came to."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self

import typer
from rich import progress

from m2async.cli.hints import advised
from m2async.cli.ledgers import execution_line, existing_ledger, say_foreign, say_ledger, some_of
from m2async.cli.log_file import open_log
from m2async.cli.output import emit_json, emit_lines, say
from m2async.cli.rules import write_rules
from m2async.cli.running import Signals, run
from m2async.cli.screen import TextTable, console
from m2async.cli.service import Service
from m2async.errors import CallError, M2AsyncError, ResourceNotFoundException
from m2async.figures import count_results
from m2async.following import Tracker
from m2async.ledger import (
    Counts,
    ExecutionCount,
    RowState,
    RunView,
    TrackedExecution,
)
from m2async.service import Result
from m2async.texts import visible

_WORTH_SAYING = 5.0
"""Seconds of waiting after a failed call that are worth a message."""


def track(
    run_name: str,
    service: Service,
    url: str | None,
    rules: Mapping[str | None, int],
    form: Literal["table", "jsonl"],
    log_file: str | None,
    *,
    quiet: bool,
) -> None:
    """Follow a run until all its executions have ended and nobody submits it any more."""

    async def work(_: Signals) -> int:
        async with contextlib.AsyncExitStack() as stack:
            log = stack.enter_context(open_log(log_file)) if log_file else None
            ledger = await stack.enter_async_context(existing_ledger(url))
            view = await ledger.run(run_name)
            say_ledger(ledger)
            async with service.client() as client:
                await service.check_place(view, client)
                await write_rules(view, rules)
                logger = log and log.logger
                tracker = Tracker(client, ledger, view, more=view.in_use, logger=logger, troubled=say_trouble)
                with StatusBar(await view.execution_counts(), hidden=quiet) as bar:
                    lines = EndLines(form)
                    await lines.fit(view)
                    await lines.show_ends(view)
                    async with tracker:
                        async for change in tracker:
                            bar.changed(change.before, change.execution.status)
                            if change.execution.is_over:
                                lines.ended(change.execution)
                    await lines.show_gone(view)
            executions, counts = await view.execution_counts(), await view.counts()
            if not quiet:
                say(summary(executions, counts))
                say_foreign(await view.foreign())
            return exit_code(executions, counts)

    raise typer.Exit(run(work, explained=partial(explained, ledger=url)))


def exit_code(executions: Iterable[ExecutionCount], counts: Counts) -> int:
    """0 if every job of the run was started and is a success; else 1."""
    all_started = all(not counts[state] for state in RowState if state is not RowState.STARTED)
    return 0 if all_started and all(alike.judgement.result is Result.SUCCESS for alike in executions) else 1


def summary(executions: Collection[ExecutionCount], counts: Counts) -> str:
    """Say how a run stands, in a line."""
    results = count_results(alike for alike in executions if not alike.gone)
    gone = sum(alike.rows for alike in executions if alike.gone)
    parts = [f"{results[Result.SUCCESS]:,} of {sum(counts.values()):,} jobs succeeded"]
    untold = sum(alike.rows for alike in executions if alike.is_untold)
    results[Result.OPEN] -= untold
    named = {Result.FAILURE: "failed", Result.OPEN: "have not ended"}
    parts += [f"{results[result]:,} {words}" for result, words in named.items() if results[result]]
    parts += [f"{untold:,} of which it cannot be told, as their executions ended differently"] if untold else []
    parts += [f"{gone:,} not found by the service"] if gone else []
    parts += [
        f"{counts[state]:,} {state.label}" for state in RowState if state is not RowState.STARTED and counts[state]
    ]
    return "; ".join(parts)


def explained(error: M2AsyncError, ledger: str | None) -> str:
    """An error that ended the tracking, and what to do."""
    if isinstance(error, ResourceNotFoundException):
        return f"{error}: is this the run's region and account? Its jobs are left as they were"
    return advised(error, ledger=ledger)


def say_trouble(error: CallError, seconds: float) -> None:
    """Say that a call failed and is made again, if the wait is long enough to matter."""
    if seconds >= _WORTH_SAYING:
        say(f"m2async: {error.code}: {error.message}; asking again in {seconds:,.0f} s")


def end_line(execution: TrackedExecution) -> dict[str, Any]:
    """The fields of a started job's line of `submit`, and what it came to."""
    result, reason = execution.judgement
    return {
        **execution_line(execution, RowState.STARTED.label),
        "status": execution.known_status,
        "return_code": execution.known_return_code,
        "result": result.value,
        "reason": reason,
    }


class EndLines:
    """Prints a line for each execution that has ended, as a table or as JSON."""

    def __init__(self, form: Literal["table", "jsonl"]) -> None:
        self._json = form == "jsonl"
        self._key_width = 3
        self._table: TextTable | None = None
        self._gone: set[str] = set()

    async def fit(self, view: RunView) -> None:
        """Make the table fit the keys of the first rows."""
        self._key_width = max([3, *(len(row.key) for row in await view.page())])

    async def show_ends(self, view: RunView) -> None:
        """Print what ended before, but for what was gone: that is looked for once more."""
        async for execution in view.all_executions():
            if execution.is_over and not execution.gone:
                self.ended(execution)

    async def show_gone(self, view: RunView) -> None:
        """Print what was gone before, and still is."""
        async for execution in view.all_executions(open_only=True):
            if execution.is_over and execution.execution_id not in self._gone:
                self.ended(execution)

    def ended(self, execution: TrackedExecution) -> None:
        """Print what an execution came to."""
        if execution.gone:
            self._gone.add(execution.execution_id)
        if self._json:
            emit_json(end_line(execution))
            return
        if self._table is None:
            self._table = TextTable(("KEY", "EXECUTION ID", "RESULT", "REASON"), (self._key_width, 26, 7, 80))
            emit_lines(self._table.head())
        result, reason = execution.judgement
        emit_lines(self._table.row((execution.key, some_of(execution), result.value, reason)))


class StatusBar:
    """How many executions have each status, on stderr where that is a terminal."""

    def __init__(self, executions: Iterable[ExecutionCount], *, hidden: bool) -> None:
        self._counts: Counter[str | None] = Counter()
        for alike in executions:
            self._counts[alike.status] += alike.rows
        self._bar = progress.Progress(
            progress.SpinnerColumn(),
            progress.TextColumn("{task.description}", markup=False),
            progress.TimeElapsedColumn(),
            console=console(),
            disable=hidden or not sys.stderr.isatty(),
            redirect_stdout=sys.stdout.isatty(),
            redirect_stderr=True,
        )
        self._task = self._bar.add_task(self._text(), total=None)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.stop()

    def changed(self, before: str | None, status: str | None) -> None:
        """Show that an execution has another status."""
        if self._counts[before]:
            self._counts[before] -= 1
        self._counts[status] += 1
        self._bar.update(self._task, description=self._text())

    def _text(self) -> str:
        counted = [f"{count:,} {status or 'not seen yet'}" for status, count in self._counts.items() if count]
        return visible(", ".join(counted)) or "no job was started yet"
