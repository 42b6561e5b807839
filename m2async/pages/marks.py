"""How pages show states and results: a word, a mark and a kind of colour, so that none is told by colour alone."""

from __future__ import annotations

from typing import NamedTuple


class Mark(NamedTuple):
    """A state in a word and a sign; `kind` is a colour's name in `style.css`, behind `is-`."""

    word: str
    sign: str
    kind: str


STATES = {
    "pending": Mark("pending", "○", "pending"),
    "intent": Mark("in flight", "◐", "open"),
    "started": Mark("started", "●", "started"),
    "rejected": Mark("rejected", "✕", "bad"),
    "unknown": Mark("unknown", "?", "unknown"),
}
"""States of a row, by their labels."""

RESULTS = {
    "success": Mark("succeeded", "✓", "good"),
    "failure": Mark("failed", "✕", "bad"),
    "open": Mark("open", "…", "open"),
}
"""Results of an execution, by their values."""
