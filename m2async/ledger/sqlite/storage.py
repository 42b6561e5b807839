"""Where an SQLite ledger is kept: in a file that others open as well, or in the memory of whoever opened it."""

from __future__ import annotations

import os
import platform
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from m2async.ledger.errors import LedgerDamagedError, LedgerError, LedgerReadOnlyError
from m2async.ledger.sqlite.connection import NothingThereError, connect_memory, connect_reader, connect_writer
from m2async.ledger.sqlite.file import LedgerFile, translated_os_error
from m2async.ledger.sqlite.run_lock import Holder, LockHeldError, RunLock
from m2async.ledger.sqlite.statements import named_statements

_SQL = named_statements("destinations")
_T = TypeVar("_T")


class Storage(ABC):
    """A place for one ledger, and the locks of the runs in it."""

    address: str
    """What errors call the ledger."""

    has_reader: bool
    """Whether `read` may be called in another thread than the rest, while that goes on."""

    @abstractmethod
    def open(self, migrations: Sequence[str]) -> None:
        """Make the ledger if there is none, and make it ready for reading.

        `migrations` are the scripts that lead to the schema. A ledger of an older version is read as if it were of the
        newest, with nothing in what it lacks.
        """

    @abstractmethod
    def read(self, function: Callable[[sqlite3.Connection], _T]) -> _T:
        """Ask the ledger something; the function may be called again where what it read was not of one moment."""

    @abstractmethod
    def writing(self) -> sqlite3.Connection:
        """Open the ledger for writing, and bring it to the newest version, unless that was done."""

    @abstractmethod
    def check(self, *, log_only: bool = False) -> None:
        """Raise LedgerDamagedError if what is committed now would be lost, or was; `log_only` is for in between."""

    @abstractmethod
    def seal(self) -> None:
        """Take note that something was committed, before anybody hears of it; raises what `check` raises."""

    @abstractmethod
    def take_lock(self, run: int, now: float) -> Callable[[], object]:
        """Lock a run for writing, and give what unlocks it; raises LockHeldError."""

    @abstractmethod
    def is_locked(self, run: int) -> bool:
        """Tell whether a run is locked, here or in another process."""

    @abstractmethod
    def close(self) -> None:
        """Close what was opened; nothing is asked or written any more."""


