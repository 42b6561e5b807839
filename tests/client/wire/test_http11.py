from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import count, cycle, pairwise, repeat

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from m2async.client.wire import http11
from m2async.client.wire.http11 import MAX_HEAD, Response, ResponseParser, UnreadableResponseError

OK = b'HTTP/1.1 200 OK\r\nContent-Length: 19\r\nx-amzn-RequestId: r-1\r\n\r\n{"executionId":"a"}'
OK_RESPONSE = Response(
    200, [(b"Content-Length", b"19"), (b"x-amzn-RequestId", b"r-1")], b'{"executionId":"a"}', keep_alive=True
)
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
UNTIL_THE_END = b"HTTP/1.1 200 OK\r\nserver: x\r\n\r\n"


def read(*pieces: bytes) -> Response | None:
    """Feed a new parser; no response may come before the last piece."""
    parser = ResponseParser()
    for piece in pieces[:-1]:
        assert parser.feed(piece) is None
    return parser.feed(pieces[-1])


def read_to_the_end(*pieces: bytes) -> Response | None:
    """Feed a new parser and then end the connection."""
    parser = ResponseParser()
    for piece in pieces:
        assert parser.feed(piece) is None
    return parser.end()


def bytes_of(data: bytes) -> list[bytes]:
    return [data[place : place + 1] for place in range(len(data))]


def body(data: bytes) -> bytes:
    response = read(data)
    assert response is not None
    return response.body


# What is a whole response

WHOLE = {
    "content-length": (OK, OK_RESPONSE),
    "no body": (
        b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n",
        Response(202, [(b"content-length", b"0")], b"", keep_alive=True),
    ),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", Response(204, [], b"", keep_alive=True)),
    "304": (
        b"HTTP/1.1 304 Not Modified\r\ncontent-length: 40\r\n\r\n",
        Response(304, [(b"content-length", b"40")], b"", keep_alive=True),
    ),
    "close": (
        b"HTTP/1.1 500 X\r\nConnection: close\r\ncontent-length: 2\r\n\r\n{}",
        Response(500, [(b"Connection", b"close"), (b"content-length", b"2")], b"{}", keep_alive=False),
    ),
    "HTTP/1.0": (
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\n{}",
        Response(200, [(b"content-length", b"2")], b"{}", keep_alive=False),
    ),
    "HTTP/1.0 kept": (
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\ncontent-length: 2\r\n\r\n{}",
        Response(200, [(b"Connection", b"keep-alive"), (b"content-length", b"2")], b"{}", keep_alive=True),
    ),
    "chunked": (
        CHUNKED + b"5\r\nhello\r\n1\r\n \r\n005\r\nworld\r\n0\r\n\r\n",
        Response(200, [(b"Transfer-Encoding", b"chunked")], b"hello world", keep_alive=True),
    ),
    "chunked in capitals": (
        b"HTTP/1.1 200 OK\r\nTRANSFER-ENCODING: Chunked\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n",
        Response(200, [(b"TRANSFER-ENCODING", b"Chunked")], b"0123456789", keep_alive=True),
    ),
    "chunk extensions": (
        CHUNKED + b'5;name=value\r\nhello\r\n1;q="a;b"\r\n!\r\n0;last\r\n\r\n',
        Response(200, [(b"Transfer-Encoding", b"chunked")], b"hello!", keep_alive=True),
    ),
    "trailers, which are no headers": (
        CHUNKED + b"2\r\n{}\r\n0\r\nx-amzn-RequestId: of-the-trailer\r\nx-more: 1\r\n\r\n",
        Response(200, [(b"Transfer-Encoding", b"chunked")], b"{}", keep_alive=True),
    ),
    "continue and early hints first": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\nx-amzn-RequestId: early\r\n\r\n" + OK,
        OK_RESPONSE,
    ),
    "empty values and spaces before values": (
        b"HTTP/1.1 200 OK\r\nA:\r\nb: \t x y\r\nC: \r\ncontent-length:0\r\n\r\n",
        Response(200, [(b"A", b""), (b"b", b"x y"), (b"C", b""), (b"content-length", b"0")], b"", keep_alive=True),
    ),
    "no reason": (
        b"HTTP/1.1 429\r\ncontent-length: 0\r\n\r\n",
        Response(429, [(b"content-length", b"0")], b"", keep_alive=True),
    ),
    "an offer to upgrade, not taken up": (
        b"HTTP/1.1 200 OK\r\nupgrade: h2c\r\nconnection: upgrade\r\ncontent-length: 1\r\n\r\nx",
        Response(
            200, [(b"upgrade", b"h2c"), (b"connection", b"upgrade"), (b"content-length", b"1")], b"x", keep_alive=True
        ),
    ),
}


