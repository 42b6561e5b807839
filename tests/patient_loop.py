"""An event loop that takes no notice of a machine that stands still: to its timers, it has only just blinked.

With a server in the same process, a timeout then says that an answer did not come, and not that nobody got to run.
"""

from __future__ import annotations

import asyncio
import selectors
import time

_LONGEST = 0.04  # seconds: what counts of the time between two looks at the clock
_WAIT = _LONGEST / 2  # for how long it waits before it looks again


class _Waits(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self._passed, self._seen = 0.0, time.monotonic()

    def time(self) -> float:
        now = time.monotonic()
        self._passed += min(now - self._seen, _LONGEST)
        self._seen = now
        return self._passed

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        until = float("inf") if timeout is None else self.time() + timeout
        while not (ready := super().select(max(0.0, min(until - self.time(), _WAIT)))) and self.time() < until:
            pass
        return ready


class PatientLoop(asyncio.SelectorEventLoop):
    """Keeps real time, but for what a machine takes that does not let it run."""

    def __init__(self) -> None:
        self._waits = _Waits()
        super().__init__(self._waits)

    def time(self) -> float:
        return self._waits.time()