class FileStorage(Storage):
    """A file, which is made if there is none unless it `must_exist`; and removed again if no run came into it.

    `busy_timeout` is how many seconds to wait at most for other programs that write the file.
    """

    has_reader = True

    def __init__(self, path: Path, *, must_exist: bool = False, busy_timeout: float = 30.0) -> None:
        self.address: str = str(path)
        self._file = LedgerFile(path)
        self._must_exist = must_exist
        self._busy_timeout = busy_timeout
        self._migrations: Sequence[str] = ()
        self._writer: sqlite3.Connection | None = None
        self._beside: sqlite3.Connection | None = None  # reads beside the writer
        self._reader: sqlite3.Connection | None = None  # reads while there is no writer
        self._seen: object = None
        self._held: set[int] = set()

    def open(self, migrations: Sequence[str]) -> None:
        self._migrations = migrations
        self._file.open(must_exist=self._must_exist)
        try:
            self.read(lambda _: None)
        except NothingThereError:
            self.writing()

    def read(self, function: Callable[[sqlite3.Connection], _T]) -> _T:
        while True:
            try:
                answer = function(self._beside or self._connect_reader())
            except (sqlite3.Error, LedgerError):
                if self._is_as_seen():
                    raise
            else:
                if self._is_as_seen():
                    return answer

    def writing(self) -> sqlite3.Connection:
        if self._writer is None:
            if not self._file.anchor.is_writable:
                raise LedgerReadOnlyError(self.address, "cannot be written")
            self._file.check_log()  # before anything is opened that makes a log that is lost anew
            if self._file.has_log():
                with suppress(NothingThereError):
                    self._connect_beside().close()  # which looks whether all of it is sound, and changes nothing
            with ExitStack() as stack:
                writer = stack.enter_context(closing(connect_writer(self._file, self._migrations, self._busy_timeout)))
                beside = stack.enter_context(closing(self._connect_beside()))
                self._file.remember()
                stack.pop_all()
            self._writer, self._beside = writer, beside
        return self._writer

    def check(self, *, log_only: bool = False) -> None:
        self._file.check(log_only=log_only)

    def seal(self) -> None:
        assert self._writer is not None  # noqa: S101 - something was committed
        self._file.seal(self._writer)

    def take_lock(self, run: int, now: float) -> Callable[[], object]:
        try:
            return RunLock.take(
                self._file.anchor, run, self._held, Path(f"{self._file.path}-run-{run}.lock"), now
            ).release
        except OSError as exc:
            raise translated_os_error(exc, self.address) from exc

    def is_locked(self, run: int) -> bool:
        return run in self._held or self._file.is_locked(run)

    def close(self) -> None:
        is_unused = self._is_unused()
        connections = [self._reader, self._beside, self._writer]
        if self._writer is not None:
            try:
                self._file.unseal(self._writer)  # also where others go on reading: the file alone is whole then
            except LedgerError:
                connections.reverse()  # the last one, which only reads, leaves the log to whoever puts things right
        for connection in connections:
            if connection is not None:
                connection.close()
        if is_unused:
            self._file.remove()
        self._file.close()

    def _is_unused(self) -> bool:
        """Tell whether the file was made for nothing: no run is in it, and from now on nobody else opens it."""
        if not self._file.is_made or self._writer is None or not self._file.anchor.take_all_names():
            return False
        with suppress(sqlite3.Error):
            return bool(self._writer.execute(_SQL["is_new"]).fetchone()[0])
        return False

    # Reading

    def _connect_reader(self) -> sqlite3.Connection:
        """Give a connection to the ledger as it is now, while this process does not write it.

        Where there is no log, it has no part in SQLite's locks: so nothing is made beside a file that is only looked
        at, and nothing need be writable.
        """
        if self._reader is not None:
            if self._is_as_seen():
                return self._reader
            self._reader.close()
            self._reader = None
        self._seen = self._file.look()
        if self._file.has_log():
            self._reader, self._seen = self._connect_beside(), None
        else:
            self._file.check_log()
            self._reader = connect_reader(self._file, self._migrations, self._busy_timeout, is_alone=True)
        return self._reader

    def _connect_beside(self) -> sqlite3.Connection:
        """Connect for reading while others write."""
        try:
            connection = connect_reader(self._file, self._migrations, self._busy_timeout)
        except LedgerDamagedError:
            self._file.check_log(is_open=True)  # which explains more
            raise
        try:
            self._file.check_log(is_open=True)
        except BaseException:
            connection.close()
            raise
        return connection

    def _is_as_seen(self) -> bool:
        """Tell whether what was read is of one moment: always where SQLite's locks saw to that."""
        return self._beside is not None or self._seen is None or self._seen == self._file.look()


class MemoryStorage(Storage):
    """Memory that nobody else can reach: it is gone with its one connection, and nothing of it is on any disk."""

    address = "memory:"
    has_reader = False

    def __init__(self) -> None:
        self._connection: sqlite3.Connection
        self._holders: dict[int, Holder] = {}

    def open(self, migrations: Sequence[str]) -> None:
        self._connection = connect_memory(migrations, self.address)

    def read(self, function: Callable[[sqlite3.Connection], _T]) -> _T:
        return function(self._connection)

    def writing(self) -> sqlite3.Connection:
        return self._connection

    def check(self, *, log_only: bool = False) -> None:
        """Do nothing: there is no file that could be taken away."""

    def seal(self) -> None:
        """Do nothing, likewise."""

    def take_lock(self, run: int, now: float) -> Callable[[], object]:
        if run in self._holders:
            raise LockHeldError(self._holders[run])
        self._holders[run] = Holder(os.getpid(), platform.node(), now)
        return partial(self._holders.pop, run)

    def is_locked(self, run: int) -> bool:
        return run in self._holders

    def close(self) -> None:
        self._connection.close()
