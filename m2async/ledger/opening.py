"""From an address to a ledger."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from os import PathLike
from pathlib import Path

from m2async.clock import steady_time
from m2async.ledger.errors import LedgerAddressError
from m2async.ledger.interface import Ledger
from m2async.ledger.sqlite import FileStorage, MemoryStorage, SqliteLedger


@asynccontextmanager
async def open_ledger(
    address: str | PathLike[str],
    *,
    must_exist: bool = False,
    clock: Callable[[], float] = steady_time,
    busy_timeout: float = 30.0,
) -> AsyncGenerator[Ledger, None]:
    """Open a ledger, as an async context manager.

    A file is opened for reading, which needs no other right and changes nothing, and for writing with the first write.
    That upgrades a ledger of an older version: a copy of it is kept beside it, and the logger `m2async.ledger` says so.

    Arguments:
        address: `memory:` for a ledger of its own in memory; a path, or `sqlite:///` and a path, for an SQLite
            file, which is made if there is none, for its owner alone (mode 0600). A new file goes again with the
            ledger if no run came into it.
        must_exist: refuse to make the file.
        clock: gives the time in seconds of the epoch.
        busy_timeout: seconds to wait at most for other programs that write the file.

    Raises:
        LedgerAddressError: there is no such kind of ledger.
        LedgerNotFoundError: the directory does not exist, or the file where it must.
        NotALedgerError: the file is something else.
        LedgerVersionError: a later m2async wrote the file.
        LedgerUpgradeError: an earlier one has a run open; this, and what is said of writing, with the first write.
        LedgerIncompleteError: the write-ahead log beside the file (`-wal`) is lost or cut, or the two are of
            different ledgers or moments.
        LedgerNameError: others have the file open by another name.
        LedgerReadOnlyError: the file or its directory cannot be written, or the file not be read.
        LedgerFullError, LedgerLockedError, LedgerIOError, LedgerDamagedError: what their names say.
    """
    path = _path(address)
    storage = (
        FileStorage(path, must_exist=must_exist, busy_timeout=busy_timeout) if path is not None else MemoryStorage()
    )
    async with await SqliteLedger.open(storage, clock=clock) as ledger:
        yield ledger


_KNOWN = "a path, sqlite:///PATH, or memory: for a ledger in memory"


def _path(address: str | PathLike[str]) -> Path | None:
    """Give the path of an SQLite ledger, or None for one in memory."""
    if address == "memory:":
        return None
    given = os.fspath(address)
    path = given.removeprefix("sqlite:///") if isinstance(address, str) else given
    if refusal := _refusal(path, is_url=path != given, is_text=isinstance(address, str)):
        raise LedgerAddressError(given if given.isprintable() else repr(given), refusal)
    return Path(path)


def _refusal(path: str, *, is_url: bool, is_text: bool) -> str | None:
    """Say why an address names no ledger, if it names none; `is_url` if it had a scheme before its path."""
    if not path.strip():
        return f"is empty: give {_KNOWN}"
    if path.lower() in {"memory:", ":memory:"} or path.lower().startswith("file::memory:"):
        return "is not how a ledger in memory is named: give memory:, or ./ before it for a file of this name"
    if is_text and not is_url and (scheme := re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", path)):
        return f"there are no ledgers of the kind {scheme[0]}: give {_KNOWN}"
    if is_url and "?" in path:
        return "has options behind a question mark, and there are none: give sqlite:/// and the path alone"
    if any(character < " " or character == "\x7f" or "\ud800" <= character <= "\udfff" for character in path):
        return "has characters that no text has, as a line break: give the file another name"
    return None
