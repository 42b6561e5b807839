"""Manifests as the commands take them: a file, a pipe or standard input, with options over its rows."""

from __future__ import annotations

import contextlib
import hashlib
import sys
import tempfile
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, TypeVar

import typer
from rich.console import Console

from m2async.cli.output import BAD_INPUT, fail, say
from m2async.errors import InvalidRequestError, ManifestError, ManifestProblem
from m2async.ledger import DuplicateKeyError
from m2async.manifest import ManifestRow, ManifestSummary, check_manifest, find_lines, read_manifest
from m2async.submitting import Finding
from m2async.texts import plural

T = TypeVar("T")
_MOST_PROBLEMS = 50
_CHUNK = 1 << 20


def parse_params(texts: Sequence[str]) -> dict[str, str]:
    """Read `--param K=V` options."""
    params: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            fail(f"--param {text}: must be NAME=VALUE", BAD_INPUT)
        if name in params:
            fail(f"--param {text}: {name} is given twice", BAD_INPUT)
        params[name] = value
    return params


class Manifest:
    """A manifest that can be read more than once; a pipe or standard input is copied for that."""

    def __init__(self, stack: contextlib.ExitStack, path: str, application: str | None, params: dict[str, str]) -> None:
        self._path = path
        self._settings: dict[str, Any] = {"application_id": application, "params": params}
        self._copy: BinaryIO | None = None
        try:
            if path == "-":
                self._copy = stack.enter_context(_copy(_standard_input()))
            elif Path(path).exists() and not Path(path).is_file() and not Path(path).is_dir():  # a named pipe, or <(…)
                self._settings["name"] = path
                with Path(path).open("rb") as pipe:
                    self._copy = stack.enter_context(_copy(pipe))
        except OSError as exc:
            fail(f"{path}: cannot be read, or copied to a temporary file (in TMPDIR, if that is set): {exc}", BAD_INPUT)

    @property
    def name(self) -> str:
        """What the ledger calls it."""
        return "stdin" if self._path == "-" else str(Path(self._path).name)

    @property
    def is_file(self) -> bool:
        """Whether its name says which one it is: standard input and pipes are called alike."""
        return self._copy is None

    @cached_property
    def digest(self) -> str:
        """A digest of its content and of the options over its rows: equal digests mean equal rows."""
        try:
            return self._digest()
        except OSError as exc:
            self._refuse(exc)

    def _digest_of_options(self) -> hashlib._Hash:
        digest = hashlib.sha256(repr(sorted(self._settings["params"].items())).encode())
        digest.update(repr(self._settings["application_id"]).encode())
        return digest

    def _digest(self) -> str:
        digest, source = self._digest_of_options(), self._source()
        with contextlib.nullcontext(source) if not isinstance(source, str) else Path(source).open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        return digest.hexdigest()

    def run_name(self) -> str:
        """The name of its run where none is given: its own, and the beginning of its digest."""
        return f"{Path(self.name).stem}-{self.digest[:8]}"

    def check(self) -> ManifestSummary:
        """Check the whole manifest; show every problem and end the command if there are any."""
        try:
            with (
                Console(stderr=True).status(f"Checking {self._path}")
                if sys.stderr.isatty()
                else contextlib.nullcontext()
            ):
                return self._with_settings(check_manifest)
        except ManifestError as exc:
            show_problems(exc)
            raise typer.Exit(BAD_INPUT) from None

    @contextlib.contextmanager
    def rows(self, after: MutableMapping[str, Sequence[str]]) -> Iterator[Iterator[ManifestRow]]:
        """Give its rows one by one, up to the first problem, and close it in the end.

        Keys that come twice are left to the ledger to find. Behind the last row it is a ManifestError if what was read
        is not what `digest` is of.
        """
        read, named = self._digest_of_options(), self.digest
        rows = self._with_settings(read_manifest, unique_keys=False, after=after, seen=read.update)

        def unchanged() -> Iterator[ManifestRow]:
            yield from rows
            if read.hexdigest() != named:
                raise ManifestError([ManifestProblem(self._file, None, None, "its rows are not those of its digest")])

        with contextlib.closing(rows):
            yield unchanged()

    def error(self, findings: Sequence[Finding]) -> ManifestError:
        """Say at which lines the rows stand that the findings are about."""
        lines = self._with_settings(find_lines, keys={finding.key for finding in findings})
        found = [ManifestProblem(self._file, lines.get(key), column, reason) for key, column, reason in findings]
        return ManifestError(sorted(found, key=lambda problem: problem.line or 0))

    @contextlib.contextmanager
    def unchanged(self) -> Iterator[None]:
        """End the command if reading it, again, meets a problem."""
        try:
            yield
        except (ManifestError, DuplicateKeyError) as exc:
            self._refuse(exc)

    def _refuse(self, problem: Exception) -> NoReturn:
        """Show all problems that it has, or else say that it was another before."""
        self.check()
        fail(f"{self._path} was changed while it was read: {problem}; nothing was sent", BAD_INPUT)

    @property
    def _file(self) -> str:
        """What errors call it."""
        return self._settings.get("name") or ("<stdin>" if self._path == "-" else self._path)

    def _with_settings(self, read: Callable[..., T], **others: Any) -> T:
        try:
            return read(self._source(), **self._settings, **others)
        except InvalidRequestError as exc:
            fail(f"-a or --param: {exc}", BAD_INPUT)

    def _source(self) -> str | BinaryIO:
        if self._copy is None:
            return self._path
        self._copy.seek(0)
        return self._copy


def show_problems(error: ManifestError) -> None:
    """Print every problem of a manifest, up to a bound, and how many there are."""
    for problem in error.problems[:_MOST_PROBLEMS]:
        say(str(problem))
    more = len(error.problems) - _MOST_PROBLEMS
    hidden = f", of which {more:,} are not shown" if more > 0 else ""
    say(f"m2async: {plural(len(error.problems), 'problem')} in the manifest{hidden}; nothing was sent")


def _standard_input() -> BinaryIO:
    if sys.stdin is None:  # it was closed before the command began
        fail("standard input is closed: give the manifest as a file, or pipe it in", BAD_INPUT)
    return sys.stdin.buffer


@contextlib.contextmanager
def _copy(stream: BinaryIO) -> Iterator[BinaryIO]:
    with tempfile.TemporaryFile() as copy:
        while chunk := stream.read(_CHUNK):
            copy.write(chunk)
        yield copy
