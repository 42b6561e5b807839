from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from m2async.client.wire.http11 import Response
from m2async.client.wire.pool import Connection, Pool
from m2async.errors import AnswerTimeoutError, CallError, ConnectionLostError, NotSentError, UnreadableAnswerError
from tests.tls import client_context, doubting_client_context, server_context

IDLE_SECONDS = 1e6
BIG = b"x" * 16 * 2**20  # more than the buffers of both ends hold


class Peer(asyncio.Protocol):
    """The server's end of one connection: what arrived on it, and whether it is gone."""

    transport: asyncio.Transport

    def __init__(self, server: Server) -> None:
        self.server = server
        self.received = bytearray()
        self.is_lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.server.peers.append(self)
        if self.server.is_over:  # it was accepted just before the end
            self.transport.abort()
            return
        self.server.on_connection(self)
        self.server.changed.set()

    def data_received(self, data: bytes) -> None:
        self.received += data
        self.server.on_data(self, data)
        self.server.changed.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        self.server.changed.set()

    def answer(self, body: bytes, head: bytes = b"") -> None:
        self.transport.write(b"HTTP/1.1 200 OK\r\n%scontent-length: %d\r\n\r\n%s" % (head, len(body), body))

    def send_now(self, data: bytes) -> None:
        """Hand bytes to the system before anything else happens: a transport may do it later."""
        os.write(self.transport.get_extra_info("socket").fileno(), data)

    def reset(self) -> None:
        """Abort the connection, so that the client sees a reset."""
        end = self.transport.get_extra_info("socket")
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


def nothing(peer: Peer, data: bytes = b"") -> None:
    """Leave it to the test."""


def echo(peer: Peer, data: bytes) -> None:
    """Answer with the request; they are short enough to come in one piece."""
    peer.answer(data)


class Server:
    """A server on loopback that does what the test says when a connection or bytes arrive."""

    def __init__(self, on_data: Callable[[Peer, bytes], None], on_connection: Callable[[Peer], None]) -> None:
        self.on_data = on_data
        self.on_connection = on_connection
        self.peers: list[Peer] = []
        self.changed = asyncio.Event()
        self.port = 0
        self.is_over = False

    @property
    def alive(self) -> list[Peer]:
        return [peer for peer in self.peers if not peer.is_lost]

    @property
    def requests(self) -> list[bytes]:
        return [bytes(peer.received) for peer in self.peers]

    async def until(self, holds: Callable[[], object]) -> None:
        while not holds():
            self.changed.clear()
            await self.changed.wait()


@contextlib.asynccontextmanager
async def serving(
    on_data: Callable[[Peer, bytes], None] = nothing,
    on_connection: Callable[[Peer], None] = nothing,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Server]:
    server = Server(on_data, on_connection)
    listening = socket.socket(proto=socket.IPPROTO_TCP)  # said, so that asyncio sends without delay
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    listening.bind(("127.0.0.1", 0))
    listener = await asyncio.get_running_loop().create_server(lambda: Peer(server), sock=listening, ssl=tls)
    server.port = listening.getsockname()[1]
    try:
        yield server
    finally:
        server.is_over = True
        listener.close()
        for peer in server.alive:
            peer.transport.abort()
        await server.until(lambda: not server.alive)
        await listener.wait_closed()


@contextlib.asynccontextmanager
async def pooling(
    server: Server,
    tls: ssl.SSLContext | None = None,
    *,
    max_connections: int = 8,
    connect_timeout: float = 60.0,
    read_timeout: float = 60.0,
) -> AsyncIterator[Pool]:
    """A pool for the server; when it is closed nothing may be left of it."""
    pool = Pool(
        "127.0.0.1",
        server.port,
        tls=tls,
        max_connections=max_connections,
        connect_timeout=connect_timeout,
        read_timeout=read_timeout,
    )
    try:
        yield pool
    finally:
        await pool.aclose()
        check_empty(pool)
        await server.until(lambda: not server.alive)


def check_empty(pool: Pool) -> None:
    assert pool._places == 0
    assert not pool._connections
    assert not pool._waiters
    assert not pool._connecting


async def call(pool: Pool, request: bytes) -> bytes:
    connection = pool.take_nowait() or await pool.take()
    return (await exchanged(connection, request)).body


async def exchanged(connection: Connection, request: bytes) -> Response:
    """Use a connection as the transport does."""
    try:
        return await connection.exchange(request)
    except asyncio.CancelledError:
        connection.abandon()
        raise


