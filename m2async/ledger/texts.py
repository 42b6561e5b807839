"""Texts that go into a ledger: checked where they name a row, mended where they only explain."""

from __future__ import annotations

from m2async.errors import InvalidRequestError
from m2async.service import KEY_RULE, is_key

CRASH_CODE = "Crash"
CRASH_MESSAGE = "the process ended while the call was under way"


def check_key(key: str) -> str:
    """Refuse what no manifest would take for a key."""
    if not is_key(key):
        raise InvalidRequestError("key", key, KEY_RULE)
    return key


def clean(text: str) -> str:
    """Replace what a database's text cannot hold: halves of surrogate pairs, and NUL."""
    if text.isascii() and "\0" not in text:
        return text
    return text.encode(errors="replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
