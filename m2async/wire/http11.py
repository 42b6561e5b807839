"""HTTP/1.1 answers: bytes in, at most one response at a time out. No sockets; httptools reads the syntax."""

from __future__ import annotations

from typing import NamedTuple

import httptools

MAX_HEAD = 64 * 1024
"""Bytes of a response before its body."""

MAX_BODY = 32 * 1024 * 1024
"""Bytes of a response's body: a page of 2,000 executions has about 1 MiB."""


class UnreadableResponseError(Exception):
    """What came is no HTTP/1.1 response, or a larger one than is read."""


class Response(NamedTuple):
    """A whole response; `keep_alive` says whether the connection can take another request."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    keep_alive: bool

    def header(self, name: bytes) -> str | None:
        """The value of a header by its name in lower case; the first one, where there are several."""
        for given, value in self.headers:
            if given.lower() == name:
                return value.decode("latin-1")
        return None


class ResponseParser:
    """Reads the responses of one connection, one after the other."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._response: Response | None = None
        self._surplus = False
        self._in_body = False
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._size = 0  # of the head, and then of the body

    def feed(self, data: bytes) -> Response | None:
        """Take what arrived; give the response if it is whole now.

        Raises UnreadableResponseError; the connection is then of no more use.
        """
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            raise UnreadableResponseError("the server switches to another protocol") from None
        except httptools.HttpParserError as exc:
            if self._response is None:  # otherwise something stands behind a whole response
                reason = exc.__context__ if isinstance(exc.__context__, UnreadableResponseError) else exc
                raise UnreadableResponseError(str(reason)) from None
            self._surplus = True
        response = self._response
        if response is not None:
            self._response = None
            return response._replace(keep_alive=False) if self._surplus else response
        if not self._in_body:
            self._size += len(data)
            if self._size > MAX_HEAD:
                raise UnreadableResponseError(f"the head of the response has more than {MAX_HEAD:,} bytes")
        return None

    def end(self) -> Response | None:
        """Take the end of the connection; gives the response whose body ends with it, if there is one."""
        if not self._in_body or any(name.lower() in _FRAMING for name, _ in self._headers):
            return None
        self._in_body = False
        return Response(self._parser.get_status_code(), self._headers, b"".join(self._body), keep_alive=False)

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
        self._in_body = True
        self._size = 0

    def on_body(self, body: bytes) -> None:
        self._body.append(body)
        self._size += len(body)
        if self._size > MAX_BODY:
            raise UnreadableResponseError(f"the body of the response has more than {MAX_BODY:,} bytes")

    def on_message_complete(self) -> None:
        self._in_body = False
        self._size = 0
        status = self._parser.get_status_code()
        if status >= 200 and self._response is None:  # before it, 1xx answers say only that it is to come
            keep_alive = self._parser.should_keep_alive()
            self._response = Response(status, self._headers, b"".join(self._body), keep_alive)


_FRAMING = frozenset({b"content-length", b"transfer-encoding"})
