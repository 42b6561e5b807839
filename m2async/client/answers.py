"""The service's answers as both transports give them, and what both read in the same way."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec

from m2async.client.wire.http11 import Response
from m2async.clock import ServiceClock
from m2async.errors import M2ServiceException, UnreadableAnswerError, service_exception

_FAR = 86_400.0
"""Seconds: no service takes a signature that is a day off."""


class Answer(NamedTuple):
    """A successful answer: its members as the service names them, and the request id."""

    members: Mapping[str, Any]
    request_id: str | None


def read_answer(response: Response) -> Answer:
    """Read a successful answer: a JSON object, or nothing. Raises UnreadableAnswerError."""
    members = read_json(response.body) if response.body else {}
    if not isinstance(members, dict):
        raise UnreadableAnswerError("the answer cannot be read: it is no JSON object")
    return Answer(members, response.header(b"x-amzn-requestid"))


def read_clock(clock: ServiceClock, response: Response, sent_at: float) -> bool:
    """Read the service's clock off the answer to a request of this local time; tells whether it has its date.

    A service does what was asked for only if the signature's date is near to its own. So a date that is far from what
    is known by then is of something else, unless it comes with an error.
    """
    date = parse_date(response.header(b"date"))
    if date is None:
        return False
    ahead = date.timestamp() - sent_at - (clock.offset or 0.0)
    if abs(ahead) > _FAR and response.status < HTTPStatus.MULTIPLE_CHOICES:
        return False
    clock.read(date.timestamp(), sent_at, clock.local_time())
    return True


def read_json(body: bytes) -> Any:
    """Read JSON; raises UnreadableAnswerError."""
    try:
        return msgspec.json.decode(body)
    except NO_JSON as exc:
        raise UnreadableAnswerError(f"the answer cannot be read: {exc}") from exc


def read_error(response: Response) -> M2ServiceException:
    """Read an error answer: its name is in a header or in the body (rest-json)."""
    try:
        body: Any = msgspec.json.decode(response.body)
    except NO_JSON:
        body = None
    members: dict[str, Any] = body if isinstance(body, dict) else {}
    code = response.header(b"x-amzn-errortype") or members.get("code") or members.get("__type") or response.status
    message = members.get("message") or members.get("Message") or _phrase(response.status)
    return service_exception(
        str(code),
        str(message),
        http_status=response.status,
        request_id=response.header(b"x-amzn-requestid"),
        retry_after=parse_retry_after(response.header(b"retry-after"), response.header(b"date")),
        details={name: value for name, value in members.items() if name not in _READ_ALREADY},
    )


def no_execution_id(value: object) -> UnreadableAnswerError:
    """The error of an answer whose execution id can be none."""
    return UnreadableAnswerError(
        "the answer cannot be read: its executionId is invalid" if value else "the answer holds no executionId"
    )


NO_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are not JSON, not UTF-8, or nested without end."""

_READ_ALREADY = frozenset({"message", "Message", "code", "__type"})


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"HTTP status {status}"


def parse_date(value: str | None) -> datetime | None:
    """Read an HTTP date (RFC 9110, section 5.6.7)."""
    if value is None or not value.isascii():
        return None
    try:
        return parsedate_to_datetime(value).astimezone(UTC)
    except Exception:  # noqa: BLE001 - it is no date, whatever the reading of it stumbles over
        return None


def parse_retry_after(value: str | None, answered: str | None = None) -> float | None:
    """Read a `Retry-After` header in seconds: a number, or a date (RFC 9110, section 10.2.3).

    A date is one of the service's clock, which `answered`, the `Date` of the same answer, tells; without that it is
    taken for one of the local clock. Whatever is neither is as none.
    """
    if value is None:
        return None
    if _SECONDS.fullmatch(value.strip()):
        seconds = float(value)
        return seconds if math.isfinite(seconds) else None
    until = parse_date(value)
    return None if until is None else max(0.0, (until - (parse_date(answered) or datetime.now(UTC))).total_seconds())


_SECONDS = re.compile(r"[0-9]+(\.[0-9]+)?")
