"""Keep-alive connections to one endpoint, and one exchange at a time on each.

A connection is taken, used and given back without a task or timer of its own: one timer of the pool
watches all answers that are due and all idle connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import select
import socket
import ssl
import struct
import sys
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from functools import partial
from typing import Any, cast
from weakref import WeakSet

from m2async.client.wire.http11 import Response, ResponseParser, UnreadableResponseError
from m2async.client.wire.proxy import Tunnel
from m2async.errors import AnswerTimeoutError, CallError, ConnectionLostError, NotSentError, UnreadableAnswerError
from m2async.loops import Home, in_context

IDLE_SECONDS = 15.0
"""How long a connection is kept unused: AWS's load balancers close theirs after 20 s and more."""


class Pool:
    """At most `max_connections` connections to one endpoint; times in seconds.

    The one used last is used first, so that what is not needed expires. Who finds none free waits, first
    come, first served. With a `tunnel` the connections lead through a proxy; `is_direct` says that it is the endpoint
    which closes them, and no proxy.

    What is given up never arrives later: until a connection is closed in good order the kernel has it that closing
    it, by whatever end of the process, forgets what was not sent. What a proxy or the network's own buffers hold by
    then is out of reach.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        tls: ssl.SSLContext | None,
        max_connections: int,
        connect_timeout: float,
        read_timeout: float,
        tunnel: Tunnel | None = None,
        is_direct: bool = True,
    ) -> None:
        self.read_timeout = read_timeout
        self.is_direct: bool = is_direct and tunnel is None
        self._tunnel = tunnel
        self._host = host
        self._port = port
        self._tls = tls
        self._max_connections = max_connections
        self._connect_timeout = connect_timeout
        self._home = Home("the client")
        self.loop: asyncio.AbstractEventLoop = self._home.loop
        self._connections: set[Connection] = set()
        self._idle: list[Connection] = []
        self._closed = False
        self._places = 0  # connections that are open or being made
        self._waiters: deque[asyncio.Future[Connection | None]] = deque()
        self._tick = max(0.02, min(1.0, read_timeout / 20))
        self._connecting: set[asyncio.Timeout] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._context = copy_context()  # not that of a call, which a connection would keep for as long as it lives
        self._all_gone = asyncio.Event()
        _pools.add(self)

    def check_here(self) -> None:
        """Raise WrongEventLoopError in another event loop or process than the connections' own."""
        self._home.check()

    def take_nowait(self) -> Connection | None:
        """Take a free connection if there is one; the caller sends on it before it awaits anything."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable():
                return connection
        return None

    async def take(self) -> Connection:
        """Take a free connection, make one, or wait for one.

        Raises NotSentError if none can be made.
        """
        was_in_line = False
        while True:
            if self._closed:
                raise NotSentError(_CLOSED)
            connection = self.take_nowait()
            if connection is not None:
                return connection
            if self._places < self._max_connections:
                self._places += 1
                return await self._connect()
            connection = await self._wait_in_line(first=was_in_line)
            if connection is None:
                return await self._connect()
            if connection.is_usable():  # it may have closed since it was given
                return connection
            was_in_line = True

    def give_back(self, connection: Connection) -> None:
        """Take back a connection that can be used again: the first in line gets it."""
        connection.idle_since = self.loop.time()
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        self._idle.append(connection)

    def remove(self, connection: Connection) -> None:
        """Forget a connection that is gone: the first in line may make another in its place."""
        if connection not in self._connections:  # it was never the pool's
            return
        self._connections.remove(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._free_place()

    async def aclose(self) -> None:
        """Close every connection, and wait until they are gone; who waits in line gets a NotSentError."""
        self._closed = True
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_exception(NotSentError(_CLOSED))
        for limit in self._connecting:
            if not limit.expired():
                limit.reschedule(self.loop.time())
        for connection in list(self._connections):
            connection.abort(ConnectionLostError(_CLOSED))
        if self._places:
            await self._all_gone.wait()
        if self._timer is not None:
            self._timer.cancel()

    async def _wait_in_line(self, *, first: bool) -> Connection | None:
        """Wait for a connection, or for the place to make one."""
        waiter: asyncio.Future[Connection | None] = self.loop.create_future()
        if first:
            self._waiters.appendleft(waiter)
        else:
            self._waiters.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.cancelled():
                with contextlib.suppress(ValueError):  # it was passed over already
                    self._waiters.remove(waiter)
            elif waiter.exception() is None:
                connection = waiter.result()
                if connection is None:
                    self._free_place()
                elif connection.is_usable():
                    self.give_back(connection)
            raise

    def _free_place(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)  # the place is now the waiter's
                return
        self._places -= 1
        if self._closed and not self._places:
            self._all_gone.set()

    def _connect(self) -> Awaitable[Connection]:
        """Make a connection in the place that the caller holds; once it is made, the place is the connection's."""
        return in_context(self._context.copy(), self._make_connection)

    async def _make_connection(self) -> Connection:
        connection = Connection(self)
        limit = asyncio.timeout(self._connect_timeout)
        try:
            if self._closed:
                raise NotSentError(_CLOSED)
            async with limit:
                self._connecting.add(limit)  # for `aclose`
                await self._open(connection)
            if self._closed or not connection.is_open():
                raise NotSentError(f"{self._host}:{self._port} closed the connection at once")
        except BaseException as exc:
            if connection.was_made:
                connection.close()
            self._free_place()
            if self._closed and isinstance(exc, (OSError, NotSentError)):  # TimeoutError is an OSError
                raise NotSentError(_CLOSED) from exc
            if isinstance(exc, TimeoutError):
                waited = f"{self._connect_timeout:g} s"
                raise NotSentError(f"no connection to {self._host}:{self._port} in {waited}") from exc
            if isinstance(exc, OSError):  # ssl.SSLError and socket.gaierror among them
                raise NotSentError(f"no connection to {self._host}:{self._port}: {exc.strerror or exc}") from exc
            raise
        finally:
            self._connecting.discard(limit)
        self._connections.add(connection)
        if self._timer is None:
            self._timer = self.loop.call_later(self._tick, self._look_after)
        return connection

    async def _open(self, connection: Connection) -> None:
        if self._tunnel is None:
            tls: dict[str, Any] = {} if self._tls is None else {"ssl": self._tls, "server_hostname": self._host}
            await self.loop.create_connection(lambda: connection, self._host, self._port, **tls)
            return
        assert self._tls is not None  # noqa: S101 - plain HTTP goes to a proxy as it goes to a server
        await self._tunnel.open(self._host, self._port, self._tls, connection)

    def leave_to_parent(self) -> None:
        """In a forked process: put closed sockets in the place of those that the other process goes on with."""
        closed, other = socket.socketpair()
        other.close()
        with closed:
            for connection in self._connections:
                if connection.is_open():
                    os.dup2(closed.fileno(), connection.file(), inheritable=False)

    def _look_after(self) -> None:
        """End the exchanges whose answer is overdue and the connections that were idle too long."""
        now = self.loop.time()
        for connection in list(self._connections):
            connection.check(now)
        self._timer = self.loop.call_later(self._tick, self._look_after) if self._connections else None


