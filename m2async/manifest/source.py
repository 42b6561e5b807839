"""A manifest's bytes: read in bounded pieces, looked at before they are read, cut into lines."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import BinaryIO

from m2async.errors import ManifestError
from m2async.manifest.rows import problem

MAX_LINE = 8 * 1024 * 1024
"""Bytes of a line: 500 parameters of 1,024 characters, each escaped as two \\uXXXX, are 6 MiB of JSON."""

_CHUNK = 64 * 1024
_NOT_UTF_8 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)  # UTF-32-LE begins as UTF-16-LE does


class Source:
    """A binary stream under the name that errors call it; a UTF-8 byte-order mark is dropped.

    `seen` is called with every piece of the stream as it is read, before anything is dropped. Raises ManifestError when
    the stream cannot be read or begins as UTF-16 or UTF-32 does.
    """

    def __init__(self, stream: BinaryIO, name: str, seen: Callable[[bytes], object] | None = None) -> None:
        self.name = name
        self._stream = stream
        self._seen = seen
        head = self._look_ahead()
        if head.startswith(_NOT_UTF_8):
            raise self.error(None, "is UTF-16 or UTF-32: save it as UTF-8")
        self.head: bytes = head.removeprefix(codecs.BOM_UTF8)

    def error(self, line: int | None, reason: str, column: str | None = None) -> ManifestError:
        """Make the error of one problem in this manifest."""
        return ManifestError([problem(self.name, line, column, reason)])

    def lines(self) -> Iterator[bytes | None]:
        """Give each line with its line feed; None stands for a line of more than MAX_LINE bytes."""
        for block in self.blocks():
            yield from block

    def blocks(self) -> Iterator[list[bytes | None]]:
        """Give the same lines as soon as they have come, all that came together in one list."""
        begun: list[bytes] = []
        size = 0
        for chunk in self.chunks():
            pieces = BytesIO(chunk).readlines()  # ends lines at line feeds only, unlike bytes.splitlines
            block: list[bytes | None] = []
            if size:
                size += len(pieces[0])
                if size <= MAX_LINE:
                    begun.append(pieces[0])
                else:
                    begun.clear()
                if not pieces[0].endswith(b"\n"):
                    continue
                del pieces[0]
                block.append(b"".join(begun) if size <= MAX_LINE else None)
                begun, size = [], 0
            if pieces and not pieces[-1].endswith(b"\n"):
                begun.append(pieces.pop())
                size = len(begun[0])
            block += pieces
            if block:
                yield block
        if size:
            yield [b"".join(begun) if size <= MAX_LINE else None]

    def chunks(self) -> Iterator[bytes]:
        """Give the bytes as they come."""
        chunk, self.head = self.head, b""
        while chunk:
            yield chunk
            chunk = self._read()

    def _look_ahead(self) -> bytes:
        """Read up to the end of the first line that is not blank, if it ends soon."""
        head = b""
        while len(head) < _CHUNK and b"\n" not in head.lstrip():
            chunk = self._read()
            if not chunk:
                break
            head += chunk
        return head

    def _read(self) -> bytes:
        try:
            chunk = self._stream.read(_CHUNK)
        except OSError as error:
            raise self.error(None, f"cannot be read: {error.strerror or error}") from error
        if self._seen is not None:
            self._seen(chunk)
        return chunk


def decoded(line: bytes) -> tuple[str, str | None]:
    """Decode a line; the second is why it must not be used: it is not UTF-8 or holds a NUL."""
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        reason = f"byte {error.start + 1} of the line, 0x{line[error.start]:02x}, is not UTF-8: save the file as UTF-8"
        return line.decode(errors="replace"), reason
    if "\0" in text:
        return text, f"byte {line.index(0) + 1} of the line is a NUL: the manifest must be text"
    return text, None


def too_long(what: str) -> str:
    """Say why what is longer than MAX_LINE is refused."""
    return f"the {what} has more than {MAX_LINE:,} bytes, more than any request needs"
