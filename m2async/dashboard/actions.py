"""What can be done to a run from the dashboard: orders to whoever submits it, and the cancelling of its executions."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from time import time
from typing import NamedTuple

import anyio
from anyio.abc import TaskGroup

from m2async.client import M2Client
from m2async.errors import CallError, M2AsyncError
from m2async.following import Tracker, cancel_executions
from m2async.ledger import Ledger, RunView, destination_of
from m2async.pacing import Calls, TokenBucket
from m2async.texts import number

CANCEL_RATE = 5.0
"""Calls a second with which executions are cancelled."""

_KEPT = 50  # of what was done, for the page
_LOOK_EVERY = 0.2  # seconds between two looks whether a submission has ended
_FOLLOWED = 120.0  # seconds for which cancelled executions are followed to their ends


class NotPossibleError(Exception):
    """What was asked for makes no sense now; the message says why."""


class BadOrderError(Exception):
    """What was asked for makes no sense at any time; the message says why."""


class PastAction(NamedTuple):
    """Something that was done to a run, and when, in seconds of the epoch."""

    at: float
    what: str


class Cancelling:
    """How far the cancelling of a run's executions is."""

    def __init__(self) -> None:
        self.step = "connecting to the service"
        self.total = 0
        self.outcomes: Counter[str] = Counter()
        self.failures: list[str] = []
        self.active = True

    def summary(self) -> str:
        """What came of the executions, in words."""
        return ", ".join(f"{count:,} {outcome}" for outcome, count in self.outcomes.items()) or "none had to be"


class Actions:
    """Acts on the runs of a ledger.

    Arguments:
        client: makes a client of the service; called when executions are to be cancelled and not before.
        tasks: where the cancelling runs.
        report: told each thing that is done: the run, and what.
        changed: told a run of which something was done.
    """

    def __init__(
        self,
        ledger: Ledger,
        client: Callable[[], AbstractAsyncContextManager[M2Client]],
        tasks: TaskGroup,
        report: Callable[[str, str], None],
        changed: Callable[[str], None],
    ) -> None:
        self._ledger = ledger
        self._client = client
        self._tasks = tasks
        self._report = report
        self._changed = changed
        self._done: dict[str, deque[PastAction]] = {}
        self._cancelling: dict[str, Cancelling] = {}

    def done(self, run: str) -> Sequence[PastAction]:
        """What was done to a run from here, the latest first."""
        return tuple(reversed(self._done.get(run, ())))

    def cancelling(self, run: str) -> Cancelling | None:
        """The cancelling that was begun last; None if there was none."""
        return self._cancelling.get(run)

    async def set_pace(self, run: str, rate: object, burst: object) -> str:
        """Give a run in progress another pace."""
        try:
            bucket = TokenBucket(_number(rate), _number(burst))
        except (ValueError, OverflowError) as exc:
            raise BadOrderError(str(exc)) from exc
        await (await self._in_progress(run)).set_pace(bucket.rate, bucket.burst)
        return self._note(run, f"rate set to {number(bucket.rate)} calls a second, bursts of {number(bucket.burst)}")

    async def pause(self, run: str) -> str:
        """Let a run in progress send nothing for now."""
        await (await self._in_progress(run)).set_paused(True)
        return self._note(run, "paused")

    async def unpause(self, run: str) -> str:
        """Take back a pause, and a stop."""
        view = await self._ledger.run(run)
        orders = await view.orders()
        await (view if orders.paused or orders.stopped else await self._in_progress(run)).set_paused(False)
        return self._note(run, "going on")

    async def stop(self, run: str) -> str:
        """End the submission of a run."""
        await (await self._in_progress(run)).stop()
        return self._note(run, "told to stop submitting")

    async def cancel(self, run: str) -> str:
        """Begin to end the submission, if there is one, and then to cancel the executions that have not ended."""
        view = await self._ledger.run(run)
        before = self._cancelling.get(run)
        if before is not None and before.active:
            raise NotPossibleError("its executions are being cancelled already")
        cancelling = self._cancelling[run] = Cancelling()
        self._tasks.start_soon(self._cancel, run, view, cancelling)
        return self._note(run, "cancelling begins")

    async def _in_progress(self, run: str) -> RunView:
        view = await self._ledger.run(run)
        if not await view.in_use():
            raise NotPossibleError("the run is not in progress")
        return view

    async def _cancel(self, run: str, view: RunView, cancelling: Cancelling) -> None:
        try:
            async with self._client() as client:  # first of all: nothing is stopped if it cannot be had
                if (destination := destination_of(client)) is not None:
                    await view.belong_to(destination)
                if await view.in_use():
                    await view.stop()
                    self._step(run, cancelling, "stopping the submission: waiting for the calls under way")
                    while await view.in_use():  # noqa: ASYNC110 - it is another process's
                        await anyio.sleep(_LOOK_EVERY)
                await self._cancel_open(run, view, cancelling, client)
        except M2AsyncError as error:
            cancelling.failures.append(f"{error.code}: {error.message}")
            self._note(run, f"cancelling ended early: {error.code}: {error.message}")
        finally:
            cancelling.active = False
            self._changed(run)

    async def _cancel_open(self, run: str, view: RunView, cancelling: Cancelling, client: M2Client) -> None:
        self._step(run, cancelling, "looking up what has ended")
        async with Tracker(client, self._ledger, view) as tracker:
            await tracker.refresh()
            still_open = [execution async for execution in view.all_executions(open_only=True)]
            cancelling.total = len(still_open)
            self._step(run, cancelling, "asking the service")
            async for end in cancel_executions(client, Calls(CANCEL_RATE, _ignore), view, still_open):
                cancelling.outcomes[end.outcome] += 1
                if end.outcome == "not cancelled":
                    cancelling.failures.append(f"{end.key}: {end.reason}")
                self._changed(run)
            self._note(run, f"asked the service to cancel {len(still_open):,} executions: {cancelling.summary()}")
            if not cancelling.failures:
                self._step(run, cancelling, "following them to their ends")
                with anyio.move_on_after(_FOLLOWED):
                    async for _ in tracker:
                        self._changed(run)

    def _step(self, run: str, cancelling: Cancelling, step: str) -> None:
        cancelling.step = step
        self._changed(run)

    def _note(self, run: str, what: str) -> str:
        self._done.setdefault(run, deque(maxlen=_KEPT)).append(PastAction(time(), what))
        self._report(run, what)
        self._changed(run)
        return what


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("rate and burst must be numbers")
    return float(value)


def _ignore(error: CallError, seconds: float) -> None:
    """A call that failed in passing is made again."""
