"""Calls that aiobotocore signs, and its sessions' hooks see, sent on connections of our own, one request each.

aiobotocore's own HTTP session follows redirects, also to other hosts and to plain HTTP, reads answers of any size for
any time, leaves to the kernel what is given up, and cannot tell how far a request got. So another stands in its place.
"""

from __future__ import annotations

import asyncio
import re
from calendar import timegm
from collections.abc import Callable, Mapping
from time import strptime, time
from typing import Any
from urllib.parse import SplitResult, urlsplit

from aiobotocore.awsrequest import AioAWSResponse
from botocore import exceptions as botocore_exceptions

from m2async.client.answers import (
    Answer,
    checked_execution_id,
    parse_date,
    parse_retry_after,
    read_answer,
    read_clock,
    read_error,
    unreadable,
)
from m2async.client.http_session import SENDER, HttpSession
from m2async.client.settings import CREDENTIALS_ERRORS, Aws, sentence
from m2async.client.wire.http11 import Response
from m2async.client.wire.pool import Pool
from m2async.client.wire.transport import too_late
from m2async.clock import ServiceClock
from m2async.errors import (
    CallError,
    ConfigurationError,
    CredentialsError,
    InvalidRequestError,
    M2AsyncError,
    M2ServiceException,
    RepeatedCallError,
    UnreadableAnswerError,
    service_exception,
)
from m2async.loops import Home
from m2async.service import SENDING, Sending, StartBatchJob, StartBatchJobResponse

_ERROR_MEMBERS_KNOWN_ELSEWHERE = frozenset({"Error", "ResponseMetadata", "message", "Message", "retryAfterSeconds"})


class AiobotocoreTransport:
    """Calls operations of the service through one aiobotocore client; never repeats a call.

    Arguments:
        aws: the client, which was made with `HttpSession`.
        pool: the connections to the endpoint, or to its proxy.
        forwarded: the Proxy-Authorization for a proxy that the requests themselves are sent to, "" for none; None where
            they are sent to the endpoint, if need be through a tunnel.
        clock: reads the service's clock off the answers.

    Raises ConfigurationError if aiobotocore would send by itself after all.
    """

    def __init__(self, aws: Aws, pool: Pool, forwarded: str | None, clock: ServiceClock) -> None:
        if not isinstance(aws.client._endpoint.http_session, HttpSession):  # noqa: SLF001
            raise ConfigurationError("this version of aiobotocore sends by itself: use another, or transport='wire'")
        self._client = aws.client
        self._pool = pool
        self._clock = clock
        self._endpoint = urlsplit(aws.endpoint_url)
        self._forwarded = forwarded
        self._home = Home("the client")

    def signing_time(self) -> float:
        """What a signature made now would be dated: the machine's clock."""
        return time()

    async def start_batch_job(self, request: StartBatchJob, not_after: float | None = None) -> StartBatchJobResponse:
        """Send a StartBatchJob request; raises SignatureTooLateError if it is dated later than `not_after`."""
        sending = SENDING.get()
        if sending is not None:
            sending.is_prepared()
        answer, exchange = await self._call("StartBatchJob", request.to_api(), not_after, sending)
        try:
            execution_id = checked_execution_id(answer.members.get("executionId"))
        except ValueError as exc:
            raise exchange.unreadable("StartBatchJob", exc) from exc
        return StartBatchJobResponse(execution_id, answer.request_id)

    async def call(self, operation: str, members: Mapping[str, Any]) -> Answer:
        """Send one request, once; raises the CallError that says what became of it."""
        answer, _ = await self._call(operation, members)
        return answer

    async def aclose(self) -> None:
        """Close the connections."""
        await self._pool.aclose()

    async def _call(
        self, operation: str, members: Mapping[str, Any], not_after: float | None = None, sending: Sending | None = None
    ) -> tuple[Answer, _Exchange]:
        self._home.check()
        method: Callable[..., Any] = getattr(self._client, self._client_method(operation))
        exchange = _Exchange(self._pool, self._endpoint, self._forwarded, self._clock, not_after, sending)
        token = SENDER.set(exchange.send)
        try:
            answer = await method(**members)
        except _SecondRequest:
            return exchange.answer(operation), exchange  # what the first brought stands
        except Exception as exc:
            # The request may have been sent, so no exception may pass without saying so.
            if exchange.was_sent:
                raise exchange.error(operation, exc) from exc
            if isinstance(exc, M2AsyncError):
                raise
            if isinstance(exc, botocore_exceptions.ClientError):
                if exc.operation_name != operation:  # a call that was to bring credentials, such as AssumeRole
                    raise CredentialsError(sentence(exc)) from exc
                raise _error_of(exc) from exc
            if isinstance(exc, botocore_exceptions.ParamValidationError):
                raise InvalidRequestError(operation, dict(members), sentence(exc)) from exc
            if isinstance(exc, (*CREDENTIALS_ERRORS, botocore_exceptions.HTTPClientError)):
                raise CredentialsError(sentence(exc)) from exc
            raise ConfigurationError(f"the request was not sent: {sentence(exc)}") from exc
        finally:
            SENDER.reset(token)
        metadata: Mapping[str, Any] = answer["ResponseMetadata"]
        return Answer(answer, metadata.get("RequestId")), exchange

    def _client_method(self, operation: str) -> str:
        methods: Mapping[str, str] = self._client.meta.method_to_api_mapping
        return next(method for method, name in methods.items() if name == operation)


