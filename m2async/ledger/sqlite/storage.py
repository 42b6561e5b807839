"""Where an SQLite ledger is kept: in a file that others open as well, or in the memory of whoever opened it."""

from __future__ import annotations

import os
import platform
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

from m2async.ledger.sqlite.connection import connect_memory, connect_reader, connect_writer
from m2async.ledger.sqlite.file import LedgerFile, translated_os_error
from m2async.ledger.sqlite.run_lock import Holder, LockHeldError, RunLock, is_held


class Storage(ABC):
    """A place for one ledger, and the locks of the runs in it."""

    address: str
    """What errors call the ledger."""

    @abstractmethod
    def connect(self, migrations: Sequence[str]) -> list[sqlite3.Connection]:
        """Give the connection that writes and, where there can be another, one that reads beside it.

        `migrations` are the scripts that lead to the schema.
        """

    @abstractmethod
    def check(self) -> None:
        """Raise LedgerDamagedError if what is committed now would be lost, or was."""

    @abstractmethod
    def take_lock(self, run: int, now: float) -> Callable[[], object]:
        """Lock a run for writing, and give what unlocks it; raises LockHeldError."""

    @abstractmethod
    def is_locked(self, run: int) -> bool:
        """Tell whether a run is locked, here or in another process."""


class FileStorage(Storage):
    """A file, which is made if there is none unless it `must_exist`, with the runs' locks beside it.

    `busy_timeout` is how many seconds to wait at most for other programs that write the file.
    """

    def __init__(self, path: Path, *, must_exist: bool = False, busy_timeout: float = 30.0) -> None:
        self.address: str = str(path)
        self._file = LedgerFile(path)
        self._must_exist = must_exist
        self._busy_timeout = busy_timeout

    def connect(self, migrations: Sequence[str]) -> list[sqlite3.Connection]:
        path, busy_timeout = self._file.path, self._busy_timeout
        self._file.make(must_exist=self._must_exist)
        with ExitStack() as stack:
            writer = stack.enter_context(closing(connect_writer(path, migrations, busy_timeout=busy_timeout)))
            reader = stack.enter_context(closing(connect_reader(path, busy_timeout=busy_timeout)))
            self._file.remember()
            stack.pop_all()
        return [writer, reader]

    def check(self) -> None:
        self._file.check()

    def take_lock(self, run: int, now: float) -> Callable[[], object]:
        try:
            return RunLock.take(self._lock_path(run), now).release
        except OSError as exc:
            raise translated_os_error(exc, self.address) from exc

    def is_locked(self, run: int) -> bool:
        return is_held(self._lock_path(run))

    def _lock_path(self, run: int) -> Path:
        return Path(f"{self.address}-run-{run}.lock")


class MemoryStorage(Storage):
    """Memory that nobody else can reach: it is gone with its one connection, and nothing of it is on any disk."""

    address = "memory:"

    def __init__(self) -> None:
        self._holders: dict[int, Holder] = {}

    def connect(self, migrations: Sequence[str]) -> list[sqlite3.Connection]:
        return [connect_memory(migrations, self.address)]

    def check(self) -> None:
        """Do nothing: there is no file that could be taken away."""

    def take_lock(self, run: int, now: float) -> Callable[[], object]:
        if run in self._holders:
            raise LockHeldError(self._holders[run])
        self._holders[run] = Holder(os.getpid(), platform.node(), now)
        return partial(self._holders.pop, run)

    def is_locked(self, run: int) -> bool:
        return run in self._holders
