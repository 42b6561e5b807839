"""The write-ahead log beside a ledger's file: whether all of it is there that was said to be durable.

What is committed is in the log at first, and moves into the file only with a checkpoint. A log that is lost or cut, or
a copy of the file alone, would be taken by SQLite for an older ledger, and jobs that were started would be started
again. So the file bears a mark behind its last page: which log it was written with, how many of its frames, and whether
it needs them. SQLite does not read there, and cuts the file behind its last page when a checkpoint has moved
everything, whoever makes it: so the mark goes with the need for it, be it by a reader that closes last, by VACUUM, or
by another program. Copies that are made through SQLite (.backup, VACUUM INTO) have none. A checkpoint that is killed
leaves it.

A mark is written after its commit is durable, and before the commit is told: if that is where the process dies, nothing
was sent yet that the log knows of. The mark is never synced by itself: one that a power cut took asks for less.

That the two are of one ledger and one moment is for the tags to tell (see commits.py).

Source of the formats: https://www.sqlite.org/walformat.html.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

_MARK = struct.Struct(">8s8sI")
_CRC = struct.Struct(">I")
_NEEDED = b"m2as-wal"
_MOVED = b"m2as-all"
_LENGTH = _MARK.size + _CRC.size
HEADER = 32
"""Bytes of a log's header."""
FRAME = 24
"""Bytes of the header of each of its frames, which a page follows."""
_INDEX = struct.Struct("=I4xIBBHII8x8s8x")  # the wal-index header; of it there are two copies
_COPY = 48


class LogState(NamedTuple):
    """A log as those who have it open know it."""

    salts: bytes
    """Which log it is: it is begun anew in the same file, with other salts, once all of it is in the ledger's file."""
    frames: int
    moved: int
    """Frames that are known to be in the ledger's file; 0 after a crash."""
    pages: int
    """Pages of the ledger with all that is in the log."""
    page_size: int

    @property
    def size(self) -> int:
        """Bytes that the log has at least."""
        return HEADER + self.frames * (FRAME + self.page_size) if self.frames else 0


class LogMark(NamedTuple):
    """With which log a file was written, how many of its frames, and whether it needs them."""

    salts: bytes
    frames: int
    is_needed: bool

    def is_met_by(self, state: LogState) -> bool:
        """Tell whether a log that is open holds what is needed; if nothing is, whether it takes nothing back."""
        return state.frames >= self.frames if state.salts == self.salts else not self.is_needed

    def is_met_in(self, log: Path, page_size: int) -> bool:
        """Tell the same, as far as its header and its length show, of a log that need not be open."""
        try:
            with log.open("rb") as file:
                header = file.read(HEADER)
                least = HEADER + self.frames * (FRAME + page_size)
                is_whole = os.fstat(file.fileno()).st_size >= least
        except FileNotFoundError:
            return not self.is_needed
        return is_whole if salts_in(header) == self.salts else not self.is_needed


def salts_in(header: bytes) -> bytes:
    """Give what a log's header, and each of its frames, tells it by from the one before."""
    return header[16:24]


def read_state(descriptor: int) -> LogState | None:
    """Read the wal-index (the -shm file) that SQLite keeps; None where there is none that can be read."""
    for _ in range(100):  # it is written in two copies, and read in the midst of that
        index = os.pread(descriptor, 2 * _COPY + 4, 0)
        if len(index) < 2 * _COPY + 4:
            return None
        if index[:_COPY] == index[_COPY : 2 * _COPY]:
            _, _, is_made, _, page_size, frames, pages, salts = _INDEX.unpack_from(index)
            moved = int.from_bytes(index[2 * _COPY :], "little" if struct.pack("=H", 1)[0] else "big")
            if not is_made:
                return None
            return LogState(salts, frames, moved, pages, 65_536 if page_size == 1 else page_size)
    return None


def page_size_of(file: int) -> int:
    """Read the size of a database's pages; 0 where there are none."""
    header = os.pread(file, 18, 0)
    size = int.from_bytes(header[16:18], "big")
    return 65_536 if size == 1 else size


def read_mark(file: int, page_size: int) -> LogMark | None:
    """Read the mark behind the last page of a file."""
    if not page_size:
        return None
    found = os.pread(file, _LENGTH, os.fstat(file).st_size // page_size * page_size)
    if len(found) < _LENGTH or _CRC.unpack_from(found, _MARK.size)[0] != zlib.crc32(found[: _MARK.size]):
        return None
    name, salts, frames = _MARK.unpack_from(found)
    return LogMark(salts, frames, name == _NEEDED)


def write_mark(file: int, state: LogState, pages: int) -> None:
    """Mark a file, which has so many pages now, as written with a log.

    Whoever calls it has a read transaction open: no checkpoint puts a page of the ledger there meanwhile.
    """
    mark = _MARK.pack(_NEEDED if state.moved < state.frames else _MOVED, state.salts, state.frames)
    os.pwrite(file, mark + _CRC.pack(zlib.crc32(mark)), max(state.pages, pages) * state.page_size)


def remove_mark(file: int) -> None:
    """Take the mark away; for the caller, what holds for writing it holds here."""
    size = os.fstat(file).st_size
    beyond = size % page_size_of(file)
    if 0 < beyond <= _LENGTH:
        os.ftruncate(file, size - beyond)
