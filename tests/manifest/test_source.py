from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from itertools import repeat
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m2async.errors import ManifestError
from m2async.manifest import source as source_module
from m2async.manifest.source import MAX_LINE, Source
from tests.manifest.samples import generated


@given(st.lists(st.sampled_from([b"a", b"bb\n", b"\n", b"\r", b"\r\n", b"ccc", b"\x85"])), st.integers(1, 5))
def test_lines_end_at_line_feeds_however_the_bytes_come(pieces: list[bytes], size: int) -> None:
    content = b"".join(pieces)
    chunks = (content[begin : begin + size] for begin in range(0, len(content), size))
    assert list(Source(generated(chunks), "m").lines()) == io.BytesIO(content).readlines()


@given(st.lists(st.integers(0, 12)), st.integers(1, 5))
def test_only_the_lines_that_are_too_long_are_missing(lengths: list[int], size: int) -> None:
    content = b"".join(b"x" * length + b"\n" for length in lengths)
    chunks = (content[begin : begin + size] for begin in range(0, len(content), size))
    with patch.multiple(source_module, MAX_LINE=8, _CHUNK=1):
        lines = list(Source(generated(chunks), "m").lines())
    assert [line or b"" for line in lines] == [b"x" * length + b"\n" if length + 1 <= 8 else b"" for length in lengths]


def test_a_last_line_that_is_too_long_is_missing() -> None:
    def pieces() -> Iterator[bytes]:
        yield b"x\n"
        yield from repeat(b"y" * 1024, MAX_LINE // 1024 + 1)

    assert list(Source(generated(pieces()), "m").lines()) == [b"x\n", None]


def test_a_byte_order_mark_of_utf_8_is_dropped_and_others_are_refused() -> None:
    pieces = iter([b"\xef", b"\xbb\xbf", b"file\n"])
    assert list(Source(generated(pieces), "m").lines()) == [b"file\n"]
    for mark in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE):
        with pytest.raises(ManifestError, match=r"^m: is UTF-16 or UTF-32: save it as UTF-8$"):
            Source(io.BytesIO(mark + b"f\0i\0l\0e\0"), "m")


def test_a_stream_that_fails_is_a_manifest_that_cannot_be_read() -> None:
    def pieces() -> Iterator[bytes]:
        yield b"file\nA\n"
        raise OSError(5, "Input/output error")

    source = Source(generated(pieces()), "m")
    with pytest.raises(ManifestError, match=r"^m: cannot be read: Input/output error$"):
        list(source.lines())
