"""A real HTTP server on loopback that does as it is told with each request in turn."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any, Literal

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession

Step = Callable[[asyncio.StreamWriter], Awaitable[None]]


class ScriptedServer:
    """Reads each request whole, counts it, and then takes the next step; the last step is for all that follow.

    A list of late executions before the first start, with which a run that has jobs is opened, or of all since a time,
    which is looked at when it ends, is answered with none and does not count, unless `lists` says that there is a step
    for it.
    """

    lists = False

    transport: Literal["wire", "aiobotocore"] | None = None  # of the clients that use `settings`

    def __init__(self, steps: tuple[Step, ...]) -> None:
        self.steps = list(steps)
        self.requests: list[bytes] = []
        self.connections = 0
        self.arrived = asyncio.Event()
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
                )
                request = head + await reader.readexactly(length)
                if self._is_a_look(request):
                    await answer(200, {"batchJobExecutions": []})(writer)
                    await writer.drain()
                    continue
                self.requests.append(request)
                self.arrived.set()
                step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
                await step(writer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    def _is_a_look(self, request: bytes) -> bool:
        asked = request.partition(b"\r\n")[0]
        is_list = asked.startswith(b"GET ") and b"/batch-job-executions?" in asked and b"startedAfter=" in asked
        is_open = b"startedBefore=" not in asked
        return is_list and not self.lists and (is_open or not any(each.startswith(b"POST ") for each in self.requests))

    def settings(self, **others: Any) -> dict[str, Any]:
        """The arguments with which an M2Client uses this server."""
        session = AioSession()
        session.set_credentials("local", "local")
        session.set_default_client_config(AioConfig(proxies={}))
        own = {"session": session, "region_name": "us-east-1", "endpoint_url": self.url}
        return {**own, "transport": self.transport, **others}


@contextlib.asynccontextmanager
async def scripted(*steps: Step) -> AsyncIterator[ScriptedServer]:
    server = ScriptedServer(steps)
    handlers: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not listener.is_serving():  # it was accepted just before the end
            writer.transport.abort()
            return
        task = asyncio.ensure_future(server.serve(reader, writer))
        handlers.add(task)
        task.add_done_callback(handlers.discard)
        task.add_done_callback(lambda _: writer.transport.abort())  # one that never began has not closed it

    listener = await asyncio.start_server(connected, "127.0.0.1", 0, limit=2**20)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listener.close()
        for _ in range(3):  # connections that were just accepted come to be known
            await asyncio.sleep(0)
        while handlers:
            for task in list(handlers):
                task.cancel()
            await asyncio.gather(*handlers, return_exceptions=True)
            await asyncio.sleep(0)  # which lets those that have ended be discarded: to gather them need not wait
        await listener.wait_closed()


@contextlib.contextmanager
def nobody() -> Iterator[ScriptedServer]:
    """A server that refuses connections; its port is taken, so that no other listens there meanwhile."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        server = ScriptedServer(())
        server.url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        yield server


def answer(status: int, body: object, headers: Mapping[str, str] | None = None) -> Step:
    """Answer with JSON, or with bytes as they are."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} X", f"content-length: {len(content)}", "x-amzn-requestid: r-1"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return send("\r\n".join([*lines, "", ""]).encode() + content)


def error(status: int, code: str, headers: Mapping[str, str] | None = None, **members: object) -> Step:
    """Answer with an error of the service."""
    return answer(status, {"message": f"{code} said", **members}, {"x-amzn-errortype": code, **(headers or {})})


def started(execution_id: str = "e-1") -> Step:
    """Answer that the job was started."""
    return answer(200, {"executionId": execution_id})


def send(data: bytes) -> Step:
    """Send bytes."""

    async def step(writer: asyncio.StreamWriter) -> None:
        writer.write(data)

    return step


async def close(writer: asyncio.StreamWriter) -> None:
    """Close the connection in good order."""
    writer.close()
    raise ConnectionError


async def reset(writer: asyncio.StreamWriter) -> None:
    """Abort the connection, so that the peer sees a reset."""
    transport = writer.transport
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
    raise ConnectionError


async def hang(writer: asyncio.StreamWriter) -> None:
    """Never answer."""
    await asyncio.get_running_loop().create_future()


def truncated(writer: asyncio.StreamWriter) -> Awaitable[None]:
    """Promise more than is sent, then close."""
    writer.write(b'HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{"exec')
    return close(writer)
