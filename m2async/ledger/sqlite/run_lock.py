"""The lock of a run that is open for writing: on the ledger's file, with a note beside it that says who has it."""

from __future__ import annotations

import fcntl
import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from m2async.ledger.sqlite.anchor import Anchor, span_of_run


class Holder(NamedTuple):
    """Who has a lock: None where that is not known; `since` in seconds of the epoch."""

    pid: int | None
    host: str | None
    since: float | None


class LockHeldError(Exception):
    """Another has the lock."""

    def __init__(self, holder: Holder) -> None:
        super().__init__(holder)
        self.holder = holder


class RunLock:
    """A lock that was taken; make it with `take`. It is free when the process is gone, whatever the note says."""

    def __init__(self, anchor: Anchor, run: int, held: set[int], note: Path) -> None:
        self._anchor = anchor
        self._run = run
        self._held = held
        self._note = note

    @classmethod
    def take(cls, anchor: Anchor, run: int, held: set[int], note: Path, now: float) -> RunLock:
        """Take the lock of a run or raise LockHeldError; `held` are the runs that are locked through this anchor."""
        if run in held or not anchor.take(span_of_run(run)):
            raise LockHeldError(_holder(note))
        held.add(run)
        _write(note, Holder(os.getpid(), platform.node(), now))
        return cls(anchor, run, held, note)

    def release(self) -> None:
        """Give the lock back; in a process that was forked meanwhile, which has it no more, do nothing."""
        if not self._anchor.is_open:
            return
        with suppress(OSError):
            self._note.unlink()
        self._held.discard(self._run)
        self._anchor.release(span_of_run(self._run))


def _write(note: Path, holder: Holder) -> None:
    with suppress(OSError):
        note.unlink(missing_ok=True)  # what another left that was killed
        descriptor = os.open(note, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(descriptor, 0o600)  # whatever the umask took away
            os.write(descriptor, msgspec.json.encode(holder))
        finally:
            os.close(descriptor)


def _holder(note: Path) -> Holder:
    try:
        return msgspec.json.decode(note.read_bytes(), type=Holder)
    except (OSError, msgspec.DecodeError):
        return Holder(None, None, None)


def is_held_by_older_version(path: Path) -> bool:
    """Tell whether a process has a run open that locks as it was done up to schema version 5: by files beside it."""
    return any(_is_held(lock) for lock in path.parent.glob(f"{_literal(path.name)}-run-*.lock"))


def _is_held(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    except OSError:
        return True  # of another user: it cannot be known
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _literal(name: str) -> str:
    return "".join(f"[{character}]" if character in "*?[" else character for character in name)
