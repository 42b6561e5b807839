"""The versions of an SQLite ledger's schema: to read an older one as it is, and to upgrade it for writing."""

from __future__ import annotations

import logging
import os
import secrets
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

from m2async.ledger.errors import LedgerUpgradeError, LedgerVersionError
from m2async.ledger.sqlite.anchor import ALL_RUNS
from m2async.ledger.sqlite.file import LedgerFile, sync_directory, translated_os_error
from m2async.ledger.sqlite.run_lock import is_held_by_older_version
from m2async.ledger.sqlite.statements import split_script

APPLICATION_ID = 0x6D326173  # "m2as"; marks the file as ours (https://www.sqlite.org/pragma.html#pragma_application_id)

_logger = logging.getLogger("m2async.ledger")


def show_as_newest(connection: sqlite3.Connection, migrations: Sequence[str]) -> None:
    """Let a connection see the tables of an older version as the newest has them, without changing the file.

    What the file lacks is empty: a table has no rows, a column its default.
    """
    for name, columns in _newest_tables(migrations).items():
        there = {column for (column,) in connection.execute("SELECT name FROM pragma_table_info(?, 'main')", (name,))}
        if there.issuperset(columns):
            continue
        shown = ", ".join(f"{name}.{column}" if column in there else f"{default} AS {column}"
                          for column, default in columns.items())  # fmt: skip
        source = f"main.{name}" if there else f"(SELECT 1) AS {name} WHERE 0"
        connection.execute(f"CREATE TEMP VIEW {name} AS SELECT {shown} FROM {source}")  # noqa: S608 - likewise


def migrate(connection: sqlite3.Connection, file: LedgerFile, migrations: Sequence[str]) -> None:
    """Bring the schema to the version that the last of `migrations` makes.

    A ledger of an older version is copied before, and left alone while a run of it is open. Raises LedgerUpgradeError,
    LedgerVersionError and LedgerFullError; nothing is changed then.
    """
    newest = len(migrations)
    if pragma(connection, "user_version") == newest:
        return
    copy = None
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = pragma(connection, "user_version")  # another process may have been first
        if version > newest:
            raise LedgerVersionError(file.address, version, newest)
        if 0 < version < newest:
            if is_held_by_older_version(Path(file.path)) or not file.anchor.take(ALL_RUNS):
                raise LedgerUpgradeError(file.address, version, newest)
            copy = _copy(file, version)
        for migration in migrations[version:]:
            run_script(connection, migration)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {newest}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        if copy is not None:
            copy.unlink()
        raise
    finally:
        file.anchor.release(ALL_RUNS)
    if copy is not None:
        _logger.warning(
            "ledger %s was upgraded from schema version %d to %d; as it was before, it is kept in %s",
            file.address, version, newest, copy,
        )  # fmt: skip


def run_script(connection: sqlite3.Connection, script: str) -> None:
    """Run the statements of a script, in the transaction that is open."""
    for statement in split_script(script):
        connection.execute(statement)


def pragma(connection: sqlite3.Connection, name: str) -> int:
    """Ask for a number."""
    return int(first_of(connection, f"PRAGMA {name}"))


def first_of(connection: sqlite3.Connection, sql: str) -> int | str:
    """Ask for a single value."""
    value: int | str = connection.execute(sql).fetchone()[0]
    return value


def _newest_tables(migrations: Sequence[str]) -> dict[str, dict[str, str]]:
    """Give the columns of each table, and what they hold by default."""
    with closing(sqlite3.connect(":memory:")) as newest:
        newest.executescript("\n;\n".join(migrations))
        ours = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT GLOB 'sqlite_*'"
        names = [name for (name,) in newest.execute(ours)]
        return {
            name: {
                column: default or "NULL"
                for column, default in newest.execute("SELECT name, dflt_value FROM pragma_table_info(?)", (name,))
            }
            for name in names
        }


def _copy(file: LedgerFile, version: int) -> Path:
    """Copy what is committed beside the ledger, durably and for its owner alone; it has its name once it is whole."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    copy = Path(f"{file.path}-schema-{version}-{stamp}-{secrets.token_hex(2)}")
    unnamed = copy.with_name(f".{copy.name}")
    try:
        os.close(os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        try:
            source_uri = f"file:{quote(file.path)}?mode=ro"
            with closing(sqlite3.connect(source_uri, uri=True)) as source, closing(sqlite3.connect(unnamed)) as target:
                target.execute("PRAGMA journal_mode = OFF")  # nothing is lost if it fails
                source.backup(target)
            descriptor = os.open(unnamed, os.O_RDWR | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            unnamed.rename(copy)
        except BaseException:
            with suppress(OSError):
                unnamed.unlink()
            raise
        sync_directory(copy.parent)
    except OSError as exc:
        raise translated_os_error(exc, file.address) from exc
    return copy
