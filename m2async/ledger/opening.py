"""From an address to a ledger."""

from __future__ import annotations

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

    Arguments:
        address: `memory:` for a ledger of its own in memory; a path, or `sqlite:///` and a path, for an SQLite
            file, which is made if there is none, for its owner alone (mode 0600).
        must_exist: refuse to make the file.
        clock: gives the time in seconds of the epoch.
        busy_timeout: seconds to wait at most for other programs that write the file.

    Raises:
        LedgerAddressError: there is no such kind of ledger.
        LedgerNotFoundError: the directory does not exist, or the file where it must.
        NotALedgerError: the file is something else.
        LedgerVersionError: a later m2async wrote the file.
        LedgerReadOnlyError: the file or its directory cannot be written.
        LedgerFullError, LedgerLockedError, LedgerIOError, LedgerDamagedError: what their names say.
    """
    path = _path(address)
    storage = (
        FileStorage(path, must_exist=must_exist, busy_timeout=busy_timeout) if path is not None else MemoryStorage()
    )
    async with await SqliteLedger.open(storage, clock=clock) as ledger:
        yield ledger


def _path(address: str | PathLike[str]) -> Path | None:
    """Give the path of an SQLite ledger, or None for one in memory."""
    if not isinstance(address, str):
        return Path(address)
    if address == "memory:":
        return None
    if address.startswith("sqlite:///"):
        address = address.removeprefix("sqlite:///")
    elif scheme := re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", address):
        raise LedgerAddressError(
            address, f"there are no ledgers of the kind {scheme[0]} (known are a path, sqlite:///PATH, memory:)"
        )
    if not address:
        raise LedgerAddressError(address, "is empty: give a path, sqlite:///PATH or memory:")
    return Path(address)
