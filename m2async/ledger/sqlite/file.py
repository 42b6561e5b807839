"""The file of an SQLite ledger: made for its owner alone, and watched for being taken away."""

from __future__ import annotations

import errno
import os
import resource
import secrets
import sqlite3
import stat
from contextlib import closing, suppress
from pathlib import Path

from m2async.ledger.errors import (
    LedgerDamagedError,
    LedgerError,
    LedgerFullError,
    LedgerIncompleteError,
    LedgerIOError,
    LedgerLockedError,
    LedgerNameError,
    LedgerNotFoundError,
    LedgerReadOnlyError,
    NotALedgerError,
)
from m2async.ledger.sqlite.anchor import Anchor, span_of_run
from m2async.ledger.sqlite.commits import Fit, fit_of
from m2async.ledger.sqlite.wal import (
    LogMark,
    LogState,
    page_size_of,
    read_mark,
    read_state,
    remove_mark,
    write_mark,
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


_WAY_OUT_OF_LOSS = (
    "put back the -wal file that belongs to it, or use the ledger that it was copied from; if what is missing is lost, "
    "jobs that were started may be started again from here on: to go on all the same, let SQLite make a ledger of what "
    "is left (VACUUM INTO 'another.db')"
)
_WAY_OUT_OF_MIXTURE = (
    "one of the two was put back without the other; put back the two that belong together; to go on with the file as "
    "it is, move the -wal file away: jobs that were started after it was copied may be started again then"
)


class LedgerFile:
    """The file at a path, wherever links lead, and what it was when it was last looked at."""

    anchor: Anchor
    is_made: bool = False
    """Whether there was none before this opening made it."""

    def __init__(self, path: Path) -> None:
        self.address: str = str(path)
        self.path: str = os.path.realpath(path)
        self._log: str = f"{self.path}-wal"
        self._index: int | None = None
        self._seen: tuple[os.stat_result, os.stat_result] | None = None
        self._pages = 0
        self._marked: LogState | None = None

    def open(self, *, must_exist: bool) -> None:
        """Get ready to lock it, and make it if there is none; raises LedgerNameError while it is open by another name.

        A new one is its owner's alone from the first moment.
        """
        path = Path(self.path)
        try:
            while True:  # whoever made it may have no use for it, and take it away just now
                self.is_made = self._make(path, must_exist=must_exist)
                with suppress(FileNotFoundError):
                    self.anchor = Anchor(path)
                    is_free = self.anchor.take_name(path)
                    if self.anchor.is_of(path):
                        break
                    self.anchor.close()
                    del self.anchor
        except OSError as exc:
            raise translated_os_error(exc, self.address, "cannot be opened") from exc
        if not is_free:
            raise LedgerNameError(self.address)

    def _make(self, path: Path, *, must_exist: bool) -> bool:
        """See that there is a file, and tell whether it was made.

        It is not opened here: closing it would give up the locks that SQLite has on it elsewhere in this process
        (https://www.sqlite.org/howtocorrupt.html, 2.2).
        """
        try:
            with suppress(FileNotFoundError, NotADirectoryError):
                found = path.stat()
                if not stat.S_ISREG(found.st_mode):
                    raise NotALedgerError(self.address, "is not a file")
                if 0 < found.st_size < _SMALLEST:
                    raise NotALedgerError(self.address, "is not an SQLite database")
                return False
            if must_exist:
                raise LedgerNotFoundError(self.address, "does not exist")
            if not path.parent.is_dir():
                raise LedgerNotFoundError(self.address, f"there is no directory {path.parent}")
            return _make_empty(path)
        except OSError as exc:
            raise translated_os_error(exc, self.address) from exc

    def remove(self) -> None:
        """Take it away, once no connection is open any more, and nobody else can open it."""
        with suppress(OSError):
            if not Path(self._log).exists() and self.anchor.is_of(Path(self.path)):
                Path(self.path).unlink()

    def close(self) -> None:
        """Give up all locks, once no connection is open any more."""
        if hasattr(self, "anchor"):
            self.anchor.close()

    def has_log(self) -> bool:
        """Tell whether there is a write-ahead log with anything in it."""
        with suppress(FileNotFoundError):
            return Path(self._log).stat().st_size > 0
        return False

    def look(self) -> tuple[object, ...]:
        """Give what differs once the file, or its log, was written."""
        try:
            found = Path(self.path).stat()
        except OSError as exc:
            raise translated_os_error(exc, self.address) from exc
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, self.has_log()

    def check_log(self, *, is_open: bool = False) -> None:
        """Raise LedgerIncompleteError unless the file and its log go together; `is_open` if SQLite has them open."""
        wrong = None
        while True:
            try:
                found = self._wrong_with_log(is_open=is_open)
            except OSError as exc:
                raise translated_os_error(exc, self.address, "cannot be read") from exc
            if found is None:
                return
            if (*found, self.look()) == wrong:
                raise LedgerIncompleteError(self.address, found[0])
            wrong = *found, self.look()  # look again: somebody may just be moving the log into the file

    def _wrong_with_log(self, *, is_open: bool) -> tuple[str, LogMark | None] | None:
        """Say what is missing, or what does not go together, and for which mark."""
        log, file = Path(self._log), self.anchor.descriptor
        page_size = page_size_of(file)
        if not page_size:
            return None
        mark, state = read_mark(file, page_size), self._state() if is_open else None
        fit = fit_of(log, file, page_size, state)
        if fit is not Fit.FITS:
            return f"{self._names()}{fit.value.format(log=log.name)}: {_WAY_OUT_OF_MIXTURE}", mark
        if mark is None or (mark.is_met_in(log, page_size) and (state is None or mark.is_met_by(state))):
            return None
        lost = f"its last changes are missing: the write-ahead log {log.name} is lost or cut; {_WAY_OUT_OF_LOSS}"
        return self._names() + lost, mark

    def _names(self) -> str:
        """Say that the file has other names, if it has: then the log that is missed may be beside one of those."""
        path = Path(self.path)
        count = path.stat().st_nlink
        if count == 1:
            return ""
        others = [other for other in path.parent.iterdir() if other != path and self.anchor.is_of(other)]
        logged = next((other for other in others if Path(f"{other}-wal").exists()), None)
        if logged is not None:
            told = f"and the write-ahead log is beside another of them: open it as {logged}"
        else:
            told = "and each has a write-ahead log of its own: open it by the name that it was last used by"
        return f"is one file under {count} names (hard links), {told}; if that is not it, "

    def remember(self) -> None:
        """Take the files as they are for the ledger's; SQLite has them open."""
        try:
            self._seen = Path(self.path).stat(), Path(self._log).stat()
            self._index = self.anchor.beside(Path(f"{self.path}-shm"))
        except OSError as exc:
            raise translated_os_error(exc, self.address) from exc
        self._pages = 0
        self.check()

    def check(self, *, log_only: bool = False) -> LogState | None:
        """Give how the log stands.

        Raises LedgerDamagedError if a file is not the one it was, or is shorter than SQLite takes it to be.
        """
        if self._seen is None:
            return None
        for _ in range(100):  # what is looked at one after the other may be of two moments
            file = None if log_only else self._stat(self.path, self._seen[0])
            log = self._stat(self._log, self._seen[1])
            state = self._state()
            if state is None or not state.page_size:
                return None
            pages = self._pages if file is None else file.st_size // state.page_size
            short = self._log if log.st_size < state.size else self.path
            if log.st_size >= state.size and pages >= min(self._pages, state.pages):
                self._pages = pages
                return state
        raise LedgerDamagedError(self.address, f"{Path(short).name} was truncated while in use")

    def seal(self, connection: sqlite3.Connection) -> None:
        """Mark with which log the file was written, after a commit; raises what `check` raises.

        The mark is written until it is that of the log as it is then: others write theirs as well.
        """
        marked = None
        with (
            suppress(OSError, sqlite3.Error),  # what was committed is durable all the same
            closing(connection.execute("SELECT 1 FROM sqlite_master")),  # and in the midst of it: see write_mark
        ):
            state = self.check()
            if state is not None and self._marked is not None:
                self._check_kept(self._marked, state)
            while state is not None and state.frames and state != marked:
                write_mark(self.anchor.descriptor, state, self._pages)
                self._marked = marked = state
                state = self._state()

    def _check_kept(self, marked: LogState, state: LogState) -> None:
        """See that nobody wrote another content into the file, since it was marked last.

        A mark goes only when all of its log is in the file; and what a log begins with, goes with the one before.
        """
        mark = read_mark(self.anchor.descriptor, state.page_size)
        is_kept = state.moved >= marked.frames or (mark is not None and mark.salts == marked.salts)
        if state.salts != marked.salts or not is_kept:
            self.check_log(is_open=True)

    def unseal(self, connection: sqlite3.Connection) -> None:
        """Move the log into the file, and take the mark away, before the connection is closed.

        Raises LedgerError where the two do not go together any more.
        """
        self.check()
        self.check_log(is_open=True)
        with suppress(sqlite3.Error, OSError):
            connection.execute("PRAGMA busy_timeout = 0")  # who keeps it locked writes it, and will close it as well
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
            connection.execute("BEGIN IMMEDIATE")  # so that nobody commits meanwhile, and needs a mark
            state = self._state()
            if state is not None and state.moved == state.frames:
                remove_mark(self.anchor.descriptor)
            connection.execute("ROLLBACK")

    def is_locked(self, run: int) -> bool:
        """Tell whether somebody else has a run open for writing."""
        try:
            return self.anchor.is_taken(span_of_run(run))
        except OSError as exc:
            raise translated_os_error(exc, self.address) from exc

    def _state(self) -> LogState | None:
        if self._index is None:
            try:
                return read_state(self.anchor.beside(Path(f"{self.path}-shm")))
            except FileNotFoundError:
                return None
        return read_state(self._index)

    def _stat(self, path: str, seen: os.stat_result) -> os.stat_result:
        try:
            now = os.stat(path)  # noqa: PTH116 - twice a commit, and a third of the time
        except FileNotFoundError:
            raise LedgerDamagedError(self.address, f"{Path(path).name} was deleted while in use") from None
        except OSError as exc:
            raise translated_os_error(exc, self.address) from exc
        if now.st_ino != seen.st_ino or now.st_dev != seen.st_dev:
            raise LedgerDamagedError(self.address, f"{Path(path).name} was replaced while in use")
        return now


def _make_empty(path: Path) -> bool:
    """Make a file, unless another was first; it is under its name only when nothing has it open any more."""
    is_made = False
    unnamed = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    descriptor = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        try:
            os.fchmod(descriptor, 0o600)  # whatever the umask took away
        finally:
            os.close(descriptor)
        with suppress(FileExistsError):
            path.hardlink_to(unnamed)
            is_made = True
    finally:
        unnamed.unlink()
    sync_directory(path.parent)
    return is_made


def sync_directory(path: Path) -> None:
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
    address = os.path.realpath(address)
    sizes = [path.stat().st_size for path in (Path(address), Path(f"{address}-wal")) if path.exists()]
    return limit != resource.RLIM_INFINITY and max(sizes, default=0) >= limit


def translated_os_error(exc: OSError, address: str, refused: str = "cannot be written") -> LedgerError:
    """Give what the operating system reports as an error of the ledger; `refused` is what one without rights cannot."""
    if exc.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return LedgerReadOnlyError(address, f"{refused} ({exc.strerror})")
    if exc.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        return LedgerFullError(address, f"the disk is full ({exc.strerror})")
    return LedgerIOError(address, f"cannot be used ({exc.strerror})")
