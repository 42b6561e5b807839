"""Manifests, opened and read: which format it is, row by row or checked as a whole."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import BinaryIO, Literal, TypeAlias

from m2async.errors import ManifestError, ManifestProblem
from m2async.manifest.csv_rows import csv_rows
from m2async.manifest.jsonl_rows import jsonl_rows
from m2async.manifest.rows import COLUMNS, PARAM, ManifestRow, RequestMaker, problem
from m2async.manifest.source import Source
from m2async.manifest.yaml_rows import TOP_LEVEL, yaml_rows

Format: TypeAlias = Literal["csv", "jsonl", "yaml"]
_Entries: TypeAlias = Generator[ManifestRow | ManifestError, None, None]

_MAX_PROBLEMS = 1_000
_ROWS_OF_FORMAT = {"csv": csv_rows, "jsonl": jsonl_rows, "yaml": yaml_rows}
_FORMAT_OF_SUFFIX: Mapping[str, Format] = {
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
    format: Format | None = None,  # noqa: A002 - the word for it
    application_id: str | None = None,
    params: Mapping[str, str] | None = None,
) -> Iterator[ManifestRow]:
    """Read a manifest row by row, as (key, request) pairs; a second row of the same key is an error.

    Memory does not grow with the number of rows but for the keys, where the manifest names any; sweeps of
    a YAML manifest are expanded as they are read.

    Arguments:
        source: a path, or a binary stream, which is read to its end and left open.
        name: what errors call the manifest; by default the path, or `<stdin>` for a stream.
        format: by default the path's suffix says it (.csv, .jsonl, .ndjson, .yaml, .yml), or else the
            first line that is not blank: `{` begins JSONL, a line with a known column is CSV's header.
        application_id: the application of the rows that name none.
        params: job parameters set on every row, over the manifest's own.

    Columns are key, application_id, script | file, folder | s3_bucket, s3_prefix, s3_file, s3_script |
    restart_execution_id, from_step, from_proc_step, to_step, to_proc_step, skip, step_checkpoint, and
    auth_secrets_manager_arn, with param.NAME for each parameter. In CSV an empty cell means that nothing is
    given; an empty parameter can be given in JSONL and YAML, where `params` can also be a mapping. Without
    a key a row is called by its number, counted from 1, or in a sweep by its job and the swept values.

    Raises:
        InvalidRequestError: `application_id` or `params` violates the service's model; raised at once.
        ManifestError: while iterating, at the first row that is wrong; a line or record may have at most
            8 MiB, and so may a whole YAML manifest.
        ConfigurationError: while iterating a YAML manifest, if PyYAML is not installed.
    """
    return _sound_rows(_entries(source, name, format, RequestMaker(application_id, params or {})))


def check_manifest(
    source: str | PathLike[str] | BinaryIO,
    *,
    name: str | None = None,
    format: Format | None = None,  # noqa: A002 - the word for it
    application_id: str | None = None,
    params: Mapping[str, str] | None = None,
) -> ManifestSummary:
    """Go through a whole manifest, with the arguments of `read_manifest`, and say what it holds.

    Raises ManifestError with every problem of every row; beyond 1,000 problems the rest are counted.
    """
    rows = key_width = job_width = rest = 0
    applications: dict[str, None] = {}
    problems: list[ManifestProblem] = []
    for entry in _entries(source, name, format, RequestMaker(application_id, params or {})):
        if isinstance(entry, ManifestError):
            kept = entry.problems[: _MAX_PROBLEMS - len(problems)]
            problems += kept
            rest += len(entry.problems) - len(kept)
            continue
        key, request = entry
        rows += 1
        key_width = max(key_width, len(key))
        job_width = max(job_width, len(request.job.name))
        applications[request.application_id] = None
    if rest:
        problems.append(problem(problems[0].file, None, None, f"and {rest:,} more problems"))
    if problems:
        raise ManifestError(problems)
    return ManifestSummary(rows, tuple(applications), key_width, job_width)


def _sound_rows(entries: _Entries) -> Iterator[ManifestRow]:
    with closing(entries):
        for entry in entries:
            if isinstance(entry, ManifestError):
                raise entry
            yield entry


def _entries(
    stream_or_path: str | PathLike[str] | BinaryIO, name: str | None, form: Format | None, maker: RequestMaker
) -> _Entries:
    """Give the rows, and in their places the errors; what ends the reading is the last of them."""
    with ExitStack() as stack:
        try:
            if isinstance(stream_or_path, str | os.PathLike):
                path = Path(stream_or_path)
                name = str(path) if name is None else name
                form = form or _FORMAT_OF_SUFFIX.get(path.suffix.lower())
                source = Source(stack.enter_context(_open(path, name)), name)
            else:
                source = Source(stream_or_path, "<stdin>" if name is None else name)
            rows = _ROWS_OF_FORMAT[form or _sniffed(source)](source, maker)
            empty = True
            for entry in rows:
                empty = False
                yield entry
            if empty:
                raise source.error(None, "no rows: the manifest names no job")
        except ManifestError as error:
            yield error


def _open(path: Path, name: str) -> BinaryIO:
    try:
        return path.open("rb")
    except (OSError, ValueError) as error:  # ValueError: the path holds a NUL
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ManifestError([problem(name, None, None, f"cannot be opened: {reason}")]) from None


def _sniffed(source: Source) -> Format:
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
