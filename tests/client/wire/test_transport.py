from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiobotocore.credentials import AioCredentialResolver, AioCredentials, AioRefreshableCredentials
from aiobotocore.session import AioSession
from botocore.exceptions import CredentialRetrievalError

from m2async import (
    AccessDeniedException,
    CallError,
    ConfigurationError,
    ConflictException,
    CredentialsError,
    ExpiredTokenException,
    LocalEndpoint,
    M2Client,
    M2ServiceException,
    ResourceNotFoundException,
    ScriptJob,
    StartBatchJob,
    StartBatchJobResponse,
    ThrottlingException,
    UnreadableAnswerError,
    ValidationException,
)
from m2async.client.settings import SessionCredentials
from m2async.client.wire.pool import Connection, Pool
from m2async.client.wire.sigv4 import Credentials, Scope
from m2async.client.wire.transport import CredentialsSource, WireTransport
from m2async.errors import AuthenticationException
from tests.client.wire.test_operations import Wire, at_once
from tests.client.wire.test_sigv4 import Sent, read, signed_by_botocore
from tests.scripted import ScriptedServer, Step, answer, error, scripted, started

APPLICATION = "carddemolocalapplication23"
REQUEST = StartBatchJob(APPLICATION, ScriptJob("POSTTRAN"), {"RUNDATE": "20261123"})
OLD, NEW = Credentials("OLD", "OLD", "old-token"), Credentials("NEW", "NEW", "new-token")


class Source:
    """Gives credentials as it is told, and counts how often it was asked."""

    def __init__(self, current: Credentials = OLD, *, may_change: bool = False) -> None:
        self.credentials = current
        self.may_change = may_change
        self.asked = 0

    async def current(self) -> Credentials:
        self.asked += 1
        return self.credentials

    async def renewed(self, expired: Credentials) -> Credentials:
        raise NotImplementedError


class Provider:
    """A credential provider of aiobotocore's that gives the next set each time it is asked; the last one for ever."""

    METHOD = CANONICAL_NAME = "test"

    def __init__(self, *sets: Credentials | Exception) -> None:
        self._sets = list(sets)
        self.asked = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def load(self) -> AioCredentials:
        self.asked += 1
        await self.gate.wait()
        given = self._sets.pop(0) if len(self._sets) > 1 else self._sets[0]
        if isinstance(given, Exception):
            raise given
        return AioCredentials(*given, method="test")

    async def source(self) -> SessionCredentials:
        session = AioSession()
        providers: list[Any] = [self]
        session.register_component("credential_provider", AioCredentialResolver(providers))
        return SessionCredentials(session, await session.get_credentials())


@contextlib.asynccontextmanager
async def wire(url: str, source: CredentialsSource, max_connections: int = 64) -> AsyncIterator[WireTransport]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    pool = Pool(
        parts.hostname, parts.port, tls=None, max_connections=max_connections, connect_timeout=60, read_timeout=60
    )
    transport = WireTransport(url, "us-east-1", source, pool)
    try:
        yield transport
    finally:
        await transport.aclose()


@pytest.fixture
def exchanges(monkeypatch: pytest.MonkeyPatch) -> list[Sent]:
    """Every request that goes out on any connection."""
    sent: list[Sent] = []
    exchange = Connection.exchange

    def keep(self: Connection, request: bytes) -> Any:
        sent.append(read(request))
        return exchange(self, request)

    monkeypatch.setattr(Connection, "exchange", keep)
    return sent


