"""Progress bars, on stderr where that is a terminal: of a submission, and of whatever else takes its time."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from time import monotonic
from types import TracebackType
from typing import Self, TypeVar

from rich import progress

from m2async.cli.screen import console

T = TypeVar("T")
_PATIENCE = 1.0
"""Seconds of work before a bar appears."""

_DRAWS_EVERY = 0.1
"""Seconds between two moves of a bar: to move it costs more than most of what it counts."""

_ROWS = 1_000
"""Rows between two moves of that bar."""


class Waiting:
    """A bar for work that shows nothing else: it appears after a second, and goes when the work ends.

    `what` names what is counted, and `total` says how many there are, where that is known.
    """

    def __init__(self, what: str, total: int | None = None, *, hidden: bool = False) -> None:
        self._bar = progress.Progress(
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(),
            progress.TextColumn("{task.fields[done]}", markup=False),
            progress.TimeElapsedColumn() if total is None else progress.TimeRemainingColumn(),
            console=console(),
            transient=True,
            disable=hidden or not sys.stderr.isatty(),
            redirect_stdout=sys.stdout.isatty(),
        )
        self._task = self._bar.add_task(what, total=total, done="")
        self._timer = threading.Timer(_PATIENCE, self._show)
        self._timer.daemon = True
        self._lock = threading.Lock()
        self._ended = False
        self._total = total
        self._done = 0
        self._draws_at = 0.0

    def __enter__(self) -> Self:
        if not self._bar.disable:
            self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()
        with self._lock:
            self._ended = True
            self._bar.stop()

    def advance(self, count: int = 1) -> None:
        """Show that so many more are done."""
        self._done += count
        now = monotonic()
        if now >= self._draws_at:
            self._draws_at = now + _DRAWS_EVERY
            done = f"{self._done:,}" + ("" if self._total is None else f"/{self._total:,}")
            self._bar.update(self._task, completed=self._done, done=done)

    def _show(self) -> None:
        with self._lock:
            if not self._ended:
                self._bar.start()


class Progress:
    """How many of the jobs have ended, how fast, and how long the rest will take."""

    def __init__(self, *, hidden: bool) -> None:
        self._waiting = ""  # how many jobs wait for others of their name, in words
        self._counts = Counter[str]()
        self._bar = progress.Progress(
            progress.BarColumn(bar_width=None),
            progress.TextColumn("{task.completed:,.0f}{task.fields[of]}"),
            progress.TextColumn("{task.fields[rate]}"),
            progress.TimeRemainingColumn(elapsed_when_finished=True),
            progress.TextColumn("{task.fields[trouble]}"),
            console=console(),
            disable=hidden or not sys.stderr.isatty(),
            # Lines on the same terminal go above the bar; lines to a file or pipe must reach it as they are.
            redirect_stdout=sys.stdout.isatty(),
            redirect_stderr=True,
            expand=True,
        )
        self._task = self._bar.add_task("", total=None, of=" rows checked", rate="", trouble="")

    def __enter__(self) -> Self:
        return self

    @contextmanager
    def checking(self, rows: Iterable[T]) -> Iterator[Iterator[T]]:
        """Count the rows of a manifest while they are read; after a second, show the count."""

        def counted() -> Iterator[T]:
            for number, row in enumerate(rows, 1):
                if not number % _ROWS:
                    self._bar.update(self._task, completed=number, rate=self._rate())
                yield row

        showing = asyncio.get_running_loop().call_later(_PATIENCE, self._bar.start)
        try:
            yield counted()
        finally:
            showing.cancel()

    def start(self, total: int) -> None:
        """Show the bar of the jobs."""
        self._bar.reset(self._task, total=total, of=f"/{total:,}", rate="", trouble="")
        self._bar.start()

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def advance(self, counts: Counter[str]) -> None:
        """Show that one more job has ended."""
        self._counts = counts
        self._bar.update(self._task, advance=1, rate=self._rate(), trouble=self._trouble())

    def show_waiting(self, waiting: str) -> None:
        """Show how many jobs wait, in words."""
        self._waiting = waiting
        self._bar.update(self._task, trouble=self._trouble())

    def _trouble(self) -> str:
        counts = self._counts
        told = [f"{counts[state]:,} {state}" for state in ("rejected", "unknown", "sent again") if counts[state]]
        return " ".join([*told, self._waiting] if self._waiting else told)

    def _rate(self) -> str:
        speed = self._bar.tasks[self._task].speed
        return "" if speed is None else f"{speed:,.0f}/s"

    def stop(self) -> None:
        """Draw the bar a last time, and leave the terminal as it was."""
        self._bar.stop()
