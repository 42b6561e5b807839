"""What a run in progress is told from elsewhere, and what is asked of it: found in the ledger, and done."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Protocol

import anyio
from anyio.abc import TaskGroup

from m2async.errors import SubmissionStoppedError
from m2async.ledger import Deed, IllegalTransitionError, LedgerError, LedgerRow, Orders, Run, carry_out_what_is_asked
from m2async.submitting.outcomes import Outcome

LOOK_EVERY = 0.5
"""Seconds between two looks of a submission at what it is told."""


class Steered(Protocol):
    """What is steered; a Submitter is."""

    def set_rate(self, rate: float, burst: float = 1.0) -> None:
        """Pace by another rate and burst from now on."""

    def pause(self) -> None:
        """Send nothing more for now."""

    def unpause(self) -> None:
        """End a pause."""

    def submit_many(self, requests: Iterable[LedgerRow], /) -> AsyncIterator[Outcome]:
        """Start jobs, and iterate over their outcomes."""


class Steering:
    """Has a submitter do what its run is told: another pace, a pause, a stop, decisions on rows.

    Arguments:
        run: the run that the submitter writes.
        submitter: what to steer.
        stop: ends the submission, for a reason.
        tell: told what was done, in words.
        restarted: told a row that is to be restarted, before it is sent.
        ended: told the outcomes of such rows.
    """

    def __init__(
        self,
        run: Run,
        submitter: Steered,
        *,
        stop: Callable[[str], object],
        tell: Callable[[str], object] = lambda said: None,
        restarted: Callable[[LedgerRow], object] = lambda row: None,
        ended: Callable[[Outcome], object] = lambda outcome: None,
    ) -> None:
        self._run = run
        self._submitter = submitter
        self._stop = stop
        self._tell = tell
        self._restarted = restarted
        self._ended = ended
        self._known = Orders()
        self._done: deque[Deed] = deque()  # as was asked, and not told yet
        self._being_restarted = 0
        self._none_left = anyio.Event()

    async def begin(self) -> None:
        """Heed what was told before: a pause stays until it is taken back. Call it before anything is sent."""
        self._heed(await self._run.orders())

    async def follow(self) -> None:
        """Do what is told and asked, until cancelled. A ledger that cannot be read is told of, and looked at again."""
        trouble: str | None = None
        async with anyio.create_task_group() as tasks:
            while True:
                await anyio.sleep(LOOK_EVERY)
                try:
                    self._heed(await self._run.orders())
                    await self._do_what_is_asked(tasks)
                except LedgerError as error:
                    if trouble != error.code:
                        self._tell(f"orders cannot be read at present: {error.code}: {error.message}")
                    trouble = error.code
                else:
                    if trouble is not None:
                        self._tell("orders can be read again")
                    trouble = None

    async def all_sent(self) -> None:
        """Wait until every row that was to be restarted has an outcome."""
        while self._being_restarted:
            self._none_left = anyio.Event()
            await self._none_left.wait()

    def _heed(self, told: Orders) -> None:
        known, self._known = self._known, told
        if told.rate is not None and told.burst is not None and (told.rate, told.burst) != (known.rate, known.burst):
            self._submitter.set_rate(told.rate, told.burst)
            self._tell(f"{told.rate:g} calls a second, bursts of {told.burst:g}, from now on")
        if told.paused != known.paused:
            (self._submitter.pause if told.paused else self._submitter.unpause)()
            self._tell("paused: nothing more is sent for now" if told.paused else "goes on")
        if told.stopped and not known.stopped:
            self._stop("told to stop from another terminal")

    async def _do_what_is_asked(self, tasks: TaskGroup) -> None:
        with anyio.CancelScope(shield=True):  # what was taken on is answered
            await carry_out_what_is_asked(self._run, self._done.append)
        while self._done:
            deed = self._done[0]
            [row] = await self._run.page(after=deed.number - 1, limit=1)
            self._done.popleft()
            more = f", and {len(deed.words) - 1:,} others are resolved" if len(deed.words) > 1 else ""
            self._tell(f"{row.key} is {row.state.label}{more}, as was asked from another terminal")
            if deed.what == "restart":
                self._being_restarted += 1
                self._restarted(row)
                tasks.start_soon(self._send, row)

    async def _send(self, row: LedgerRow) -> None:
        try:
            async for outcome in self._submitter.submit_many([row]):
                self._ended(outcome)
        except SubmissionStoppedError:
            pass  # the row is pending, and goes with the next submission
        except IllegalTransitionError:
            pass  # the submission itself came to the row first
        finally:
            self._being_restarted -= 1
            if not self._being_restarted:
                self._none_left.set()
