"""Running a coroutine for a command: the event loop, the signals that end it, and the exit code of an error."""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from typing import TypeVar, cast

import anyio
import typer
from anyio.abc import TaskStatus

from m2async.cli.fault import tell_fault
from m2async.cli.output import BAD_INPUT, STOPPED, fail
from m2async.errors import ConfigurationError, CredentialsError, M2AsyncError, ManifestError, UnexpectedError
from m2async.ledger import (
    DuplicateKeyError,
    LedgerAddressError,
    RowNotFoundError,
    RunNotFoundError,
    SentElsewhereError,
)

T = TypeVar("T")
_BAD_INPUT: tuple[type[M2AsyncError], ...] = (
    ConfigurationError,
    LedgerAddressError,
    RunNotFoundError,
    RowNotFoundError,
    SentElsewhereError,
)


def run(
    function: Callable[[Signals], Awaitable[T]],
    *,
    explained: Callable[[M2AsyncError], str] = str,
    bad_input: tuple[type[M2AsyncError], ...] = (),
) -> T:
    """Run it on uvloop where that is installed.

    SIGINT and SIGTERM cancel it, or do what it sets `on_first` to; either way the command then exits with 130 or 143.
    An error of ours ends the command with its message, or that of `explained`, and with the exit code of a command that
    had to stop; or with that of bad input, if it is of a kind that always is, or of `bad_input`.
    """
    bad_input = (*_BAD_INPUT, *bad_input)
    try:
        return _run(function)
    except (ManifestError, DuplicateKeyError):  # the caller has the manifest, and says where in it
        raise
    except bad_input as exc:
        fail(str(exc), BAD_INPUT)
    except UnexpectedError as exc:
        tell_fault(exc)
        raise typer.Exit(STOPPED) from None
    except CredentialsError as exc:
        fail(f"no credentials: {exc}", STOPPED)
    except M2AsyncError as exc:
        fail(explained(exc), STOPPED)


def _run(function: Callable[[Signals], Awaitable[T]]) -> T:

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
