"""The floor: connections that sign, write and read by themselves, and do nothing else.

No pool, no futures, no errors, no timeouts: as soon as an answer is read, the connection writes its next
request. What a client adds to this is what it costs.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Iterator
from typing import Any, cast
from urllib.parse import urlsplit

import httptools
import msgspec

from benchmarks.signing import Signing

encode = msgspec.json.Encoder().encode


class _Started(msgspec.Struct, rename="camel"):
    execution_id: str


decode = msgspec.json.Decoder(_Started).decode


class Calls:
    """The calls of one run, and what its connections share."""

    def __init__(self, url: str, bodies: Iterator[dict[str, Any]]) -> None:
        self._url = url
        self._bodies = bodies
        self._sign_for(int(time.time()))
        self.ids: list[str] = []
        self.open = 0
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def next_request(self) -> bytes | None:
        members = next(self._bodies, None)
        if members is None:
            return None
        body = encode(members)
        second = int(time.time())
        if second != self._signing.second:
            self._sign_for(second)
        signature = self._signing.signature(body).encode()
        return b"%b%b\r\ncontent-length: %d\r\n\r\n%b" % (self._head, signature, len(body), body)

    def _sign_for(self, second: int) -> None:
        self._signing = signing = Signing(self._url, second)
        self._head = (
            f"POST {urlsplit(self._url).path} HTTP/1.1\r\nhost: {signing.host}\r\nx-amz-date: {signing.date}\r\n"
            f"content-type: application/json\r\nauthorization: {signing.authorization}"
        ).encode()


class Connection(asyncio.Protocol):
    """One connection, with one call at a time."""

    __slots__ = ("_calls", "_parser", "_transport", "data_received")

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self.data_received = self._parser.feed_data  # type: ignore[method-assign] # a call less for each answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def run(self, calls: Calls) -> None:
        """Make calls until there are no more."""
        self._calls = calls
        calls.open += 1
        self._next()

    def close(self) -> None:
        self._transport.close()

    def on_body(self, body: bytes) -> None:
        assert self._parser.get_status_code() == 200
        self._calls.ids.append(decode(body).execution_id)

    def on_message_complete(self) -> None:
        self._next()

    def _next(self) -> None:
        request = self._calls.next_request()
        if request is not None:
            self._transport.write(request)
            return
        self._calls.open -= 1
        if not self._calls.open:
            self._calls.finished.set_result(None)


async def connect(url: str, tls: ssl.SSLContext | None) -> Connection:
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(Connection, parts.hostname or "", parts.port or 0, ssl=tls)
    return connection
