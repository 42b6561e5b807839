"""The SQL of the package: named statements and numbered migrations, read once."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import TypeAlias

import msgspec

MaybeText: TypeAlias = str | None
MaybeNumber: TypeAlias = int | None
"""What a column may hold, for msgspec to check."""

_HERE = files("m2async.ledger.sqlite")


def named_statements(*names: str) -> Mapping[str, str]:
    """Give the statements of some files by name: each stands behind a line `-- name: NAME`."""
    statements: dict[str, str] = {}
    for file in names:
        text = (_HERE / "sql" / f"{file}.sql").read_text(encoding="utf-8")
        _, *parts = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)
        statements.update(zip(parts[::2], map(_without_comments, parts[1::2]), strict=True))
    return statements


def as_json(values: object) -> str:
    """Give what a statement takes apart by SQLite's JSON functions."""
    return msgspec.json.encode(values).decode()


@cache
def script(name: str) -> str:
    """Give a script of several statements."""
    return (_HERE / "sql" / f"{name}.sql").read_text(encoding="utf-8")


@cache
def migrations(directory: Traversable | None = None) -> tuple[str, ...]:
    """Give the scripts that lead from one schema version to the next; the first makes version 1."""
    scripts = sorted((directory or _HERE / "migrations").iterdir(), key=lambda script: script.name)
    return tuple(script.read_text(encoding="utf-8") for script in scripts if script.name.endswith(".sql"))


def split_script(script: str) -> list[str]:
    """Split a script into its statements."""
    statements, lines = [], ""
    for line in script.splitlines(keepends=True):
        lines += line
        if sqlite3.complete_statement(lines):
            statements.append(lines)
            lines = ""
    return statements


def _without_comments(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.startswith("--")).strip().removesuffix(";")
