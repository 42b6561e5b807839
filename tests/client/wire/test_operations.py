from __future__ import annotations

import json
import time
from collections.abc import Coroutine, Mapping
from datetime import UTC, datetime, timedelta, timezone
from functools import cache
from typing import Any
from unittest import mock
from urllib.parse import parse_qsl

import pytest
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from botocore.session import Session
from hypothesis import given, settings
from hypothesis import strategies as st

from m2async import InvalidRequestError
from m2async.client.wire.http11 import Response
from m2async.client.wire.operations import OPERATIONS, encode
from m2async.client.wire.sigv4 import Credentials, Scope
from m2async.client.wire.transport import WireTransport
from tests import model
from tests.client.wire.test_sigv4 import Sent, awkward_identifiers, read, signed_by_botocore
from tests.service.test_requests import identifiers, requests

CREDENTIALS = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "a+token/of=a//session==")
URL = "https://m2.us-east-1.amazonaws.com"


class Wire:
    """Credentials and connections of a WireTransport: keeps what would be sent, and answers `{}` at once."""

    may_change = False

    def check_here(self) -> None:
        """It needs no event loop."""

    def __init__(self, credentials: Credentials) -> None:
        self.credentials = credentials
        self.sent: list[Sent] = []

    async def current(self) -> Credentials:
        return self.credentials

    async def renewed(self, expired: Credentials) -> Credentials:
        raise NotImplementedError

    def take_nowait(self) -> Wire:
        return self

    async def exchange(self, request: bytes) -> Response:
        self.sent.append(read(request))
        return Response(200, [], b"{}", keep_alive=True)


def sent_by_us(operation: str, members: Mapping[str, Any], url: str = URL) -> Sent:
    wire = Wire(CREDENTIALS)
    transport = WireTransport(url, "us-east-1", wire, wire)  # type: ignore[arg-type]
    at_once(transport.call(operation, members))
    [sent] = wire.sent
    return sent


def at_once(coroutine: Coroutine[Any, Any, Any]) -> None:
    """Run a coroutine that waits for nothing."""
    with pytest.raises(StopIteration):
        coroutine.send(None)


@cache
def botocore_client() -> tuple[Any, list[Any]]:
    """A client of botocore's, and what it would have sent."""
    sent: list[Any] = []

    class Body:
        def stream(self) -> list[bytes]:
            return [b"{}"]

    def keep(request: Any, **_: object) -> Any:
        sent.append(request)
        headers: Any = {}
        return AWSResponse(request.url, 200, headers, Body())

    session: Any = Session()
    client = session.create_client(
        "m2",
        region_name="us-east-1",
        aws_access_key_id=CREDENTIALS.access_key,
        aws_secret_access_key=CREDENTIALS.secret_key,
        aws_session_token=CREDENTIALS.token,
        config=Config(retries={"total_max_attempts": 1}),
    )
    client.meta.events.register("before-send.m2", keep)
    return client, sent


def sent_by_botocore(operation: str, members: Mapping[str, Any]) -> Any:
    client, sent = botocore_client()
    sent.clear()
    methods = {name: method for method, name in client.meta.method_to_api_mapping.items()}
    getattr(client, methods[operation])(**members)
    [request] = sent
    return request


# Members drawn from the model: a shape that is new to it is missed here.
offsets = st.timedeltas(timedelta(hours=-14), timedelta(hours=14))
time_zones: st.SearchStrategy[Any] = st.none() | st.just(UTC) | st.builds(timezone, offsets)
times = st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1), timezones=time_zones)
reserved = st.sampled_from(["=", "a=b&c=d", "a+b/c==", "%20", "%", "é", "#?", "'()*!", "\U0001f600", ";", '"<>', "~"])
visible = st.from_regex(r"\S{1,20}", fullmatch=True) | reserved
texts = st.text(max_size=20) | st.sampled_from(["", " ", "a b", "\r\nx-evil: 1", "\x00"]) | reserved
any_identifier = identifiers | awkward_identifiers
entity_names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_\-]{1,59}", fullmatch=True)
jobs = requests.map(lambda request: request.to_api()["batchJobIdentifier"])
OF_SHAPE: dict[str, st.SearchStrategy[Any]] = {
    "Identifier": any_identifier,
    "IdentifierList": st.lists(any_identifier, min_size=1, max_size=10),
    "EntityNameList": st.lists(entity_names, min_size=1, max_size=10),
    "AuthSecretsManagerArn": st.text(min_size=20, max_size=40),
    "BatchJobIdentifier": jobs,
    "BatchJobParametersMap": requests.map(lambda request: dict(request.params)),
    "BatchJobExecutionStatus": st.sampled_from(["Succeeded With Warning", "Running"]),
    "MaxResults": st.integers(1, 2_000),
    "NextToken": visible,
    "String": texts,
    "String100": visible,
    "Timestamp": times | times.map(lambda instant: instant.replace(microsecond=0)),
}


def input_shape(operation: str) -> Any:
    return model.service().operation_model(operation).input_shape


