"""Locks on the ledger's file itself, whatever it is called, and this process's descriptors of it.

A file beside the ledger cannot be its lock: one file has many names (links, mounts, containers that share a volume),
and each name has another file beside it. All who can do harm have the inode in common, so the locks are on ranges of
bytes of the file itself, so far behind its end that nothing is ever there. They are locks of the open file description
(F_OFD_SETLK, fcntl(2)), which go with the process, keep out others in the same process too, and can be asked about by
whoever may only read. flock(2) has one lock a file, not one a run; locks of the process (F_SETLK) are lost when any
descriptor of the file is closed (https://www.sqlite.org/howtocorrupt.html, 2.2).

SQLite's own locks are of that last kind, so a descriptor may be closed only once no connection of the process is open.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import sys
import threading
import time
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from m2async.ledger.errors import LedgerError

_IS_DARWIN = sys.platform == "darwin"
# macOS has these locks as well, by other numbers and with its own struct flock (XNU, bsd/sys/fcntl.h), which Python's
# module does not name; None where a system has none.
_SET: int | None = getattr(fcntl, "F_OFD_SETLK", 90 if _IS_DARWIN else None)
_ASK: int | None = getattr(fcntl, "F_OFD_GETLK", 92 if _IS_DARWIN else None)

_Identity = tuple[int, int]


class LockSpan(NamedTuple):
    """A range of bytes to lock."""

    first: int
    length: int = 1


_RUNS = 1 << 62
_NAMES = _RUNS + (1 << 40)
_COUNT_OF_NAMES = 1 << 40

ALL_RUNS = LockSpan(_RUNS, 1 << 33)
"""Locked while the schema is upgraded: nobody has a run open then."""


class Flock(NamedTuple):
    """The system's struct flock, without its process."""

    kind: int
    span: LockSpan

    def pack(self, *, darwin: bool = _IS_DARWIN) -> bytes:
        """Give its bytes."""
        if darwin:
            return struct.pack("qqihh", *self.span, 0, self.kind, os.SEEK_SET)
        return struct.pack("hhqqi", self.kind, os.SEEK_SET, *self.span, 0)

    @classmethod
    def unpack(cls, given: bytes, *, darwin: bool = _IS_DARWIN) -> Flock:
        """Read its bytes."""
        if darwin:
            first, length, _, kind, _ = struct.unpack("qqihh", given)
        else:
            kind, _, first, length, _ = struct.unpack("hhqqi", given)
        return cls(kind, LockSpan(first, length))


def span_of_run(run: int) -> LockSpan:
    """Give what is locked by whoever has a run open for writing."""
    return LockSpan(_RUNS + run)


class _Kept:
    """The descriptors that this process has of one file."""

    def __init__(self) -> None:
        self.users = 0
        self.descriptors: set[int] = set()
        self.parked: dict[bool, list[int]] = {False: [], True: []}  # by whether they are for writing
        self.beside: dict[_Identity, int] = {}

    def close(self) -> None:
        for descriptor in (*self.descriptors, *self.beside.values()):
            os.close(descriptor)


_kept: dict[_Identity, _Kept] = {}
_inherited: set[_Identity] = set()  # what was open when this process was forked
_guard = threading.Lock()


