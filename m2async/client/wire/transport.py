"""Calls on connections of our own: encode, sign, exchange, read."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from time import time
from typing import Any, Protocol
from urllib.parse import urlsplit

import msgspec

from m2async.client.answers import (
    Answer,
    checked_execution_id,
    parse_date,
    read_answer,
    read_clock,
    read_error,
    unreadable,
)
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
from m2async.clock import ServiceClock
from m2async.errors import (
    ConfigurationError,
    ExpiredTokenException,
    M2ServiceException,
    NotSentError,
    SignatureTooLateError,
    UnreadableAnswerError,
)
from m2async.service import SENDING, Sending, StartBatchJob, StartBatchJobResponse

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
    clock, and sent a second time. No start is signed, first or anew, with a date later than its `not_after`.

    Raises ConfigurationError for an endpoint or a region that cannot stand in a request's head, and for an
    endpoint with a query or a fragment, which would be lost.
    """

    def __init__(
        self,
        endpoint_url: str,
        region_name: str,
        credentials: CredentialsSource,
        pool: Pool,
        clock: ServiceClock | None = None,
    ) -> None:
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
        self._clock = clock or ServiceClock()
        self._clock_is_due = True  # to be read off the next answer: once in each second that something is signed in
        self._skew = 0.0
        self._credentials: Credentials | None = None
        self._ask_credentials_at = 0.0
        self._signer: Signer | None = None
        self._signed_starts: dict[str, SignedTarget] = {}

    def signing_time(self) -> float:
        """What a signature made now would be dated: the machine's clock, corrected by what the service said of it."""
        return time() + self._skew

    async def start_batch_job(self, request: StartBatchJob, not_after: float | None = None) -> StartBatchJobResponse:
        """Send a StartBatchJob request; raises SignatureTooLateError if it would be dated later than `not_after`."""
        sending = SENDING.get()
        if sending is not None:
            sending.is_prepared()
        body = request.body()
        response = await self._exchange("StartBatchJob", request, body, not_after, sending)
        try:
            execution_id = checked_execution_id(_started.decode(response.body).execution_id)
        except Exception as exc:
            raise unreadable("StartBatchJob", exc, response, body) from exc
        return StartBatchJobResponse(execution_id, response.header(b"x-amzn-requestid"))

    async def call(self, operation: str, members: Mapping[str, Any]) -> Answer:
        """Send a request; raises the CallError that says what became of it."""
        method, path, query, body = encode(operation, members)
        target = Target(method, self._host, self._base_path + path, query, body is not None)
        return read_answer(operation, await self._exchange(operation, target, body or b""))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._pool.aclose()

    async def _exchange(
        self,
        operation: str,
        what: StartBatchJob | Target,
        body: bytes,
        not_after: float | None = None,
        sending: Sending | None = None,
        *,
        again: bool = True,
    ) -> Response:
        """Take a connection, sign for this second, send and receive; raises the error that is answered.

        A request whose signature was refused for a reason that can be mended is sent `again`.
        """
        self._pool.check_here()
        if time() >= self._ask_credentials_at:
            await self._ask_credentials()
        connection = self._pool.take_nowait() or await self._pool.take()
        # From here to the exchange nothing is awaited: the connection is in hand, and the second stays the same.
        try:
            second = int(time() + self._skew)
            if not_after is not None and second > not_after:
                raise too_late(second, not_after)
            signer = self._signer
            if signer is None or signer.second != second:
                signer = self._sign_for(second)
            if isinstance(what, Target):
                signed = signer.prepare(what, USER_AGENT)
            else:
                signed = self._signed_starts.get(what.application_id) or self._prepare_start(signer, what)
            request = signed.request(body)
            if sending is not None:
                sending.begins()
        except NotSentError:
            self._pool.give_back(connection)
            raise
        except BaseException:
            connection.close()
            raise
        sent_at = self._clock.local_time() if self._clock_is_due or isinstance(what, Target) else None
        try:
            response = await connection.exchange(request)
        except asyncio.CancelledError:
            connection.abandon()
            raise
        except UnreadableAnswerError as exc:
            raise unreadable(operation, exc) from exc
        if sent_at is not None and read_clock(self._clock, response, sent_at):
            self._clock_is_due = False
        if response.status >= 300:
            error = read_error(operation, response, body)
            if sending is not None and not error.may_have_started:
                sending.was_refused()
            if not (again and await self._mend(error, response, signer)):
                raise error
            response = await self._exchange(operation, what, body, not_after, sending, again=False)
        return response

    def _sign_for(self, second: int) -> Signer:
        assert self._credentials is not None  # noqa: S101 - asked for before the first exchange
        self._signer = Signer(self._credentials, self._scope, second)
        self._signed_starts.clear()
        self._clock_is_due = True
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
    execution_id: str = ""


def too_late(second: float, not_after: float) -> SignatureTooLateError:
    """The error of a request that would have been dated later than was written of it."""
    late = second - not_after
    return SignatureTooLateError(
        f"the request was not sent: it would be signed {late:,.0f} s later than its intent allows"
    )


_started = msgspec.json.Decoder(_StartedMembers)
_SKEW_CODES = frozenset(
    # What services answer to a signature of another time; botocore's JavaScript sibling corrects these as well.
    ("InvalidSignatureException", "SignatureDoesNotMatch", "RequestTimeTooSkewed", "RequestExpired", "AuthFailure")
)
