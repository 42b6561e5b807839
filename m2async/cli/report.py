"""`m2async report`: a run as a page in a file."""

from __future__ import annotations

import os
import re
import tempfile
from functools import partial
from pathlib import Path

from m2async.cli.hints import command
from m2async.cli.ledgers import with_ledger
from m2async.cli.output import BAD_INPUT, emit, fail, say
from m2async.cli.progress import Waiting
from m2async.ledger import Ledger
from m2async.report import run_page

_LONGEST_NAME = 120  # characters; file systems take 255 bytes


def report(url: str | None, run_name: str, output: str | None) -> None:
    """Write the page of a run: to a file of the run's name here, to another, or to stdout."""
    path = Path(file_name(run_name) if output is None else output)
    if output != "-":
        _check(path)

    async def read(ledger: Ledger) -> str:
        view = await ledger.run(run_name)
        with Waiting("jobs read", view.info.jobs) as waiting:
            return await run_page(view, advance=waiting.advance, command=partial(command, ledger=url))

    page = with_ledger(url, read)
    if output == "-":
        emit(page)
        return
    try:
        size = write(path, page)
    except OSError as exc:
        fail(f"{path} cannot be written: {exc.strerror}", BAD_INPUT)
    say(f"{path}: the report of run {run_name}, {size / 1e6:,.1f} MB")


def file_name(run_name: str) -> str:
    """Give a file name for a run, of characters that every file system takes."""
    safe = re.sub(r"[^\w.-]+", "_", run_name)[:_LONGEST_NAME].lstrip(".-")
    return f"{safe or 'run'}.html"


def _check(path: Path) -> None:
    """End the command, before the run is read, if the file could not be written anyway."""
    if path.is_dir():
        fail(f"{path} is a folder: give -o a file", BAD_INPUT)
    if not path.parent.is_dir():
        fail(f"{path} cannot be written: there is no folder {path.parent}", BAD_INPUT)


def write(path: Path, page: str) -> int:
    """Write the page whole or not at all, with the usual file mode; gives its size in bytes."""
    content = page.encode()
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name[:64]}.", delete=False) as file:
        try:
            file.write(content)
            mask = os.umask(0)
            os.umask(mask)
            os.fchmod(file.fileno(), 0o666 & ~mask)
            os.replace(file.name, path)  # noqa: PTH105 - a name, not a path
        except BaseException:
            os.unlink(file.name)  # noqa: PTH108 - a name, not a path
            raise
    return len(content)
