"""Ways through a proxy: which it is, and the tunnel that it makes to a server (CONNECT, RFC 9110, section 9.3.6)."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any, NamedTuple

from m2async.client.wire.http11 import MAX_HEAD
from m2async.errors import NotSentError


class Proxy(NamedTuple):
    """Where a proxy is, how it is spoken to, and what it is told of who asks: a Proxy-Authorization."""

    host: str
    port: int
    tls: ssl.SSLContext | None
    authorization: str | None


class Tunnel:
    """Makes TLS connections through a proxy."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy

    async def open(self, host: str, port: int, tls: ssl.SSLContext, protocol: asyncio.Protocol) -> None:
        """Connect to a server; `protocol` is told of the connection to the proxy, and then of the one through it.

        Raises NotSentError if the proxy refuses, and OSError.
        """
        proxy, loop = self._proxy, asyncio.get_running_loop()
        to_proxy: dict[str, Any] = {} if proxy.tls is None else {"ssl": proxy.tls, "server_hostname": proxy.host}
        transport, opening = await loop.create_connection(_Opening, proxy.host, proxy.port, **to_proxy)
        try:
            authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            authorization = f"Proxy-Authorization: {proxy.authorization}\r\n" if proxy.authorization else ""
            transport.write(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{authorization}\r\n".encode())
            status = await opening.answered
            if not status.startswith("2"):
                answer = status or "nothing that can be read"
                raise NotSentError(f"the proxy {proxy.host}:{proxy.port} answers {answer}")
            protocol.connection_made(transport)
            made = await loop.start_tls(transport, protocol, tls, server_hostname=host)
            if made is None:
                raise ConnectionResetError("the proxy closed the connection")
            protocol.connection_made(made)
        except BaseException:
            transport.abort()
            raise


class _Opening(asyncio.Protocol):
    """Reads a proxy's answer to CONNECT: `answered` is its status line without the version."""

    def __init__(self) -> None:
        self.answered: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._head = b""

    def data_received(self, data: bytes) -> None:
        self._head += data
        if self.answered.done():
            return
        head, end, rest = self._head.partition(b"\r\n\r\n")
        if not end and len(self._head) <= MAX_HEAD:
            return
        version, _, status = head.partition(b"\r\n")[0].decode("latin-1").partition(" ")
        is_sound = version.startswith("HTTP/1.") and end and not (status.startswith("2") and rest)  # TLS comes next
        self.answered.set_result("".join(filter(str.isprintable, status))[:80] if is_sound else "")

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.answered.done():
            self.answered.set_exception(exc or ConnectionResetError("the proxy closed the connection"))
