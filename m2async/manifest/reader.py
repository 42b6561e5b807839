"""Manifests, opened and read: which format it is, row by row or checked as a whole."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Generator, Iterator, Mapping, MutableMapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import BinaryIO, Literal, TypeAlias

from m2async.errors import ManifestError, ManifestProblem
from m2async.manifest.csv_rows import csv_rows
from m2async.manifest.dependencies import Dependencies
from m2async.manifest.jsonl_rows import jsonl_rows
from m2async.manifest.keys import Keys, LinesOfKeys, NoRoomForKeysError, UniqueKeys
from m2async.manifest.rows import COLUMNS, PARAM, ManifestRow, RequestMaker, problem
from m2async.manifest.source import Source
from m2async.manifest.yaml_rows import TOP_LEVEL, yaml_rows

ManifestFormat: TypeAlias = Literal["csv", "jsonl", "yaml"]
"""What a manifest is written in."""
_Entries: TypeAlias = Generator[ManifestRow | ManifestError, None, None]

_MAX_PROBLEMS = 1_000
_ROWS_OF_FORMAT = {"csv": csv_rows, "jsonl": jsonl_rows, "yaml": yaml_rows}
_FORMAT_OF_SUFFIX: Mapping[str, ManifestFormat] = {
    ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".yaml": "yaml", ".yml": "yaml",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ManifestSummary:
    """What a sound manifest holds; the widths are in characters."""

    rows: int
    applications: tuple[str, ...]
    key_width: int
    job_width: int


def read_manifest(
    source: str | PathLike[str] | BinaryIO,
    *,
    name: str | None = None,
    format: ManifestFormat | None = None,  # noqa: A002 - the word for it
    application_id: str | None = None,
    params: Mapping[str, str] | None = None,
    unique_keys: bool = True,
    after: MutableMapping[str, Sequence[str]] | None = None,
    seen: Callable[[bytes], object] | None = None,
) -> Generator[ManifestRow, None, None]:
    """Read a manifest row by row, as (key, request) pairs; a second row of the same key is an error.

    Memory does not grow with the number of rows, but for the keys that rows name in `after`: to find those that come
    twice, all keys are put into a temporary file once they are many, which is gone when the reading ends. Sweeps of a
    YAML manifest are expanded as they are read.

    Arguments:
        source: a path, or a binary stream, which is read to its end and left open.
        name: what errors call the manifest; by default the path, or `<stdin>` for a stream.
        format: by default the path's suffix says it (.csv, .jsonl, .ndjson, .yaml, .yml), or else the
            first line that is not blank: `{` begins JSONL, a line with a known column is CSV's header.
        application_id: the application of the rows that name none.
        params: job parameters set on every row, over the manifest's own.
        unique_keys: whether to look for keys that come twice; not needed by who does so, as a ledger does.
        after: where the keys go that rows name in `after`, by the key of the row. Without it such a row is an error:
            whoever starts the jobs must heed their order.
        seen: called with the source's bytes, piece by piece, as the rows are read: a digest of what was read, such as
            `hashlib.sha256().update`, is complete behind the last row.

    Columns are key, after, application_id, script | file, folder | s3_bucket, s3_prefix, s3_file, s3_script |
    restart_execution_id, from_step, from_proc_step, to_step, to_proc_step, skip, step_checkpoint, and
    auth_secrets_manager_arn, with param.NAME for each parameter. In CSV an empty cell means that nothing is
    given; an empty parameter can be given in JSONL and YAML, where `params` can also be a mapping. `after` is
    a text of keys with a semicolon between them, or in JSONL and YAML a list of keys. Without
    a key a row is called by its number, counted from 1, or in a sweep by its job and the swept values.

    Raises:
        InvalidRequestError: `application_id` or `params` violates the service's model; raised at once.
        ManifestError: while iterating, at the first row that is wrong, and behind the last if an `after` names a key
            that no row has or rows wait for each other; a line or record may have at most 8 MiB, and so may a whole
            YAML manifest.
        ConfigurationError: while iterating a YAML manifest, if PyYAML is not installed.
    """
    dependencies = Dependencies(after)
    manifest = _OpenManifest(source, name, format, RequestMaker(application_id, params or {}))
    return _sound_rows(manifest, dependencies, seen, unique_keys=unique_keys, ordered=after is not None)


def check_manifest(
    source: str | PathLike[str] | BinaryIO,
    *,
    name: str | None = None,
    format: ManifestFormat | None = None,  # noqa: A002 - the word for it
    application_id: str | None = None,
    params: Mapping[str, str] | None = None,
    unique_keys: bool = True,
) -> ManifestSummary:
    """Go through a whole manifest, with the arguments of `read_manifest`, and say what it holds.

    Raises ManifestError with every problem of every row; beyond 1,000 problems the rest are counted.
    """
    manifest = _OpenManifest(source, name, format, RequestMaker(application_id, params or {}))
    with closing(manifest.keys(unique=unique_keys, ordered=True)) as keys:
        summary, problems = _checked(manifest.entries(keys, Dependencies({})))
    if problems:
        raise ManifestError(problems)
    return summary


def find_lines(
    source: str | PathLike[str] | BinaryIO,
    keys: AbstractSet[str],
    *,
    name: str | None = None,
    format: ManifestFormat | None = None,  # noqa: A002 - the word for it
    application_id: str | None = None,
    params: Mapping[str, str] | None = None,
) -> Mapping[str, int]:
    """Say on which lines of a manifest, read with the arguments of `read_manifest`, the rows of these keys stand."""
    manifest, found = _OpenManifest(source, name, format, RequestMaker(application_id, params or {})), LinesOfKeys(keys)
    for _ in manifest.entries(found, Dependencies({})):
        pass
    return found.lines


def _checked(entries: _Entries) -> tuple[ManifestSummary, list[ManifestProblem]]:
    rows = key_width = job_width = rest = 0
    applications: dict[str, None] = {}
    problems: list[ManifestProblem] = []
    for entry in entries:
        if isinstance(entry, ManifestError):
            kept = entry.problems[: _MAX_PROBLEMS - len(problems)]
            problems += kept
            rest += len(entry.problems) - len(kept)
            continue
        key, request = entry
        rows += 1
        if len(key) > key_width:
            key_width = len(key)
        if len(name := request.job.name) > job_width:
            job_width = len(name)
        applications[request.application_id] = None
    problems.sort(key=lambda found: math.inf if found.line is None else found.line)
    if rest:
        problems.append(problem(problems[0].file, None, None, f"and {rest:,} more problems"))
    return ManifestSummary(rows, tuple(applications), key_width, job_width), problems


def _sound_rows(
    manifest: _OpenManifest,
    dependencies: Dependencies,
    seen: Callable[[bytes], object] | None,
    *,
    unique_keys: bool,
    ordered: bool,
) -> Generator[ManifestRow, None, None]:
    with (
        closing(manifest.keys(unique=unique_keys, ordered=ordered)) as keys,
        closing(manifest.entries(keys, dependencies, seen)) as entries,
    ):
        for entry in entries:
            if isinstance(entry, ManifestError):
                raise entry
            yield entry


class _OpenManifest:
    """A manifest at its path or in its stream."""

    def __init__(
        self,
        stream_or_path: str | PathLike[str] | BinaryIO,
        name: str | None,
        form: ManifestFormat | None,
        maker: RequestMaker,
    ) -> None:
        self._maker = maker
        self._path: Path | None = None
        self._start: int | None = None  # where the stream can be read from again
        if isinstance(stream_or_path, str | os.PathLike):
            self._path = Path(stream_or_path)
            self._name = str(stream_or_path) if name is None else name
            self._form = form or _FORMAT_OF_SUFFIX.get(self._path.suffix.lower())
        else:
            self._stream = stream_or_path
            self._name = "<stdin>" if name is None else name
            self._form = form
            with suppress(OSError, ValueError):  # ValueError: it is closed, as reading it will say
                self._start = self._stream.tell() if self._stream.seekable() else None

    def keys(self, *, unique: bool, ordered: bool) -> Keys:
        """Make what takes the keys.

        `unique` asks it to look for keys that come twice, `ordered` says that rows may name the keys of others: these
        have to be kept where the manifest cannot be read again.
        """
        again = self._start is not None if self._path is None else _is_regular(self._path)
        return UniqueKeys() if unique or (ordered and not again) else Keys()

    def entries(
        self, keys: Keys, dependencies: Dependencies, seen: Callable[[bytes], object] | None = None
    ) -> _Entries:
        """Give the rows, and in their places the errors; what ends the reading is the last of them.

        `seen` is told what is read for them. Behind all of them comes what is wrong with the order that rows ask for.
        """
        count = 0
        with ExitStack() as stack:
            try:
                stream = self._stream if self._path is None else stack.enter_context(_open(self._path, self._name))
                source = Source(stream, self._name, seen)
                rows = _ROWS_OF_FORMAT[self._form or _sniffed(source)](source, self._maker, keys, dependencies)
                for entry in rows:
                    count += 1
                    yield entry
                if not count:
                    raise source.error(None, "no rows: the manifest names no job")
            except ManifestError as error:
                count += 1
                yield error
            except NoRoomForKeysError as error:
                yield ManifestError([problem(self._name, None, None, str(error))])
                return
        if dependencies.after and not isinstance(keys, LinesOfKeys):
            lines, known = self._lines(keys, dependencies.named())
            problems = list(dependencies.problems(self._name, lines, complete=known == count))
            if problems:
                yield ManifestError(problems)

    def _lines(self, keys: Keys, wanted: AbstractSet[str]) -> tuple[Mapping[str, int], int]:
        """Tell on which lines these keys stand, and of how many rows the key is known."""
        if isinstance(keys, UniqueKeys):
            return keys.lines_of(wanted), keys.taken
        found = LinesOfKeys(wanted)
        with self._rewound():
            for _ in self.entries(found, Dependencies({})):
                pass
        return found.lines, found.taken

    @contextmanager
    def _rewound(self) -> Iterator[None]:
        """Let it be read from its beginning; after that, a stream is where it was before."""
        if self._start is None:
            yield
            return
        position = self._stream.tell()
        self._stream.seek(self._start)
        try:
            yield
        finally:
            self._stream.seek(position)


def _is_regular(path: Path) -> bool:
    try:
        return path.is_file()
    except ValueError:  # the path holds a NUL
        return False


def _open(path: Path, name: str) -> BinaryIO:
    try:
        return path.open("rb")
    except (OSError, ValueError) as error:  # ValueError: the path holds a NUL
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ManifestError([problem(name, None, None, f"cannot be opened: {reason}")]) from None


def _sniffed(source: Source) -> ManifestFormat:
    """Tell the format by the first line that is not blank."""
    line = source.head.lstrip().partition(b"\n")[0].decode(errors="replace").strip()
    if line.startswith("{"):
        return "jsonl"
    if line.startswith(("#", "---", "%", *(f"{name}:" for name in TOP_LEVEL))):
        return "yaml"
    cells = [cell.strip().strip('"') for cell in line.split(",")]
    if any(cell in COLUMNS or cell.startswith(PARAM) for cell in cells):
        return "csv"
    if ":" in line:
        return "yaml"
    raise source.error(
        None,
        "no rows: the manifest is empty"
        if not line
        else "the format cannot be told: name the file .csv, .jsonl or .yaml, or begin it with a CSV header, a JSON "
        "object or YAML",
    )
