"""What a request's path, query and body say, checked as the service's model says.

Source of the rules: the shape that is named beside each of them in botocore's `m2/2021-04-28/service-2.json`.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs

import msgspec

from m2async.errors import InvalidRequestError
from m2async.local.execution import STATUSES
from m2async.local.refusals import invalid, unreadable
from m2async.service import StartBatchJob, check_identifier

_MAX_RESULTS = 2_000  # MaxResults
_DEFAULT_RESULTS = 100
_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")  # RFC 3339


class Query:
    """The query of a request; every reader gives None for what is not there and raises ValidationException."""

    def __init__(self, text: str) -> None:
        self._values = parse_qs(text, keep_blank_values=True) if text else {}

    def text(self, name: str) -> str | None:
        """Read a String."""
        values = self._values.get(name)
        return None if values is None else values[0]

    def matching(self, name: str, pattern: str) -> str | None:
        """Read a text with a pattern, such as String100."""
        text = self.text(name)
        if text is not None and not re.fullmatch(pattern, text):
            raise invalid(name, f"must match {pattern}")
        return text

    def matching_list(self, name: str, pattern: str) -> Sequence[str] | None:
        """Read a list of 1 to 10 texts with a pattern (IdentifierList, EntityNameList)."""
        values = self._values.get(name)
        if values is None:
            return None
        if len(values) > 10:
            raise invalid(name, f"must have at most 10 members, not {len(values)}")
        if not all(re.fullmatch(pattern, value) for value in values):
            raise invalid(name, f"each must match {pattern}")
        return values

    def status(self) -> str | None:
        """Read `status` (BatchJobExecutionStatus)."""
        status = self.text("status")
        if status is not None and status not in STATUSES:
            raise invalid("status", f"must be one of {', '.join(STATUSES)}")
        return status

    def time(self, name: str) -> float | None:
        """Read a Timestamp, in seconds of the epoch; in a query it is a date-time of RFC 3339."""
        text = self.text(name)
        if text is None:
            return None
        try:
            if _DATE_TIME.fullmatch(text):
                return datetime.fromisoformat(text.upper()).timestamp()
        except (ValueError, OverflowError):
            pass
        raise invalid(name, "must be a date and time such as 2026-11-23T18:00:00Z")

    def max_results(self) -> int:
        """Read `maxResults` (MaxResults)."""
        text = self.text("maxResults")
        if text is None:
            return _DEFAULT_RESULTS
        if not re.fullmatch(r"[0-9]{1,4}", text) or not 1 <= int(text) <= _MAX_RESULTS:
            raise invalid("maxResults", f"must be an integer from 1 to {_MAX_RESULTS:,}")
        return int(text)

    def position(self) -> int | None:
        """Read `nextToken`, as `next_token` made it."""
        token = self.text("nextToken")
        if token is None:
            return None
        try:
            position = base64.b64decode(token, b"-_", validate=True)
        except ValueError:  # not of the alphabet, or of another length
            position = b""
        if not position.isdigit():
            raise invalid("nextToken", "is not a token of this endpoint")
        return int(position)

    def check_secret(self) -> None:
        """Check `authSecretsManagerArn`."""
        _check_secret(self.text("authSecretsManagerArn"))


def next_token(position: int | None) -> dict[str, str]:
    """Make the `nextToken` member of an answer, if there is a next page."""
    return {} if position is None else {"nextToken": base64.urlsafe_b64encode(f"{position:012}".encode()).decode()}


def read_identifier(name: str, text: str) -> str:
    """Check an Identifier of the path."""
    try:
        check_identifier(name, text)
    except InvalidRequestError as exc:
        raise invalid(name, exc.rule) from exc
    return text


def read_start(application_id: str, body: bytes) -> StartBatchJob:
    """Read a StartBatchJobRequest."""
    try:
        return StartBatchJob.from_api({**_json(body), "applicationId": application_id})
    except InvalidRequestError as exc:
        raise invalid(_member(exc.field), exc.rule) from exc


def read_cancel(body: bytes) -> None:
    """Check a CancelBatchJobExecutionRequest."""
    _check_secret(_json(body).get("authSecretsManagerArn") if body else None)


def _json(body: bytes) -> Mapping[str, Any]:
    try:
        content = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as exc:
        raise unreadable(f"The request's body is not JSON: {exc}") from exc
    if not isinstance(content, dict):
        raise unreadable("The request's body must be a JSON object.")
    return content


def _check_secret(arn: object) -> None:
    if arn is not None and not (isinstance(arn, str) and 20 <= len(arn) <= 2_048):  # AuthSecretsManagerArn
        raise invalid("authSecretsManagerArn", "must be a text of 20 to 2,048 characters")


def _member(field: str) -> str:
    """Give the service's name of a member that StartBatchJob calls by its own."""
    first, dot, rest = field.removeprefix("request.").partition(".")
    words = {"params": "job_params"}.get(first, first).split("_")
    return words[0] + "".join(word.capitalize() for word in words[1:]) + dot + rest


class _QuotaSetting(msgspec.Struct):
    rate: float
    burst: float


def read_quota(body: bytes) -> tuple[float, float]:
    """Read the rate and burst that `POST /_local/quota` sets."""
    try:
        quota = msgspec.json.decode(body, type=_QuotaSetting)
    except msgspec.MsgspecError as exc:
        raise unreadable(f'The body must be like {{"rate": 20, "burst": 40}}: {exc}') from exc
    return quota.rate, quota.burst
