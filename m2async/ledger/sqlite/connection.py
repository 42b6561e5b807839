"""Connections to an SQLite ledger: settings, recognising the file, and the way to the newest schema."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from m2async.ledger.errors import LedgerError, LedgerVersionError, NotALedgerError
from m2async.ledger.sqlite.file import translated
from m2async.ledger.sqlite.statements import script, split_script

APPLICATION_ID = 0x6D326173  # "m2as"; marks the file as ours (https://www.sqlite.org/pragma.html#pragma_application_id)
_MIN_SQLITE = (3, 33, 0)  # UPDATE … FROM


def connect_writer(path: Path, migrations: Sequence[str], *, busy_timeout: float) -> sqlite3.Connection:
    """Open a file for writing, and bring its schema to the version that the last of `migrations` makes.

    Every commit is synced to the disk before it returns. Waits at most `busy_timeout` seconds for other programs.
    """
    address = str(path)
    _check_version(address)
    try:
        connection = _connect(path, busy_timeout)
        try:
            _check_ours(connection, address, len(migrations))
            connection.execute("PRAGMA auto_vacuum = NONE")  # a file that shrinks is taken for damaged
            _use_wal(connection, address, busy_timeout)
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA temp_store = MEMORY")
            _migrate(connection, address, migrations)
            _run(connection, script("attempts"))
        except BaseException:
            connection.close()
            raise
    except sqlite3.DatabaseError as exc:
        if getattr(exc, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_NOTADB:
            raise NotALedgerError(address, "is not an SQLite database") from exc
        raise translated(exc, address) from exc
    return connection


def connect_reader(path: Path, *, busy_timeout: float) -> sqlite3.Connection:
    """Open a file for reading; it has been opened for writing before."""
    try:
        connection = _connect(path, busy_timeout)
        connection.execute("PRAGMA query_only = ON")
    except sqlite3.Error as exc:
        raise translated(exc, str(path)) from exc
    return connection


def connect_memory(migrations: Sequence[str], address: str) -> sqlite3.Connection:
    """Make a database in memory, for this connection alone, with the schema that `migrations` lead to."""
    _check_version(address)
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.executescript("\n;\n".join((*migrations, script("attempts"))))
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


def _check_version(address: str) -> None:
    if sqlite3.sqlite_version_info < _MIN_SQLITE:
        raise LedgerError(address, f"needs SQLite 3.33, and Python has {sqlite3.sqlite_version}")


def _connect(path: Path, busy_timeout: float) -> sqlite3.Connection:
    # Each connection is one thread's, but it is opened and closed by another where opening fails.
    return sqlite3.connect(
        f"file:{quote(str(path))}?mode=rw",
        uri=True,
        timeout=busy_timeout,
        isolation_level=None,
        check_same_thread=False,
    )


def _check_ours(connection: sqlite3.Connection, address: str, known: int) -> None:
    connection.execute("BEGIN")  # so that all is of one moment, while others may be making the schema
    application_id, version = _pragma(connection, "application_id"), _pragma(connection, "user_version")
    objects = _first(connection, "SELECT count(*) FROM sqlite_master")
    connection.execute("COMMIT")
    if application_id != APPLICATION_ID and (application_id or version or objects):
        raise NotALedgerError(address, "is an SQLite database of another program")
    if version > known:
        raise LedgerVersionError(address, version, known)


def _use_wal(connection: sqlite3.Connection, address: str, busy_timeout: float) -> None:
    """Switch to the write-ahead log; SQLite does not wait by itself while others open the new file as well."""
    deadline = time.monotonic() + busy_timeout
    while True:
        try:
            mode = _first(connection, "PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                raise
            time.sleep(0.01)
            continue
        if mode != "wal":
            raise LedgerError(address, "is on a file system that a write-ahead log cannot be kept on")
        return


def _migrate(connection: sqlite3.Connection, address: str, migrations: Sequence[str]) -> None:
    if _pragma(connection, "user_version") == len(migrations):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = _pragma(connection, "user_version")  # another process may have been first
        if version > len(migrations):
            raise LedgerVersionError(address, version, len(migrations))
        for migration in migrations[version:]:
            _run(connection, migration)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(migrations)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _run(connection: sqlite3.Connection, script: str) -> None:
    for statement in split_script(script):
        connection.execute(statement)


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(_first(connection, f"PRAGMA {name}"))


def _first(connection: sqlite3.Connection, sql: str) -> int | str:
    value: int | str = connection.execute(sql).fetchone()[0]
    return value
