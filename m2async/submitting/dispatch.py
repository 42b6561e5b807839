"""Giving a run's rows to a submitter as they become ready.

    dispatch = await Dispatch.open(run, await run.dependencies(), max_running=5)
    async for outcome in submitter.submit_many(dispatch.rows()):
        dispatch.ended(outcome)

Beside that, whoever tracks the run tells `dispatch.judged(key, judgement)` how executions end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Self

from m2async.ledger import PAGE, LedgerRow, RowState, Run, TrackedExecution
from m2async.service import Judgement, Result
from m2async.submitting.outcomes import Outcome, Rejected, Unknown
from m2async.submitting.schedule import Schedule

_BACKLOG = 10_000
"""Ready rows that may wait for room in their applications before no more are read."""

_LOOK_AGAIN = 30.0
"""Seconds without any news after which the ledger is asked for some."""

_TO_START = (RowState.PENDING, RowState.REJECTED, RowState.UNKNOWN)


class Dispatch:
    """The rows of a run that are to be started, in order; make it with `open`.

    Memory grows with the rows that come after others or that others come after, not with the rest.
    """

    def __init__(self, run: Run, after: Mapping[str, Sequence[str]], max_running: int | None) -> None:
        self.in_order: bool = bool(after)
        self._run = run
        self._schedule = Schedule(after, max_running=max_running)
        self._max_running = max_running
        self._news = asyncio.Event()
        self._in_doubt: set[str] = set()  # rows that an earlier process may have started: in progress until it is known

    @classmethod
    async def open(cls, run: Run, after: Mapping[str, Sequence[str]], *, max_running: int | None = None) -> Self:
        """Read what became of the rows that were started before, or may have been.

        `after` is what the run tells as its dependencies; `max_running` is how many executions of an application may be
        in progress at once, of those that this run started or may have started, None for no limit.
        """
        dispatch = cls(run, after, max_running)
        ended: list[TrackedExecution] = []
        async for execution in run.all_executions(open_only=not after):
            dispatch._schedule.started(execution.key, execution.application_id)
            if execution.is_over:
                ended.append(execution)
        async for row in run.rows(RowState.UNKNOWN):
            dispatch._schedule.started(row.key, row.request.application_id)
            dispatch._in_doubt.add(row.key)
        for execution in ended:
            dispatch.judged(execution.key, execution.judgement, is_over=True)
        for key in await _sent_no_more(run, after):
            dispatch._schedule.failed(key, "is sent no more by this run")
        return dispatch

    async def rows(self) -> AsyncGenerator[LedgerRow, None]:
        """Give each row once it may be started; ends once no further one will be.

        First those come of which it is to be found out whether they were started: they have their places already.
        """
        decided = set(self._in_doubt)
        async for row in self._run.rows(RowState.UNKNOWN):
            if row.key in self._in_doubt:
                decided.discard(row.key)
                yield row
        for row in await self._run.rows_of(sorted(decided)):  # by somebody else, meanwhile
            if row.state in _TO_START:
                yield row
        page: dict[str, LedgerRow] = {}  # the one that was read last
        read_to: int | None = 0
        while True:
            keys = self._schedule.take(PAGE)
            if keys:
                others = await self._run.rows_of([key for key in keys if key not in page])
                page |= {row.key: row for row in others}
                for key in keys:
                    yield page.pop(key)
            elif read_to is not None and (self._schedule.backlog < _BACKLOG or not self._schedule.may_go_on):
                rows = await self._run.page(*_TO_START, after=read_to)
                for row in rows:
                    if row.key in self._in_doubt:
                        continue
                    self._schedule.add(row.key, row.request.application_id)
                page = {row.key: row for row in rows}
                read_to = rows[-1].number if len(rows) == PAGE else None
            elif self._schedule.may_go_on and self._schedule.waits:
                await self._wait_for_news()
            else:
                return

    def ended(self, outcome: Outcome) -> None:
        """Take note of how a row's submission ended; one that was started is in progress until it is judged."""
        if isinstance(outcome, Rejected):
            self._schedule.failed(outcome.key, f"was not started: {outcome.error.code}")
        elif isinstance(outcome, Unknown):
            self._schedule.doubted(outcome.key, f"may or may not have been started: {outcome.error.code}")
        self._news.set()

    def restarted(self, row: LedgerRow) -> None:
        """Take note that a row that had ended is sent again, and so in progress."""
        self._schedule.started(row.key, row.request.application_id)

    def judged(self, key: str, judgement: Judgement, *, is_over: bool = False) -> None:
        """Take note of what the execution of a row came to, or that it is still open.

        It stays so where it `is_over`: what comes after the row is held then.
        """
        result, reason = judgement
        if result is Result.SUCCESS:
            self._schedule.succeeded(key)
        elif result is Result.FAILURE or is_over:
            self._schedule.failed(key, reason)
        self._news.set()

    async def _wait_for_news(self) -> None:
        self._news.clear()
        try:
            await asyncio.wait_for(self._news.wait(), _LOOK_AGAIN)
        except TimeoutError:
            # Another process that tracks the run may have seen an end before the tracker here saw the start.
            async for execution in self._run.all_executions():
                if self._schedule.is_running(execution.key):
                    self.judged(execution.key, execution.judgement, is_over=execution.is_over)

    def held(self, row: LedgerRow) -> str:
        """Say why a row was not given, once `rows` has ended."""
        return self._schedule.held(row.key) or (
            f"{self._max_running:,} executions of {row.request.application_id} may be in progress, and of some it is "
            "not known whether they are"
        )


async def _sent_no_more(run: Run, after: Mapping[str, Sequence[str]]) -> set[str]:
    """Give what rows come after that is no row of the run any more: its manifest was given again."""
    earlier = {key for keys in after.values() for key in keys}
    if earlier and run.info.gone:
        async for row in run.rows():
            earlier.discard(row.key)
        return earlier
    return set()
