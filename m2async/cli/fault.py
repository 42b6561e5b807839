"""A fault of m2async itself: one line on stderr, and a file to send that holds no value of anybody's."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import distribution, packages_distributions, version

from m2async.cli.output import say
from m2async.errors import UnexpectedError

_MOST_ERRORS = 50


def tell_fault(error: BaseException) -> None:
    """Say that the command failed by a fault of m2async, and where what its authors need is written."""
    what = error if isinstance(error, UnexpectedError) else UnexpectedError.of(error)
    try:
        path = _written("\n".join(_report(what.__cause__ or what)))
    except OSError as exc:
        file = f"What its authors need cannot be written to a file: {exc.strerror}."
    else:
        file = f"Please send {path} to its authors: it holds no parameters, names or secrets of yours."
    say(f"m2async: {what.message}. What was started is in the ledger. {file}")


def _written(text: str) -> str:
    """Write a text into a file of its own, which nobody else can read."""
    descriptor, path = tempfile.mkstemp(prefix="m2async-fault-", suffix=".txt")
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text + "\n")
    return path


def _report(error: BaseException) -> Iterator[str]:
    yield f"m2async {version('m2async')}, Python {platform.python_version()}, {platform.platform()}"
    yield f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC, {os.cpu_count()} processors"
    yield ", ".join(_packages())
    for number, each in enumerate(_with_causes(error)):
        yield ""
        yield f"{'' if not number else 'with, or because of, '}{type(each).__module__}.{type(each).__qualname__}"
        yield "".join(traceback.format_tb(each.__traceback__)).rstrip()


def _packages() -> Iterator[str]:
    """Name the packages that are in use, with their versions."""
    names = packages_distributions()
    for name in sorted(
        {names[module][0] for module in {each.partition(".")[0] for each in sys.modules} if module in names}
    ):
        yield f"{name} {distribution(name).version}"


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    """Give an error, and what it came with."""
    waiting, seen = [error], set[int]()
    while waiting and len(seen) < _MOST_ERRORS:
        each = waiting.pop(0)
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        waiting += each.exceptions if isinstance(each, BaseExceptionGroup) else ()
        waiting += [other for other in (each.__cause__, each.__context__) if other is not None]