class Clock:
    """The machine's clock, as the transport reads it."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock(1_800_000_000.25)
    monkeypatch.setattr("m2async.client.wire.transport.time", clock)
    return clock


def key_of(sent: Sent) -> str:
    return sent.headers["authorization"].partition("Credential=")[2].partition("/")[0]


def refusing(server: Callable[[], ScriptedServer], refused: Credentials, refusal: Step) -> Step:
    """Refuse what is signed with one credential set, start what is signed with another."""

    async def step(writer: asyncio.StreamWriter) -> None:
        latest = read(server().requests[-1])
        await (refusal if key_of(latest) == refused.access_key else started())(writer)

    return step


# Expired tokens

EXPIRED = error(403, "ExpiredTokenException")


async def test_an_expired_token_is_renewed_once_for_all_callers_and_every_request_succeeds() -> None:
    provider = Provider(OLD, NEW)
    async with scripted(refusing(lambda: server, OLD, EXPIRED)) as server:
        async with wire(server.url, await provider.source()) as transport:
            responses = await asyncio.gather(*(transport.start_batch_job(REQUEST) for _ in range(20)))
            assert responses == [StartBatchJobResponse("e-1", "r-1")] * 20
            await transport.call("GetApplication", {"applicationId": APPLICATION})
    keys = [key_of(read(request)) for request in server.requests]
    assert keys.count("OLD") == 20
    assert keys.count("NEW") == 21
    assert all(read(r).headers["x-amz-security-token"] == "new-token" for r in server.requests[-20:])
    assert provider.asked == 2


async def test_a_refusal_that_arrives_after_the_renewal_leads_to_no_other_renewal() -> None:
    provider = Provider(OLD, NEW, Credentials("NEVER", "NEVER"))
    late = asyncio.Event()

    async def refuse_late(writer: asyncio.StreamWriter) -> None:
        await late.wait()
        await EXPIRED(writer)

    async with scripted(refuse_late, EXPIRED, started("first"), started("second")) as server:
        async with wire(server.url, await provider.source()) as transport:
            second = asyncio.ensure_future(transport.start_batch_job(REQUEST))
            await server.arrived.wait()
            assert (await transport.start_batch_job(REQUEST)).execution_id == "first"
            late.set()
            assert (await second).execution_id == "second"
    assert [key_of(read(request)) for request in server.requests] == ["OLD", "OLD", "NEW", "NEW"]
    assert provider.asked == 2


async def test_without_new_credentials_the_error_is_raised_and_nothing_is_sent_again() -> None:
    provider = Provider(OLD)
    async with scripted(EXPIRED) as server, wire(server.url, await provider.source()) as transport:
        with pytest.raises(ExpiredTokenException):
            await transport.start_batch_job(REQUEST)
        with pytest.raises(ExpiredTokenException):
            await transport.call("ListApplications", {})
        assert len(server.requests) == 2
    assert provider.asked == 3


async def test_a_renewal_that_fails_is_a_matter_of_credentials_and_nothing_is_sent_again() -> None:
    provider = Provider(OLD, CredentialRetrievalError(provider="test", error_msg="the vault is sealed"))
    async with scripted(EXPIRED) as server, wire(server.url, await provider.source()) as transport:
        with pytest.raises(CredentialsError, match="the vault is sealed") as caught:
            await transport.start_batch_job(REQUEST)
        assert caught.value.may_have_started is False
        assert len(server.requests) == 1


async def test_new_credentials_that_are_refused_too_are_not_tried_again() -> None:
    provider = Provider(OLD, NEW, Credentials("NEVER", "NEVER"))
    async with scripted(EXPIRED) as server, wire(server.url, await provider.source()) as transport:
        with pytest.raises(ExpiredTokenException):
            await transport.start_batch_job(REQUEST)
        assert [key_of(read(request)) for request in server.requests] == ["OLD", "NEW"]
    assert provider.asked == 2


async def test_a_renewal_holds_no_connection() -> None:
    provider = Provider(OLD, NEW)
    async with scripted(EXPIRED, answer(200, {}), started()) as server:
        async with wire(server.url, await provider.source(), max_connections=1) as transport:
            provider.gate.clear()
            start = asyncio.ensure_future(transport.start_batch_job(REQUEST))
            while provider.asked < 2:
                await asyncio.sleep(0)
            await transport.call("ListApplications", {})  # on the only connection
            assert not start.done()
            provider.gate.set()
            assert (await start).execution_id == "e-1"
    assert server.connections == 1


# Clocks


@pytest.mark.parametrize("offset", [3_600, -3_600, 86_400 * 400])
async def test_a_wrong_clock_is_corrected_once_and_later_calls_go_straight_through(
    offset: float, exchanges: list[Sent]
) -> None:
    async with LocalEndpoint(clock=lambda: time.time() + offset) as endpoint:
        async with M2Client(**endpoint.client_settings()) as client:
            await client.start_batch_job(REQUEST)
            assert len(exchanges) == 2
            await client.start_batch_job(REQUEST)
            assert [a.application_id async for a in client.list_applications()] == [APPLICATION]
            assert len(exchanges) == 4
            assert len([e async for e in client.list_batch_job_executions(APPLICATION)]) == 2
    assert abs(exchanges[-1].second - time.time() - offset) < 60


async def test_a_wrong_clock_is_corrected_for_all_who_were_refused(exchanges: list[Sent]) -> None:
    async with LocalEndpoint(clock=lambda: time.time() + 3_600) as endpoint:
        async with M2Client(**endpoint.client_settings()) as client:
            responses = await asyncio.gather(*(client.start_batch_job(REQUEST) for _ in range(20)))
            listed = [e.execution_id async for e in client.list_batch_job_executions(APPLICATION)]
    assert sorted(listed) == sorted(response.execution_id for response in responses)
    assert len(listed) == 20
    assert len(exchanges) <= 41


async def test_a_clock_that_is_set_while_calls_go_on_is_corrected_again(exchanges: list[Sent]) -> None:
    offset = 0.0
    async with LocalEndpoint(clock=lambda: time.time() + offset) as endpoint:
        async with M2Client(**endpoint.client_settings()) as client:
            for expected, difference in [(1, 0.0), (3, 3_600.0), (4, 3_600.0), (6, -3_600.0), (8, 0.0), (9, 0.0)]:
                offset = difference
                await client.start_batch_job(REQUEST)
                assert len(exchanges) == expected


async def test_a_clock_within_what_the_service_takes_is_left_alone(exchanges: list[Sent]) -> None:
    async with LocalEndpoint(clock=lambda: time.time() + 200) as endpoint:
        async with M2Client(**endpoint.client_settings()) as client:
            await client.start_batch_job(REQUEST)
    [sent] = exchanges
    assert abs(sent.second - time.time()) < 60


@pytest.mark.parametrize(("offset", "requests"), [(0, 1), (200, 1), (3_600, 2)])
async def test_a_wrong_secret_is_not_taken_for_a_wrong_clock(
    offset: float, requests: int, exchanges: list[Sent]
) -> None:
    async with LocalEndpoint(clock=lambda: time.time() + offset) as endpoint:
        session = AioSession()
        session.set_credentials("local", "wrong")
        async with M2Client(**{**endpoint.client_settings(), "session": session}, transport="wire") as client:
            with pytest.raises(AuthenticationException) as caught:
                await client.start_batch_job(REQUEST)
    assert caught.value.code == "InvalidSignatureException"
    assert caught.value.may_have_started is False
    assert len(exchanges) == requests


@pytest.mark.parametrize("date", [None, "", "yesterday", "Mon, 99 Foo 2026 00:00:00 GMT"])
async def test_a_refused_signature_without_a_readable_date_is_not_sent_again(date: str | None) -> None:
    step = error(403, "InvalidSignatureException", None if date is None else {"Date": date})
    async with scripted(step) as server, wire(server.url, Source()) as transport:
        with pytest.raises(AuthenticationException):
            await transport.start_batch_job(REQUEST)
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (403, "AccessDeniedException"),
        (403, "UnrecognizedClientException"),
        (400, "ValidationException"),
        (404, "ResourceNotFoundException"),
        (409, "ConflictException"),
        (429, "ThrottlingException"),
        (500, "InternalServerException"),
        (500, "ExpiredTokenException"),
        (500, "InvalidSignatureException"),
        (503, "RequestExpired"),
        (307, "TemporaryRedirect"),
    ],
)
async def test_other_errors_are_not_sent_again_even_by_a_wrong_clock(status: int, code: str) -> None:
    step = error(status, code, {"Date": formatdate(time.time() + 3_600, usegmt=True), "Location": "/elsewhere"})
    async with scripted(step) as server, wire(server.url, await Provider(OLD, NEW).source()) as transport:
        with pytest.raises(M2ServiceException) as caught:
            await transport.start_batch_job(REQUEST)
        assert len(server.requests) == 1
    assert caught.value.code == code
    assert caught.value.may_have_started is not (400 <= status < 500)


async def test_each_request_is_signed_for_the_second_in_which_it_goes_out(clock: Clock) -> None:
    source = Wire(OLD)
    transport = WireTransport("http://127.0.0.1:8080", "eu-west-1", source, source)  # type: ignore[arg-type]
    others = [StartBatchJob(f"application{n}", ScriptJob("A"), {"N1": str(n)}) for n in range(3)]
    for step in (0.0, 0.5, 0.5, 86_400.0):  # twice within a second, the next second, the next day
        clock.now += step
        for request in (*others, *others):
            with pytest.raises(UnreadableAnswerError):
                await transport.start_batch_job(request)
            sent = source.sent[-1]
            assert sent.second == int(clock.now)
            url = f"http://127.0.0.1:8080{request.path}"
            headers = {"content-type": "application/json"}
            theirs = signed_by_botocore(url, sent, OLD, Scope("eu-west-1", "m2"), int(clock.now), headers)
            assert sent.headers["authorization"] == theirs.headers["Authorization"]
            assert (sent.uri, sent.body) == (request.path, request.body())


# Credentials that change


async def test_credentials_that_may_change_are_asked_for_once_a_second(clock: Clock) -> None:
    source = Source(OLD, may_change=True)
    async with scripted(answer(200, {})) as server, wire(server.url, source) as transport:
        for step, asked in [(0.0, 1), (0.0, 1), (0.9, 1), (0.1, 2), (0.5, 2), (60.0, 3)]:
            clock.now += step
            await asyncio.gather(*(transport.call("ListApplications", {}) for _ in range(3)))
            assert source.asked == asked
        source.credentials = NEW
        clock.now += 1
        await transport.call("ListApplications", {})
    assert [key_of(read(request)) for request in server.requests] == ["OLD"] * 18 + ["NEW"]


async def test_credentials_that_cannot_change_are_asked_for_once(clock: Clock) -> None:
    source = Source(OLD)
    async with scripted(answer(200, {})) as server, wire(server.url, source) as transport:
        for _ in range(3):
            clock.now += 86_400
            await transport.call("ListApplications", {})
    assert source.asked == 1


class Refreshable:
    """Temporary credentials of aiobotocore's, valid for an hour from each refresh."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.refreshes = 0
        self.gate = asyncio.Event()
        self.gate.set()
        first = self._now() + timedelta(hours=1)
        found = AioRefreshableCredentials(
            "KEY0", "s", "t", first, self._refresh, method="test", time_fetcher=lambda: self._now()
        )
        self.source = SessionCredentials(AioSession(), found)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.now, UTC)

    async def _refresh(self) -> dict[str, str]:
        self.refreshes += 1
        await self.gate.wait()
        expiry = (self._now() + timedelta(hours=1)).isoformat()
        return {"access_key": f"KEY{self.refreshes}", "secret_key": "s", "token": "t", "expiry_time": expiry}


