"""What every command prints: results on stdout, messages on stderr."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NoReturn

import typer
from rich.file_proxy import FileProxy
from rich.text import Text

from m2async.cli.screen import TextTable, console, is_terminal, shown
from m2async.texts import visible, visible_json

Form = Literal["table", "json", "jsonl"]
"""How a list is printed."""

BAD_INPUT = 2
STOPPED = 3


def fail(message: str, code: int) -> NoReturn:
    """End the command with a message on stderr."""
    say(f"m2async: {message}")
    raise typer.Exit(code)


def say(message: str) -> None:
    """Print a message on stderr, without the control characters that a terminal would obey.

    A terminal gets it folded at words, a pipe or a file as one line.
    """
    on_terminal = is_terminal(sys.stderr)
    lines = [each for line in message.split("\n") for each in shown(line, on_terminal=on_terminal)]
    if on_terminal:
        console().print(Text("\n".join(lines)), soft_wrap=True)
    else:
        print(*lines, sep="\n", file=sys.stderr, flush=True)


class Saying(logging.Handler):
    """Prints what the library has to tell whoever runs it, as messages of the command."""

    def emit(self, record: logging.LogRecord) -> None:
        say(f"m2async: {record.getMessage()}")


def emit(line: str) -> None:
    """Print a line on stdout, at once: whoever reads it sees each job when it ends.

    A pipe or a file gets it as it is, a terminal without the characters that it would obey.

    Where nobody reads any more (as after `| head`) or nothing can be written, the work goes on unseen:
    jobs that were begun must not hang on a pipe.
    """
    try:
        if is_terminal(sys.stdout):
            line = "\n".join(map(visible, line.expandtabs().split("\n")))
        if isinstance(sys.stdout, FileProxy):  # a bar is on the terminal: lines go above it
            console().print(Text(line), soft_wrap=True)
        else:
            print(line, flush=True)
    except OSError as exc:
        if not isinstance(exc, BrokenPipeError):
            say(f"m2async: stdout cannot be written, the rest is not printed: {exc.strerror}")
        # Later writes go nowhere, those at the interpreter's end included.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def emit_json(value: object) -> None:
    """Print a value as one line of JSON."""
    emit(visible_json(json.dumps(value, ensure_ascii=False)))


def emit_list(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], form: Form) -> None:
    """Print rows as a table, as one JSON array, or as a line of JSON each."""
    if form == "json":
        emit("\n".join(map(visible_json, json.dumps(rows, ensure_ascii=False, indent=2).split("\n"))))
    elif form == "jsonl":
        for row in rows:
            emit_json(row)
    else:
        cells = [["" if row[column] is None else str(row[column]) for column in columns] for row in rows]
        widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
        least = max(len(word) for cell in (columns[-1], *(row[-1] for row in cells)) for word in cell.split() or [""])
        table = TextTable([column.upper() for column in columns], widths, least=least)
        emit_lines([*table.head(), *(line for row in cells for line in table.row(row))])


def emit_lines(lines: Iterable[str]) -> None:
    """Print lines on stdout."""
    for line in lines:
        emit(line)


def emit_text(text: str) -> None:
    """Print a sentence on stdout, as `say` does on stderr."""
    emit_lines(shown(text, on_terminal=is_terminal(sys.stdout)))
