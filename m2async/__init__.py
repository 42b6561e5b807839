"""Start AWS Mainframe Modernization batch jobs in bulk, from asyncio.

The names below are the public face. Each is imported when it is first used, so that `import m2async`
costs no time for what a program does not use.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from m2async.client.client import M2Client
    from m2async.errors import (
        AccessDeniedException,
        AnswerTimeoutError,
        AuthenticationException,
        CallCancelledError,
        CallError,
        ConfigurationError,
        ConflictException,
        ConnectionLostError,
        CredentialsError,
        ExpiredTokenException,
        InternalServerException,
        InvalidRequestError,
        M2AsyncError,
        M2ServiceException,
        ManifestError,
        ManifestProblem,
        NotSentError,
        ResourceNotFoundException,
        SubmissionStoppedError,
        ThrottlingException,
        UnreadableAnswerError,
        ValidationException,
        ValidationExceptionField,
    )
    from m2async.following.tracker import Change, Tracker
    from m2async.ledger import Ledger, LedgerError, open_ledger
    from m2async.local import LocalEndpoint
    from m2async.manifest import ManifestRow, read_manifest
    from m2async.pacing import Pacer, RetryPolicy, TokenBucket
    from m2async.service.requests import FileJob, Job, RestartJob, S3Job, ScriptJob, StartBatchJob
    from m2async.service.responses import (
        Application,
        BatchJobDefinition,
        BatchJobExecution,
        ExecutionsPage,
        JobStep,
        StartBatchJobResponse,
    )
    from m2async.service.results import Judgement, Result
    from m2async.submitting.outcomes import Outcome, Rejected, Started, Unknown
    from m2async.submitting.submitter import Submitter

_MODULE_OF_NAME = {
    name: module
    for module, names in {
        "client": "M2Client",
        "errors": (
            "AccessDeniedException AnswerTimeoutError AuthenticationException CallCancelledError CallError "
            "ConfigurationError ConflictException ConnectionLostError CredentialsError ExpiredTokenException "
            "InternalServerException InvalidRequestError M2AsyncError M2ServiceException ManifestError "
            "ManifestProblem NotSentError ResourceNotFoundException SubmissionStoppedError ThrottlingException "
            "UnreadableAnswerError ValidationException ValidationExceptionField"
        ),
        "following": "Change Tracker",
        "ledger": "Ledger LedgerError open_ledger",
        "local": "LocalEndpoint",
        "manifest": "ManifestRow read_manifest",
        "pacing": "Pacer RetryPolicy TokenBucket",
        "service": (
            "Application BatchJobDefinition BatchJobExecution ExecutionsPage FileJob Job JobStep Judgement RestartJob "
            "Result S3Job ScriptJob StartBatchJob StartBatchJobResponse"
        ),
        "submitting": "Outcome Rejected Started Submitter Unknown",
    }.items()
    for name in names.split()
}

__all__ = [
    "AccessDeniedException",
    "AnswerTimeoutError",
    "Application",
    "AuthenticationException",
    "BatchJobDefinition",
    "BatchJobExecution",
    "CallCancelledError",
    "CallError",
    "Change",
    "ConfigurationError",
    "ConflictException",
    "ConnectionLostError",
    "CredentialsError",
    "ExecutionsPage",
    "ExpiredTokenException",
    "FileJob",
    "InternalServerException",
    "InvalidRequestError",
    "Job",
    "JobStep",
    "Judgement",
    "Ledger",
    "LedgerError",
    "LocalEndpoint",
    "M2AsyncError",
    "M2Client",
    "M2ServiceException",
    "ManifestError",
    "ManifestProblem",
    "ManifestRow",
    "NotSentError",
    "Outcome",
    "Pacer",
    "Rejected",
    "ResourceNotFoundException",
    "RestartJob",
    "Result",
    "RetryPolicy",
    "S3Job",
    "ScriptJob",
    "StartBatchJob",
    "StartBatchJobResponse",
    "Started",
    "SubmissionStoppedError",
    "Submitter",
    "ThrottlingException",
    "TokenBucket",
    "Tracker",
    "Unknown",
    "UnreadableAnswerError",
    "ValidationException",
    "ValidationExceptionField",
    "open_ledger",
    "read_manifest",
]


def __getattr__(name: str) -> object:
    module = _MODULE_OF_NAME.get(name)
    if module is None:
        raise AttributeError(f"module 'm2async' has no attribute {name!r}")
    value: object = getattr(import_module(f"m2async.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