async def test_temporary_credentials_are_refreshed_before_they_expire_once_for_all_callers(clock: Clock) -> None:
    temporary = Refreshable(clock)
    async with scripted(started()) as server, wire(server.url, temporary.source) as transport:
        for minutes, refreshes in [(0, 0), (40, 0), (15, 1), (40, 1), (15, 2)]:
            clock.now += 60 * minutes
            await asyncio.gather(*(transport.start_batch_job(REQUEST) for _ in range(20)))
            assert temporary.refreshes == refreshes
            assert {key_of(read(request)) for request in server.requests[-20:]} == {f"KEY{refreshes}"}
        assert len(server.requests) == 100


async def test_a_slow_refresh_of_credentials_that_are_still_valid_stops_nobody_else(clock: Clock) -> None:
    temporary = Refreshable(clock)
    async with scripted(started()) as server, wire(server.url, temporary.source, max_connections=1) as transport:
        await transport.start_batch_job(REQUEST)
        clock.now += 60 * 47  # 13 minutes before they expire
        temporary.gate.clear()
        first = asyncio.ensure_future(transport.start_batch_job(REQUEST))
        while not temporary.refreshes:
            await asyncio.sleep(0)
        await transport.start_batch_job(REQUEST)
        assert not first.done()
        temporary.gate.set()
        await first
    assert [key_of(read(request)) for request in server.requests] == ["KEY0", "KEY0", "KEY1"]


