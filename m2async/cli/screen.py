"""How text fits a terminal: folded at words, with commands, keys and ids whole; a pipe or a file gets it as it is."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache
from itertools import accumulate
from typing import TextIO

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.file_proxy import FileProxy

from m2async.texts import visible

_SPACE = "\ue000"  # at which nothing is folded; `visible` and `quoted` let none of it in from elsewhere
_LEAST = 20
"""Characters that a column of folded text has at least: in fewer nobody reads it."""

_MOST = 26
"""Characters that other columns have at most in a table that is too wide: those of an id."""


@cache
def console() -> Console:
    """The terminal; whatever draws on it draws by this, so that lines and bars do not run into each other."""
    return Console(stderr=True, markup=False, highlight=False, emoji=False)


def is_terminal(stream: TextIO) -> bool:
    """Whether a stream is a terminal, also while a bar is shown: what stands in for it then may not say so."""
    return (stream.rich_proxied_file if isinstance(stream, FileProxy) else stream).isatty()


def whole(text: str) -> str:
    """Have a text, such as a command to be copied, not folded within a message."""
    return text.replace(" ", _SPACE)


def shown(line: str, *, on_terminal: bool) -> list[str]:
    """Give the lines that a line of a message is shown as, without characters that a terminal would obey."""
    text = _SPACE.join(map(visible, line.split(_SPACE)))
    lines = folded(text, console().width) if on_terminal else [text]
    return [each.replace(_SPACE, " ") for each in lines]


def folded(text: str, width: int) -> list[str]:
    """Fold a text at spaces; a word that is wider stays whole."""
    first, *words = text.split(" ")
    lines = [first]
    for word in words:
        if lines[-1].strip() and cell_len(lines[-1]) + 1 + cell_len(word) > width:
            lines.append(word)
        else:
            lines[-1] += f" {word}"
    return [line.rstrip() for line in lines]


class TextTable:
    """Lays out a table, a row at a time. On a terminal no line is wider than that, but for words that are.

    A table that is too wide has its first column in a line of its own, and the columns that do not even fit then stand
    below, with their names. No cell is cut: after one that is wider than its column, the row goes on in the next line.
    The text of the last column is folded at words.
    """

    def __init__(self, columns: Sequence[str], widths: Sequence[int], *, least: int = _LEAST) -> None:
        """Take the widths of all columns, in characters, and the `least` that the last must have."""
        self._columns = columns
        self._widths = widths
        self._screen = console().width if is_terminal(sys.stdout) else None
        needed = [*widths[:-1], min(least, widths[-1])]
        self._starts = list(accumulate((width + 2 for width in needed[:-1]), initial=0))
        self._beside = len(columns)
        if self._screen is not None and self._starts[-1] + needed[-1] > self._screen:
            needed = [0, *(min(width, _MOST) for width in needed[1:])]
            self._starts = [0, *accumulate((width + 2 for width in needed[1:-1]), initial=2)]
            ends = [start + width for start, width in zip(self._starts, needed, strict=True)]
            self._beside = sum(end <= self._screen for end in ends)

    def head(self) -> list[str]:
        """Give the lines of its head."""
        return self._lines(self._columns[: self._beside])

    def row(self, cells: Sequence[str]) -> list[str]:
        """Give the lines of a row."""
        cells = [visible(cell) for cell in cells]
        lines = self._lines(cells[: self._beside])
        below = zip(self._columns[self._beside :], cells[self._beside :], strict=True)
        for text in (f"{name}: {cell}" for name, cell in below if cell):
            lines += [f"  {piece}" for piece in folded(text, (self._screen or 0) - 2)]
        return lines

    def _lines(self, cells: Sequence[str]) -> list[str]:
        if self._screen is None:
            return ["  ".join(f"{cell:<{width}}" for cell, width in zip(cells, self._widths, strict=True)).rstrip()]
        lines = [""]
        for start, cell in zip(self._starts, cells, strict=False):
            pieces = [cell]
            if len(cells) == len(self._columns) and start == self._starts[-1]:
                pieces = folded(cell, self._screen - start)
            if any(start + cell_len(piece) > self._screen for piece in pieces):
                start, pieces = min(start, 2), folded(cell, self._screen - 2)
            for piece in filter(None, pieces):
                if lines[-1] and cell_len(lines[-1]) + 2 > start:
                    lines.append("")
                lines[-1] = set_cell_size(lines[-1], start) + piece
        return lines
