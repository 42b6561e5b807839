"""What every command prints: results on stdout, messages on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NoReturn

import typer

from m2async.texts import visible

Form = Literal["table", "json", "jsonl"]
"""How a list is printed."""

BAD_INPUT = 2
STOPPED = 3


def fail(message: str, code: int) -> NoReturn:
    """End the command with a message on stderr."""
    say(f"m2async: {message}")
    raise typer.Exit(code)


def say(message: str) -> None:
    """Print a message on stderr, without the control characters that a terminal would obey."""
    print(*map(visible, message.split("\n")), sep="\n", file=sys.stderr, flush=True)


def emit(line: str) -> None:
    """Print a line on stdout, at once: whoever reads it sees each job when it ends.

    Where nobody reads any more (as after `| head`) or nothing can be written, the work goes on unseen:
    jobs that were begun must not hang on a pipe.
    """
    try:
        print(line, flush=True)
    except OSError as exc:
        if not isinstance(exc, BrokenPipeError):
            say(f"m2async: stdout cannot be written, the rest is not printed: {exc.strerror}")
        # Later writes go nowhere, those at the interpreter's end included.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def emit_json(value: object) -> None:
    """Print a value as one line of JSON."""
    emit(json.dumps(value, ensure_ascii=False))


def emit_list(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], form: Form) -> None:
    """Print rows as a table, as one JSON array, or as a line of JSON each."""
    if form == "json":
        emit(json.dumps(rows, ensure_ascii=False, indent=2))
    elif form == "jsonl":
        for row in rows:
            emit_json(row)
    else:
        cells = [["" if row[column] is None else str(row[column]) for column in columns] for row in rows]
        widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
        for line in [[column.upper() for column in columns], *cells]:
            emit(table_line(line, widths))


def table_line(cells: Iterable[str], widths: Iterable[int]) -> str:
    """Lay out one line of a table; what is too wide is cut where the output is a terminal."""
    cut = sys.stdout.isatty()
    return "  ".join(_fitted(visible(cell), width, cut) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _fitted(cell: str, width: int, cut: bool) -> str:
    return f"{cell[: width - 1]}…" if cut and len(cell) > width else f"{cell:<{width}}"
