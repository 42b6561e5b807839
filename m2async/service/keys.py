"""A job's key: its name in manifests, ledgers and output, which tells a repetition from another job."""

from __future__ import annotations


class RowNumber(str):
    """The key of a row that was given none: its number, which says where it stands and not which job it is."""

    __slots__ = ()


MAX_KEY = 512
"""Characters of a key: it is an index entry of every ledger and one cell of every table."""

KEY_RULE = f"must have 1 to {MAX_KEY} printable characters"
"""What a message says of a text that is no key."""


def is_key(value: object) -> bool:
    """Whether a value can be a key."""
    return isinstance(value, str) and 0 < len(value) <= MAX_KEY and value.isprintable()
