"""A request as columns of text, and back: each part as the service's own JSON, so that a ledger reads by itself."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import msgspec

from m2async.service import Job, StartBatchJob, job_from_api

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
