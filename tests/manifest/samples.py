"""What the tests of manifests share: reading literal bytes, and requests to write and read back."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, Literal, cast

import pytest
from hypothesis import strategies as st

from m2async.errors import ManifestError
from m2async.manifest import ManifestRow, check_manifest, read_manifest
from m2async.service.requests import FileJob, Job, RestartJob, S3Job, ScriptJob, StartBatchJob

APP = "abcdefghijklmnopqrstuvwxyz"
ARN = "arn:aws:secretsmanager:us-east-1:123456789012:secret:batch"
FORMATS: tuple[Literal["csv", "jsonl", "yaml"], ...] = ("csv", "jsonl", "yaml")


def rows(content: str | bytes, *, application_id: str | None = APP, **options: Any) -> list[ManifestRow]:
    """Read a manifest that is given as it stands in the file."""
    return list(read_manifest(stream(content), application_id=application_id, **options))


def problems(content: str | bytes | BinaryIO, *, application_id: str | None = APP, **options: Any) -> list[str]:
    """Check a manifest that is wrong, and give each problem as it is shown."""
    source = stream(content) if isinstance(content, str | bytes) else content
    with pytest.raises(ManifestError) as raised:
        check_manifest(source, name="m", application_id=application_id, **options)
    return [str(found) for found in raised.value.problems]


def stream(content: str | bytes) -> BinaryIO:
    return io.BytesIO(content.encode() if isinstance(content, str) else content)


class Generated(io.RawIOBase):
    """A stream of pieces that are made as they are read."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces

    def read(self, size: int = -1, /) -> bytes:
        return next(self._pieces, b"")


def generated(pieces: Iterator[bytes]) -> BinaryIO:
    return cast("BinaryIO", Generated(pieces))


FIELDS_OF_JOB: Mapping[type[Job], Mapping[str, str]] = {
    ScriptJob: {"script": "script_name"},
    FileJob: {"file": "file_name", "folder": "folder_path"},
    S3Job: {"s3_bucket": "bucket", "s3_prefix": "key_prefix", "s3_file": "file_name", "s3_script": "script_name"},
    RestartJob: {
        "restart_execution_id": "execution_id",
        **{name: name for name in ("from_step", "from_proc_step", "to_step", "to_proc_step", "skip")},
        "step_checkpoint": "step_checkpoint",
    },
}


def fields_of(row: ManifestRow) -> dict[str, Any]:
    """Give a row's fields by column, parameters apart as `params`."""
    job = row.request.job
    named = {column: getattr(job, field) for column, field in FIELDS_OF_JOB[type(job)].items()}
    fields = {
        "key": row.key,
        "application_id": row.request.application_id,
        "auth_secrets_manager_arn": row.request.auth_secrets_manager_arn,
        **named,
    }
    return {**{name: value for name, value in fields.items() if value is not None}, "params": dict(row.request.params)}


def cell(value: object) -> str:
    """Write a field as a CSV cell."""
    return value if isinstance(value, str) else json.dumps(value)


_texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)
_names = st.from_regex(r"[A-Za-z][A-Za-z0-9]{1,31}", fullmatch=True)
_ids = st.from_regex(r"[a-z0-9]{1,26}", fullmatch=True)
_jobs = st.one_of(
    st.builds(ScriptJob, _texts),
    st.builds(FileJob, _texts, st.none() | _texts),
    st.builds(lambda bucket, name, prefix: S3Job(bucket, file_name=name, key_prefix=prefix), _texts, _texts, _texts),
    st.builds(lambda bucket, name: S3Job(bucket, script_name=name), _texts, _texts),
    st.builds(
        RestartJob,
        _ids,
        _texts,
        st.none() | _texts,
        st.none() | _texts,
        st.none() | _texts,
        st.none() | st.booleans(),
        st.none() | st.integers(-(2**31), 2**31 - 1),
    ),
)
_requests = st.builds(
    StartBatchJob,
    _ids,
    _jobs,
    st.dictionaries(_names, _texts, max_size=4),
    st.none() | st.just(ARN),
)
_keys = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).filter(str.isprintable)
manifests = st.lists(st.builds(ManifestRow, _keys, _requests), min_size=1, max_size=6, unique_by=lambda row: row.key)
"""Rows with any keys and any valid requests that every format can carry."""