async def test_a_slow_refresh_of_expired_credentials_holds_no_connection_and_sends_nothing(clock: Clock) -> None:
    temporary = Refreshable(clock)
    clock.now += 60 * 90
    temporary.gate.clear()
    async with scripted(started()) as server, wire(server.url, temporary.source) as transport:
        calls = [asyncio.ensure_future(transport.start_batch_job(REQUEST)) for _ in range(5)]
        while not temporary.refreshes:
            await asyncio.sleep(0)
        for _ in range(20):
            await asyncio.sleep(0)
        assert (server.connections, server.requests) == (0, [])
        temporary.gate.set()
        await asyncio.gather(*calls)
    assert {key_of(read(request)) for request in server.requests} == {"KEY1"}
    assert temporary.refreshes == 1


# What stands in a request's head


@pytest.mark.parametrize(
    ("url", "host", "path"),
    [
        ("https://m2.us-east-1.amazonaws.com", "m2.us-east-1.amazonaws.com", ""),
        ("https://M2.Example.com/", "m2.example.com", ""),
        ("https://example.com:443", "example.com", ""),
        ("http://example.com:80", "example.com", ""),
        ("https://example.com:80", "example.com:80", ""),
        ("http://example.com:443", "example.com:443", ""),
        ("http://127.0.0.1:8080/stage/one", "127.0.0.1:8080", "/stage/one"),
        ("http://127.0.0.1:8080/stage/one/", "127.0.0.1:8080", "/stage/one"),
        ("http://127.0.0.1:8080/a%20b/~", "127.0.0.1:8080", "/a%20b/~"),
        ("http://127.0.0.1:8080//x//", "127.0.0.1:8080", "//x/"),
        ("http://[::1]:8080", "[::1]:8080", ""),
        ("http://[::1]:80/p", "[::1]", "/p"),
        ("https://[2001:DB8::1]", "[2001:db8::1]", ""),
    ],
)
def test_host_and_path_are_those_that_botocore_signs(url: str, host: str, path: str, clock: Clock) -> None:
    pool = Wire(OLD)
    transport = WireTransport(url, "us-east-1", pool, pool)  # type: ignore[arg-type]
    members = {"applicationId": APPLICATION, "executionId": "e", "authSecretsManagerArn": "a" * 20}
    at_once(transport.call("ListBatchJobRestartPoints", members))
    [sent] = pool.sent
    resource = f"/applications/{APPLICATION}/batch-job-executions/e/steps?authSecretsManagerArn={'a' * 20}"
    assert sent.headers["host"] == host
    assert sent.uri == path + resource
    theirs = signed_by_botocore(
        url.removesuffix("/") + resource, sent, OLD, Scope("us-east-1", "m2"), int(clock.now), {}
    )
    assert sent.headers["authorization"] == theirs.headers["Authorization"]


