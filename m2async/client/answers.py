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

from m2async.client.strangers import members_of, phrase, seen_of_a_stranger
from m2async.client.wire.http11 import Response
from m2async.clock import ServiceClock
from m2async.errors import M2ServiceException, UnreadableAnswerError, service_exception
from m2async.service import is_execution_id

_FAR = 86_400.0
"""Seconds: no service takes a signature that is a day off."""


class Answer(NamedTuple):
    """A successful answer: its members as the service names them, and the request id."""

    members: Mapping[str, Any]
    request_id: str | None


def read_answer(operation: str, response: Response) -> Answer:
    """Read a successful answer: a JSON object, or nothing. Raises UnreadableAnswerError."""
    try:
        members = msgspec.json.decode(response.body) if response.body else {}
        if not isinstance(members, dict):
            raise ValueError("it is no JSON object")
    except Exception as exc:
        raise unreadable(operation, exc, response) from exc
    return Answer(members, response.header(b"x-amzn-requestid"))


def unreadable(
    operation: str, exc: Exception, response: Response | None = None, sent: bytes = b""
) -> UnreadableAnswerError:
    """The error of an answer that cannot be read, whatever its reading stumbled over.

    `sent` is the body of the request, of which nothing is shown.
    """
    why = _why(exc)
    error = UnreadableAnswerError(f"the answer to {operation} cannot be read: {why}")
    if isinstance(exc, UnreadableAnswerError):  # what came is no HTTP
        error.not_the_service = why
    elif response is not None and (seen := seen_of_a_stranger(response, sent)) is not None:
        error.message = f"{error.message}; it is not the service's: {seen}"
        error.args = (error.message,)
        error.not_the_service = seen
    return error


def _why(exc: Exception) -> str:
    """What an exception says, in short and on one line."""
    try:
        said = " ".join(str(exc).split()).removeprefix("the answer cannot be read: ")
    except Exception:  # noqa: BLE001 - one that was made of nothing may not be able to say anything
        said = ""
    if not isinstance(exc, ValueError | msgspec.MsgspecError | UnreadableAnswerError) or not said:
        said = f"{type(exc).__name__}: {said}".removesuffix(": ")
    return "".join(each if each.isprintable() else "?" for each in _shortened(said, _MOST_REASON))


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


_MOST_REASON = 200
_MOST_MESSAGE = 2_000
"""Characters that are kept of what was said: it goes into the ledger, to terminals and into logs."""


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


def read_error(operation: str, response: Response, sent: bytes = b"") -> M2ServiceException:
    """Read an error answer: its name is in a header or in the body (rest-json)."""
    members = members_of(response)
    code = response.header(b"x-amzn-errortype") or members.get("code") or members.get("__type") or response.status
    message = (
        members.get("message") or members.get("Message") or phrase(response.status) or f"HTTP status {response.status}"
    )
    seen = seen_of_a_stranger(response, sent)
    if seen is not None:
        message = f"what answered {operation} is not the service: {seen}"
    error = service_exception(
        _shortened(str(code), _MOST_REASON),
        _shortened(str(message), _MOST_MESSAGE),
        http_status=response.status,
        request_id=response.header(b"x-amzn-requestid"),
        retry_after=parse_retry_after(response.header(b"retry-after"), response.header(b"date")),
        details={name: value for name, value in members.items() if name not in _READ_ALREADY},
    )
    error.not_the_service = seen
    return error


def checked_execution_id(value: object) -> str:
    """The execution id that an answer holds; raises ValueError for what can be none."""
    if not isinstance(value, str) or not is_execution_id(value):
        raise ValueError("its executionId is invalid" if value else "it holds no executionId")
    return value


_READ_ALREADY = frozenset({"message", "Message", "code", "__type"})


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
