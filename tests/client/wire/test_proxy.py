"""Through a proxy: what it is told, what it is not, and what it may answer."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiobotocore.config import AioConfig

from m2async import CallError, ConfigurationError, M2Client, NotSentError, ScriptJob, StartBatchJob
from tests.scripted import ScriptedServer, started
from tests.tls import server_context, write_authority

REQUEST = StartBatchJob("application", ScriptJob("POSTTRAN"), {"PASSWORD": "SECRET"})
MADE = b"HTTP/1.1 200 Connection established\r\n\r\n"


class Proxy:
    """Takes CONNECT, and answers it as it is told; where that is a success, it relays to a server of its own."""

    def __init__(self, target: int, answer: bytes | None) -> None:
        self.target = target
        self.answer = answer
        self.heads: list[bytes] = []
        self.ended = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(closed, writer)
            stack.enter_context(contextlib.suppress(ConnectionError, asyncio.IncompleteReadError))
            self.heads.append(await reader.readuntil(b"\r\n\r\n"))
            if self.answer is None:
                await reader.read()
                return
            writer.write(self.answer)
            if self.answer == MADE:
                there, back = await asyncio.open_connection("127.0.0.1", self.target)
                stack.push_async_callback(closed, back)
                for ends in ((reader, back), (there, writer)):
                    stack.callback(asyncio.create_task(pump(*ends)).cancel)
                await self.ended.wait()


async def closed(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def listening(handler: Any, tls: ssl.SSLContext | None) -> AsyncIterator[int]:
    handlers: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.add(asyncio.ensure_future(handler(reader, writer)))

    listener = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        for task in handlers:
            task.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)


@contextlib.asynccontextmanager
async def proxied(
    answer: bytes | None = MADE, *, is_tls: bool = False, **settings: Any
) -> AsyncIterator[tuple[M2Client, Proxy, ScriptedServer]]:
    """A client, the proxy that it goes through, and a server with TLS behind it."""
    server = ScriptedServer((started(),))
    async with listening(server.serve, server_context()) as target:
        proxy = Proxy(target, answer)
        async with listening(proxy.serve, server_context() if is_tls else None) as port:
            given = server.settings(endpoint_url=f"https://localhost:{target}", **settings)
            url = f"{'https' if is_tls else 'http'}://me:secret@127.0.0.1:{port}"
            given["session"].set_default_client_config(AioConfig(proxies={"https": url}))
            async with M2Client(**given) as client:
                yield client, proxy, server


@pytest.mark.parametrize("is_tls", [False, True], ids=["plain proxy", "tls proxy"])
async def test_a_tunnel_shows_the_proxy_nothing_but_where_it_leads(tmp_path: Path, is_tls: bool) -> None:
    async with proxied(verify=write_authority(tmp_path), is_tls=is_tls) as (client, proxy, server):
        for _ in range(3):
            assert (await client.start_batch_job(REQUEST)).execution_id == "e-1"
        assert len(server.requests) == 3
        assert b"Proxy-Authorization" not in server.requests[0]
        [head] = proxy.heads  # of one connection
        host = f"localhost:{proxy.target}".encode()
        assert head == (
            b"CONNECT %b HTTP/1.1\r\nHost: %b\r\nProxy-Authorization: Basic bWU6c2VjcmV0\r\n\r\n" % (host, host)
        )


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 407 Who are you\r\nContent-Length: 2\r\n\r\nno", "answers 407 Who are you"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://portal.example/\r\n\r\n", "answers 302 Found"),
        (b"HTTP/1.1 502 Bad gateway\r\n\r\n", "answers 502 Bad gateway"),
        (b"HTTP/1.1 \x1b[31m\r\n\r\n", r"answers \[31m"),
        (b"SMTP ready\r\n\r\n", "answers nothing that can be read"),
        (b"", "closed the connection"),
        (None, "no connection to"),
        (b"a" * 70_000, "answers nothing that can be read"),
        (MADE + b"and more", "answers nothing that can be read"),
        (MADE.replace(b"\r\n\r\n", b"\r\nX: y\r\n\r\n"), "no connection to"),
    ],
    ids=["407", "302", "502", "colours", "mail", "closed", "silent", "no end", "more", "made and closed"],
)
async def test_a_tunnel_that_is_not_made_means_not_sent(answer: bytes | None, said: str, tmp_path: Path) -> None:
    patience = 0.3 if said == "no connection to" else 60
    async with proxied(answer, verify=write_authority(tmp_path), connect_timeout=patience) as (client, _, server):
        with pytest.raises(NotSentError, match=said) as caught:
            await client.start_batch_job(REQUEST)
        assert "secret" not in caught.value.message
        assert caught.value.message.isprintable()
        assert not server.requests


async def test_who_is_behind_the_tunnel_has_to_be_the_endpoint() -> None:
    async with proxied() as (client, _, server):  # whose certificate nobody vouches for
        with pytest.raises(NotSentError, match="certificate"):
            await client.start_batch_job(REQUEST)
        assert not server.requests


async def test_plain_requests_bear_the_proxys_password_and_go_to_no_proxy_elsewhere() -> None:
    server = ScriptedServer((started(),))
    async with listening(server.serve, None) as port:
        settings = server.settings(endpoint_url="http://localhost:9")
        url = f"http://me:secret@127.0.0.1:{port}"
        settings["session"].set_default_client_config(AioConfig(proxies={"http": url}))
        async with M2Client(**settings) as client:
            await client.start_batch_job(REQUEST)
    [request] = server.requests
    assert request.startswith(b"POST http://localhost:9/applications/application/batch-job HTTP/1.1\r\n")
    assert b"\r\nHost: localhost:9\r\n" in request
    assert b"\r\nProxy-Authorization: Basic bWU6c2VjcmV0\r\n" in request
    settings["session"].set_default_client_config(AioConfig(proxies={"http": "http://proxy.example:3128"}))
    with pytest.raises(ConfigurationError, match=r"plain HTTP, which would go through the proxy proxy\.example"):
        async with M2Client(**settings):
            pass
    async with M2Client(**settings, plain_http_to=["proxy.example"]):
        pass


@pytest.mark.parametrize("url", ["socks5://127.0.0.1:1080", "http://127.0.0.1:99999", "http://"])
async def test_a_proxy_that_cannot_be_one_is_refused_on_opening(url: str) -> None:
    settings = ScriptedServer(()).settings(endpoint_url="https://localhost:9")
    settings["session"].set_default_client_config(AioConfig(proxies={"https": url}))
    with pytest.raises(ConfigurationError, match="the proxy"):
        async with M2Client(**settings):
            pass


@pytest.mark.parametrize("event", ["before-send", "request-created"])
@pytest.mark.parametrize("elsewhere", ["http://127.0.0.1:9/x", "https://localhost:9/x"])
async def test_a_hook_cannot_turn_a_request_to_another_host_or_to_plain_text(event: str, elsewhere: str) -> None:
    def turn(request: Any, **_: Any) -> None:
        request.url = elsewhere

    settings = ScriptedServer(()).settings(endpoint_url="https://127.0.0.1:9")
    settings["session"].get_component("event_emitter").register(f"{event}.m2", turn)
    async with M2Client(**settings) as client:
        with pytest.raises(CallError, match="a hook turned the request") as caught:
            await client.start_batch_job(REQUEST)
    assert not caught.value.may_have_started


@pytest.mark.parametrize(
    ("event", "was_sent"),
    [("before-sign", False), ("before-send", False), ("before-parse", True), ("after-call", True)],
)
async def test_a_hook_that_raises_says_whether_the_request_was_sent(event: str, was_sent: bool) -> None:
    def fail(**_: Any) -> None:
        raise KeyError("broken")

    server = ScriptedServer((started(),))
    async with listening(server.serve, None) as port:
        settings = server.settings(endpoint_url=f"http://127.0.0.1:{port}")
        settings["session"].get_component("event_emitter").register(f"{event}.m2", fail)
        async with M2Client(**settings) as client:
            with pytest.raises(CallError, match="broken") as caught:
                await client.start_batch_job(REQUEST)
    assert caught.value.may_have_started is was_sent
    assert len(server.requests) == was_sent


async def test_a_line_break_in_a_header_of_a_hook_is_not_sent() -> None:
    def add(request: Any, **_: Any) -> None:
        request.headers["X-Own"] = "a\r\nX-Evil: b"

    server = ScriptedServer((started(),))
    async with listening(server.serve, None) as port:
        settings = server.settings(endpoint_url=f"http://127.0.0.1:{port}")
        settings["session"].get_component("event_emitter").register("before-send.m2", add)
        async with M2Client(**settings) as client:
            with pytest.raises(ConfigurationError):
                await client.start_batch_job(REQUEST)
    assert not server.requests