@pytest.mark.parametrize(
    "end", ["\r\nx-evil: 1", "\n", "\r", "\x00", "\x7f", "é", "\u2028", "\udcff", "\U0001f600", "\t"]
)
@pytest.mark.parametrize(
    ("field", "name"),
    [("access_key", "access key id"), ("secret_key", "secret access key"), ("token", "session token")],
)
def test_credentials_that_no_head_can_hold_are_refused_and_nothing_is_sent(field: str, name: str, end: str) -> None:
    pool = Wire(OLD._replace(**{field: f"hush{end}"}))
    taken = []
    pool.take_nowait = lambda: taken.append(1) or pool  # type: ignore[func-returns-value, method-assign]
    transport = WireTransport("http://127.0.0.1:8080", "us-east-1", pool, pool)  # type: ignore[arg-type]
    for _ in range(2):
        with pytest.raises(CredentialsError, match=name) as caught:
            transport.start_batch_job(REQUEST).send(None)
        assert "hush" not in caught.value.message
    assert (taken, pool.sent) == ([], [])


async def test_renewed_credentials_that_no_head_can_hold_are_refused_too() -> None:
    provider = Provider(OLD, Credentials("NEW", "NEW", "a\r\nx-evil: 1"))
    async with scripted(EXPIRED) as server, wire(server.url, await provider.source()) as transport:
        with pytest.raises(CredentialsError, match="session token"):
            await transport.start_batch_job(REQUEST)
        assert len(server.requests) == 1


async def test_a_line_break_in_the_environments_token_sends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "A")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "B")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "C\r\nx-evil: 1")
    async with scripted(started()) as server:
        with pytest.raises(CredentialsError):
            async with M2Client("us-east-1", endpoint_url=server.url) as client:
                await client.start_batch_job(REQUEST)
        assert server.requests == []


@pytest.mark.parametrize("region", ["us-east-1\n", "us\r\nx-evil: 1", "é", "\udcff"])
def test_a_region_that_no_head_can_hold_is_refused(region: str) -> None:
    pool = Wire(OLD)
    with pytest.raises(ConfigurationError, match="region"):
        WireTransport("http://127.0.0.1:8080", region, pool, pool)  # type: ignore[arg-type]