class _Exchange:
    """The one request of a call, and what it brought."""

    def __init__(
        self,
        pool: Pool,
        endpoint: SplitResult,
        forwarded: str | None,
        clock: ServiceClock,
        not_after: float | None,
        sending: Sending | None,
    ) -> None:
        self._pool = pool
        self._endpoint = endpoint
        self._forwarded = forwarded
        self._clock = clock
        self._not_after = not_after
        self._sending = sending
        self.was_sent: bool = False
        self.brought: Response | CallError | None = None
        self._data = b""

    async def send(self, request: Any) -> AioAWSResponse:
        """Send the request, unless one was sent already: a hook may ask for that."""
        if self.was_sent:
            raise _SecondRequest
        data = self._data = self._encoded(request)
        connection = self._pool.take_nowait() or await self._pool.take()
        if self._sending is not None:
            try:
                self._sending.begins()
            except CallError:
                self._pool.give_back(connection)
                raise
        self.was_sent = True
        sent_at = self._clock.local_time()
        try:
            response = self.brought = await connection.exchange(data)
        except asyncio.CancelledError:
            connection.abandon()
            raise
        except CallError as exc:
            self.brought = exc
            raise
        read_clock(self._clock, response, sent_at)
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers[::-1]}
        return AioAWSResponse(request.url, response.status, headers, _Body(response.body))

    def unreadable(self, operation: str, exc: Exception) -> CallError:
        """The error of an answer that cannot be read."""
        response = self.brought if isinstance(self.brought, Response) else None
        return unreadable(operation, exc, response, self._data)

    def error(self, operation: str, exc: Exception) -> CallError:
        """What a request that was sent ends in, where aiobotocore or a hook raised this: first what it brought."""
        brought = self.brought
        if isinstance(brought, Response):
            if brought.status >= 300 and isinstance(exc, botocore_exceptions.ClientError):
                return read_error(operation, brought, self._data)
            return self.unreadable(operation, exc)
        if isinstance(brought, UnreadableAnswerError):
            return self.unreadable(operation, brought)
        return brought or self.unreadable(operation, exc)

    def answer(self, operation: str) -> Answer:
        """Give what the request brought, or raise it."""
        brought = self.brought
        if isinstance(brought, Response):
            if brought.status >= 300:
                raise read_error(operation, brought, self._data)
            return read_answer(operation, brought)
        raise brought or RepeatedCallError("a hook sent a request a second time in one call", may_have_started=True)

    def _encoded(self, request: Any) -> bytes:
        """The bytes of a request to the endpoint; raises SignatureTooLateError, or ConfigurationError for another."""
        url = urlsplit(request.url)
        if (url.scheme, url.netloc) != (self._endpoint.scheme, self._endpoint.netloc):
            raise ConfigurationError(f"a hook turned the request from {self._endpoint.netloc} to {url.netloc}")
        headers = [(_text(name), _text(value)) for name, value in request.headers.items()]
        known = {name.lower(): value for name, value in headers}
        dated = _dated(known)
        if self._not_after is not None and dated > self._not_after:
            raise too_late(dated, self._not_after)
        target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        if self._forwarded is not None:
            target = f"{url.scheme}://{url.netloc}{target}"
            if self._forwarded:
                headers.append(("Proxy-Authorization", self._forwarded))
        body = _bytes(request.body)
        lines = [f"{request.method} {target} HTTP/1.1"]
        if "host" not in known:
            lines.append(f"Host: {_without_default_port(url)}")
        lines += [f"{name}: {value}" for name, value in headers if name.lower() not in _OF_THE_CONNECTION]
        if body or request.method not in {"GET", "HEAD"}:
            lines.append(f"Content-Length: {len(body)}")
        if any(_CONTROL.search(line) for line in lines):
            raise ConfigurationError("a header of the request holds a control character, such as a line break")
        return "\r\n".join([*lines, "", ""]).encode() + body


class _SecondRequest(BaseException):
    """A hook wanted a request sent again."""


class _Body:
    """A body that is there, as aiobotocore reads it."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def read(self) -> bytes:
        return self._body


_OF_THE_CONNECTION = frozenset({"content-length", "transfer-encoding", "connection", "expect", "keep-alive", "upgrade"})
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _bytes(body: Any) -> bytes:
    if isinstance(body, str):
        return body.encode()
    return bytes(body if isinstance(body, bytes | bytearray) else body.read()) if body else b""


def _dated(headers: Mapping[str, str]) -> float:
    """The date that a request is signed with; now, where that cannot be read."""
    try:
        return timegm(strptime(headers["x-amz-date"], "%Y%m%dT%H%M%SZ"))
    except (KeyError, ValueError):
        date = parse_date(headers.get("date"))
        return time() if date is None else date.timestamp()


def _without_default_port(url: SplitResult) -> str:
    host = url.netloc.rpartition("@")[2]
    return host.removesuffix(":443" if url.scheme == "https" else ":80")


def _error_of(exc: botocore_exceptions.ClientError) -> M2ServiceException:
    """The error that a hook answered with, as aiobotocore read it."""
    response: Mapping[str, Any] = exc.response
    metadata = response.get("ResponseMetadata", {})
    error = response.get("Error", {})
    headers: Mapping[str, str] = metadata.get("HTTPHeaders", {})
    return service_exception(
        str(error.get("Code", "")),
        str(error.get("Message") or response.get("message") or "no message was given"),
        http_status=metadata.get("HTTPStatusCode", 0),
        request_id=metadata.get("RequestId"),
        retry_after=parse_retry_after(headers.get("retry-after"), headers.get("date")),
        details={name: value for name, value in response.items() if name not in _ERROR_MEMBERS_KNOWN_ELSEWHERE},
    )
