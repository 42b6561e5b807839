"""The progress bar of a submission, on stderr where that is a terminal."""

from __future__ import annotations

import sys
from collections import Counter
from types import TracebackType
from typing import Self

from rich import progress
from rich.console import Console


class Progress:
    """How many of the jobs have ended, how fast, and how long the rest will take."""

    def __init__(self, *, hidden: bool) -> None:
        self._bar = progress.Progress(
            progress.BarColumn(bar_width=None),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[rate]}"),
            progress.TimeRemainingColumn(elapsed_when_finished=True),
            progress.TextColumn("{task.fields[trouble]}"),
            console=Console(stderr=True),
            disable=hidden or not sys.stderr.isatty(),
            # Lines on the same terminal go above the bar; lines to a file or pipe must reach it as they are.
            redirect_stdout=sys.stdout.isatty(),
            redirect_stderr=True,
            expand=True,
        )
        self._task = self._bar.add_task("", total=None, rate="", trouble="")

    def __enter__(self) -> Self:
        return self

    def start(self, total: int) -> None:
        """Show the bar."""
        self._bar.update(self._task, total=total)
        self._bar.start()

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def advance(self, counts: Counter[str]) -> None:
        """Show that one more job has ended."""
        task = self._bar.tasks[self._task]
        rate = "" if task.speed is None else f"{task.speed:,.0f}/s"
        trouble = " ".join(
            f"{counts[state]:,} {state}" for state in ("rejected", "unknown", "sent again") if counts[state]
        )
        self._bar.update(self._task, advance=1, rate=rate, trouble=trouble)

    def stop(self) -> None:
        """Draw the bar a last time, and leave the terminal as it was."""
        self._bar.stop()
