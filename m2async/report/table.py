"""The rows of a run as a page carries them: by column, each text once, packed."""

from __future__ import annotations

import gzip
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from m2async.ledger import HistoryEntry, LedgerRow, RowEvent, RowState, TrackedExecution, canonical_identifier
from m2async.service import Result

MOST_ROWS = 100_000
"""Rows that a page carries at most."""

_TROUBLE_ONLY = 90_000  # rows after which only those that need attention are carried
_CUTS = (10_000, 1_000, 100)  # characters of a text, the first at which the packed rows fit
_ROOM, _ROOM_OF_ROW = 300_000, 130  # characters that the packed rows may take: 1.6 million for 10,000 rows
_LINKS = 20  # candidates and predecessors that a row carries
_HISTORIES = 1_000  # rows whose history is carried: it takes a question to the ledger each
_HAPPENED = {
    RowEvent.STARTED: "started",
    RowEvent.REFUSED: "refused, to be sent again",
    RowEvent.REJECTED: "rejected",
    RowEvent.UNKNOWN: "not known whether it started the job",
    RowEvent.CRASH: "the process ended before the answer",
    RowEvent.CLAIMED: "found to have started the job",
    RowEvent.GROUPED: "found to have started the job, as one of several executions",
    RowEvent.NOT_STARTED: "found not to have started the job",
    RowEvent.RETRY: "to be tried again",
    RowEvent.GIVEN_UP: "given up",
    RowEvent.RESTART: "to be restarted",
    RowEvent.TAKEN_BACK: "what was decided of it is taken back",
    RowEvent.CONFIRMED: "nothing was started besides",
    RowEvent.AMENDED: "given again with another request",
}
_RESULTS = {Result.SUCCESS: 1, Result.FAILURE: 2, Result.OPEN: 3}


class Packed(NamedTuple):
    """The rows, gzipped JSON in base64, and to how many characters texts were cut."""

    text: str
    cut: int


class Texts:
    """Texts that come again and again, each kept once; 0 stands for none."""

    def __init__(self) -> None:
        self._numbers: dict[str | None, int] = {None: 0}

    def number(self, text: str | None) -> int:
        """Give the number that stands for a text."""
        return self._numbers.setdefault(text, len(self._numbers))

    def cut_to(self, limit: int) -> list[str]:
        """Give the texts by number."""
        return [cut(text or "", limit) for text in self._numbers]


class Table:
    """Takes the rows of a run in order.

    Arguments:
        origin: the time, in seconds of the epoch, from which times are counted.
        after: the keys of the rows that a row comes after, by its own key.
        most: rows to carry at most.
    """

    def __init__(self, origin: float, after: Mapping[str, Sequence[str]], most: int = MOST_ROWS) -> None:
        self.seen: int = 0
        self._origin = origin
        self._after = after
        self._most = most
        self._texts = Texts()
        self._columns: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
        self._some: dict[str, dict[int, list[Any]]] = {"after": {}, "candidates": {}}
        self._histories: dict[int, list[tuple[int | None, int]]] = {}

    def __len__(self) -> int:
        return len(self._columns["key"])

    def asks_history(self, row: LedgerRow, execution: TrackedExecution | None) -> bool:
        """Whether the table has room for what happened to a row, and somebody will look at it."""
        return len(self._histories) < _HISTORIES and needs_attention(row, execution)

    def add(self, row: LedgerRow, execution: TrackedExecution | None, history: Sequence[HistoryEntry] = ()) -> None:
        """Take a row, unless the table is full; its last tenth is for rows that need attention."""
        self.seen += 1
        if len(self) >= self._most * _TROUBLE_ONLY // MOST_ROWS and (
            len(self) >= self._most or not needs_attention(row, execution)
        ):
            return
        if row.candidates:
            self._some["candidates"][len(self)] = list(row.candidates[:_LINKS])
        if history:
            self._histories[len(self)] = [
                (self._millis(entry.ended_at), self._texts.number(_happened(entry))) for entry in history
            ]
        if after := self._after.get(row.key):
            self._some["after"][len(self)] = list(after[:_LINKS])
        for name, value in zip(_COLUMNS, self._values(row, execution), strict=True):
            self._columns[name].append(value)

    def _values(self, row: LedgerRow, execution: TrackedExecution | None) -> tuple[Any, ...]:
        text, millis = self._texts.number, self._millis
        job = row.request.job
        start = (
            row.number, row.key, text(row.request.application_id), text(job.name), text(canonical_identifier(job)),
            int(row.state), row.attempts, row.doubts, int(row.adopted), millis(row.sent_at), millis(row.ended_at),
            row.execution_id or "", row.request_id or "",
            text(row.error_code), text(row.error_message), text(row.note),
        )  # fmt: skip
        if execution is None:
            return (*start, 0, 0, None, None, 0, 0)
        judgement = execution.judgement
        return (
            *start, text(execution.known_status), text(execution.known_return_code),
            millis(execution.start_time), millis(execution.end_time),
            _RESULTS[judgement.result], text(judgement.reason),
        )  # fmt: skip

    def _millis(self, at: float | None) -> int | None:
        return None if at is None else round((at - self._origin) * 1e3)

    def pack(self) -> Packed:
        """Give the rows as a page carries them; long texts are cut if the page would be too large."""
        for limit in _CUTS:
            columns = {
                **self._columns,
                **{
                    name: [cut(text, limit) for text in self._columns[name]] for name in ("key", "execution", "request")
                },
            }
            some = {
                name: {at: [cut(text, limit) for text in texts] for at, texts in of.items()}
                for name, of in self._some.items()
            }
            content = {"columns": columns, "texts": self._texts.cut_to(limit), "history": self._histories, **some}
            plain = msgspec.json.encode(content)
            packed = b64encode(gzip.compress(plain, 6, mtime=0)).decode()
            if len(packed) <= _ROOM + _ROOM_OF_ROW * len(self):
                break
        return Packed(packed, limit)


_COLUMNS = (
    "number", "key", "application", "job", "identifier", "state", "attempts", "doubts", "adopted",
    "sent", "answered", "execution", "request", "code", "message", "note",
    "status", "returnCode", "began", "ended", "result", "reason",
)  # fmt: skip


def needs_attention(row: LedgerRow, execution: TrackedExecution | None) -> bool:
    """Whether somebody has to look at a row: it was not started, may have been, or failed, or may have."""
    if row.state in (RowState.REJECTED, RowState.UNKNOWN) or row.doubts:
        return True
    if execution is not None and execution.is_untold:
        return True
    return execution is not None and execution.judgement.result is Result.FAILURE


def _happened(entry: HistoryEntry) -> str:
    """Say what happened to a row."""
    said = ": ".join(filter(None, (entry.error_code, entry.error_message)))
    return "; ".join(
        filter(None, (f"call {entry.attempt}: {_HAPPENED[entry.event]}", said, entry.execution_id, entry.note))
    )


def cut(text: str, limit: int) -> str:
    """Shorten a text, with an ellipsis that says so; halves of surrogate pairs become question marks."""
    if not text.isascii():
        text = text.encode(errors="replace").decode()
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
