"""Verification of Signature Version 4 with botocore's own signer, so that our signer is checked by another one.

Source of the rules: AWS Identity and Access Management User Guide, "Signature Version 4 for API requests".
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.compat import HTTPHeaders
from botocore.credentials import Credentials
from multidict import CIMultiDictProxy

from m2async.errors import M2ServiceException
from m2async.local.refusals import unauthenticated

SERVICE = "m2"
MAX_SKEW = 300  # seconds: a signature is valid for five minutes

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256\s+"
    r"Credential=(?P<key_id>\S+)/(?P<date>\d{8})/(?P<region>[^/\s]+)/(?P<service>[^/\s]+)/aws4_request\s*,\s*"
    r"SignedHeaders=(?P<headers>[^\s,]+)\s*,\s*"
    r"Signature=(?P<signature>[0-9a-f]{64})"
)
_TIMESTAMP = "%Y%m%dT%H%M%SZ"
_ACCEPTED = (
    "This endpoint accepts any access key id whose secret access key is the same text, such as "
    "AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local"
)


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """A request as it came: `target` is the path and query of the request line, still encoded."""

    method: str
    target: str
    headers: CIMultiDictProxy[str]
    body: bytes


class SignatureVerifier:
    """Checks the signatures of requests.

    Any access key id is accepted whose secret is the same text; `credentials` maps further access key ids to their
    secrets.
    """

    def __init__(self, credentials: Mapping[str, str]) -> None:
        self._credentials = dict(credentials)

    def check(self, request: SignedRequest, now: float) -> None:
        """Let a request pass if it is signed rightly for the service `m2` and this time, in seconds of the epoch.

        Raises AuthenticationException: MissingAuthenticationTokenException for an unsigned request, else
        InvalidSignatureException with what is wrong.
        """
        authorization = request.headers.get("Authorization")
        if authorization is None:
            raise unauthenticated("MissingAuthenticationTokenException", f"Missing Authentication Token. {_ACCEPTED}.")
        parts = _AUTHORIZATION.fullmatch(authorization)
        if parts is None:
            raise _refused("The Authorization header is not one of Signature Version 4.")
        if parts["service"] != SERVICE:
            raise _refused(f"Credential should be scoped to correct service: '{SERVICE}', not '{parts['service']}'.")
        timestamp = request.headers.get("X-Amz-Date", "")
        _check_time(timestamp, parts["date"], now)
        signed = parts["headers"].split(";")
        _check_coverage(request, signed)

        to_sign = _to_sign(request, signed, timestamp)
        given = parts["signature"].encode()
        for secret in self._secrets(parts["key_id"]):
            signer = _BotocoreSigner(Credentials(parts["key_id"], secret), parts["region"], request.body)
            if hmac.compare_digest(_signature(signer, to_sign), given):
                return
        raise _refused(f"The request signature we calculated does not match the signature you provided. {self._hint}")

    @property
    def _hint(self) -> str:
        own = f", and with their own secrets {', '.join(self._credentials)}" if self._credentials else ""
        return f"{_ACCEPTED}{own}."

    def _secrets(self, key_id: str) -> Iterator[str]:
        yield key_id
        if key_id in self._credentials:
            yield self._credentials[key_id]


class _BotocoreSigner(SigV4Auth):
    """botocore's signer, made to sign exactly the headers that the client signed, and the body as it came."""

    def __init__(self, credentials: Credentials, region: str, body: bytes) -> None:
        super().__init__(credentials, SERVICE, region)
        self._body = body

    def headers_to_sign(self, request: AWSRequest) -> HTTPHeaders:
        return request.headers

    def payload(self, request: AWSRequest) -> str:
        return sha256(self._body).hexdigest()


def _to_sign(request: SignedRequest, signed: list[str], timestamp: str) -> AWSRequest:
    to_sign = AWSRequest(request.method, "http://endpoint" + request.target)
    for name in signed:
        for value in request.headers.getall(name):
            to_sign.headers[name] = value  # appends: these are the headers of an email message
    to_sign.context["timestamp"] = timestamp
    return to_sign


def _signature(signer: _BotocoreSigner, request: AWSRequest) -> bytes:
    try:
        string_to_sign = signer.string_to_sign(request, signer.canonical_request(request))
    except UnicodeError:  # bytes that are not UTF-8: no client signs such a request
        return b""
    return str(signer.signature(string_to_sign, request)).encode()


def _check_time(timestamp: str, scope_date: str, now: float) -> None:
    try:
        signed_at = _instant(timestamp)
    except ValueError:
        raise _refused("X-Amz-Date must be given as YYYYMMDD'T'HHMMSS'Z'.") from None
    if not timestamp.startswith(scope_date):
        raise _refused(f"Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date: {timestamp}.")
    if signed_at < now - MAX_SKEW:
        raise _refused(f"Signature expired: {timestamp} is now earlier than {_stamp(now - MAX_SKEW)}.")
    if signed_at > now + MAX_SKEW:
        raise _refused(f"Signature not yet current: {timestamp} is still later than {_stamp(now + MAX_SKEW)}.")


def _check_coverage(request: SignedRequest, signed: list[str]) -> None:
    for name in ("host", "x-amz-date"):
        if name not in signed:
            raise _refused(f"The header '{name}' must be a signed header.")
    for name in signed:
        if name not in request.headers:
            raise _refused(f"The signed header '{name}' is not among the request's headers.")
    if "#" in request.target:  # the signer would take what follows for a fragment, which is not signed
        raise _refused("The request target must not have a fragment.")
    # The canonical request takes this header's word for the body.
    stated = request.headers.get("X-Amz-Content-SHA256")
    if stated is not None and stated != sha256(request.body).hexdigest():
        raise _refused("The body does not have the hash that X-Amz-Content-SHA256 states.")


@lru_cache(maxsize=16)
def _instant(timestamp: str) -> float:
    return datetime.strptime(timestamp, _TIMESTAMP).replace(tzinfo=UTC).timestamp()


def _stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime(_TIMESTAMP)


def _refused(message: str) -> M2ServiceException:
    return unauthenticated("InvalidSignatureException", message)
