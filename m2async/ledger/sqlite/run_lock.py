"""The lock of a run that is open for writing: a file beside the ledger, whose lock dies with the process."""

from __future__ import annotations

import fcntl
import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Self

import msgspec

LOOK = 0.02
"""Seconds: more than looking at a lock takes."""


class Holder(NamedTuple):
    """Who has a lock: None where the holder has not written it yet; `since` in seconds of the epoch."""

    pid: int | None
    host: str | None
    since: float | None


class LockHeldError(Exception):
    """Another has the lock."""

    def __init__(self, holder: Holder) -> None:
        super().__init__(holder)
        self.holder = holder


class RunLock:
    """A lock that was taken; make it with `take`.

    The system's lock is on the open file (flock), so it also keeps out a second taker in the same process,
    and it is free when the process is gone, whatever the file says.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    @classmethod
    def take(cls, path: Path, now: float) -> Self:
        """Take the lock or raise LockHeldError; OSError where the file cannot be made.

        Whoever only looks at the lock has it as well, for a moment of less than `LOOK`.
        """
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                os.fchmod(descriptor, 0o600)  # whatever the umask took away
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_at(descriptor, path):
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, msgspec.json.encode(Holder(os.getpid(), platform.node(), now)), 0)
                    return cls(path, descriptor)
            except BlockingIOError:
                holder = _holder(descriptor)
                os.close(descriptor)
                raise LockHeldError(holder) from None
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)  # its last holder removed it meanwhile

    def release(self) -> None:
        """Give the lock back."""
        with suppress(OSError):
            self._path.unlink()
        os.close(self._descriptor)


def is_held(path: Path) -> bool:
    """Tell whether somebody has the lock, without keeping anybody from taking it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _is_at(descriptor: int, path: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False


def _holder(descriptor: int) -> Holder:
    try:
        return msgspec.json.decode(os.pread(descriptor, 4_096, 0), type=Holder)
    except msgspec.DecodeError:
        return Holder(None, None, None)
