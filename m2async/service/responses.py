"""What the service answers, in its own terms; members that are added to the service later are passed over."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from m2async.errors import InvalidRequestError, UnreadableAnswerError
from m2async.service.requests import Job, job_from_api

TERMINAL_STATUSES = frozenset({"Cancelled", "Succeeded", "Failed", "Purged", "Succeeded With Warning"})
"""The statuses in which an execution has ended."""


class StartBatchJobResponse(msgspec.Struct, frozen=True, gc=False):
    """The answer to StartBatchJob: the job was started as this execution."""

    execution_id: str
    request_id: str | None = None


class BatchJobExecution(msgspec.Struct, frozen=True, rename="camel"):
    """One execution, as GetBatchJobExecution and ListBatchJobExecutions give it.

    `status` is one of the ten of BatchJobExecutionStatus, or one that the service added since.
    """

    application_id: str
    execution_id: str
    start_time: datetime
    status: str
    end_time: datetime | None = None
    batch_job_identifier: dict[str, Any] | None = None
    job_id: str | None = None
    job_name: str | None = None
    job_type: str | None = None
    job_user: str | None = None
    return_code: str | None = None
    status_reason: str | None = None

    @property
    def is_terminal(self) -> bool:
        """Whether the status can no longer change."""
        return self.status in TERMINAL_STATUSES

    @property
    def job(self) -> Job | None:
        """What was started, or None if the service did not say so in terms known here."""
        return _job(self.batch_job_identifier)


class ExecutionsPage(NamedTuple):
    """Some of an application's executions, and what asks for more of them, if there may be more.

    `passed_over` counts what is listed besides and cannot be read, or is of another application. It may be what is
    looked for: where it is counted, nothing follows from what is not among the executions.
    """

    executions: Sequence[BatchJobExecution]
    next_token: str | None
    passed_over: int = 0


class BatchJobDefinition(msgspec.Struct, frozen=True):
    """A job that an application defines: a script, or a file within its folder."""

    type: str
    name: str
    folder_path: str | None = None


class JobStep(msgspec.Struct, frozen=True, rename="camel"):
    """A step of an execution from which it may be restarted (JobStep)."""

    step_number: int | None = None
    step_name: str | None = None
    proc_step_number: int | None = None
    proc_step_name: str | None = None
    step_cond_code: str | None = None
    step_restartable: bool | None = None
    step_checkpoint: int | None = None
    step_checkpoint_status: str | None = None
    step_checkpoint_time: datetime | None = None


class Application(msgspec.Struct, frozen=True, rename="camel"):
    """An application, as GetApplication and ListApplications give it."""

    application_id: str
    name: str
    status: str
    engine_type: str | None = None
    application_arn: str | None = None
    creation_time: datetime | None = None
    description: str | None = None
    environment_id: str | None = None
    last_start_time: datetime | None = None
    role_arn: str | None = None
    status_reason: str | None = None


class ListEnd:
    """Sees that a list that is read page by page comes to an end."""

    def __init__(self, operation: str) -> None:
        self._operation = operation
        self._tokens: set[str] = set()
        self._pages: set[int] = set()
        self._idle = 0

    def next_token(self, token: str | None, items: Sequence[object]) -> str | None:
        """Give what asks for the page after these items, None after the last.

        Raises UnreadableAnswerError if there is no end.
        """
        if token is None:
            return None
        page = hash(repr((len(items), items[0], items[-1])) if items else "")
        self._idle = self._idle + 1 if not items or page in self._pages else 0
        self._pages.add(page)
        if token in self._tokens:
            raise self._endless("the same nextToken came again")
        if self._idle >= _IDLE_PAGES:
            raise self._endless(f"{self._idle} pages came with nothing new on them")
        if len(self._tokens) >= _MOST_PAGES:
            raise self._endless(f"{_MOST_PAGES:,} pages came")
        self._tokens.add(token)
        return token

    def _endless(self, why: str) -> UnreadableAnswerError:
        error = UnreadableAnswerError(f"the list of {self._operation} does not end: {why}")
        error.may_have_started = False  # so that nobody asks again
        return error


async def every_execution(
    page_of: Callable[[str | None], Awaitable[ExecutionsPage]],
) -> AsyncIterator[BatchJobExecution]:
    """Iterate over the executions of all pages; `page_of` gets one by its token, None for the first.

    Raises UnreadableAnswerError for a list without an end, and for an execution that cannot be read.
    """
    ends, token = ListEnd("ListBatchJobExecutions"), None
    while True:
        page = await page_of(token)
        if page.passed_over:  # one of them may be the one that is looked for
            what = f"{page.passed_over:,} of the list cannot be, or are of another application"
            error = UnreadableAnswerError(f"the answer to ListBatchJobExecutions cannot be read: {what}")
            error.may_have_started = False  # so that nobody asks again
            raise error
        for execution in page.executions:
            yield execution
        token = ends.next_token(page.next_token, page.executions)
        if token is None:
            return


_IDLE_PAGES = 100
"""So many in a row hold nothing only where a filter passes over 200,000 of what there is."""

_MOST_PAGES = 10_000
"""Pages of a list, at most: of 2,000 each, they hold more than any application has."""


def definition_from_api(members: Mapping[str, Any]) -> BatchJobDefinition | None:
    """Take the service's BatchJobDefinition, a union; None for a kind that is not known here.

    Raises ValueError for what is none.
    """
    if not isinstance(members, Mapping):
        raise ValueError("a batch job definition is no JSON object")
    file, script = members.get("fileBatchJobDefinition"), members.get("scriptBatchJobDefinition")
    if file is not None:
        return BatchJobDefinition("file", _named(file, "fileName"), _folder(file))
    return None if script is None else BatchJobDefinition("script", _named(script, "scriptName"))


def _named(members: object, member: str) -> str:
    name = members.get(member) if isinstance(members, Mapping) else None
    if not isinstance(name, str) or not name:
        raise ValueError(f"a batch job definition has no {member}")
    return name


def _folder(members: Mapping[str, Any]) -> str | None:
    folder = members.get("folderPath")
    if folder is not None and not isinstance(folder, str):
        raise ValueError("the folderPath of a batch job definition is no text")
    return folder


def _job(identifier: Mapping[str, Any] | None) -> Job | None:
    try:
        return None if identifier is None else job_from_api(identifier)
    except InvalidRequestError:
        return None