async def test_a_region_with_a_line_break_is_refused_on_opening() -> None:
    session = AioSession()
    session.set_credentials("A", "B")
    with pytest.raises(ConfigurationError, match="region"):
        async with M2Client("us-east-1\n", session=session, endpoint_url="http://127.0.0.1:9"):
            pass


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8080/a b",
        "http://127.0.0.1:8080/é",
        "http://127.0.0.1:8080/a\x00",
        "http://127.0.0.1:8080/\x7f",
        "https://\u0967.example.com",
        "https://example.com?x=1",
        "https://example.com/#x",
    ],
)
def test_an_endpoint_that_cannot_be_written_as_it_is_is_refused(url: str) -> None:
    pool = Wire(OLD)
    with pytest.raises(ConfigurationError, match="endpoint"):
        WireTransport(url, "us-east-1", pool, pool)  # type: ignore[arg-type]


def test_an_empty_session_token_is_none_as_for_botocore() -> None:
    pool = Wire(Credentials("A", "B", ""))
    transport = WireTransport("http://127.0.0.1:8080", "us-east-1", pool, pool)  # type: ignore[arg-type]
    at_once(transport.call("ListApplications", {}))
    assert "x-amz-security-token" not in pool.sent[0].headers


# Answers

CONFLICT = ConflictException, "ConflictException"
NOT_FOUND = ResourceNotFoundException, "ResourceNotFoundException"
DENIED = AccessDeniedException, "AccessDeniedException"
UNEXPECTED = M2ServiceException, "500", "Internal Server Error"


@pytest.mark.parametrize(
    ("status", "body", "header", "expected"),
    [
        (404, {"message": "m"}, "ResourceNotFoundException", (*NOT_FOUND, "m")),
        (404, {"message": "m"}, "ResourceNotFoundException:http://internal.amazon.com/", (*NOT_FOUND, "m")),
        (404, {"message": "m"}, "aws.m2#ResourceNotFoundException:http://x#y", (*NOT_FOUND, "m")),
        (404, {"code": "ConflictException"}, "ResourceNotFoundException", (*NOT_FOUND, "Not Found")),
        (409, {"__type": "aws.m2#ConflictException", "message": "m"}, None, (*CONFLICT, "m")),
        (409, {"__type": "ConflictException"}, None, (*CONFLICT, "Conflict")),
        (409, {"code": "ConflictException", "Message": "M"}, None, (*CONFLICT, "M")),
        (409, {"code": "ConflictException:http://x", "message": ""}, None, (*CONFLICT, "Conflict")),
        (403, {"__type": "AccessDeniedException"}, "", (*DENIED, "Forbidden")),
        (403, {"__type": "AccessDenied", "message": None}, None, (DENIED[0], "AccessDenied", "Forbidden")),
        (400, {"code": 7, "message": {"a": 1}}, None, (M2ServiceException, "7", "{'a': 1}")),
        (400, {"code": "SomethingNew", "message": "m"}, None, (M2ServiceException, "SomethingNew", "m")),
        (429, {}, None, (ThrottlingException, "429", "Too Many Requests")),
        (429, {"code": "SomethingNew"}, None, (ThrottlingException, "SomethingNew", "Too Many Requests")),
        (301, b"", None, (M2ServiceException, "301", "Moved Permanently")),
        (502, b"<html>bad gateway</html>", None, (M2ServiceException, "502", "Bad Gateway")),
        (599, b"", None, (M2ServiceException, "599", "HTTP status 599")),
        (500, b"", None, UNEXPECTED),
        (500, b'"text"', None, UNEXPECTED),
        (500, b"[1]", None, UNEXPECTED),
        (500, b"null", None, UNEXPECTED),
        (500, b'{"message": "\xff"}', None, UNEXPECTED),
        (500, b'{"message": "\\ud800"}', None, UNEXPECTED),
        (500, b"[" * 100_000, None, UNEXPECTED),
        (500, b'{"message": 1' + b"0" * 10_000 + b"}", None, UNEXPECTED),
    ],
)
async def test_an_error_answer_has_its_class_code_and_message(
    status: int, body: object, header: str | None, expected: tuple[type[M2ServiceException], str, str]
) -> None:
    step = answer(status, body, None if header is None else {"X-Amzn-ErrorType": header})
    async with scripted(step) as server, wire(server.url, Source()) as transport:
        for call in (transport.start_batch_job(REQUEST), transport.call("ListApplications", {})):
            with pytest.raises(M2ServiceException) as caught:
                await call
            assert (type(caught.value), caught.value.code, caught.value.message) == expected
            assert (caught.value.http_status, caught.value.request_id) == (status, "r-1")
        assert len(server.requests) == 2


