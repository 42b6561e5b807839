"""A request as columns of text, and back: each part as the service's own JSON, so that a ledger reads by itself."""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from m2async.service import Job, RowNumber, StartBatchJob, job_from_api

_encode = msgspec.json.Encoder(order="deterministic").encode
_decode_params = msgspec.json.Decoder(dict[str, str]).decode


class RequestColumns(NamedTuple):
    """A request's columns; equal requests have equal columns."""

    application_id: str
    job: str
    params: str | None
    secret: str | None


def to_columns(request: StartBatchJob) -> RequestColumns:
    """Write a request as columns."""
    params = request.params
    return RequestColumns(
        request.application_id,
        canonical_identifier(request.job),
        _encode(params).decode() if params else None,
        request.auth_secrets_manager_arn,
    )


def likeness(key: str, columns: RequestColumns) -> tuple[int, int]:
    """Give two numbers that say which rows are the same: one of the request, one of the key, or 0 where none was given.

    Each is the beginning of a digest, so that a ledger finds equal rows by an index, whatever their size.
    """
    request = _number_of("\0".join([text or "" for text in columns]))
    return request, 0 if isinstance(key, RowNumber) else _number_of(key) or 1


def _number_of(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest(), "big", signed=True)


def from_columns(application_id: str, job: str, params: str | None, secret: str | None) -> StartBatchJob:
    """Make the request of columns that `to_columns` wrote."""
    return StartBatchJob.of_checked(
        application_id, job_of_identifier(job), {} if params is None else _decode_params(params), secret
    )


@lru_cache(1_024)
def canonical_identifier(job: Job) -> str:
    """Write a job as the service's BatchJobIdentifier in JSON: equal jobs, and no others, give the same text."""
    return _encode({job.member: job.to_members()}).decode()


@lru_cache(1_024)
def job_of_identifier(identifier: str) -> Job:
    """Make the job of a text that `canonical_identifier` wrote."""
    return job_from_api(msgspec.json.decode(identifier))