@pytest.fixture(autouse=True)
def idle_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was lost must not be taken for found when it was idle too long."""
    monkeypatch.setattr("m2async.client.wire.pool.IDLE_SECONDS", IDLE_SECONDS)


def grow_old(pool: Pool) -> None:
    """Let as much time pass for the idle connections as they may be idle."""
    for connection in pool._idle:
        connection.idle_since -= IDLE_SECONDS + 1


def make_due(pool: Pool) -> None:
    """Let as much time pass for the calls under way as their answers may take."""
    for connection in pool._connections:
        connection._deadline = 0.0


async def turns(count: int = 10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def until(holds: Callable[[], object]) -> None:
    """Turn the loop until something holds that no server can see."""
    while not holds():
        await asyncio.sleep(0)


async def cancelled(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, CallError):
        await task


@pytest.fixture(params=["plain", "tls"])
def is_tls(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "tls")


@pytest.fixture
async def server(is_tls: bool) -> AsyncIterator[Server]:
    async with serving(echo, tls=server_context() if is_tls else None) as server:
        yield server


@pytest.fixture
def tls(is_tls: bool) -> ssl.SSLContext | None:
    """The client's settings."""
    return client_context() if is_tls else None


# Which connection a call gets


async def test_a_connection_is_used_again(server: Server, tls: ssl.SSLContext | None) -> None:
    async with pooling(server, tls) as pool:
        for number in range(5):
            assert await call(pool, b"%d" % number) == b"%d" % number
        assert server.requests == [b"01234"]


async def test_no_more_connections_are_made_than_allowed(server: Server, tls: ssl.SSLContext | None) -> None:
    async with pooling(server, tls, max_connections=3) as pool:
        bodies = await asyncio.gather(*(call(pool, b"<%d>" % number) for number in range(50)))
        assert bodies == [b"<%d>" % number for number in range(50)]
        assert len(server.peers) == 3


async def test_the_connection_used_last_is_used_first(server: Server, tls: ssl.SSLContext | None) -> None:
    async with pooling(server, tls) as pool:
        first, second = await pool.take(), await pool.take()
        await second.exchange(b"2")
        await first.exchange(b"1")
        for _ in range(3):
            assert await call(pool, b"+") == b"+"
        assert sorted(server.requests) == [b"1+++", b"2"]


async def test_a_connection_that_was_idle_too_long_is_not_used_again(
    server: Server, tls: ssl.SSLContext | None
) -> None:
    async with pooling(server, tls) as pool:
        await call(pool, b"1")
        grow_old(pool)
        await call(pool, b"2")
        assert server.requests == [b"1", b"2"]
        await server.until(lambda: server.peers[0].is_lost)


async def test_connections_that_are_idle_too_long_are_closed_without_a_call(
    server: Server, tls: ssl.SSLContext | None
) -> None:
    async with pooling(server, tls) as pool:
        pool._tick = 0.01
        await asyncio.gather(call(pool, b"1"), call(pool, b"2"))
        grow_old(pool)
        await server.until(lambda: not server.alive)
        await until(lambda: not pool._places)
        await until(lambda: pool._timer is None)  # nothing ticks for a pool that has no connection
        assert await call(pool, b"3") == b"3"
        assert pool._timer is not None


@pytest.mark.parametrize("end", ["close", "abort", "reset"])
async def test_a_connection_that_the_server_ended_is_not_used_again(
    server: Server, tls: ssl.SSLContext | None, end: str
) -> None:
    async with pooling(server, tls) as pool:
        await call(pool, b"1")
        peer = server.peers[0]
        {"close": peer.transport.close, "abort": peer.transport.abort, "reset": peer.reset}[end]()
        await until(lambda: not pool._places)
        assert await call(pool, b"2") == b"2"
        assert server.requests == [b"1", b"2"]


@pytest.mark.parametrize(
    "head", [b"connection: close\r\n", b"Connection: Close\r\n", b"connection: keep-alive, close\r\n"]
)
async def test_a_connection_that_the_server_says_it_closes_is_not_used_again(
    server: Server, tls: ssl.SSLContext | None, head: bytes
) -> None:
    server.on_data = lambda peer, data: peer.answer(data, head)
    async with pooling(server, tls) as pool:
        assert await call(pool, b"1") == b"1"
        assert await call(pool, b"2") == b"2"
        assert server.requests == [b"1", b"2"]


