"""Events for browsers: the parts of a page, sent anew when they have changed, read once for all who watch it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from time import perf_counter

import anyio
import msgspec
from anyio.abc import TaskGroup

from m2async.figures import Rhythm

KEEP_ALIVE = 15.0
"""Seconds without an event after which a comment is sent, so that a lost connection shows, unless told."""

_RETRY = b"retry: 1000\n\n"  # ms after which a browser connects again

Parts = Mapping[str, object]
"""What a page consists of: values of JSON by the names that its script knows."""


class Feed:
    """The parts of one page; whoever watches gets them all, then those that change.

    Arguments:
        read: makes the parts anew; it is called only while somebody watches, by one task for all of them.
        tasks: where that task runs.
        keep_alive: seconds without an event after which a comment is sent.
    """

    def __init__(
        self, read: Callable[[], Awaitable[Parts]], tasks: TaskGroup, *, keep_alive: float = KEEP_ALIVE
    ) -> None:
        self._read = read
        self._tasks = tasks
        self._keep_alive = keep_alive
        self._watchers = 0
        self._scope = anyio.CancelScope()
        self._parts: Parts | None = None
        self._number = 0
        self._news = anyio.Event()
        self._hurry = anyio.Event()

    @property
    def watchers(self) -> int:
        """How many browsers watch."""
        return self._watchers

    def hurry(self) -> None:
        """Let it be read again now, since something was done."""
        self._hurry.set()

    async def events(self) -> AsyncGenerator[bytes, None]:
        """Give what goes to one browser, as `text/event-stream` has it.

        Source: HTML Standard, section 9.2, Server-sent events.
        """
        self._enter()
        try:
            yield _RETRY
            sent: Parts = {}
            while True:
                news = self._news
                if self._parts is not None:
                    changed = {name: part for name, part in self._parts.items() if sent.get(name) != part}
                    sent = self._parts
                    if changed:
                        yield event(self._number, changed)
                with anyio.move_on_after(self._keep_alive) as waiting:
                    await news.wait()
                if waiting.cancelled_caught:
                    yield b": nothing new\n\n"
        finally:
            self._leave()

    def _enter(self) -> None:
        self._watchers += 1
        if self._watchers == 1:
            self._scope = anyio.CancelScope()
            self._tasks.start_soon(self._keep_reading, self._scope)

    def _leave(self) -> None:
        self._watchers -= 1
        if not self._watchers:
            self._scope.cancel()
            self._parts = None  # they are old by the time that somebody watches again

    async def _keep_reading(self, scope: anyio.CancelScope) -> None:
        with scope:
            rhythm = Rhythm()
            while True:
                self._hurry = anyio.Event()
                began = perf_counter()
                parts = await self._read()
                if parts != self._parts:
                    self._parts, self._number = parts, self._number + 1
                    self._news.set()
                    self._news = anyio.Event()
                with anyio.move_on_after(rhythm.wait_after(perf_counter() - began)):
                    await self._hurry.wait()


def event(number: int, parts: Parts) -> bytes:
    """Write an event; JSON has no line breaks, which would end its line."""
    return b"id: %d\ndata: %b\n\n" % (number, msgspec.json.encode(parts))
