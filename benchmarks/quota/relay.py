"""A relay on loopback that delays what goes through it, and notes the status of every answer.

It stands before the server for every contender alike, so that all are measured at the same place and none by itself.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import cast

import uvloop


class _Upstream(asyncio.Protocol):
    def __init__(self, client: _Client) -> None:
        self._client = client

    def data_received(self, data: bytes) -> None:
        if data.startswith(b"HTTP/1.1 "):  # one exchange at a time is on a connection
            self._client.relay.note(int(data[9:12]))
        self._client.send_back(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._client.transport.close()


class _Client(asyncio.Protocol):
    def __init__(self, relay: _Relay) -> None:
        self.relay = relay
        self._waiting: list[bytes] = []
        self._upstream: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._connecting = asyncio.ensure_future(self._connect())

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        self._upstream, _ = await loop.create_connection(lambda: _Upstream(self), "127.0.0.1", self.relay.to)
        self._upstream.write(b"".join(self._waiting))

    def data_received(self, data: bytes) -> None:
        self.relay.later(self._send, data)

    def _send(self, data: bytes) -> None:
        if self._upstream is None:
            self._waiting.append(data)
        else:
            self._upstream.write(data)

    def send_back(self, data: bytes) -> None:
        self.relay.later(self.transport.write, data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._upstream is not None:
            self._upstream.close()


class _Relay:
    def __init__(self, to: int, latency: float) -> None:
        self.to = to
        self._half = latency / 2
        self._loop = asyncio.get_running_loop()
        self.answers: list[str] = []

    def note(self, status: int) -> None:
        self.answers.append(f"{self._loop.time():.6f} {status}")

    def later(self, send: object, data: bytes) -> None:
        assert callable(send)
        if self._half:
            self._loop.call_later(self._half, send, data)
        else:
            send(data)


async def serve(to: int, latency: float, log: str) -> None:
    """Relay until SIGTERM, and write down the answers: the time, by a clock that all processes share, and status."""
    loop = asyncio.get_running_loop()
    relay, ended = _Relay(to, latency), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    server = await loop.create_server(lambda: _Client(relay), "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await ended.wait()
    server.close()
    Path(log).write_text("\n".join(relay.answers))  # noqa: ASYNC240 - nothing else is left to do


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]))