async def test_an_answer_that_ends_with_the_connection_is_given(server: Server, tls: ssl.SSLContext | None) -> None:
    def until_the_end(peer: Peer, data: bytes) -> None:
        peer.transport.write(b"HTTP/1.1 200 OK\r\n\r\n" + data)
        peer.transport.close()

    server.on_data = until_the_end
    async with pooling(server, tls) as pool:
        assert await call(pool, b"1") == b"1"
        assert await call(pool, b"2") == b"2"


@pytest.mark.parametrize("unasked", [b"HTTP/1.1 408 Timeout\r\ncontent-length: 0\r\n\r\n", b"HTTP/", b"\0", b"\r\n"])
async def test_a_connection_on_which_the_server_speaks_unasked_is_not_used_again(
    server: Server, tls: ssl.SSLContext | None, unasked: bytes
) -> None:
    async with pooling(server, tls) as pool:
        await call(pool, b"1")
        server.peers[0].transport.write(unasked)
        await server.until(lambda: server.peers[0].is_lost)
        assert await call(pool, b"2") == b"2"
        assert server.requests == [b"1", b"2"]


@pytest.mark.parametrize("in_line", [False, True])
@pytest.mark.parametrize("unread", ["answer", "end"])
async def test_a_connection_is_not_used_again_with_something_unread_on_it(
    server: Server, tls: ssl.SSLContext | None, unread: str, in_line: bool
) -> None:
    """Not even if the event loop has not come round to read it."""
    async with pooling(server, tls, max_connections=1) as pool:
        connection = await pool.take()
        await connection.exchange(b"1")
        if in_line:
            assert pool.take_nowait() is connection
            later = asyncio.create_task(call(pool, b"2"))
            await turns()
            pool.give_back(connection)
        end = server.peers[0].transport.get_extra_info("socket")
        with socket.socket(fileno=os.dup(end.fileno())) as same:  # it must be there before the loop's next turn
            if unread == "answer":
                same.sendall(b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n")
            else:
                same.shutdown(socket.SHUT_WR)
        assert await (later if in_line else call(pool, b"2")) == b"2"
        assert server.requests == [b"1", b"2"]


async def test_a_second_answer_reaches_nobody(server: Server, tls: ssl.SSLContext | None) -> None:
    def answer_twice(peer: Peer, data: bytes) -> None:
        once = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(data), data)
        peer.transport.write(once + once)

    server.on_data = answer_twice
    async with pooling(server, tls, max_connections=2) as pool:
        numbers = [b"%d" % number for number in range(100, 140)]
        assert await asyncio.gather(*(call(pool, number) for number in numbers)) == numbers


async def test_an_answer_that_cannot_be_read_ends_the_connection(server: Server, tls: ssl.SSLContext | None) -> None:
    server.on_data = lambda peer, data: peer.transport.write(b"220 ready\r\n")
    async with pooling(server, tls) as pool:
        with pytest.raises(UnreadableAnswerError) as caught:
            await call(pool, b"1")
        assert caught.value.may_have_started
        server.on_data = echo
        assert await call(pool, b"2") == b"2"


# The line


async def test_waiters_are_served_in_the_order_in_which_they_came(server: Server, tls: ssl.SSLContext | None) -> None:
    server.on_data = nothing
    async with pooling(server, tls, max_connections=1) as pool:
        calls = [asyncio.create_task(call(pool, b"%d" % number)) for number in range(6)]
        await server.until(lambda: server.requests == [b"0"])
        server.peers[0].answer(b"", b"connection: close\r\n")  # the next one gets the place, and then connections
        await server.until(lambda: server.requests == [b"0", b"1"])
        server.peers[0].transport.abort()
        for number in range(1, 6):
            await server.until(lambda: server.requests[1] == b"12345"[:number])  # noqa: B023 - awaited here
            server.peers[1].answer(b"")
        await asyncio.gather(*calls)


async def test_who_was_given_a_connection_that_died_at_once_stays_first_in_line(
    server: Server, tls: ssl.SSLContext | None
) -> None:
    async with pooling(server, tls, max_connections=1) as pool:
        connection = await pool.take()
        calls = [asyncio.create_task(call(pool, b"%d" % number)) for number in range(3)]
        await turns()
        pool.give_back(connection)
        connection.close()
        await asyncio.gather(*calls)
        assert server.requests == [b"", b"012"]


