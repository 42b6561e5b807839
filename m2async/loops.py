"""Which event loop and process something belongs to: used in another, it says so before it acts."""

from __future__ import annotations

import asyncio
import os

from m2async.errors import WrongEventLoopError

_process = os.getpid()  # asked for once, as it is a system call


def _forked() -> None:
    global _process
    _process = os.getpid()


os.register_at_fork(after_in_child=_forked)


class Home:
    """The event loop and the process in which `what` is opened: those that run here."""

    def __init__(self, what: str) -> None:
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self._what = what
        self._process = _process

    @property
    def is_forked(self) -> bool:
        """Whether this process was forked from the one that it belongs to, with which it still shares files."""
        return _process != self._process

    @property
    def is_here(self) -> bool:
        """Whether its event loop is the one that runs here, and its process this one."""
        try:
            return asyncio.get_running_loop() is self.loop and not self.is_forked
        except RuntimeError:  # none runs, or that of the process from which this one was forked
            return False

    def check(self) -> None:
        """Raise WrongEventLoopError unless it is here."""
        if not self.is_here:
            other = (
                f"process {self._process}, from which this one was forked" if self.is_forked else "another event loop"
            )
            raise WrongEventLoopError(f"{self._what} belongs to {other}: open one of its own where it is used")
