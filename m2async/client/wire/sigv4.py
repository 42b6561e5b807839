"""AWS Signature Version 4: from a request, credentials and an instant to signed bytes. Pure: no I/O, no clock.

Source: AWS, "Create a signed AWS API request" (IAM User Guide), and botocore's `SigV4Auth`, whose
signature these requests carry to the byte. What does not change between calls is made once: the signing
key for a day and credential set, the text around a request for a second and target.
"""

from __future__ import annotations

import hmac
import time
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple
from urllib.parse import quote

from m2async.errors import CredentialsError

ALGORITHM = "AWS4-HMAC-SHA256"


class Credentials(NamedTuple):
    """An access key, with the session token of temporary ones."""

    access_key: str
    secret_key: str
    token: str | None = None

    def __repr__(self) -> str:
        """Show no secret."""
        return f"Credentials({self.access_key!r}, secret_key=<hidden>)"


class Scope(NamedTuple):
    """For what a signature is valid, besides its day."""

    region: str
    service: str


class Target(NamedTuple):
    """What calls to one resource have in common.

    `host` is the Host header; `path` is percent-encoded, as it goes on the wire, and so is `query`, its
    pairs in the order in which they are to be sent.
    """

    method: str
    host: str
    path: str
    query: str = ""
    has_body: bool = True


def fits_in_a_head(text: str) -> bool:
    """Whether a request's head can hold a text as it is: printable ASCII, so nothing that ends a line."""
    return text.isascii() and text.isprintable()


def check_credentials(credentials: Credentials) -> None:
    """Refuse credentials that a request's head cannot hold; raises CredentialsError."""
    for name, text in zip(("access key id", "secret access key", "session token"), credentials, strict=True):
        if text and not fits_in_a_head(text):
            raise CredentialsError(f"the {name} holds a character that is not printable ASCII, such as a line break")


class Signer:
    """Signs requests of one second with one credential set: make another when the second has passed."""

    def __init__(self, credentials: Credentials, scope: Scope, second: int) -> None:
        timestamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(second))
        self.credentials = credentials
        self.second = second
        self.timestamp = timestamp
        self._scope = f"{timestamp[:8]}/{scope.region}/{scope.service}/aws4_request"
        string_to_sign = f"{ALGORITHM}\n{timestamp}\n{self._scope}\n".encode()
        # All of the string to sign but its end, which is the hash of the canonical request.
        self._mac = hmac.new(_signing_key(credentials.secret_key, timestamp[:8], scope), string_to_sign, sha256)

    def prepare(self, target: Target, user_agent: str) -> SignedTarget:
        """Make what signs and frames the calls to a target during this second."""
        signed = {"host": target.host, "x-amz-date": self.timestamp}
        if target.has_body:
            signed["content-type"] = "application/json"
        if self.credentials.token:
            signed["x-amz-security-token"] = self.credentials.token
        names = ";".join(sorted(signed))
        canonical_headers = "".join(f"{name}:{' '.join(signed[name].split())}\n" for name in sorted(signed))
        canonical = (
            f"{target.method}\n{_canonical_path(target.path)}\n{_canonical_query(target.query)}\n"
            f"{canonical_headers}\n{names}\n"
        )
        headers = "".join(f"{name}: {value}\r\n" for name, value in signed.items())
        uri = f"{target.path}?{target.query}" if target.query else target.path
        head = (
            f"{target.method} {uri} HTTP/1.1\r\n{headers}user-agent: {user_agent}\r\n"
            f"authorization: {ALGORITHM} Credential={self.credentials.access_key}/{self._scope}, "
            f"SignedHeaders={names}, Signature="
        )
        return SignedTarget(canonical.encode(), self._mac, head.encode())


class SignedTarget:
    """Signs and frames the calls to one target during one second."""

    __slots__ = ("_canonical", "_head", "_mac")

    def __init__(self, canonical: bytes, mac: hmac.HMAC, head: bytes) -> None:
        self._canonical = sha256(canonical)  # all of the canonical request but its end, which is the hash of the body
        self._mac = mac
        self._head = head

    def request(self, body: bytes) -> bytes:
        """Give the whole request, signed."""
        canonical = self._canonical.copy()
        canonical.update(sha256(body).hexdigest().encode())
        mac = self._mac.copy()
        mac.update(canonical.hexdigest().encode())
        return b"%b%b\r\ncontent-length: %d\r\n\r\n%b" % (self._head, mac.hexdigest().encode(), len(body), body)


@lru_cache(maxsize=16)
def _signing_key(secret_key: str, date: str, scope: Scope) -> bytes:
    key = f"AWS4{secret_key}".encode()
    for part in (date, scope.region, scope.service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def _canonical_path(path: str) -> str:
    """Resolve dot segments and repeated slashes, then encode each segment once more, as botocore does."""
    segments: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            if segments:
                segments.pop()
        elif segment and segment != ".":
            segments.append(segment)
    normal = "/".join(segments)
    return quote(f"/{normal}{'/' if segments and path.endswith('/') else ''}", safe="/~")


def _canonical_query(query: str) -> str:
    pairs = [pair.partition("=")[::2] for pair in query.split("&")] if query else []
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))
