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


class Operation(NamedTuple):
    """A method, a path with labels, and which members go into the query; the others go into the body."""

    method: str
    path: str
    query: tuple[str, ...] = ()


_EXECUTION = "/applications/{applicationId}/batch-job-executions/{executionId}"
_PAGE = ("maxResults", "nextToken")
OPERATIONS: Mapping[str, Operation] = {
    "StartBatchJob": Operation("POST", "/applications/{applicationId}/batch-job"),
    "GetBatchJobExecution": Operation("GET", _EXECUTION),
    "CancelBatchJobExecution": Operation("POST", f"{_EXECUTION}/cancel"),
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
    """Put an operation's members where they belong."""
    method, path, in_query = OPERATIONS[operation]
    rest = dict(members)
    labels = {label: rest.pop(label) for label in ("applicationId", "executionId") if f"{{{label}}}" in path}
    path = path.format_map({label: quote(value, safe="-._~") for label, value in labels.items()})
    query = "&".join(
        f"{quote(name, safe='-._~')}={quote(value, safe='-._~')}"
        for name in rest
        if name in in_query
        for value in _texts(rest[name])
    )
    if method == "GET":
        return EncodedRequest(method, path, query, None)
    return EncodedRequest(method, path, query, msgspec.json.encode(rest))


def _texts(value: Any) -> Iterator[str]:
    """A member's value as it goes into the query: a list as one pair for each of its items."""
    if isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, datetime):
        utc = value.astimezone(UTC)
        yield utc.strftime("%Y-%m-%dT%H:%M:%S.%fZ" if utc.microsecond else "%Y-%m-%dT%H:%M:%SZ")
    else:
        yield str(value)
