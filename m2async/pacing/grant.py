"""What a token that was handed out is remembered by."""

from __future__ import annotations

from typing import NamedTuple


class Grant(NamedTuple):
    """A token that was handed out: its number, counted up from 1, when, and the rate that held then."""

    number: int
    at: float
    rate: float