class Connection(asyncio.Protocol):
    """One connection: sends a request, gives its response or the error that says how far it got."""

    __slots__ = (
        "_deadline",
        "_has_unread",
        "_is_read_late",
        "_parser",
        "_pool",
        "_transport",
        "_unsent",
        "_waiter",
        "idle_since",
        "was_made",
    )

    _transport: asyncio.Transport
    _has_unread: Callable[[], object]

    def __init__(self, pool: Pool) -> None:
        self.was_made: bool = False
        self.idle_since: float = 0.0
        self._pool = pool
        self._parser = ResponseParser()
        self._waiter: asyncio.Future[Response] | None = None
        self._deadline = 0.0
        self._is_read_late = False
        self._unsent = False

    def exchange(self, request: bytes) -> asyncio.Future[Response]:
        """Send a request; the future is its response, and then the connection is the pool's again.

        It raises NotSentError if the connection broke before the last byte was handed to the socket, and
        AnswerTimeoutError, ConnectionLostError or UnreadableAnswerError after that. Whoever cancels it, or is
        cancelled while waiting for it, calls `abandon`.
        """
        loop = self._pool.loop
        waiter: asyncio.Future[Response] = loop.create_future()
        self._waiter = waiter
        self._deadline = loop.time() + self._pool.read_timeout
        self._is_read_late = False
        self._transport.write(request)
        return waiter

    def abandon(self) -> None:
        """Close the connection if its response was cancelled; it may have come just before, and be another's now."""
        if self._waiter is not None and self._waiter.cancelled():
            self._waiter = None
            self._transport.abort()

    def file(self) -> int:
        """The descriptor of its socket."""
        file: int = self._transport.get_extra_info("socket").fileno()
        return file

    def is_open(self) -> bool:
        """Whether nothing is known to have ended it."""
        return not self._transport.is_closing()

    def is_usable(self) -> bool:
        """Whether another request may be sent on it; closes it if it was idle too long or has something to read.

        What came since the last response is the end of the connection or an answer that nobody asked for. The
        loop may not have read it yet, and then the next request would be lost, or get that answer.
        """
        if self._transport.is_closing():
            return False
        if self._pool.loop.time() - self.idle_since > IDLE_SECONDS or self._has_unread():
            self.close()
            return False
        return True

    def close(self) -> None:
        """Close it at once, in good order; nothing is under way on it."""
        _set(self._transport, socket.SOL_SOCKET, socket.SO_LINGER, _AS_USUAL)
        self._transport.abort()

    def check(self, now: float) -> None:
        """End the exchange if its answer is overdue, or the connection if it was idle too long.

        What came in time and is still to be read is read first: a process that was stopped finds it when it goes on.
        """
        if self._waiter is not None:
            if now < self._deadline:
                return
            if self._has_unread() and not self._is_read_late:
                self._is_read_late = True
            else:
                self.abort(AnswerTimeoutError(f"no answer within {self._pool.read_timeout:g} s"))
        elif now - self.idle_since > IDLE_SECONDS:
            self.close()

    def abort(self, error: CallError) -> None:
        """Close the connection at once; an exchange under way ends in the error, or was not sent whole."""
        self._fail(error)
        self._transport.abort()

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.was_made = True
        self.idle_since = self._pool.loop.time()
        self._has_unread = _look_into(self.file())
        _set(transport, socket.SOL_SOCKET, socket.SO_LINGER, _FORGET)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # for a process that is stopped, and gives nothing up
            milliseconds = max(1, math.ceil(min(self._pool.read_timeout * 1_000, 2**31 - 1)))
            _set(transport, socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
        # Nothing may wait in the transport unnoticed: `pause_writing` comes when something does. A transport over
        # TLS compares with >=, so that with 0 it would pause without cause; and it does not count what waits in the
        # transport beneath it, so that there all that was written may have been sent.
        self._transport.set_write_buffer_limits(high=0 if transport.get_extra_info("sslcontext") is None else 1)

    def pause_writing(self) -> None:
        self._unsent = True

    def resume_writing(self) -> None:
        self._unsent = False

    def data_received(self, data: bytes) -> None:
        try:
            response = self._parser.feed(data)
        except UnreadableResponseError as exc:
            self.abort(UnreadableAnswerError(f"the answer cannot be read: {exc}"))
            return
        if response is not None:
            self._answered(response)
        elif self._waiter is None:  # it speaks unasked
            self.close()

    def eof_received(self) -> None:
        response = self._parser.end()
        if response is not None:
            self._answered(response)
        else:  # what was not sent yet need not be
            self.abort(ConnectionLostError(_LOST, ended_by_service=self._pool.is_direct))

    def connection_lost(self, exc: Exception | None) -> None:
        # A link that is cut ends in a time-out or in no route, and not by the other end's word.
        is_closed = self._pool.is_direct and isinstance(exc, ConnectionResetError | BrokenPipeError)
        self._fail(ConnectionLostError(f"{_LOST}: {exc}" if exc else _LOST, ended_by_service=is_closed))
        self._pool.remove(self)

    def _answered(self, response: Response) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is None or self._unsent:
            self._transport.abort()
        elif not response.keep_alive:
            self.close()
        else:
            self._pool.give_back(self)
        if waiter is not None and not waiter.done():
            waiter.set_result(response)

    def _fail(self, error: CallError) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is None or waiter.done():
            return
        if self._unsent:
            error = NotSentError(f"the request was not sent whole: {error.message}")
        waiter.set_exception(error)


def _set(transport: asyncio.BaseTransport, level: int, option: int, value: int | bytes) -> None:
    """Set an option of a connection's socket, unless the connection is gone; the loop may not have said so yet."""
    with contextlib.suppress(OSError, ValueError):
        transport.get_extra_info("socket").setsockopt(level, option, value)


_pools: WeakSet[Pool] = WeakSet()
"""Those of this process."""


def _leave_to_parent() -> None:
    for pool in _pools:
        pool.leave_to_parent()


os.register_at_fork(after_in_child=_leave_to_parent)


def _look_into(file: int) -> Callable[[], object]:
    """Make what tells, without reading, whether there is something to read from a socket."""
    if sys.platform == "win32":
        return lambda: select.select([file], [], [], 0)[0]
    poll = select.poll()
    poll.register(file, select.POLLIN)
    return partial(poll.poll, 0)


_LINGER = "hh" if sys.platform == "win32" else "ii"
_FORGET = struct.pack(_LINGER, 1, 0)
"""SO_LINGER on, for no time: closing resets the connection, and what was not sent is dropped (tcp(7), socket(7))."""
_AS_USUAL = struct.pack(_LINGER, 0, 0)

_CLOSED = "the client was closed"
_LOST = "the connection was lost before an answer came"
