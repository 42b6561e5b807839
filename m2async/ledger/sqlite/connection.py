"""Connections to an SQLite ledger: settings, and recognising the file."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from m2async.ledger.errors import LedgerError, LedgerVersionError, NotALedgerError
from m2async.ledger.sqlite.file import LedgerFile, translated
from m2async.ledger.sqlite.schema import APPLICATION_ID, first_of, migrate, pragma, run_script, show_as_newest
from m2async.ledger.sqlite.statements import script

_MIN_SQLITE = (3, 35, 0)  # RETURNING


class NothingThereError(Exception):
    """The file holds nothing yet, neither a ledger nor anything else."""


def connect_writer(file: LedgerFile, migrations: Sequence[str], busy_timeout: float) -> sqlite3.Connection:
    """Open a file for writing, and bring its schema to the version that the last of `migrations` makes.

    Every commit is synced to the disk before it returns. Waits at most `busy_timeout` seconds for other programs.
    """
    with _translating(file.address):
        connection = _connect(file.path, "mode=rw", busy_timeout)
        try:
            _version_of_ours(connection, file.address, len(migrations))
            connection.execute("PRAGMA auto_vacuum = NONE")  # a file that shrinks is taken for damaged
            _use_wal(connection, file.address, busy_timeout)
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA temp_store = MEMORY")
            migrate(connection, file, migrations)
            run_script(connection, script("views"))
            run_script(connection, script("attempts"))
        except BaseException:
            connection.close()
            raise
    return connection


def connect_reader(
    file: LedgerFile, migrations: Sequence[str], busy_timeout: float, *, is_alone: bool = False
) -> sqlite3.Connection:
    """Open a file for reading, its tables as the last of `migrations` makes them; nothing of it is changed.

    `is_alone` says that the file has no log: then nothing else is looked at, locked or made. Raises NothingThereError
    if there is no ledger yet.
    """
    options = "mode=ro"
    if is_alone:
        options += "&immutable=1"
    elif not file.anchor.is_writable:  # no index may be left that the ledger's owner could not write
        options += "&readonly_shm=1"
    with _translating(file.address):
        connection = _connect(file.path, options, busy_timeout)
        try:
            version = _version_of_ours(connection, file.address, len(migrations))
            if not version:
                raise NothingThereError
            if version < len(migrations):
                show_as_newest(connection, migrations)
            run_script(connection, script("views"))
            connection.execute("PRAGMA query_only = ON")
        except BaseException:
            connection.close()
            raise
    return connection


def connect_memory(migrations: Sequence[str], address: str) -> sqlite3.Connection:
    """Make a database in memory, for this connection alone, with the schema that `migrations` lead to."""
    _check_sqlite(address)
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.executescript("\n;\n".join((*migrations, script("views"), script("attempts"))))
    except BaseException as exc:
        connection.close()
        if isinstance(exc, sqlite3.Error):
            raise translated(exc, address) from exc
        raise
    return connection


def integrity_problems(path: Path) -> list[str]:
    """Let SQLite check the whole file; gives what is wrong with it."""
    with closing(sqlite3.connect(path)) as connection:
        problems = [text for (text,) in connection.execute("PRAGMA integrity_check")]
    return [] if problems == ["ok"] else problems


@contextmanager
def _translating(address: str) -> Iterator[None]:
    _check_sqlite(address)
    try:
        yield
    except sqlite3.DatabaseError as exc:
        if getattr(exc, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_NOTADB:
            raise NotALedgerError(address, "is not an SQLite database") from exc
        raise translated(exc, address) from exc


def _check_sqlite(address: str) -> None:
    if sqlite3.sqlite_version_info < _MIN_SQLITE:
        raise LedgerError(address, f"needs SQLite 3.35, and Python has {sqlite3.sqlite_version}")


def _connect(path: str, options: str, busy_timeout: float) -> sqlite3.Connection:
    # Each connection is one thread's, but it is opened and closed by another where opening fails.
    return sqlite3.connect(
        f"file:{quote(path)}?{options}",
        uri=True,
        timeout=busy_timeout,
        isolation_level=None,
        check_same_thread=False,
    )


def _version_of_ours(connection: sqlite3.Connection, address: str, known: int) -> int:
    """Give the version of the schema, 0 if there is nothing; raises NotALedgerError, LedgerVersionError."""
    connection.execute("BEGIN")  # so that all is of one moment, while others may be making the schema
    application_id, version = pragma(connection, "application_id"), pragma(connection, "user_version")
    objects = first_of(connection, "SELECT count(*) FROM sqlite_master")
    connection.execute("COMMIT")
    if application_id != APPLICATION_ID and (application_id or version or objects):
        raise NotALedgerError(address, "is an SQLite database of another program")
    if version > known:
        raise LedgerVersionError(address, version, known)
    return version


def _use_wal(connection: sqlite3.Connection, address: str, busy_timeout: float) -> None:
    """Switch to the write-ahead log; SQLite does not wait by itself while others open the new file as well."""
    deadline = time.monotonic() + busy_timeout
    while True:
        try:
            mode = first_of(connection, "PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                raise
            time.sleep(0.01)
            continue
        if mode != "wal":
            raise LedgerError(address, "is on a file system that a write-ahead log cannot be kept on")
        return
