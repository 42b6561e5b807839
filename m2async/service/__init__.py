"""The service's vocabulary: requests, answers and results, checked as its model says; and the keys of jobs."""

from m2async.service.keys import KEY_RULE, RowNumber, is_key
from m2async.service.requests import (
    MAX_PARAM_VALUE,
    MAX_PARAMS,
    FileJob,
    Job,
    RestartJob,
    S3Job,
    ScriptJob,
    StartBatchJob,
    check_execution_id,
    check_identifier,
    is_execution_id,
    job_from_api,
)
from m2async.service.responses import (
    TERMINAL_STATUSES,
    Application,
    BatchJobDefinition,
    BatchJobExecution,
    ExecutionsPage,
    JobStep,
    ListEnd,
    StartBatchJobResponse,
    definition_from_api,
)
from m2async.service.results import Judgement, Result, has_ended, judge
from m2async.service.sending import SENDING, Sending

__all__ = [
    "KEY_RULE",
    "MAX_PARAMS",
    "MAX_PARAM_VALUE",
    "SENDING",
    "TERMINAL_STATUSES",
    "Application",
    "BatchJobDefinition",
    "BatchJobExecution",
    "ExecutionsPage",
    "FileJob",
    "Job",
    "JobStep",
    "Judgement",
    "ListEnd",
    "RestartJob",
    "Result",
    "RowNumber",
    "S3Job",
    "ScriptJob",
    "Sending",
    "StartBatchJob",
    "StartBatchJobResponse",
    "check_execution_id",
    "check_identifier",
    "definition_from_api",
    "has_ended",
    "is_execution_id",
    "is_key",
    "job_from_api",
    "judge",
]
