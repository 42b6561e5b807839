"""How each operation's members go into a request: method, path, query and JSON body (rest-json).

Source: botocore's model of the service, `m2/2021-04-28/service-2.json`; a test holds each operation
against what botocore sends.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec

from m2async.errors import InvalidRequestError


class Operation(NamedTuple):
    """A method, a path with labels, and which other members go into the query and which into the body."""

    method: str
    path: str
    query: tuple[str, ...] = ()
    body: tuple[str, ...] = ()


_EXECUTION = "/applications/{applicationId}/batch-job-executions/{executionId}"
_LABELS = ("applicationId", "executionId")
_PAGE = ("maxResults", "nextToken")
OPERATIONS: Mapping[str, Operation] = {
    "StartBatchJob": Operation(
        "POST",
        "/applications/{applicationId}/batch-job",
        body=("batchJobIdentifier", "jobParams", "authSecretsManagerArn"),
    ),
    "GetBatchJobExecution": Operation("GET", _EXECUTION),
    "CancelBatchJobExecution": Operation("POST", f"{_EXECUTION}/cancel", body=("authSecretsManagerArn",)),
    "ListBatchJobRestartPoints": Operation("GET", f"{_EXECUTION}/steps", ("authSecretsManagerArn",)),
    "ListBatchJobExecutions": Operation(
        "GET",
        "/applications/{applicationId}/batch-job-executions",
        ("executionIds", "jobName", "startedAfter", "startedBefore", "status", *_PAGE),
    ),
    "ListBatchJobDefinitions": Operation(
        "GET", "/applications/{applicationId}/batch-job-definitions", ("prefix", *_PAGE)
    ),
    "GetApplication": Operation("GET", "/applications/{applicationId}"),
    "ListApplications": Operation("GET", "/applications", ("names", "environmentId", *_PAGE)),
}


class EncodedRequest(NamedTuple):
    """A request before it is signed; the body of a GET is None."""

    method: str
    path: str
    query: str
    body: bytes | None


def encode(operation: str, members: Mapping[str, Any]) -> EncodedRequest:
    """Put an operation's members where they belong; None counts as absent.

    Raises InvalidRequestError for a member that the operation does not have, for a label that is missing,
    and for a text that is not valid Unicode.
    """
    method, path, in_query, in_body = OPERATIONS[operation]
    members = {name: value for name, value in members.items() if value is not None}
    labels = tuple(label for label in _LABELS if f"{{{label}}}" in path)
    for name in members:
        if name not in labels and name not in in_query and name not in in_body:
            raise InvalidRequestError(f"{operation}.{name}", members[name], "is no member of this operation")
    for label in labels:
        if label not in members:
            raise InvalidRequestError(f"{operation}.{label}", None, "is required")
    try:
        path = path.format_map({label: _quote(members[label]) for label in labels})
        query = "&".join(
            f"{name}={_quote(value)}" for name in members if name in in_query for value in _texts(members[name])
        )
        if method == "GET":
            return EncodedRequest(method, path, query, None)
        body = msgspec.json.encode({name: members[name] for name in members if name in in_body})
    except UnicodeEncodeError as exc:
        rule = "must be valid Unicode (it holds half of a surrogate pair)"
        raise InvalidRequestError(operation, exc.object, rule) from None
    return EncodedRequest(method, path, query, body)


def _quote(text: str) -> str:
    return quote(text, safe="-._~")


def _texts(value: Any) -> Iterator[str]:
    """A member's value as it goes into the query: a list as one pair for each of its items."""
    if isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, datetime):
        # One without a time zone is in UTC, as it is for botocore.
        utc = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        yield utc.strftime("%Y-%m-%dT%H:%M:%S.%fZ" if utc.microsecond else "%Y-%m-%dT%H:%M:%SZ")
    else:
        yield str(value)
