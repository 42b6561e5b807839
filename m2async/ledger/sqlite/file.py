"""The file of an SQLite ledger: made for its owner alone, and watched for being taken away."""

from __future__ import annotations

import errno
import os
import resource
import secrets
import sqlite3
from contextlib import suppress
from pathlib import Path

from m2async.ledger.errors import (
    LedgerDamagedError,
    LedgerError,
    LedgerFullError,
    LedgerIOError,
    LedgerLockedError,
    LedgerNotFoundError,
    LedgerReadOnlyError,
    NotALedgerError,
)

_SMALLEST = 512  # bytes of the smallest page; SQLite takes a smaller file for an empty one, and writes over it

# https://www.sqlite.org/rescode.html: the low byte of an extended result code is the primary code
_ERROR_OF_CODE: dict[int, tuple[type[LedgerError], str]] = {
    sqlite3.SQLITE_FULL: (LedgerFullError, "the disk is full"),
    sqlite3.SQLITE_READONLY: (LedgerReadOnlyError, "cannot be written"),
    sqlite3.SQLITE_PERM: (LedgerReadOnlyError, "cannot be written"),
    sqlite3.SQLITE_CANTOPEN: (LedgerReadOnlyError, "cannot be opened, or its directory cannot be written"),
    sqlite3.SQLITE_BUSY: (LedgerLockedError, "is locked by another program"),
    sqlite3.SQLITE_LOCKED: (LedgerLockedError, "is locked by another program"),
    sqlite3.SQLITE_CORRUPT: (LedgerDamagedError, "is corrupt"),
    sqlite3.SQLITE_NOTADB: (LedgerDamagedError, "is corrupt"),
    sqlite3.SQLITE_IOERR: (LedgerIOError, "cannot be read or written"),
}


class LedgerFile:
    """The file at a path, and what it was when it was last looked at."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._wal = Path(f"{path}-wal")
        self._seen: dict[Path, os.stat_result] = {}

    def make(self, *, must_exist: bool) -> None:
        """See that there is a file that can be written; a new one is its owner's alone from the first moment.

        The file is not opened here: closing it would give up the locks that SQLite has on it elsewhere in this
        process (https://www.sqlite.org/howtocorrupt.html, 2.2).
        """
        address = str(self.path)
        try:
            if self.path.exists():
                if not self.path.is_file():
                    raise NotALedgerError(address, "is not a file")
                if 0 < self.path.stat().st_size < _SMALLEST:
                    raise NotALedgerError(address, "is not an SQLite database")
                if not os.access(self.path, os.W_OK):
                    raise LedgerReadOnlyError(address, "cannot be written")
                return
            if must_exist:
                raise LedgerNotFoundError(address, "does not exist")
            if not self.path.parent.is_dir():
                raise LedgerNotFoundError(address, f"there is no directory {self.path.parent}")
            _make_empty(self.path)
        except OSError as exc:
            raise translated_os_error(exc, address) from exc

    def remember(self) -> None:
        """Take the files as they are for the ledger's."""
        try:
            self._seen = {path: path.stat() for path in (self.path, self._wal)}
        except OSError as exc:
            raise translated_os_error(exc, str(self.path)) from exc

    def check(self) -> None:
        """Raise LedgerDamagedError if a file is not the one it was, or is shorter; they never shrink while in use."""
        for path, seen in self._seen.items():
            try:
                now = path.stat()
            except FileNotFoundError:
                raise LedgerDamagedError(str(self.path), f"{path.name} was deleted while in use") from None
            except OSError as exc:
                raise translated_os_error(exc, str(self.path)) from exc
            if (now.st_ino, now.st_dev) != (seen.st_ino, seen.st_dev):
                raise LedgerDamagedError(str(self.path), f"{path.name} was replaced while in use")
            if now.st_size < seen.st_size:
                raise LedgerDamagedError(str(self.path), f"{path.name} was truncated while in use")
            self._seen[path] = now


def _make_empty(path: Path) -> None:
    """Make a file, unless another was first; it is under its name only when nothing has it open any more."""
    unnamed = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    descriptor = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        try:
            os.fchmod(descriptor, 0o600)  # whatever the umask took away
        finally:
            os.close(descriptor)
        with suppress(FileExistsError):
            path.hardlink_to(unnamed)
    finally:
        unnamed.unlink()
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    """Make a new file's name durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def translated(exc: sqlite3.Error, address: str) -> LedgerError:
    """Give what SQLite reports as an error of the ledger."""
    code = getattr(exc, "sqlite_errorcode", None)
    if code is None:
        return LedgerIOError(address, str(exc))
    if code == sqlite3.SQLITE_IOERR_WRITE and _is_as_large_as_allowed(address):
        return LedgerFullError(address, f"has reached the limit on the size of files (ulimit -f; {exc})")
    kind, reason = _ERROR_OF_CODE.get(code & 0xFF, (LedgerIOError, "cannot be used"))
    return kind(address, f"{reason} ({exc})")


def _is_as_large_as_allowed(address: str) -> bool:
    """Tell whether the limit of the process (RLIMIT_FSIZE) is what fails a write: SQLite does not say it."""
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    sizes = [path.stat().st_size for path in (Path(address), Path(f"{address}-wal")) if path.exists()]
    return limit != resource.RLIM_INFINITY and max(sizes, default=0) >= limit


def translated_os_error(exc: OSError, address: str) -> LedgerError:
    """Give what the operating system reports as an error of the ledger."""
    if exc.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return LedgerReadOnlyError(address, f"cannot be written ({exc.strerror})")
    if exc.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        return LedgerFullError(address, f"the disk is full ({exc.strerror})")
    return LedgerIOError(address, f"cannot be used ({exc.strerror})")