@pytest.mark.parametrize(("data", "response"), WHOLE.values(), ids=WHOLE)
def test_a_response_is_read_whole_however_it_is_split(data: bytes, response: Response) -> None:
    assert read(data) == response
    assert read(*bytes_of(data)) == response
    for place in range(1, len(data)):
        assert read(data[:place], data[place:]) == response, place


@pytest.mark.parametrize(("data", "response"), WHOLE.values(), ids=WHOLE)
def test_a_response_cut_short_is_none(data: bytes, response: Response) -> None:
    for place in range(1, len(data)):
        assert read_to_the_end(data[:place]) is None, place
        assert read_to_the_end(*bytes_of(data[:place])) is None, place
    assert ResponseParser().end() is None


@pytest.mark.parametrize(("data", "response"), WHOLE.values(), ids=WHOLE)
def test_what_stands_behind_a_response_leaves_the_response_and_ends_the_connection(
    data: bytes, response: Response
) -> None:
    switching = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n"
    for behind in (data, OK, b"garbage", b"\0", switching, *(OK[:length] for length in range(1, len(OK)))):
        expected = replace(response, keep_alive=False)
        assert read(data + behind) == expected, behind
        for place in range(1, len(data)):
            assert read(data[:place], data[place:] + behind) == expected, (place, behind)


def test_a_second_response_is_never_the_answer_to_a_later_request() -> None:
    parser = ResponseParser()
    first = parser.feed(OK + OK.replace(b'"a"', b'"b"'))
    assert first is not None
    assert (first.body, first.keep_alive) == (b'{"executionId":"a"}', False)
    later = parser.feed(OK.replace(b'"a"', b'"c"'))
    assert later is not None
    assert (later.body, later.keep_alive) == (b'{"executionId":"c"}', False)


@pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/1.0"])
def test_without_a_length_the_body_goes_to_the_end_of_the_connection(version: bytes) -> None:
    data = UNTIL_THE_END.replace(b"HTTP/1.1", version)
    for length in range(6):
        expected = Response(200, [(b"server", b"x")], b"hello"[:length], keep_alive=False)
        assert read_to_the_end(data + b"hello"[:length]) == expected
        assert read_to_the_end(*bytes_of(data + b"hello"[:length])) == expected
    parser = ResponseParser()
    parser.feed(data)
    assert parser.end() is not None
    assert parser.end() is None