def members_of(operation: str) -> st.SearchStrategy[dict[str, Any]]:
    shape = input_shape(operation)
    known = {name: OF_SHAPE[member.name] for name, member in shape.members.items()}
    required = {name: known.pop(name) for name in shape.required_members}
    drawn = st.fixed_dictionaries(required, optional=known)
    return drawn.flatmap(lambda members: st.permutations(list(members.items())).map(dict))


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_whole_request_is_what_botocores_client_sends(operation: str) -> None:
    @settings(max_examples=60)
    @given(members_of(operation), st.integers(0, 2**32))
    def check(members: dict[str, Any], second: int) -> None:
        now = datetime.fromtimestamp(second, UTC).replace(tzinfo=None)
        with (
            mock.patch("m2async.client.wire.transport.time", return_value=second + 0.9),
            mock.patch("botocore.auth.get_current_datetime", return_value=now),
        ):
            ours, theirs = sent_by_us(operation, members), sent_by_botocore(operation, members)
        signed = {name: theirs.headers[name] for name in ours.signed_headers if name != "host"}

        assert (ours.method, f"https://{ours.headers['host']}{ours.uri}") == (theirs.method, theirs.url)
        assert f"SignedHeaders={';'.join(ours.signed_headers)}, " in theirs.headers["Authorization"].decode()
        assert {name: ours.headers[name] for name in signed} == {name: text(value) for name, value in signed.items()}
        if theirs.body:
            assert json.loads(ours.body) == json.loads(theirs.body)
            again = {name: text(value) for name, value in signed.items() if not name.startswith("x-amz")}
            theirs = signed_by_botocore(theirs.url, ours, CREDENTIALS, Scope("us-east-1", "m2"), second, again)
        else:
            assert ours.body == b""
        assert ours.headers["authorization"] == text(theirs.headers["Authorization"])

    check()


def text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode()


@pytest.mark.parametrize("operation", OPERATIONS)
def test_each_operation_has_the_methods_paths_and_members_of_the_model(operation: str) -> None:
    method, path, query, body = OPERATIONS[operation]
    http = model.service().operation_model(operation).http
    assert (method, path) == (http["method"], http["requestUri"])
    places: dict[str | None, set[str]] = {"uri": set(), "querystring": set(), None: set()}
    for name, member in input_shape(operation).members.items():
        assert member.serialization.get("name", name) == name
        places[member.serialization.get("location")].add(name)
    assert (set(query), set(body)) == (places["querystring"], places[None])
    assert all(f"{{{label}}}" in path for label in places["uri"])


@pytest.mark.parametrize("operation", OPERATIONS)
def test_each_member_is_found_again_in_its_place_alone(operation: str) -> None:
    @given(members_of(operation))
    def check(members: dict[str, Any]) -> None:
        _, path, query, body = encode(operation, members)
        in_query = {name for name, _ in parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))}
        in_body = set(json.loads(body)) if body is not None else set()
        labels = {name for name in members if f"{{{name}}}" in OPERATIONS[operation].path}
        assert labels | in_query | in_body == members.keys()
        assert len(labels) + len(in_query) + len(in_body) == len(members)
        assert path.count("/") == OPERATIONS[operation].path.count("/")
        assert "?" not in path
        assert "#" not in path + query

    check()


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_member_that_the_operation_does_not_have_is_refused(operation: str) -> None:
    labels = {name: "x" for name in ("applicationId", "executionId") if f"{{{name}}}" in OPERATIONS[operation].path}
    others = {name for each in OPERATIONS for name in input_shape(each).members} - input_shape(operation).members.keys()
    for name in (*others, "surplus"):
        with pytest.raises(InvalidRequestError, match=rf"{operation}\.{name}: "):
            encode(operation, {**labels, name: "x"})


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_label_that_is_missing_is_named(operation: str) -> None:
    labels = {name: "x" for name in ("applicationId", "executionId") if f"{{{name}}}" in OPERATIONS[operation].path}
    for missing in labels:
        for rest in ({**labels, missing: None}, {name: "x" for name in labels if name != missing}):
            with pytest.raises(InvalidRequestError, match=rf"{operation}\.{missing}: None: is required"):
                encode(operation, rest)


def test_none_counts_as_absent() -> None:
    absent = dict.fromkeys(("jobName", "startedAfter", "nextToken", "executionIds"))
    assert encode("ListBatchJobExecutions", {"applicationId": "a", **absent}).query == ""
    cancel = {"applicationId": "a", "executionId": "e", "authSecretsManagerArn": None}
    assert encode("CancelBatchJobExecution", cancel).body == b"{}"


def test_a_time_without_a_time_zone_is_in_utc_wherever_the_machine_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    naive = datetime(2026, 11, 23, 12, 30)
    elsewhere = naive.replace(tzinfo=timezone(timedelta(hours=5, minutes=30)))
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        queries = [
            encode("ListBatchJobExecutions", {"applicationId": "a", "startedAfter": instant}).query
            for instant in (naive, elsewhere)
        ]
    time.tzset()
    assert queries == ["startedAfter=2026-11-23T12%3A30%3A00Z", "startedAfter=2026-11-23T07%3A00%3A00Z"]


@pytest.mark.parametrize("items", [["a", "b c"], ("a", "b c")])
def test_each_item_of_a_list_is_a_pair_of_its_own(items: object) -> None:
    assert encode("ListApplications", {"names": items}).query == "names=a&names=b%20c"


@pytest.mark.parametrize(
    ("operation", "members"),
    [
        ("GetApplication", {"applicationId": "\ud800"}),
        ("ListBatchJobDefinitions", {"applicationId": "a", "prefix": "\ud800"}),
        ("CancelBatchJobExecution", {"applicationId": "a", "executionId": "e", "authSecretsManagerArn": "\ud800"}),
    ],
)
def test_half_of_a_surrogate_pair_is_refused_as_invalid(operation: str, members: dict[str, str]) -> None:
    with pytest.raises(InvalidRequestError, match="surrogate"):
        encode(operation, members)
