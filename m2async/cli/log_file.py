"""`--log-file`: the log events as lines of JSON."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

from m2async.cli.output import BAD_INPUT, fail, say


@contextlib.contextmanager
def open_log(path: str) -> Iterator[FilteringBoundLogger]:
    """Append events to a file, each written out at once; ends the command if it cannot be opened."""
    try:
        file = Path(path).open("a", encoding="utf-8", buffering=1)  # noqa: SIM115 - closed below
    except OSError as exc:
        fail(f"--log-file {path}: {exc.strerror}", BAD_INPUT)
    logger: FilteringBoundLogger = structlog.wrap_logger(
        _Lines(file, path),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _headed,
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ],
        wrapper_class=structlog.make_filtering_bound_logger("info"),
    )
    try:
        yield logger
    finally:
        with contextlib.suppress(OSError):
            file.close()


class _Lines:
    """Writes lines; when that fails (the disk is full), says so once, and the jobs go on."""

    def __init__(self, file: TextIO, path: str) -> None:
        self._file = file
        self._path = path
        self._failed = False

    def msg(self, line: str) -> None:
        if self._failed:
            return
        try:
            self._file.write(f"{line}\n")
        except OSError as exc:
            self._failed = True
            say(f"m2async: --log-file {self._path}: events are no longer recorded: {exc.strerror}")

    info = warning = error = msg


def _headed(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Put what every event has first."""
    return {"timestamp": event.pop("timestamp"), "level": event.pop("level"), "event": event.pop("event"), **event}
