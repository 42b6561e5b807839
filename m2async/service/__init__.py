"""The service's vocabulary: requests, answers and results, checked as its model says."""

from m2async.service.requests import (
    MAX_PARAM_VALUE,
    MAX_PARAMS,
    FileJob,
    Job,
    RestartJob,
    S3Job,
    ScriptJob,
    StartBatchJob,
    check_identifier,
    job_from_api,
)
from m2async.service.responses import (
    TERMINAL_STATUSES,
    Application,
    BatchJobDefinition,
    BatchJobExecution,
    ExecutionsPage,
    JobStep,
    StartBatchJobResponse,
    definition_from_api,
)
from m2async.service.results import Judgement, Result, has_ended, judge

__all__ = [
    "MAX_PARAMS",
    "MAX_PARAM_VALUE",
    "TERMINAL_STATUSES",
    "Application",
    "BatchJobDefinition",
    "BatchJobExecution",
    "ExecutionsPage",
    "FileJob",
    "Job",
    "JobStep",
    "Judgement",
    "RestartJob",
    "Result",
    "S3Job",
    "ScriptJob",
    "StartBatchJob",
    "StartBatchJobResponse",
    "check_identifier",
    "definition_from_api",
    "has_ended",
    "job_from_api",
    "judge",
]
