"""`--log-file`: the log events as lines of JSON."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

from m2async.cli.output import BAD_INPUT, fail, say

_encode = msgspec.json.Encoder(enc_hook=repr).encode


class Log(NamedTuple):
    """The log of a command: where its events go, and what writes them out before the process is ended by force."""

    logger: FilteringBoundLogger
    flush: Callable[[], None]


@contextlib.contextmanager
def open_log(path: str) -> Iterator[Log]:
    """Append events to a file, at the end of each turn of the event loop; ends the command if it cannot be opened."""
    try:
        file = Path(path).open("ab", buffering=0)  # noqa: SIM115 - closed below
    except OSError as exc:
        fail(f"--log-file {path}: {exc.strerror}", BAD_INPUT)
    lines = _LogLines(file, path)
    logger: FilteringBoundLogger = structlog.wrap_logger(
        lines, processors=[_line], wrapper_class=structlog.make_filtering_bound_logger("info")
    )
    try:
        yield Log(logger, lines.flush)
    finally:
        lines.flush()
        with contextlib.suppress(OSError):
            file.close()


def _line(logger: WrappedLogger, level: str, event: EventDict) -> bytes:
    """Render an event: what every event has comes first."""
    return _encode({"timestamp": datetime.now(UTC), "level": level, "event": event.pop("event"), **event})


class _LogLines:
    """Writes the lines of a turn of the loop; when that fails (the disk is full), says so once, and the jobs go on."""

    def __init__(self, file: BinaryIO, path: str) -> None:
        self._file = file
        self._path = path
        self._lines: list[bytes] = []
        self._failed = False

    def msg(self, line: bytes) -> None:
        if not self._lines:
            asyncio.get_running_loop().call_soon(self.flush)
        self._lines.append(line)

    info = warning = error = msg

    def flush(self) -> None:
        """Write what is there."""
        text = b"".join(line + b"\n" for line in self._lines)
        self._lines.clear()
        try:
            while text and not self._failed:
                text = text[self._file.write(text) :]
        except OSError as exc:
            self._failed = True
            say(f"m2async: --log-file {self._path}: events are no longer recorded: {exc.strerror}")