def test_an_encoding_that_is_not_chunked_at_last_is_never_whole() -> None:
    """RFC 9112, 6.3: such a body ends with the connection, and nobody can say whether it was cut."""
    for encoding in (b"gzip", b"chunked, gzip"):
        assert read_to_the_end(b"HTTP/1.1 200 OK\r\ntransfer-encoding: " + encoding + b"\r\n\r\nhello") is None
    assert body(b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n") == b"x"


def test_a_header_is_found_by_its_name_in_lower_case_and_the_first_one_counts() -> None:
    response = read(
        b"HTTP/1.1 200 OK\r\nX-Amzn-RequestId: caf\xe9 \t\r\nx-amzn-requestid: 2\r\ncontent-length: 0\r\n\r\n"
    )
    assert response is not None
    assert response.header(b"x-amzn-requestid") == "café"
    assert response.header(b"retry-after") is None


# What cannot be read

UNREADABLE = {
    "another protocol": b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
    "101 without a name": b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    "TLS": b"\x15\x03\x01\x00\x02\x02\x50",
    "NUL bytes": b"\0" * 20,
    "SMTP": b"220 ready\r\n\r\n",
    "HTML": b"<html>\r\n\r\n",
    "a request": b"GET / HTTP/1.1\r\n\r\n",
    "lower case": OK.replace(b"HTTP", b"http"),
    "HTTP/1.2": OK.replace(b"HTTP/1.1", b"HTTP/1.2"),
    "HTTP/3.0": OK.replace(b"HTTP/1.1", b"HTTP/3.0"),
    "no version": OK.replace(b"HTTP/1.1", b"HTTP"),
    "two digits": OK.replace(b"200", b"20"),
    "four digits": OK.replace(b"200", b"2000"),
    "status 0": OK.replace(b"200", b"000"),
    "status 99": OK.replace(b"200", b"099"),
    "a signed status": OK.replace(b"200", b"+20"),
    "two spaces": OK.replace(b" 200", b"  200"),
    "a bare line feed": OK.replace(b"\r\n", b"\n"),
    "a bare line feed at the end of a header": OK.replace(b"19\r\n", b"19\n"),
    "a folded header": OK.replace(b"r-1", b"r\r\n -1"),
    "no colon": OK.replace(b"x-amzn-RequestId: ", b"x-amzn-RequestId "),
    "a space before the colon": OK.replace(b"Content-Length:", b"Content-Length :"),
    "a NUL in a name": OK.replace(b"x-amzn", b"x\0amzn"),
    "a NUL in a value": OK.replace(b"r-1", b"r\0001"),
    "no name": OK.replace(b"x-amzn-RequestId", b""),
    "two lengths": OK.replace(b"\r\n\r\n", b"\r\nContent-Length: 20\r\n\r\n"),
    "the same length twice": OK.replace(b"\r\n\r\n", b"\r\nContent-Length: 19\r\n\r\n"),
    "a list of lengths": OK.replace(b"19", b"19, 19"),
    "a negative length": OK.replace(b"19", b"-19"),
    "a signed length": OK.replace(b"19", b"+19"),
    "a hexadecimal length": OK.replace(b"19", b"0x19"),
    "no number": OK.replace(b"19", b"many"),
    "an empty length": OK.replace(b"19", b""),
    "a length of more than 64 bits": OK.replace(b"19", b"18446744073709551635"),
    "a length and chunks": CHUNKED.replace(b"\r\n\r\n", b"\r\ncontent-length: 1\r\n\r\n") + b"1\r\nx\r\n0\r\n\r\n",
    "chunks and a length": OK.replace(b"x-amzn-RequestId: r-1", b"transfer-encoding: chunked"),
    "a negative chunk": CHUNKED + b"-1\r\nx\r\n",
    "a chunk that is no number": CHUNKED + b"g\r\nx\r\n",
    "a chunk of more than 64 bits": CHUNKED + b"10000000000000001\r\nx\r\n",
    "a chunk longer than it says": CHUNKED + b"1\r\nxy\r\n0\r\n\r\n",
    "a chunk that ends in a bare line feed": CHUNKED + b"1\nx\n0\n\n",
    "a length in the trailer": CHUNKED + b"0\r\ncontent-length: 1\r\n\r\n",
}


@pytest.mark.parametrize("data", UNREADABLE.values(), ids=UNREADABLE)
def test_what_is_no_response_is_refused_however_it_is_split(data: bytes) -> None:
    for pieces in ([data], bytes_of(data), *([data[:place], data[place:]] for place in range(1, len(data)))):
        with pytest.raises(UnreadableResponseError) as caught:
            read(*pieces, b"")
        assert str(caught.value)


ENDLESS: dict[str, Callable[[], Iterator[bytes]]] = {
    "reason": lambda: _then(b"HTTP/1.1 200 ", repeat(b"k" * 4096)),
    "header name": lambda: _then(b"HTTP/1.1 200 OK\r\n", repeat(b"k" * 4096)),
    "header value": lambda: _then(b"HTTP/1.1 200 OK\r\nk: ", repeat(b"k" * 4096)),
    "headers": lambda: _then(b"HTTP/1.1 200 OK\r\n", (b"k%d: v\r\n" % number for number in count())),
    "empty lines": lambda: repeat(b"\r\n" * 50),
    "body to the end": lambda: _then(UNTIL_THE_END, repeat(b"k" * 4096)),
    "body with a length": lambda: _then(b"HTTP/1.1 200 OK\r\ncontent-length: 9999999999\r\n\r\n", repeat(b"k" * 4096)),
    "chunks": lambda: _then(CHUNKED, repeat(b"10\r\n0123456789abcdef\r\n")),
    "one chunk": lambda: _then(CHUNKED + b"ffffffffff\r\n", repeat(b"k" * 4096)),
    "chunk size": lambda: _then(CHUNKED, repeat(b"0" * 4096)),
    "chunk extension": lambda: _then(CHUNKED + b"1;", repeat(b"k" * 4096)),
    "trailers": lambda: _then(CHUNKED + b"0\r\n", (b"k%d: v\r\n" % number for number in count())),
    "one trailer": lambda: _then(CHUNKED + b"0\r\nk: ", repeat(b"k" * 4096)),
    "one trailer's name": lambda: _then(CHUNKED + b"0\r\n", repeat(b"k" * 4096)),
    "interim answer's header": lambda: _then(b"HTTP/1.1 100 Continue\r\nk: ", repeat(b"k" * 4096)),
}


def _at_most(size: int, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Give pieces of that size in all, and what takes the last one's place in `read`."""
    for piece in pieces:
        size -= len(piece)
        if size < 0:
            break
        yield piece
    yield b""


def _then(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


@pytest.mark.parametrize("pieces", ENDLESS.values(), ids=ENDLESS)
def test_no_part_of_a_response_can_be_endless(
    pieces: Callable[[], Iterator[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http11, "MAX_RESPONSE", 4 * MAX_HEAD)
    with pytest.raises(UnreadableResponseError):
        read(*_at_most(4 * MAX_HEAD + 2 * 4096, pieces()))


def test_a_head_is_bounded_more_closely_than_a_body() -> None:
    parser = ResponseParser()
    parser.feed(b"HTTP/1.1 200 OK\r\nk: ")
    with pytest.raises(UnreadableResponseError, match=re.escape("65,536 bytes")):
        parser.feed(b"v" * MAX_HEAD)
    head = b"HTTP/1.1 200 OK\r\nk: " + b"v" * (MAX_HEAD - 100)
    response = read(head, b"\r\ncontent-length: 100000\r\n\r\n", b"x" * 50_000, b"x" * 50_000)
    assert response is not None
    assert len(response.body) == 100_000


def test_the_bound_is_that_of_one_response_not_of_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http11, "MAX_RESPONSE", 4 * MAX_HEAD)
    parser = ResponseParser()
    data = b"HTTP/1.1 200 OK\r\ncontent-length: 200000\r\n\r\n" + b"x" * 200_000
    for _ in range(5):
        assert [parser.feed(data[start : start + 4096]) for start in range(0, len(data), 4096)][-1] is not None
        assert parser.feed(b"\r\n") is None  # RFC 9112, 2.2: an empty line between messages is let pass


# Properties

_TOKEN = st.sampled_from(
    [b"date", b"Server", b"X-AMZN-REQUESTID", b"x-amzn-errortype", b"retry-after", b"a", b"!#$%&'*"]
)
_VALUE = st.text(st.characters(codec="latin-1", categories=("L", "N", "P", "S")), max_size=12).map(
    lambda text: text.encode("latin-1")
)
_HEADERS = st.lists(st.tuples(_TOKEN, _VALUE), max_size=4)
_CHUNK_EXTENSION = st.sampled_from([b"", b";a", b";a=b", b';a="b c"'])


def _lines(*lines: bytes) -> bytes:
    return b"".join(line + b"\r\n" for line in (*lines, b""))


@st.composite
def serialised_responses(draw: st.DrawFn) -> tuple[bytes, Response]:
    """A response and the bytes that mean it; one without a length needs the connection's end."""
    data = b"".join(
        _lines(b"HTTP/1.1 %d Interim" % status, *(name + b": " + value for name, value in headers))
        for status, headers in draw(st.lists(st.tuples(st.sampled_from([100, 102, 103]), _HEADERS), max_size=2))
    )
    version = draw(st.sampled_from([b"HTTP/1.1", b"HTTP/1.0"]))
    status = draw(st.sampled_from([200, 201, 204, 304, 400, 403, 429, 500, 503, 599]))
    headers = draw(_HEADERS)
    connection = draw(st.sampled_from([None, b"close", b"Close", b"keep-alive", b"Keep-Alive"]))
    if connection is not None:
        headers.append((b"Connection", connection))
    content = b"" if status in {204, 304} else draw(st.binary(max_size=40))
    framings = ["length"] if version == b"HTTP/1.0" else ["length", "chunked"]
    framing = draw(st.sampled_from([*framings, "end"])) if status not in {204, 304} else "none"
    body = content
    if framing == "length":
        headers.append((draw(st.sampled_from([b"content-length", b"Content-Length"])), b"%d" % len(content)))
    elif framing == "chunked":
        headers.append((draw(st.sampled_from([b"transfer-encoding", b"Transfer-Encoding"])), b"chunked"))
        cuts = sorted({0, len(content), *draw(st.lists(st.integers(0, len(content)), max_size=3))})
        body = b"".join(
            b"%x%s\r\n%s\r\n" % (end - start, draw(_CHUNK_EXTENSION), content[start:end])
            for start, end in pairwise(cuts)
        )
        trailers = draw(_HEADERS)
        body += b"0" + draw(_CHUNK_EXTENSION) + b"\r\n" + _lines(*(name + b": " + value for name, value in trailers))
    draw(st.randoms(use_true_random=False)).shuffle(headers)
    data += _lines(version + b" %d Reason" % status, *(name + b": " + value for name, value in headers)) + body
    asked = (connection or (b"close" if version == b"HTTP/1.0" else b"keep-alive")).lower()
    return data, Response(status, headers, content, keep_alive=asked == b"keep-alive" and framing != "end")


@st.composite
def pieces_of(draw: st.DrawFn, data: bytes) -> list[bytes]:
    cuts = sorted({0, len(data), *draw(st.lists(st.integers(0, len(data)), max_size=6))})
    return [data[start:end] for start, end in pairwise(cuts)]


def _ends_with_the_connection(response: Response, data: bytes) -> bool:
    framed = re.search(rb"content-length: \d|transfer-encoding: chunked", data, re.IGNORECASE)
    return framed is None and response.status not in {204, 304}


@given(st.data())
@settings(max_examples=300)
def test_parsing_is_the_inverse_of_serialising_for_any_split(data: st.DataObject) -> None:
    serialised, response = data.draw(serialised_responses())
    pieces = data.draw(pieces_of(serialised))
    if _ends_with_the_connection(response, serialised):
        assert read_to_the_end(*pieces) == response
    else:
        assert read(*pieces) == response


@given(st.data())
@settings(max_examples=100)
def test_one_parser_gives_each_response_once_and_in_order(data: st.DataObject) -> None:
    parser = ResponseParser()
    for number in range(data.draw(st.integers(2, 6))):
        content = b'{"executionId":"%d"}' % number
        chunked = data.draw(st.booleans())
        if chunked:
            serialised = CHUNKED + b"%x\r\n%s\r\n0\r\nx-number: %d\r\n\r\n" % (len(content), content, number)
        else:
            serialised = b"HTTP/1.1 200 OK\r\nx-number: %d\r\ncontent-length: %d\r\n\r\n" % (number, len(content))
            serialised += content
        interim = b"HTTP/1.1 103 Early Hints\r\nx-number: early\r\n\r\n" * data.draw(st.integers(0, 2))
        *pieces, last = data.draw(pieces_of(interim + serialised))
        for piece in pieces:
            assert parser.feed(piece) is None
        response = parser.feed(last)
        assert response is not None
        assert (response.body, response.keep_alive) == (content, True)
        assert response.header(b"x-number") == (None if chunked else str(number))


def mutate(data: bytes, changes: list[tuple[str, int, int, bytes]]) -> bytes:
    for change, place, length, new in changes:
        start = place % (len(data) + 1)
        end = start + length
        if change == "cut":
            data = data[:start] + data[end:]
        elif change == "insert":
            data = data[:start] + new + data[start:]
        elif change == "replace":
            data = data[:start] + new + data[start + len(new) :]
        else:
            data = data[:end] + data[start:end] + data[end:]
    return data


_CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["cut", "insert", "replace", "repeat"]),
        st.integers(0, 400),
        st.integers(1, 40),
        st.binary(min_size=1, max_size=4)
        | st.sampled_from(
            [
                *(b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\0", b"\xff", b":", b" ", b"0", b"-1"),
                *(b"HTTP/1.1 ", b"101", b"204", b"99999999"),
                *(b"content-length: 3\r\n", b"transfer-encoding: chunked\r\n", b"connection: close\r\n"),
            ]
        ),
    ),
    min_size=1,
    max_size=4,
)
NEARLY_RESPONSES = st.builds(lambda response, changes: mutate(response[0], changes), serialised_responses(), _CHANGES)
GARBAGE = st.binary(max_size=200) | st.binary(max_size=100).map(lambda tail: b"HTTP/1.1 200 OK\r\n" + tail)
SIZES = st.lists(st.integers(1, 30), min_size=1, max_size=5)


def check_anything(data: bytes, sizes: list[int]) -> None:
    """Whatever comes: a response that makes sense, nothing, or UnreadableResponseError; and then all goes on."""
    parser = ResponseParser()
    start = 0
    responses = []
    try:
        for size in cycle(sizes):
            responses.append(parser.feed(data[start : start + size]))
            start += size
            if start >= len(data):
                break
    except UnreadableResponseError as exc:
        assert str(exc)
    else:
        responses.append(parser.end())
    for response in responses:
        assert response is None or (100 < response.status <= 999 and len(response.body) <= len(data))
    if sum(response is not None for response in responses) > 1:
        # More of them came than were asked for; the connection's owner must have seen the first before the second.
        assert len(data) > len(b"HTTP/1.1 200\r\n\r\n") * 2


@given(NEARLY_RESPONSES, SIZES)
@example(b"HTTP/1.1 000 OK\r\n\r\n{}", [9])
@settings(max_examples=400)
def test_a_response_with_errors_in_it_raises_nothing_else(data: bytes, sizes: list[int]) -> None:
    check_anything(data, sizes)


@given(GARBAGE, SIZES)
@settings(max_examples=200)
def test_garbage_raises_nothing_else(data: bytes, sizes: list[int]) -> None:
    check_anything(data, sizes)
