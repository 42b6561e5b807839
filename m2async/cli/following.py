"""Tracking a run beside its submission, so that rows start when those before them have ended."""

from __future__ import annotations

from collections.abc import Callable

import anyio
from structlog.typing import FilteringBoundLogger

from m2async.cli.output import say
from m2async.cli.track import EndLines, say_trouble
from m2async.client import M2Client
from m2async.errors import M2AsyncError
from m2async.figures import count_results
from m2async.following import Tracker
from m2async.ledger import Ledger, Run
from m2async.service import Result
from m2async.submitting import Dispatch


class Following:
    """Tells a dispatch how executions end, and the user which fail; `stop` ends a run that cannot be followed."""

    def __init__(
        self,
        client: M2Client,
        ledger: Ledger,
        run: Run,
        dispatch: Dispatch,
        *,
        stop: Callable[[str], None],
        lines: EndLines | None,
        logger: FilteringBoundLogger | None,
    ) -> None:
        self.dispatch = dispatch
        self.failures: int = 0
        self._run = run
        self._tracker = Tracker(client, ledger, run, more=self._more_are_started, logger=logger, troubled=say_trouble)
        self._stop = stop
        self._lines = lines
        self._submitting = True
        self._ended = anyio.Event()

    async def run(self) -> None:
        """Track until no more rows are started and all executions have ended."""
        try:
            if self._lines is not None:
                await self._lines.show_ends(self._run)
            async with self._tracker:
                async for change in self._tracker:
                    if self._lines is not None and change.execution.is_over:
                        self._lines.ended(change.execution)
                    elif change.judgement.result is Result.FAILURE:
                        say(f"m2async: {change.key}: {change.judgement.reason}")
                    self.dispatch.judged(change.key, change.judgement, is_over=change.execution.is_over)
            if self._lines is not None:
                await self._lines.show_gone(self._run)
        except M2AsyncError as error:
            self._stop(f"the executions cannot be followed: {error.code}: {error.message}")
        finally:
            self._ended.set()

    async def to_the_end(self) -> None:
        """Note that no more rows are started; if somebody needs the ends of those that were, wait for them."""
        self._submitting = False
        if self.dispatch.in_order or self._lines is not None:
            await self._ended.wait()
            results = count_results(await self._run.execution_counts())
            self.failures = results[Result.FAILURE] + results[Result.OPEN]

    def leave(self) -> None:
        """Wait no longer."""
        self._ended.set()

    async def _more_are_started(self) -> bool:
        return self._submitting