class Anchor:
    """An open description of the ledger's file, and the locks that it has; to be made before SQLite opens the file.

    Raises OSError, and LedgerError in a process that was forked from one that has it open: SQLite takes the other
    process's locks for its own, would write without any, and what it wrote could be lost
    (https://www.sqlite.org/howtocorrupt.html, 2.6). It is for reading alone where the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        if _SET is None:
            raise LedgerError(
                str(path),
                "cannot be locked on this system, which has no locks of open files (F_OFD_SETLK): "
                "use Linux or macOS, or a ledger in memory",
            )
        self.is_writable: bool = os.access(path, os.W_OK)
        self._identity = _identity(path.stat())
        if self._identity in _inherited:
            raise LedgerError(
                str(path),
                "was open when this process was forked, and cannot be opened here: "
                "start the process otherwise, as with multiprocessing's 'spawn'",
            )
        with _guard:
            self._all = _kept.get(self._identity) or _Kept()
            parked = self._all.parked[self.is_writable]
            self.descriptor: int = parked.pop() if parked else self._open(path)
            self._all.users += 1
            _kept[self._identity] = self._all

    def _open(self, path: Path) -> int:
        descriptor = os.open(path, (os.O_RDWR if self.is_writable else os.O_RDONLY) | os.O_CLOEXEC)
        identity = _identity(os.fstat(descriptor))
        if identity == self._identity:
            self._all.descriptors.add(descriptor)
            return descriptor
        if identity in _kept:  # SQLite may have it open: it is closed with that file's others
            _kept[identity].descriptors.add(descriptor)
        else:
            os.close(descriptor)
        raise FileNotFoundError(errno.ENOENT, "was replaced just now", str(path))

    @property
    def is_open(self) -> bool:
        """Whether it is this process's; one that was forked has left it to the other."""
        return _kept.get(self._identity) is self._all

    def beside(self, path: Path) -> int:
        """Give a descriptor, for reading, of a file beside the ledger's that SQLite has locks on as well."""
        identity = _identity(path.stat())
        with _guard:
            if identity not in self._all.beside:
                self._all.beside[identity] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            return self._all.beside[identity]

    def close(self) -> None:
        """Give up the locks; SQLite's connections are closed before."""
        if not self.is_open:
            return
        self._set(fcntl.F_UNLCK, LockSpan(0, 0))  # up to the end, wherever that is
        with _guard:
            self._all.users -= 1
            self._all.parked[self.is_writable].append(self.descriptor)
            if not self._all.users:
                _kept.pop(self._identity).close()

    # Locks

    def take(self, span: LockSpan, *, shared: bool = False) -> bool:
        """Lock a span, unless another description has a part of it."""
        try:
            self._set(fcntl.F_RDLCK if shared else fcntl.F_WRLCK, span)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def release(self, span: LockSpan) -> None:
        """Unlock a span."""
        self._set(fcntl.F_UNLCK, span)

    def is_taken(self, span: LockSpan) -> bool:
        """Tell whether another description has a part of a span; nobody is kept from anything by that."""
        assert _ASK is not None  # noqa: S101 - there are such locks
        found = fcntl.fcntl(self.descriptor, _ASK, Flock(fcntl.F_WRLCK, span).pack())
        return Flock.unpack(found).kind != fcntl.F_UNLCK

    def take_name(self, path: Path) -> bool:
        """Say by which name the file is open, unless others have it open by another: a name has a log of its own.

        The same folder is the same wherever it is mounted, but not for another kernel, which shares no memory.
        """
        folder = path.parent.stat()
        name = f"{_kernel()}\0{folder.st_dev}\0{folder.st_ino}\0{path.name}".encode(errors="surrogateescape")
        place = int.from_bytes(blake2b(name, digest_size=5).digest(), "big")
        own = LockSpan(_NAMES + place)
        others = (LockSpan(_NAMES, place), LockSpan(own.first + 1, _COUNT_OF_NAMES - place))
        if self._take_soon(own) and not any(self.is_taken(span) for span in others if span.length):
            return True
        self.release(own)
        return False

    def take_all_names(self) -> bool:
        """Keep everybody from opening the file, unless somebody else has it open; for whoever takes it away."""
        return self.take(LockSpan(_NAMES, _COUNT_OF_NAMES))

    def is_of(self, path: Path) -> bool:
        """Tell whether the file is still what is found by a name."""
        try:
            return _identity(path.stat()) == self._identity
        except FileNotFoundError:
            return False

    def _take_soon(self, name: LockSpan) -> bool:
        """Share a name: only whoever takes the file away has it alone, and not for long."""
        for _ in range(100):
            if self.take(name, shared=True):
                return True
            time.sleep(0.01)
        return False

    def _set(self, kind: int, span: LockSpan) -> None:
        assert _SET is not None  # noqa: S101 - there are such locks
        fcntl.fcntl(self.descriptor, _SET, Flock(kind, span).pack())


def _identity(status: os.stat_result) -> _Identity:
    return status.st_dev, status.st_ino


def _kernel() -> str:
    """What two processes have in common that share memory."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    except OSError:
        return ""


def _leave_all_to_the_parent() -> None:
    """Close what a forked process shares with its parent, whose locks live as long as either has it open."""
    global _guard
    _guard = threading.Lock()  # another thread of the parent may have had it, and is not here to let go of it
    for kept in _kept.values():
        kept.close()
    _inherited.update(_kept)
    _kept.clear()


os.register_at_fork(after_in_child=_leave_all_to_the_parent)
