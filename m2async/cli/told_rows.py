"""The rows of a submission, from when they are read until what became of them is shown."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from m2async.cli.outcomes import OutcomeLines
from m2async.cli.output import say
from m2async.cli.progress import Progress
from m2async.errors import M2AsyncError
from m2async.ledger import LedgerError, LedgerRow, RowNotFoundError, RowState, Run
from m2async.service import StartBatchJob
from m2async.submitting import Dispatch, Outcome, Started, outcome_of

_NOT_STARTED = (RowState.PENDING, RowState.REJECTED, RowState.UNKNOWN)


class ToldRows:
    """Shows what became of each row of a run, once.

    Arguments:
        run: the run.
        dispatch: gives the rows, and is told how they ended, where they do not go in the order of the manifest.
        lines: prints and counts them.
        progress: is told of each.
        before: whether jobs of the run were started before.
    """

    def __init__(
        self, run: Run, dispatch: Dispatch | None, lines: OutcomeLines, progress: Progress, *, before: bool
    ) -> None:
        self.held: int = 0  # how many were not started, as others did not end well
        self._run = run
        self._dispatch = dispatch
        self._lines = lines
        self._progress = progress
        self._before = before
        self._open: dict[str, StartBatchJob] = {}  # rows that were read and have not ended
        self._last_read = 0
        self._not_started: set[str] = set()  # rows that have ended without a start, where some rows wait for others
        self._attempts_before: dict[str, int] = {}  # of open rows that were sent by an earlier command
        self._now: set[str] = set()  # the keys of this command's own outcomes, where there are earlier ones

    async def read(self) -> AsyncIterator[LedgerRow]:
        """Give the rows that are to be started, each when it may be."""
        rows = self._run.rows(*_NOT_STARTED) if self._dispatch is None else self._dispatch.rows()
        async with contextlib.aclosing(rows):
            async for row in rows:
                self._open[row.key] = row.request
                self._note_attempts(row)
                if self._dispatch is None:
                    self._last_read = row.number
                yield row

    def restarted(self, row: LedgerRow) -> None:
        """Take note of a row that is started once more."""
        self._note_attempts(row)
        if self._dispatch is not None:
            self._dispatch.restarted(row)

    def submitted(self, outcome: Outcome) -> None:
        """Show how a row ended that was read."""
        self._open.pop(outcome.key, None)
        self.ended(outcome)

    def ended(self, outcome: Outcome) -> None:
        """Show how a row ended."""
        if self._before:
            self._now.add(outcome.key)
        if self._dispatch is not None:
            self._not_started |= {outcome.key} if not isinstance(outcome, Started) else set()
            self._dispatch.ended(outcome)
        self._lines.outcome(outcome, attempts_before=self._attempts_before.pop(outcome.key, 0))
        self._progress.advance(self._lines.counts)

    async def show_what_is_sent_no_more(self) -> None:
        """Show the rows in doubt that were not let go: the manifest was given again without them."""
        for key in list(self._open):
            with contextlib.suppress(RowNotFoundError):
                row = await self._run.row(key)
                if row.state is RowState.UNKNOWN:
                    self.ended(outcome_of(row))

    async def show_what_is_held(self) -> None:
        """Show the rows that were not started because of others, and because of which."""
        if self._dispatch is None:
            return
        async for row in self._run.rows(*_NOT_STARTED):
            if row.key not in self._not_started:
                self.held += 1
                self._lines.held(row, self._dispatch.held(row))
                self._progress.advance(self._lines.counts)

    async def show_what_was_started_before(self) -> None:
        """Show the rest of those that were started: their lines come last, so that the others do not wait for them."""
        if not self._before:
            return
        async for row in self._run.rows(RowState.STARTED):
            if row.key not in self._now:
                self._lines.before(outcome_of(row))
                self._progress.advance(self._lines.counts)

    async def show_what_was_not_sent(self, cause: M2AsyncError) -> None:
        """Show which jobs were not sent: those read before the stop, and those still to be read."""
        for key, request in self._open.items():
            self._lines.not_sent(key, request, cause)
        try:
            async for row in self._run.rows(*_NOT_STARTED, after=self._last_read):
                if row.key not in self._not_started and row.key not in self._open:
                    self._lines.not_sent(row.key, row.request, cause)
        except LedgerError as exc:
            say(f"m2async: which other jobs were not sent is not known: {exc}")

    def _note_attempts(self, row: LedgerRow) -> None:
        if row.attempts:
            self._attempts_before[row.key] = row.attempts
