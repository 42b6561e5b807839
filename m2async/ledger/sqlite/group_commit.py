"""Writes of many callers in few commits: a thread takes all that queued up while it made the last."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from itertools import groupby
from queue import SimpleQueue
from typing import Any, Generic, NamedTuple, TypeVar

from m2async.loops import Home, uninterrupted

_W = TypeVar("_W")
_T = TypeVar("_T")


class _Errand(NamedTuple):
    function: Callable[[], object]


class Writer(Generic[_W]):
    """A thread that makes writes, and runs functions, in the order in which they come.

    Writes that come while another is made go together: `commit` gets them all, and gives either None or
    for each of them its result, an exception where it failed. What `commit` raises fails them all.
    """

    def __init__(self, name: str, commit: Callable[[Sequence[_W]], Sequence[object] | None]) -> None:
        self.home: Home = Home("the ledger")
        self._commit = commit
        self._ended = False
        self._queue: SimpleQueue[tuple[asyncio.Future[Any], Any]] = SimpleQueue()
        # A daemon: a ledger that is not closed must not keep the process from ending, and nobody was told
        # that what is queued then is durable.
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def write(self, write: _W) -> asyncio.Future[Any]:
        """Queue a write; the future ends once it is made, and cancelling it changes nothing."""
        self.home.check()
        future: asyncio.Future[Any] = self.home.loop.create_future()
        self._queue.put((future, write))
        return future

    async def call(self, function: Callable[[], _T]) -> _T:
        """Run a function in the thread, behind all that is queued; a cancelled caller waits for its end as well."""
        self.home.check()
        future: asyncio.Future[_T] = self.home.loop.create_future()
        self._queue.put((future, _Errand(function)))
        return await uninterrupted(future)

    async def aclose(self) -> None:
        """End the thread once all that is queued is done."""
        try:
            await self.call(self._end)
        finally:
            self._thread.join()  # at once: there is nothing left to do

    # In the thread

    def _work(self) -> None:
        queue = self._queue
        while not self._ended:
            entries = [queue.get()]
            entries += [queue.get_nowait() for _ in range(queue.qsize())]  # nobody else takes any
            for are_errands, together in groupby(entries, _is_errand):
                if are_errands:
                    for future, errand in together:
                        self._run(future, errand.function)
                else:
                    futures, writes = zip(*together, strict=True)
                    self._make(futures, writes)

    def _end(self) -> None:
        self._ended = True

    def _make(self, futures: Sequence[asyncio.Future[Any]], writes: Sequence[_W]) -> None:
        try:
            results = self._commit(writes)
        except BaseException as exc:  # noqa: BLE001 - whoever waits must hear of it
            results = [exc] * len(writes)
        self._tell(futures, results)

    def _run(self, future: asyncio.Future[Any], function: Callable[[], object]) -> None:
        try:
            result = function()
        except BaseException as exc:  # noqa: BLE001 - whoever waits must hear of it
            result = exc
        self._tell([future], [result])

    def _tell(self, futures: Sequence[asyncio.Future[Any]], results: Sequence[object] | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed, and nobody waits any more
            self.home.loop.call_soon_threadsafe(_end, futures, results)


def _end(futures: Sequence[asyncio.Future[Any]], results: Sequence[object] | None) -> None:
    if results is None:
        for future in futures:
            if not future.done():
                future.set_result(None)
        return
    for future, result in zip(futures, results, strict=True):
        if future.done():
            continue
        if isinstance(result, BaseException):
            future.set_exception(result)
            future.exception()  # counts as seen, also where whoever made the write does not wait for it
        else:
            future.set_result(result)


def _is_errand(entry: tuple[asyncio.Future[Any], object]) -> bool:
    return type(entry[1]) is _Errand