async def test_an_error_answer_keeps_status_wait_and_the_members_that_the_service_models() -> None:
    fields = [{"name": "jobParams", "message": "too long"}]
    step = error(400, "ValidationException", {"Retry-After": "2.5"}, reason="fieldValidationFailed", fieldList=fields)
    async with scripted(step) as server, wire(server.url, Source()) as transport:
        with pytest.raises(ValidationException) as caught:
            await transport.start_batch_job(REQUEST)
    refused = caught.value
    assert (refused.http_status, refused.retry_after, refused.reason) == (400, 2.5, "fieldValidationFailed")
    assert [(field.name, field.message) for field in refused.field_list] == [("jobParams", "too long")]
    assert refused.details.keys() == {"reason", "fieldList"}


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        (lambda: "30", 30, 30),
        (lambda: formatdate(time.time() + 3_600, usegmt=True), 3_000, 3_600),
        (lambda: formatdate(0, usegmt=True), 0, 0),
    ],
    ids=["seconds", "an hour from now", "past"],
)
async def test_how_long_to_wait_is_read_from_seconds_or_a_date(
    header: Callable[[], str], least: float, most: float
) -> None:
    step = error(429, "ThrottlingException", {"retry-after": header()})
    async with scripted(step) as server, wire(server.url, Source()) as transport:
        with pytest.raises(ThrottlingException) as caught:
            await transport.start_batch_job(REQUEST)
    assert caught.value.retry_after is not None
    assert least <= caught.value.retry_after <= most


NOT_JSON = [
    b"<html>",
    b"{",
    b'{"executionId": "e"} {"executionId": "f"}',
    b"[]",
    b'"e"',
    b"null",
    b'{"executionId": "\xff"}',
    b'{"executionId": "\\ud800"}',
    b'{"executionId": "e", "x": ' + b"[" * 100_000,
]


@pytest.mark.parametrize("given", [b"null", b"7", b'""', b'["e"]', b'{"executionId": "e"}'])
async def test_an_execution_id_of_the_wrong_type_is_unreadable(given: bytes) -> None:
    async with scripted(answer(200, b'{"executionId": ' + given + b"}")) as server:
        async with wire(server.url, Source()) as transport:
            with pytest.raises(UnreadableAnswerError):
                await transport.start_batch_job(REQUEST)


@pytest.mark.parametrize("body", [b"", b"{}", b'{"executionid": "e"}', *NOT_JSON])
@pytest.mark.parametrize("status", [200, 202])
async def test_a_success_without_an_execution_id_is_unreadable_and_may_have_started(status: int, body: bytes) -> None:
    async with scripted(answer(status, body)) as server, wire(server.url, Source()) as transport:
        with pytest.raises(UnreadableAnswerError) as caught:
            await transport.start_batch_job(REQUEST)
        assert caught.value.may_have_started is True
        assert len(server.requests) == 1


@pytest.mark.parametrize("body", NOT_JSON)
async def test_a_success_of_another_operation_that_is_no_json_object_is_unreadable(body: bytes) -> None:
    async with scripted(answer(200, body)) as server, wire(server.url, Source()) as transport:
        with pytest.raises(UnreadableAnswerError):
            await transport.call("ListApplications", {})


async def test_a_success_of_another_operation_may_have_no_body() -> None:
    async with scripted(answer(200, b"")) as server, wire(server.url, Source()) as transport:
        members = {"applicationId": APPLICATION, "executionId": "e"}
        assert (await transport.call("CancelBatchJobExecution", members))[:2] == ({}, "r-1")


async def test_members_that_the_service_adds_later_are_passed_over() -> None:
    step = answer(201, {"executionId": "e", "more": [1, {"a": None}]})
    async with scripted(step) as server, wire(server.url, Source()) as transport:
        assert await transport.start_batch_job(REQUEST) == StartBatchJobResponse("e", "r-1")


async def test_a_connection_that_was_taken_goes_back_whatever_the_answer() -> None:
    steps = [EXPIRED, error(403, "AccessDeniedException"), error(500, "X"), answer(200, b"x"), started()]
    async with scripted(*steps) as server, wire(server.url, await Provider(OLD, NEW).source(), 1) as transport:
        for _ in range(3):
            with pytest.raises(CallError):
                await transport.start_batch_job(REQUEST)
        await transport.start_batch_job(REQUEST)
        assert server.connections == 1
