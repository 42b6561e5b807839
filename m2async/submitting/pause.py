"""A pause in sending: whoever wants to send waits for its end, and no patience runs out meanwhile."""

from __future__ import annotations

import asyncio
from time import monotonic


class Pause:
    """Whether nothing is sent for now."""

    def __init__(self) -> None:
        self.begun: int = 0
        """How many there have been, the one that is active included."""
        self._over = asyncio.Event()
        self._over.set()
        self._began: float | None = None
        self._seconds = 0.0

    @property
    def active(self) -> bool:
        """Whether there is one."""
        return self._began is not None

    def begin(self) -> None:
        """Let it begin, if there is none."""
        if self._began is None:
            self._began = _now()
            self.begun += 1
            self._over.clear()

    def end(self) -> None:
        """Let it end, if there is one."""
        if self._began is not None:
            self._seconds += _now() - self._began
            self._began = None
            self._over.set()

    async def over(self) -> None:
        """Wait for its end."""
        await self._over.wait()

    def working_time(self) -> float:
        """Give a time in seconds that stands still in a pause."""
        return (_now() if self._began is None else self._began) - self._seconds


def _now() -> float:
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:  # where a loop is yet to run: by the clock that loops have
        return monotonic()
