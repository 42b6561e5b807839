"""The service's answers as both transports give them, and what both read in the same way."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """A successful answer: its members as the service names them, the request id, and the server's time."""

    members: Mapping[str, Any]
    request_id: str | None
    date: datetime | None = None


def parse_date(value: str | None) -> datetime | None:
    """Read an HTTP date (RFC 9110, section 5.6.7)."""
    try:
        return None if value is None else parsedate_to_datetime(value).astimezone(UTC)
    except (ValueError, TypeError, OverflowError):
        return None


def parse_retry_after(value: str | None) -> float | None:
    """Read a `Retry-After` header in seconds from now: a number, or a date (RFC 9110, section 10.2.3)."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        date = parse_date(value)
        return None if date is None else max(0.0, (date - datetime.now(UTC)).total_seconds())
    return max(0.0, seconds) if math.isfinite(seconds) else None
