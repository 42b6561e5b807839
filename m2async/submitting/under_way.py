"""The calls that are being made. Those that were sent get time to be answered in the end; the others are not sent."""

from __future__ import annotations

import asyncio

import anyio

from m2async.service import Sending

_LATE = 0.25
"""Seconds by which a timer is late only where the process stood still: what came meanwhile is still to be read."""


class CallsUnderWay:
    """Each call's scope, which shields it, and how far it is; `grace` is the time to be answered in, in seconds."""

    def __init__(self, grace: float) -> None:
        self._grace = grace
        self._calls: dict[anyio.CancelScope, Sending] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, scope: anyio.CancelScope, sending: Sending) -> None:
        """Shield a call from every cancellation but that by `end`."""
        scope.shield = True
        self._calls[scope] = sending

    def remove(self, scope: anyio.CancelScope) -> None:
        """Take note that a call has ended."""
        del self._calls[scope]
        scope.shield = False
        if self._timer is not None and not self._calls:
            self._timer.cancel()

    def end(self) -> None:
        """Cancel what was surely not sent now, and the rest when the grace is over."""
        for scope, sending in self._calls.items():
            if sending.has_begun is False:
                scope.cancel()
        if self._timer is None and self._calls:
            self._set_timer(self._grace)

    def _set_timer(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(seconds, self._over, loop.time() + seconds)

    def _over(self, due: float) -> None:
        if asyncio.get_running_loop().time() > due + _LATE:
            self._set_timer(_LATE)
            return
        for scope in self._calls:
            scope.cancel()
