"""Running a coroutine for a command: the event loop, and the signals that end it."""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from typing import TypeVar, cast

import anyio
import typer
from anyio.abc import TaskStatus

T = TypeVar("T")


def run(function: Callable[[Signals], Awaitable[T]]) -> T:
    """Run it on uvloop where that is installed.

    SIGINT and SIGTERM cancel it, or do what it sets `on_first` to; either way the command then exits
    with 130 or 143.
    """

    async def watched() -> T:
        signals = Signals()
        result: T | None = None
        failure: Exception | None = None
        async with anyio.create_task_group() as tasks:
            signals.on_first = tasks.cancel_scope.cancel
            await tasks.start(signals.watch)
            try:
                result = await function(signals)
            except Exception as exc:  # noqa: BLE001 - raised below, so that the task group does not wrap it
                failure = exc
            tasks.cancel_scope.cancel()
        if signals.received is not None:
            raise typer.Exit(128 + signals.received)
        if failure is not None:
            raise failure
        return cast("T", result)

    return anyio.run(watched, backend_options={"use_uvloop": find_spec("uvloop") is not None})


class Signals:
    """Calls `on_first` at the first SIGINT or SIGTERM, and ends the process at the second."""

    def __init__(self) -> None:
        self.on_first: Callable[[], object] = lambda: None
        self.on_second: Callable[[], object] = lambda: None
        self.received: signal.Signals | None = None

    async def watch(self, *, task_status: TaskStatus[None]) -> None:
        """Wait for signals until cancelled."""
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            async for received in signals:
                if self.received is not None:
                    self.on_second()
                    os._exit(128 + received)
                self.received = received
                self.on_first()
