"""A fault of m2async itself: one line on stderr, and a file to send that holds no value of anybody's."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import packages_distributions, version

from m2async.cli.frames import frames_of
from m2async.cli.output import say
from m2async.errors import UnexpectedError

_MOST_ERRORS = 50


def tell_fault(error: BaseException) -> None:
    """Say that the command failed by a fault of m2async, and where what its authors need is written."""
    what = error if isinstance(error, UnexpectedError) else UnexpectedError.of(error)
    try:
        path = _written("\n".join(_report(what.__cause__ or what)))
    except Exception as exc:  # noqa: BLE001 - no second fault is to hide the first
        why = exc.strerror if isinstance(exc, OSError) else type(exc).__name__
        file = f"What its authors need cannot be written to a file: {why}."
    else:
        file = f"Please send {path} to its authors: it holds no parameters, paths, code or secrets of yours."
    say(f"m2async: {what.message}. What was started is in the ledger. {file}")


def _written(text: str) -> str:
    """Write a text into a file of its own, which nobody else can read."""
    descriptor, path = tempfile.mkstemp(prefix="m2async-fault-", suffix=".txt")
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text + "\n")
    return path


def _report(error: BaseException) -> Iterator[str]:
    yield ", ".join(map(_told, (_program, _python, platform.platform)))
    yield ", ".join(map(_told, (_moment, _processors)))
    yield _told(_packages)
    for number, each in enumerate(_with_causes(error)):
        yield ""
        yield f"{'' if not number else 'with, or because of, '}{_told(partial(_kind, each))}"
        yield _told(partial(frames_of, each.__traceback__))


def _told(part: Callable[[], str]) -> str:
    """Tell a part of the report; one that cannot be had costs no other."""
    try:
        return part()
    except Exception as exc:  # noqa: BLE001 - what failed may be what the report tells of
        return f"not known ({type(exc).__name__})"


def _program() -> str:
    return f"m2async {version('m2async')}"


def _python() -> str:
    return f"Python {platform.python_version()}"


def _moment() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _processors() -> str:
    return f"{os.cpu_count()} processors"


def _packages() -> str:
    """Name the packages that are in use, with their versions."""
    named = packages_distributions()
    modules = {each.partition(".")[0] for each in sys.modules}
    # A half removed package has no name.
    names = {next(filter(None, named.get(module, ())), None) for module in modules}
    return ", ".join(_told(partial(_package, name)) for name in sorted(filter(None, names)))


def _package(name: str) -> str:
    return f"{name} {version(name)}"


def _kind(error: BaseException) -> str:
    return f"{type(error).__module__}.{type(error).__qualname__}"


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