@pytest.mark.parametrize("how", ["in line", "with a connection in hand", "with a place in hand", "with a dead one"])
async def test_a_waiter_that_is_cancelled_takes_nothing_with_it(
    server: Server, tls: ssl.SSLContext | None, how: str
) -> None:
    async with pooling(server, tls, max_connections=1) as pool:
        connection = await pool.take()
        first, second = (asyncio.create_task(call(pool, number)) for number in (b"1", b"2"))
        await turns()
        if how == "in line":
            await cancelled(first)
            assert len(pool._waiters) == 1
            pool.give_back(connection)
        elif how == "with a place in hand":
            connection.close()
            await until(lambda: len(pool._waiters) == 1)
            await cancelled(first)
        else:
            pool.give_back(connection)
            if how == "with a dead one":
                connection.close()
            await cancelled(first)
        assert await second == b"2"
        assert b"1" not in b"".join(server.requests)


async def test_cancelled_waiters_do_not_pile_up(server: Server, tls: ssl.SSLContext | None) -> None:
    async with pooling(server, tls, max_connections=1) as pool:
        connection = await pool.take()
        for _ in range(100):
            waiter = asyncio.create_task(pool.take())
            await turns(2)
            await cancelled(waiter)
        assert len(pool._waiters) <= 1
        pool.give_back(connection)
        assert await call(pool, b"1") == b"1"


LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
_STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["call", "call", "call", "answer", "answer", "answer and close", "cancel", "reset", "end", "turn"]
        ),
        st.integers(0, 10),
    ),
    max_size=40,
)


