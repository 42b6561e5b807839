"""`m2async track`: follow a run's executions to their ends, and say what each came to."""

from __future__ import annotations

import contextlib
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self

import typer
from rich import progress
from rich.console import Console

from m2async.cli.ledgers import execution_line, existing_ledger
from m2async.cli.log_file import open_log
from m2async.cli.output import BAD_INPUT, emit, emit_json, fail, say, table_line
from m2async.cli.running import Signals, run
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

_WORTH_SAYING = 5.0
"""Seconds of waiting after a failed call that are worth a message."""


def parse_rules(texts: Sequence[str]) -> dict[str | None, int]:
    """Read `--max-rc N` and `--max-rc KEY=N` options; that of the run has the key None."""
    rules: dict[str | None, int] = {}
    for text in texts:
        key, equals, number = text.rpartition("=")
        if not re.fullmatch("[0-9]{1,9}", number):
            fail(f"--max-rc {text}: must be a return code, such as 4, or KEY=4 for a single row", BAD_INPUT)
        if rules.setdefault(key if equals else None, int(number)) != int(number):
            fail(f"--max-rc {text}: another value was given before", BAD_INPUT)
    return rules


async def write_rules(view: RunView, rules: Mapping[str | None, int]) -> None:
    """Write the rules into the ledger: from now on they are the run's."""
    for key, max_rc in rules.items():
        await view.set_rule(max_rc, key)


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
            await write_rules(view, rules)
            async with service.client() as client:
                logger = log and log.logger
                tracker = Tracker(client, ledger, view, more=view.in_use, logger=logger, troubled=say_trouble)
                with StatusBar(await view.execution_counts(), hidden=quiet) as bar:
                    lines = EndLines(form)
                    await lines.fit(view)
                    async for execution in view.all_executions():
                        if execution.ended:
                            lines.ended(execution)
                    async with tracker:
                        async for change in tracker:
                            bar.changed(change.before, change.execution.status)
                            if change.execution.ended:
                                lines.ended(change.execution)
            executions, counts = await view.execution_counts(), await view.counts()
            if not quiet:
                say(summary(executions, counts))
            return exit_code(executions, counts)

    raise typer.Exit(run(work, explained=explained))


def exit_code(executions: Iterable[ExecutionCount], counts: Counts) -> int:
    """0 if every job of the run was started and is a success; else 1."""
    all_started = all(not counts[state] for state in RowState if state is not RowState.STARTED)
    return 0 if all_started and all(alike.judgement.result is Result.SUCCESS for alike in executions) else 1


def summary(executions: Iterable[ExecutionCount], counts: Counts) -> str:
    """Say how a run stands, in a line."""
    results = count_results(executions)
    parts = [f"{results[Result.SUCCESS]:,} of {sum(counts.values()):,} jobs succeeded"]
    named = {Result.FAILURE: "failed", Result.OPEN: "have not ended"}
    parts += [f"{results[result]:,} {words}" for result, words in named.items() if results[result]]
    parts += [
        f"{counts[state]:,} {state.label}" for state in RowState if state is not RowState.STARTED and counts[state]
    ]
    return "; ".join(parts)


def explained(error: M2AsyncError) -> str:
    """An error that ended the tracking, and what to do."""
    if isinstance(error, ResourceNotFoundException):
        return f"{error}: is this the run's region and account? Its jobs are left as they were"
    return str(error)


def say_trouble(error: CallError, seconds: float) -> None:
    """Say that a call failed and is made again, if the wait is long enough to matter."""
    if seconds >= _WORTH_SAYING:
        say(f"m2async: {error.code}: {error.message}; asking again in {seconds:,.0f} s")


def end_line(execution: TrackedExecution) -> dict[str, Any]:
    """The fields of a started job's line of `submit`, and what it came to."""
    result, reason = execution.judgement
    return {
        **execution_line(execution, RowState.STARTED.label),
        "status": execution.status,
        "return_code": execution.return_code,
        "result": result.value,
        "reason": reason,
    }


class EndLines:
    """Prints a line for each execution that has ended, as a table or as JSON."""

    def __init__(self, form: Literal["table", "jsonl"]) -> None:
        self._json = form == "jsonl"
        self._widths = [3, 26, 7]
        self._headed = False

    async def fit(self, view: RunView) -> None:
        """Make the table fit the keys of the first rows."""
        self._widths[0] = max([3, *(len(row.key) for row in await view.page())])

    def ended(self, execution: TrackedExecution) -> None:
        """Print what an execution came to."""
        if self._json:
            emit_json(end_line(execution))
            return
        if not self._headed:
            self._headed = True
            self._row("KEY", "EXECUTION ID", "RESULT", "REASON")
        result, reason = execution.judgement
        self._row(execution.key, execution.execution_id, result.value, reason)

    def _row(self, *cells: str) -> None:
        emit(table_line(cells, (*self._widths, max(10, len(cells[-1])))))


class StatusBar:
    """How many executions have each status, on stderr where that is a terminal."""

    def __init__(self, executions: Iterable[ExecutionCount], *, hidden: bool) -> None:
        self._counts: Counter[str | None] = Counter()
        for alike in executions:
            self._counts[alike.status] += alike.rows
        self._bar = progress.Progress(
            progress.SpinnerColumn(),
            progress.TextColumn("{task.description}"),
            progress.TimeElapsedColumn(),
            console=Console(stderr=True),
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
        return ", ".join(counted) or "no job was started yet"
