"""The tag of each commit: whether a ledger's file and the write-ahead log beside it belong together.

SQLite takes whatever log lies beside a file for that file's. Where one of the two was put back from a copy, or is
another ledger's, it would read pages of two moments as one, and jobs that were started would be started again. So each
commit tags itself in a row of the table `commits`: with the next number, a random mark of its own, and the mark of the
commit before. The tags are found in the raw pages of both. They fit if the file is as the log's first commit found it,
or as one of its commits left it: a checkpoint moves pages one by one.

A log is begun anew in the same file, over the frames of the one before, once all of those are in the ledger's file. As
long as nothing is committed in it, the frames that are left tell how far the file must be.

What another program commits has no tag, and changes nothing of this.

Source of the formats: https://www.sqlite.org/walformat.html and https://www.sqlite.org/fileformat2.html.
"""

from __future__ import annotations

import itertools
import os
import sqlite3
import struct
from collections.abc import Iterable, Iterator
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from m2async.ledger.sqlite.statements import named_statements
from m2async.ledger.sqlite.wal import FRAME, HEADER, LogState, salts_in

_NAME = b"\xff\xfem2as-tag\xff"  # no text of a ledger holds it: it is not UTF-8
_TAG = struct.Struct("8s16s8s8s")  # the columns behind the name, as one record holds them
_CHUNK = 1 << 20
_SQL = named_statements("writes")


class Fit(Enum):
    """How a file and the log beside it go together."""

    FITS = ""
    FILE_IS_OLDER = "it is older than the write-ahead log {log} beside it"
    LOG_IS_OLDER = "the write-ahead log {log} beside it is older than it"
    STRANGERS = "the write-ahead log {log} beside it is of another ledger, or of another copy of this one"


class _Tag(NamedTuple):
    ledger: bytes
    number: int
    own: bytes
    before: bytes


class _Tagged(NamedTuple):
    """A frame of a log with a tag in its page; it is held if it is committed, unless a log before left it."""

    page: int
    tag: _Tag
    is_held: bool


def tag_commit(connection: sqlite3.Connection) -> None:
    """Tag the commit of the transaction that is open."""
    connection.execute(_SQL["tag_commit"])


def fit_of(log: Path, file: int, page_size: int, state: LogState | None) -> Fit:
    """Tell how a file and a log go together; `state` is the log's where SQLite has it open."""
    frames = _tagged(log, page_size, state)
    first = next(frames, None)
    if first is None:
        return Fit.FITS
    below = _tag_of_file(file, first.page, page_size)
    if first.is_held:
        return _fit_of_commits(below, first.tag, (frame.tag for frame in frames if frame.is_held))
    return _fit_of_last(below, max((first.tag, *(frame.tag for frame in frames)), key=lambda tag: tag.number))


def _fit_of_commits(below: _Tag | None, first: _Tag, others: Iterable[_Tag]) -> Fit:
    """Judge by a log that has commits; the file is `below` them."""
    if below is None:
        return Fit.FITS if first.number == 0 else Fit.FILE_IS_OLDER
    if below.ledger != first.ledger:
        return Fit.STRANGERS
    if below.own in {first.before, first.own}:
        return Fit.FITS
    latest = first
    for latest in others:
        if latest.own == below.own:
            return Fit.FITS
    if below.number > latest.number:
        return Fit.LOG_IS_OLDER
    return Fit.FILE_IS_OLDER if below.number < first.number - 1 else Fit.STRANGERS


def _fit_of_last(below: _Tag | None, last: _Tag) -> Fit:
    """Judge by a log that was only begun: the last commit of the one before is in the file."""
    if below is None:
        return Fit.FILE_IS_OLDER
    if below.ledger != last.ledger or (below.number == last.number and below.own != last.own):
        return Fit.STRANGERS
    return Fit.FILE_IS_OLDER if below.number < last.number else Fit.FITS


def _tagged(log: Path, page_size: int, state: LogState | None) -> Iterator[_Tagged]:
    """Read a log's frames that have a tag, in their order."""
    try:
        file = log.open("rb")
    except FileNotFoundError:
        return
    with file:
        salts = salts_in(file.read(HEADER))
        committed = None if state is None else state.frames if state.salts == salts else 0
        for count in itertools.count(1):
            frame = file.read(FRAME + page_size)
            if len(frame) < FRAME + page_size:
                return
            is_held = frame[8:16] == salts
            if is_held and committed is not None and count > committed:
                continue  # somebody is just writing it, or was killed over that
            tag = _tag_in(frame)
            if tag is not None:
                yield _Tagged(int.from_bytes(frame[:4], "big"), tag, is_held)


def _tag_of_file(file: int, page: int, page_size: int) -> _Tag | None:
    """Read the tag in a ledger's file: it is on the page where the log has it, unless VACUUM moved it."""
    expected = _tag_in(os.pread(file, page_size, (page - 1) * page_size))
    if expected is not None:
        return expected
    overlap = len(_NAME) + _TAG.size
    for start in range(0, os.fstat(file).st_size, _CHUNK):
        found = _tag_in(os.pread(file, _CHUNK + overlap, start))
        if found is not None:
            return found
    return None


def _tag_in(page: bytes) -> _Tag | None:
    found = page.find(_NAME)
    if found < 0 or len(page) < found + len(_NAME) + _TAG.size:
        return None
    ledger, number, own, before = _TAG.unpack_from(page, found + len(_NAME))
    try:
        return _Tag(ledger, int(number, 16), own, before)
    except ValueError:
        return None