@pytest.mark.parametrize("new_loop", LOOPS.values(), ids=LOOPS)
def test_no_place_is_lost_whatever_happens(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    with asyncio.Runner(loop_factory=new_loop) as runner:

        @given(_STEPS, st.integers(1, 3))
        @settings(max_examples=60)
        def scenario(steps: list[tuple[str, int]], max_connections: int) -> None:
            runner.run(play(steps, max_connections))

        scenario()


async def play(steps: list[tuple[str, int]], max_connections: int) -> None:
    waiting: list[tuple[Peer, bytes]] = []  # for an answer

    def remember(peer: Peer, data: bytes) -> None:
        waiting.append((peer, data))

    calls: dict[bytes, asyncio.Task[bytes]] = {}
    async with serving(remember) as server, pooling(server, max_connections=max_connections) as pool:
        for step, which in steps:
            if step == "call":
                number = b"<%d>" % len(calls)
                calls[number] = asyncio.create_task(call(pool, number))
            elif step == "cancel" and calls:
                list(calls.values())[which % len(calls)].cancel()
            elif step.startswith("answer") and waiting:
                peer, data = waiting.pop(which % len(waiting))
                if not peer.transport.is_closing():
                    peer.answer(data, b"connection: close\r\n" if step == "answer and close" else b"")
            elif step in {"reset", "end"} and server.alive:
                peer = server.alive[which % len(server.alive)]
                if step == "reset":
                    peer.reset()
                else:
                    peer.transport.close()
            await turns(which)
            check_places(pool)
        server.on_data = echo
        for peer, data in waiting:
            if not peer.transport.is_closing():
                peer.answer(data)
        if calls:
            _, hanging = await asyncio.wait(calls.values(), timeout=60)
            assert not hanging, "somebody waits for ever"
        check_places(pool)
    for number, task in calls.items():
        if not task.cancelled() and not isinstance(task.exception(), CallError):
            assert task.result() == number


def check_places(pool: Pool) -> None:
    assert 0 <= pool._places <= pool._max_connections
    assert len(pool._connections) <= pool._places
    assert set(pool._idle) <= pool._connections
    if any(not waiter.done() for waiter in pool._waiters):
        assert pool._places == pool._max_connections
        assert not pool._idle


# Making a connection


async def check_not_sent(pool: Pool, match: str | None = None) -> None:
    with pytest.raises(NotSentError, match=match) as caught:
        await call(pool, b"1")
    assert caught.value.may_have_started is False
    check_empty(pool)


async def test_nobody_listens(server: Server, tls: ssl.SSLContext | None) -> None:
    async with pooling(server, tls) as pool:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            pool._port = free.getsockname()[1]
            await check_not_sent(pool, "no connection to 127.0.0.1")


async def test_a_name_that_nobody_knows(server: Server, tls: ssl.SSLContext | None) -> None:
    async with pooling(server, tls) as pool:
        pool._host = "nobody.invalid"
        await check_not_sent(pool, "no connection to nobody.invalid")


async def test_a_connection_that_is_not_accepted_in_time() -> None:
    async with serving() as server, pooling(server, connect_timeout=0.05) as pool:
        with contextlib.ExitStack() as stack:
            full = stack.enter_context(socket.socket())
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            for _ in range(4):
                client = stack.enter_context(socket.socket())
                client.setblocking(False)
                client.connect_ex(full.getsockname())
            pool._port = full.getsockname()[1]
            await check_not_sent(pool, r"in 0.05 s")


async def test_a_handshake_that_is_not_answered_in_time() -> None:
    async with serving() as server, pooling(server, client_context(), connect_timeout=0.05) as pool:
        await check_not_sent(pool, r"in 0.05 s")
        await server.until(lambda: server.peers and not server.alive)


async def test_a_server_that_speaks_no_tls() -> None:
    async with serving(lambda peer, data: peer.answer(b"")) as server, pooling(server, client_context()) as pool:
        await check_not_sent(pool)
        await server.until(lambda: server.peers and not server.alive)


async def test_a_server_that_ends_the_handshake() -> None:
    for end in (lambda peer, data: peer.transport.close(), lambda peer, data: peer.reset()):
        async with serving(end) as server, pooling(server, client_context()) as pool:
            await check_not_sent(pool)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_certificate_that_cannot_be_verified() -> None:
    async with serving(echo, tls=server_context()) as server, pooling(server, doubting_client_context()) as pool:
        await check_not_sent(pool, "certificate")
        assert not b"".join(server.requests)


async def test_a_failed_connection_gives_its_place_to_the_next_in_line() -> None:
    async with serving() as server, pooling(server, client_context(), max_connections=1) as pool:
        server.on_data = lambda peer, data: peer.transport.close()
        outcomes = await asyncio.gather(*(call(pool, b"1") for _ in range(5)), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [NotSentError] * 5
        check_empty(pool)


async def test_a_server_that_closes_each_connection_at_once(is_tls: bool, tls: ssl.SSLContext | None) -> None:
    def close(peer: Peer) -> None:
        peer.transport.close()

    context = server_context() if is_tls else None
    async with serving(on_connection=close, tls=context) as server, pooling(server, tls, max_connections=2) as pool:
        for outcome in await asyncio.gather(*(call(pool, b"<1>") for _ in range(20)), return_exceptions=True):
            assert isinstance(outcome, NotSentError | ConnectionLostError)
        await until(lambda: not pool._places)


async def test_cancelling_while_a_connection_is_made_leaves_none(server: Server, tls: ssl.SSLContext | None) -> None:
    async with pooling(server, tls, max_connections=1) as pool:
        for steps in range(40):
            attempt = asyncio.create_task(pool.take())
            await turns(steps)
            attempt.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                (await attempt).close()
            await until(lambda: not pool._places)
        await server.until(lambda: not server.alive)
        assert await call(pool, b"1") == b"1"


@pytest.mark.parametrize("at_once", [True, False])
async def test_cancelling_at_the_moment_a_connection_is_made_leaves_none(
    server: Server, tls: ssl.SSLContext | None, at_once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Connection.connection_made

    def made_and_cancelled(connection: Connection, transport: asyncio.BaseTransport) -> None:
        made(connection, transport)
        if at_once:
            attempt.cancel()
        else:
            asyncio.get_running_loop().call_soon(attempt.cancel)

    async with pooling(server, tls, max_connections=1) as pool:
        monkeypatch.setattr(Connection, "connection_made", made_and_cancelled)
        attempt = asyncio.create_task(pool.take())
        with pytest.raises(asyncio.CancelledError):
            await attempt
        monkeypatch.undo()
        await until(lambda: not pool._places)
        await server.until(lambda: server.peers and not server.alive)
        assert await call(pool, b"1") == b"1"


# Closing


async def test_closing_ends_calls_under_way_and_those_in_line(server: Server, tls: ssl.SSLContext | None) -> None:
    server.on_data = nothing
    async with pooling(server, tls, max_connections=2) as pool:
        calls = [asyncio.create_task(call(pool, b"<%d>" % number)) for number in range(5)]
        await server.until(lambda: sorted(server.requests) == [b"<0>", b"<1>"])
        await pool.aclose()
        check_empty(pool)
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [ConnectionLostError] * 2 + [NotSentError] * 3
        await server.until(lambda: not server.alive)
        await check_not_sent(pool, "the client was closed")


async def test_closing_ends_connections_that_are_being_made() -> None:
    async with serving() as server, pooling(server, client_context(), max_connections=3) as pool:
        calls = [asyncio.create_task(call(pool, b"1")) for _ in range(5)]
        await server.until(lambda: len(server.peers) == 3)  # they speak no TLS
        await pool.aclose()
        check_empty(pool)
        for outcome in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(outcome, NotSentError)
            assert outcome.message == "the client was closed"
        await server.until(lambda: not server.alive)


async def test_closing_at_the_moment_a_connection_is_made_ends_it(
    server: Server, tls: ssl.SSLContext | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Connection.connection_made
    closing: list[asyncio.Task[None]] = []

    def made_and_closed(connection: Connection, transport: asyncio.BaseTransport) -> None:
        made(connection, transport)
        closing.append(asyncio.get_running_loop().create_task(pool.aclose()))

    async with pooling(server, tls) as pool:
        monkeypatch.setattr(Connection, "connection_made", made_and_closed)
        await check_not_sent(pool, "the client was closed")
        await closing[0]
        assert not b"".join(server.requests)


async def test_closing_at_any_moment_ends_everything(server: Server, tls: ssl.SSLContext | None) -> None:
    for steps in range(40):
        async with pooling(server, tls, max_connections=2) as pool:
            calls = [asyncio.create_task(call(pool, b"<%d>" % number)) for number in range(4)]
            await turns(steps)
            await asyncio.gather(pool.aclose(), pool.aclose())
            check_empty(pool)
            for number, outcome in enumerate(await asyncio.gather(*calls, return_exceptions=True)):
                assert outcome == b"<%d>" % number or isinstance(outcome, NotSentError | ConnectionLostError)
            await server.until(lambda: not server.alive)


async def test_closing_a_pool_that_nobody_used(server: Server, tls: ssl.SSLContext | None) -> None:
    async with pooling(server, tls) as pool:
        await pool.aclose()
        await pool.aclose()


# Whether the whole request may have arrived


def stop_reading(peer: Peer) -> None:
    asyncio.get_running_loop().call_soon(peer.transport.pause_reading)  # uvloop starts to read after connection_made


async def check_half_sent(server: Server, is_tls: bool, end: Callable[[], None], *, read_timeout: float = 60.0) -> None:
    """End a call whose request is too large for the buffers, and that the server does not read."""
    async with pooling(server, client_context() if is_tls else None, read_timeout=read_timeout) as pool:
        under_way = asyncio.create_task(call(pool, BIG))
        await server.until(lambda: server.peers)
        await turns(50)
        end()
        with pytest.raises(CallError) as caught:
            await under_way
        if is_tls:
            # A transport over TLS takes all that is written: the pool cannot know how much of it was sent.
            assert isinstance(caught.value, AnswerTimeoutError | ConnectionLostError)
        else:
            assert isinstance(caught.value, NotSentError)
            assert caught.value.message.startswith("the request was not sent whole: ")
        if not server.peers[0].transport.is_closing():
            server.peers[0].transport.abort()  # it would read what is on its way


@pytest.fixture
async def deaf_server(is_tls: bool) -> AsyncIterator[Server]:
    async with serving(on_connection=stop_reading, tls=server_context() if is_tls else None) as server:
        yield server


async def test_a_timeout_before_all_was_sent(deaf_server: Server, is_tls: bool) -> None:
    await check_half_sent(deaf_server, is_tls, lambda: None, read_timeout=0.1)
    assert len(deaf_server.peers[0].received) < len(BIG)


async def test_a_reset_before_all_was_sent(deaf_server: Server, is_tls: bool) -> None:
    await check_half_sent(deaf_server, is_tls, lambda: deaf_server.peers[0].reset())
    assert len(deaf_server.peers[0].received) < len(BIG)


async def test_a_close_before_all_was_sent(deaf_server: Server, is_tls: bool) -> None:
    await check_half_sent(deaf_server, is_tls, lambda: deaf_server.peers[0].transport.abort())
    assert len(deaf_server.peers[0].received) < len(BIG)


async def test_an_end_of_stream_before_all_was_sent() -> None:
    """The server half-closes and reads on: what waits is not sent any more, so that the error stays true."""
    async with serving(on_connection=stop_reading) as server, pooling(server) as pool:
        under_way = asyncio.create_task(call(pool, BIG))
        await server.until(lambda: server.peers)
        peer = server.peers[0]
        peer.transport.write_eof()
        with pytest.raises(NotSentError):
            await under_way
        peer.transport.resume_reading()
        await server.until(lambda: peer.is_lost)
        assert len(peer.received) < len(BIG)


async def test_a_reset_in_the_middle_of_the_request(is_tls: bool, tls: ssl.SSLContext | None) -> None:
    def reset_in_the_middle(peer: Peer, data: bytes) -> None:
        if len(peer.received) > len(BIG) // 4:
            peer.reset()

    context = server_context() if is_tls else None
    async with serving(reset_in_the_middle, tls=context) as server, pooling(server, tls) as pool:
        with pytest.raises(CallError) as caught:
            await call(pool, BIG)
        await server.until(lambda: not server.alive)
        assert len(server.peers[0].received) < len(BIG)
        assert caught.value.may_have_started is is_tls


@pytest.mark.parametrize("end", ["timeout", "close", "reset", "aclose", "cut"])
@pytest.mark.parametrize("size", [10, len(BIG)])
async def test_after_the_whole_request_arrived_no_error_denies_it(
    is_tls: bool, tls: ssl.SSLContext | None, end: str, size: int
) -> None:
    context = server_context() if is_tls else None
    async with serving(tls=context) as server:
        async with pooling(server, tls) as pool:
            pool._tick = 0.01
            for _ in range(2):  # on a new connection and on a used one
                before = sum(len(peer.received) for peer in server.peers)
                under_way = asyncio.create_task(call(pool, BIG[:size]))
                await server.until(lambda: sum(len(peer.received) for peer in server.peers) == before + size)  # noqa: B023
                if end != "aclose" and not before:
                    server.peers[0].answer(b"ok")
                    assert await under_way == b"ok"
            if end == "close":
                server.peers[0].transport.close()
            elif end == "reset":
                server.peers[0].reset()
            elif end == "cut":
                server.peers[0].transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nx")
                server.peers[0].transport.close()
            elif end == "aclose":
                await pool.aclose()
            elif end == "timeout":
                make_due(pool)
            with pytest.raises(CallError) as caught:
                await under_way
            assert type(caught.value) is (AnswerTimeoutError if end == "timeout" else ConnectionLostError)


async def test_an_answer_before_the_request_was_sent_whole_is_given_and_ends_the_connection() -> None:
    async with serving(on_connection=stop_reading) as server, pooling(server) as pool:
        under_way = asyncio.create_task(call(pool, BIG))
        await server.until(lambda: server.peers)
        await turns()
        server.peers[0].answer(b"too large")
        assert await under_way == b"too large"
        server.peers[0].transport.resume_reading()
        await server.until(lambda: not server.alive)
        assert len(server.peers[0].received) < len(BIG)


# Time


class CountingLoop:
    """Counts the timers that the pool asks of the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.timers = 0

    def __getattr__(self, name: str) -> Any:
        if name in {"call_later", "call_at"}:
            self.timers += 1
        return getattr(self._loop, name)


async def test_calls_under_way_have_one_timer_in_all(server: Server, tls: ssl.SSLContext | None) -> None:
    server.on_data = nothing
    async with pooling(server, tls, max_connections=100) as pool:
        connections = await asyncio.gather(*(pool.take() for _ in range(100)))
        loop = asyncio.get_running_loop()
        scheduled = len(getattr(loop, "_scheduled", ()))  # asyncio's own list of timers
        counting = CountingLoop(loop)
        pool.loop = cast("asyncio.AbstractEventLoop", counting)
        calls = [asyncio.create_task(exchanged(connection, b"1")) for connection in connections]
        await until(lambda: sum(len(peer.received) for peer in server.peers) == 100)
        assert counting.timers <= 2  # the pool's own tick, if it came by
        assert len(getattr(loop, "_scheduled", ())) <= scheduled + 1
        for task in calls:
            await cancelled(task)
        pool.loop = loop


async def test_every_overdue_call_times_out_within_a_tenth_of_the_timeout(
    server: Server, tls: ssl.SSLContext | None
) -> None:
    server.on_data = nothing
    loop = asyncio.get_running_loop()
    async with pooling(server, tls, max_connections=50, read_timeout=0.5) as pool:
        connections = await asyncio.gather(*(pool.take() for _ in range(50)))
        began = loop.time()
        calls = [connection.exchange(b"1") for connection in connections]
        ended: list[float] = []
        for call in calls:
            call.add_done_callback(lambda _: ended.append(loop.time()))
        # Measured by the loop's order of timers, as a busy machine may be late with all of them.
        late: list[asyncio.Future[Response]] = []
        timer = loop.call_later(0.55, lambda: late.extend(call for call in calls if not call.done()))
        for error in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(error, AnswerTimeoutError)
            assert error.message == "no answer within 0.5 s"
        assert min(ended) - began >= 0.5
        assert not late
        timer.cancel()


async def test_a_late_answer_reaches_nobody(server: Server, tls: ssl.SSLContext | None) -> None:
    server.on_data = nothing
    async with pooling(server, tls, max_connections=1) as pool:
        pool._tick = 0.01
        for number in range(3):
            slow = asyncio.create_task(call(pool, b"slow"))
            await server.until(lambda: len(server.peers) > number and server.requests[number].endswith(b"slow"))  # noqa: B023
            make_due(pool)
            with pytest.raises(AnswerTimeoutError):
                await slow
            with contextlib.suppress(RuntimeError):  # uvloop's, where the transport is gone already
                server.peers[-1].answer(b"late")
            server.on_data = echo
            assert await call(pool, b"%d" % number) == b"%d" % number
            server.on_data = nothing
        assert server.requests == [b"slow", b"0slow", b"1slow", b"2"]


# A caller that is cancelled


async def test_a_caller_cancelled_at_any_step_leaves_no_stale_answer(
    server: Server, tls: ssl.SSLContext | None
) -> None:
    for steps in range(30):
        async with pooling(server, tls, max_connections=1) as pool:
            assert await call(pool, b"<0>") == b"<0>"
            first = asyncio.create_task(call(pool, b"<1>"))
            second = asyncio.create_task(call(pool, b"<2>"))
            await turns(steps)
            first.cancel()
            assert await second == b"<2>"
            assert await call(pool, b"<3>") == b"<3>"
            assert first.done()
            assert first.cancelled() or first.result() == b"<1>"


async def test_a_caller_that_is_cancelled_closes_its_connection(server: Server, tls: ssl.SSLContext | None) -> None:
    server.on_data = nothing
    async with pooling(server, tls, max_connections=1) as pool:
        first = asyncio.create_task(call(pool, b"1"))
        await server.until(lambda: server.requests == [b"1"])
        first.cancel()
        await server.until(lambda: server.peers[0].is_lost)
        assert first.cancelled()
        server.on_data = echo
        assert await call(pool, b"2") == b"2"


async def test_a_caller_cancelled_when_its_answer_is_there_does_not_disturb_the_next(
    server: Server, tls: ssl.SSLContext | None
) -> None:
    async with pooling(server, tls, max_connections=1) as pool:

        async def cancel_first_and_call() -> Response:
            connection = await pool.take()  # given back by the first, which has not taken its answer yet
            assert not first.done()
            first.cancel()
            return await connection.exchange(b"2")

        first = asyncio.create_task(call(pool, b"1"))
        second = asyncio.create_task(cancel_first_and_call())
        assert (await second).body == b"2"
        assert first.cancelled()
        assert server.requests == [b"12"]


async def test_an_answer_that_is_still_to_be_read_when_it_is_overdue_is_read_first() -> None:
    """A process that was stopped finds it when it goes on, however late that is; more than one look it is not given."""
    async with serving() as server, pooling(server) as pool:
        connection = await pool.take()
        for _ in range(2):
            answer = connection.exchange(b"1")
            await server.until(lambda: server.requests[0].endswith(b"1"))
            server.peers[0].received.clear()
            server.peers[0].send_now(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nlate")
            connection.check(float("inf"))
            assert (await answer).body == b"late"
            connection = await pool.take()
        answer = connection.exchange(b"1")
        await server.until(lambda: server.requests[0].endswith(b"1"))
        server.peers[0].send_now(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n")
        connection.check(float("inf"))
        assert not answer.done()
        connection.check(float("inf"))
        assert isinstance(answer.exception(), AnswerTimeoutError)
