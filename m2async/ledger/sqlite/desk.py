"""What the runs of a ledger ask and write by: its storage, a thread that writes, and another that reads a file."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import msgspec

from m2async.ledger.errors import LedgerClosedError, LedgerDamagedError
from m2async.ledger.sqlite.file import translated
from m2async.ledger.sqlite.group_commit import Writer
from m2async.ledger.sqlite.storage import Storage
from m2async.ledger.sqlite.writes import Batches, Write
from m2async.loops import uninterrupted

_T = TypeVar("_T")


class Desk:
    """Takes questions and writes to the threads, while it is open; `clock` gives the seconds of the epoch."""

    def __init__(self, storage: Storage, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.storage: Storage = storage
        self.writer: Writer[Write] = Writer(
            f"ledger writer {storage.address}", lambda writes: self.batches.commit(writes)
        )
        self.ended_passes: deque[int] = deque()  # over jobs without keys
        self._reader = ThreadPoolExecutor(1, f"ledger reader {storage.address}")
        self._batches: Batches | None = None
        self._closed = False

    @property
    def address(self) -> str:
        return self.storage.address

    async def read(self, function: Callable[[sqlite3.Connection], _T]) -> _T:
        """Ask in the reader's thread; where there cannot be one, in the writer's, between two commits."""
        return await self.compare(partial(self._decode, function))

    async def compare(self, function: Callable[[sqlite3.Connection], _T]) -> _T:
        """Ask likewise, by a function that reads something else besides, whose errors are not the ledger's."""
        self.check_open()
        if not self.storage.has_reader:
            return await self.writer.call(lambda: self._ask(function))
        return await uninterrupted(asyncio.get_running_loop().run_in_executor(self._reader, self._ask, function))

    async def write(self, function: Callable[[], _T]) -> _T:
        """Run a function in the writer's thread."""
        self.check_open()
        return await self.writer.call(function)

    def check_open(self) -> None:
        """Raise LedgerClosedError if it is not."""
        self.writer.home.check()
        if self._closed:
            raise LedgerClosedError(self.address, "is closed")

    def close(self) -> bool:
        """Take nothing more from now on; False where it was closed, or another process's is to be left to that."""
        if self._closed or self.writer.home.is_forked:
            return False
        self.writer.home.check()
        self._closed = True
        return True

    async def aclose(self) -> None:
        """End the threads once all is done that was taken."""
        try:
            await self.writer.call(self._disconnect)
        finally:
            await self.writer.aclose()

    # In the threads

    @property
    def batches(self) -> Batches:
        """What makes writes durable; whoever asks first opens the ledger for writing."""
        if self._batches is None:
            self._batches = Batches(self.storage.writing(), self.storage)
        return self._batches

    def _disconnect(self) -> None:
        self._reader.shutdown()
        self.storage.close()

    def _decode(self, function: Callable[[sqlite3.Connection], _T], connection: sqlite3.Connection) -> _T:
        try:
            return function(connection)
        except (ValueError, TypeError, msgspec.MsgspecError) as exc:
            raise LedgerDamagedError(self.address, f"holds what m2async did not write ({exc})") from exc

    def _ask(self, function: Callable[[sqlite3.Connection], _T]) -> _T:
        try:
            return self.storage.read(function)
        except sqlite3.Error as exc:
            raise translated(exc, self.address) from exc
