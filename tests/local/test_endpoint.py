from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import pytest

from m2async.errors import ConfigurationError
from m2async.local import LocalEndpoint
from tests.local.raw import SCRIPT, START_PATH, call, send, signed_headers, start, started


def port_of(endpoint: LocalEndpoint) -> int:
    return int(endpoint.url.rpartition(":")[2])


@asynccontextmanager
async def clients_in_every_state(endpoint: LocalEndpoint) -> AsyncIterator[list[asyncio.StreamReader]]:
    """Hold connections open: one idle, one after an answer, one in a head, one in a body, one that hangs."""
    body = json.dumps(SCRIPT).encode()
    headers = signed_headers(endpoint, "POST", START_PATH, body)
    head = f"POST {START_PATH} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    hanging = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    answered = f"GET /_local/executions HTTP/1.1\r\nHost: {endpoint.url[7:]}\r\n\r\n".encode()
    readers, writers = [], []
    for sent in (b"", answered, hanging[:50], hanging[:-5], hanging):
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(endpoint))
        writer.write(sent)
        readers.append(reader)
        writers.append(writer)
    await readers[1].readuntil(b"}")
    while not await started(endpoint):  # until the hanging one has been accepted
        pass
    try:
        yield readers
    finally:
        for writer in writers:
            writer.close()


def assert_nothing_is_left(port: int) -> None:
    assert asyncio.all_tasks() == {asyncio.current_task()}
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


async def test_it_listens_at_its_url_on_loopback_alone() -> None:
    async with LocalEndpoint() as endpoint:
        assert endpoint.url == f"http://127.0.0.1:{port_of(endpoint)}"
        assert (await call(endpoint, "GET", "/applications")).status == 200
        with pytest.raises(ConnectionError):
            await asyncio.open_connection("127.0.0.2", port_of(endpoint))


async def test_it_listens_at_the_port_it_is_given() -> None:
    async with LocalEndpoint() as endpoint:
        port = port_of(endpoint)
    async with LocalEndpoint(port=port) as endpoint:
        assert port_of(endpoint) == port


async def test_two_endpoints_share_nothing() -> None:
    async with LocalEndpoint() as one, LocalEndpoint() as other:
        await start(one)
        assert (len(await started(one)), len(await started(other))) == (1, 0)
        assert one.url != other.url


async def test_it_has_no_url_while_it_does_not_listen() -> None:
    endpoint = LocalEndpoint()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="within `async with` only"):
            _ = endpoint.url
        async with endpoint:
            pass


async def test_a_port_that_is_taken_is_refused_with_the_reason() -> None:
    async with LocalEndpoint() as endpoint:
        with pytest.raises(ConfigurationError, match=rf"127\.0\.0\.1:{port_of(endpoint)}: Address already in use"):
            async with LocalEndpoint(port=port_of(endpoint)):
                pass
    with pytest.raises(ConfigurationError, match="0-65535"):
        async with LocalEndpoint(port=65_536):
            pass


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"rate": 0}, "rate must be above 0"),
        ({"rate": 5, "burst": 0.5}, "burst must be at least 1"),
        ({"burst": 5}, "burst needs a rate"),
        ({"extra_applications": ["a b"]}, "no white space"),
        ({"extra_applications": [".."]}, "dot segment"),
        ({"faults": {"500": 2}}, "share"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        LocalEndpoint(**arguments)


async def test_nothing_is_left_of_it_whatever_its_clients_wait_for() -> None:
    async with AsyncExitStack() as clients:
        async with LocalEndpoint(faults={"accept-then-hang": 1}) as endpoint:
            port = port_of(endpoint)
            readers = await clients.enter_async_context(clients_in_every_state(endpoint))
        assert_nothing_is_left(port)
        for reader in readers:
            assert await reader.read() == b""


async def test_nothing_is_left_of_it_when_its_host_is_cancelled_as_a_task() -> None:
    ports = []
    listens = asyncio.Event()

    async def host(clients: AsyncExitStack) -> None:
        async with LocalEndpoint(faults={"accept-then-hang": 1}) as endpoint:
            ports.append(port_of(endpoint))
            await clients.enter_async_context(clients_in_every_state(endpoint))
            listens.set()
            await asyncio.get_running_loop().create_future()

    async with AsyncExitStack() as clients:
        task = asyncio.create_task(host(clients))
        await listens.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert_nothing_is_left(ports[0])


async def test_nothing_is_left_of_it_when_its_host_is_cancelled_as_a_scope() -> None:
    async with AsyncExitStack() as clients:
        with anyio.CancelScope() as scope:
            async with LocalEndpoint(faults={"accept-then-hang": 1}) as endpoint:
                port = port_of(endpoint)
                await clients.enter_async_context(clients_in_every_state(endpoint))
                scope.cancel()
                await anyio.sleep_forever()
        assert_nothing_is_left(port)


async def test_a_client_that_leaves_within_its_request_starts_nothing_and_troubles_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    async with LocalEndpoint() as endpoint:
        body = json.dumps(SCRIPT).encode()
        headers = signed_headers(endpoint, "POST", START_PATH, body)
        head = f"POST {START_PATH} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        _, writer = await asyncio.open_connection("127.0.0.1", port_of(endpoint))
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:-1])
        await writer.drain()
        assert await started(endpoint) == []
        writer.close()
        await writer.wait_closed()
        assert await started(endpoint) == []
    assert [record.getMessage() for record in caplog.records if record.levelno > logging.DEBUG] == []


async def test_what_is_no_http_is_refused_and_the_endpoint_goes_on() -> None:
    async with LocalEndpoint() as endpoint:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(endpoint))
        writer.write(b"\x16\x03\x01\x02\x00 this is TLS\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.0 400")
        writer.close()
        assert (await send(endpoint, "GET", "/_local/executions")).status == 200
