"""HTTP/1.1 answers: bytes in, at most one response at a time out. No sockets; httptools reads the syntax."""

from __future__ import annotations

import httptools
import msgspec
from msgspec.structs import replace

MAX_HEAD = 64 * 1024
"""Bytes of a response before its body."""

MAX_RESPONSE = 32 * 1024 * 1024
"""Bytes of a whole response, as they are sent: a page of 2,000 executions has about 1 MiB."""


class UnreadableResponseError(Exception):
    """What came is no HTTP/1.1 response, or a larger one than is read."""


class Response(msgspec.Struct, frozen=True, gc=False):
    """A whole response; `keep_alive` says whether the connection can take another request."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    keep_alive: bool

    def header(self, name: bytes) -> str | None:
        """The value of a header by its name in lower case; the first one, where there are several."""
        for given, value in self.headers:
            if given.lower() == name:
                return value.decode("latin-1").rstrip(" \t")
        return None


class ResponseParser:
    """Reads the responses of one connection, one after the other."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._response: Response | None = None
        self._surplus = False
        self._in_body = False
        self._status = 0
        self._head: list[tuple[bytes, bytes]] = []
        self._headers: list[tuple[bytes, bytes]] = []  # those of the head, and then the trailers
        self._body: list[bytes] = []
        self._size = 0  # of what came of a response that is not whole

    def feed(self, data: bytes) -> Response | None:
        """Take what arrived; give the response if it is whole now.

        Raises UnreadableResponseError; the connection is then of no more use.
        """
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            if self._response is None:  # otherwise something stands behind a whole response
                raise _unreadable(exc) from None
            self._surplus = True
        response = self._response
        if response is not None:
            self._response = None
            return replace(response, keep_alive=False) if self._surplus else response
        self._size += len(data)
        if self._size > MAX_HEAD and not self._in_body:
            raise UnreadableResponseError(f"the head of the response has more than {MAX_HEAD:,} bytes")
        if self._size > MAX_RESPONSE:
            raise UnreadableResponseError(f"the response has more than {MAX_RESPONSE:,} bytes")
        return None

    def end(self) -> Response | None:
        """Take the end of the connection; gives the response whose body ends with it, if there is one."""
        if not self._in_body or any(name.lower() in _FRAMING for name, _ in self._head):
            return None
        self._in_body = False
        return Response(self._status, self._head, b"".join(self._body), keep_alive=False)

    # What httptools calls

    def on_message_begin(self) -> None:
        if self._response is not None:
            self._surplus = True
        self._headers = []
        self._body = []
        self._size = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._status = self._parser.get_status_code()
        if self._status < 100:
            raise UnreadableResponseError(f"{self._status} is no status")
        self._head, self._headers = self._headers, []
        self._in_body = True

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        self._in_body = False
        self._size = 0
        if self._status >= 200 and self._response is None:  # before it, 1xx answers say only that it is to come
            keep_alive = self._parser.should_keep_alive()
            self._response = Response(self._status, self._head, b"".join(self._body), keep_alive)


_FRAMING = frozenset({b"content-length", b"transfer-encoding"})


def _unreadable(exc: Exception) -> UnreadableResponseError:
    if isinstance(exc, httptools.HttpParserUpgrade):
        return UnreadableResponseError("the server switches to another protocol")
    if isinstance(exc.__context__, UnreadableResponseError):  # raised while httptools called the parser
        return exc.__context__
    return UnreadableResponseError(str(exc))
