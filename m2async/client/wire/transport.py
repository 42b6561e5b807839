"""Calls on connections of our own: encode, sign, exchange, read."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from time import time
from typing import Any, Protocol
from urllib.parse import urlsplit

import msgspec

from m2async.client.answers import Answer, parse_date, parse_retry_after
from m2async.client.wire.http11 import Response
from m2async.client.wire.operations import encode
from m2async.client.wire.pool import Pool
from m2async.client.wire.sigv4 import (
    Credentials,
    Scope,
    SignedTarget,
    Signer,
    Target,
    check_credentials,
    fits_in_a_head,
)
from m2async.errors import (
    ConfigurationError,
    ExpiredTokenException,
    M2ServiceException,
    UnreadableAnswerError,
    service_exception,
)
from m2async.service import StartBatchJob, StartBatchJobResponse

USER_AGENT = "m2async"
_SKEW_SECONDS = 240.0
"""From when on clocks are said to differ: the service takes signatures up to 5 minutes off (IAM User Guide)."""


class CredentialsSource(Protocol):
    """Where credentials come from, refreshed when they must be."""

    @property
    def may_change(self) -> bool:
        """Whether `current` has to be asked again as time goes by."""

    async def current(self) -> Credentials:
        """Give those that are valid now."""

    async def renewed(self, expired: Credentials) -> Credentials:
        """Give others than those that the service said have expired."""


class WireTransport:
    """Sends each request once, but for one whose signature was refused for an expired token or a wrong clock.

    Such a request surely had no effect: it is signed anew, with renewed credentials or by the server's
    clock, and sent a second time.

    Raises ConfigurationError for an endpoint or a region that cannot stand in a request's head, and for an
    endpoint with a query or a fragment, which would be lost.
    """

    def __init__(self, endpoint_url: str, region_name: str, credentials: CredentialsSource, pool: Pool) -> None:
        url = urlsplit(endpoint_url)
        default_port = {"http": 80, "https": 443}[url.scheme]
        name = f"[{url.hostname}]" if ":" in (url.hostname or "") else url.hostname or ""
        self._host = name if url.port in {None, default_port} else f"{name}:{url.port}"
        self._base_path = url.path.removesuffix("/")
        resource = self._host + self._base_path
        if not fits_in_a_head(resource) or " " in resource or url.query or url.fragment:
            raise ConfigurationError(f"the endpoint {endpoint_url!r} is not just a host and a path, in printable ASCII")
        if not fits_in_a_head(region_name):
            raise ConfigurationError(f"the region {region_name!r} is not printable ASCII")
        self._scope = Scope(region_name, "m2")
        self._source = credentials
        self._pool = pool
        self._skew = 0.0
        self._credentials: Credentials | None = None
        self._ask_credentials_at = 0.0
        self._signer: Signer | None = None
        self._signed_starts: dict[str, SignedTarget] = {}

    async def start_batch_job(self, request: StartBatchJob) -> StartBatchJobResponse:
        """Send a StartBatchJob request."""
        response = await self._exchange(request, request.body())
        try:
            execution_id = _started.decode(response.body).execution_id
        except _NO_JSON as exc:
            raise UnreadableAnswerError(f"the answer cannot be read: {exc}") from exc
        if not execution_id:
            raise UnreadableAnswerError("the answer holds no executionId")
        return StartBatchJobResponse(execution_id, response.header(b"x-amzn-requestid"))

    async def call(self, operation: str, members: Mapping[str, Any]) -> Answer:
        """Send a request; raises the CallError that says what became of it."""
        method, path, query, body = encode(operation, members)
        target = Target(method, self._host, self._base_path + path, query, body is not None)
        response = await self._exchange(target, body or b"")
        try:
            answer: Any = msgspec.json.decode(response.body) if response.body else {}
        except _NO_JSON as exc:
            raise UnreadableAnswerError(f"the answer cannot be read: {exc}") from exc
        if not isinstance(answer, dict):
            raise UnreadableAnswerError("the answer cannot be read: it is no JSON object")
        return Answer(answer, response.header(b"x-amzn-requestid"), parse_date(response.header(b"date")))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._pool.aclose()

    async def _exchange(self, what: StartBatchJob | Target, body: bytes, *, again: bool = True) -> Response:
        """Take a connection, sign for this second, send and receive; raises the error that is answered.

        A request whose signature was refused for a reason that can be mended is sent `again`.
        """
        if time() >= self._ask_credentials_at:
            await self._ask_credentials()
        connection = self._pool.take_nowait() or await self._pool.take()
        # From here to the exchange nothing is awaited: the connection is in hand, and the second stays the same.
        try:
            second = int(time() + self._skew)
            signer = self._signer
            if signer is None or signer.second != second:
                signer = self._sign_for(second)
            if isinstance(what, Target):
                signed = signer.prepare(what, USER_AGENT)
            else:
                signed = self._signed_starts.get(what.application_id) or self._prepare_start(signer, what)
            request = signed.request(body)
        except BaseException:
            connection.close()
            raise
        try:
            response = await connection.exchange(request)
        except asyncio.CancelledError:
            connection.abandon()
            raise
        if response.status >= 300:
            error = _exception(response)
            if not (again and await self._mend(error, response, signer)):
                raise error
            response = await self._exchange(what, body, again=False)
        return response

    def _sign_for(self, second: int) -> Signer:
        assert self._credentials is not None  # noqa: S101 - asked for before the first exchange
        self._signer = Signer(self._credentials, self._scope, second)
        self._signed_starts.clear()
        return self._signer

    def _prepare_start(self, signer: Signer, request: StartBatchJob) -> SignedTarget:
        target = Target("POST", self._host, self._base_path + request.path)
        signed = self._signed_starts[request.application_id] = signer.prepare(target, USER_AGENT)
        return signed

    async def _ask_credentials(self) -> None:
        """Have the credentials refreshed if they are about to expire; asked once a second at most."""
        self._use(await self._source.current())

    def _use(self, credentials: Credentials) -> None:
        """Sign with these from now on."""
        check_credentials(credentials)
        if credentials != self._credentials:
            self._credentials = credentials
            self._signer = None
        self._ask_credentials_at = time() + 1 if self._source.may_change else float("inf")

    async def _mend(self, error: M2ServiceException, response: Response, signer: Signer) -> bool:
        """Do away with the reason for which a signature was refused; gives whether it is worth to sign anew.

        What counts is what the request was signed with: meanwhile another's answer may have led to the same.
        """
        if error.http_status not in {400, 401, 403}:
            return False
        if isinstance(error, ExpiredTokenException):
            self._use(await self._source.renewed(signer.credentials))
            return signer.credentials != self._credentials
        date = parse_date(response.header(b"date"))
        if date is None or error.code not in _SKEW_CODES:
            return False
        if abs(date.timestamp() - signer.second) < _SKEW_SECONDS:
            return False
        self._skew = date.timestamp() - time()
        return True


class _StartedMembers(msgspec.Struct, rename="camel", gc=False):
    execution_id: str


_started = msgspec.json.Decoder(_StartedMembers)
_NO_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are not JSON, not UTF-8, or nested without end."""

_SKEW_CODES = frozenset(
    # What services answer to a signature of another time; botocore's JavaScript sibling corrects these as well.
    ("InvalidSignatureException", "SignatureDoesNotMatch", "RequestTimeTooSkewed", "RequestExpired", "AuthFailure")
)


def _exception(response: Response) -> M2ServiceException:
    """Read an error answer: its name is in a header or in the body (rest-json)."""
    try:
        body: Any = msgspec.json.decode(response.body)
    except _NO_JSON:
        body = None
    members: dict[str, Any] = body if isinstance(body, dict) else {}
    code = response.header(b"x-amzn-errortype") or members.get("code") or members.get("__type") or response.status
    message = members.get("message") or members.get("Message") or _phrase(response.status)
    return service_exception(
        str(code),
        str(message),
        http_status=response.status,
        request_id=response.header(b"x-amzn-requestid"),
        retry_after=parse_retry_after(response.header(b"retry-after")),
        details={name: value for name, value in members.items() if name not in _READ_ALREADY},
    )


_READ_ALREADY = frozenset({"message", "Message", "code", "__type"})


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"HTTP status {status}"
