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

    `passed_over` counts those besides whose execution id can be none, or that are of another application.
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

    def __init__(self) -> None:
        self._tokens: set[str] = set()
        self._empty = 0

    def next_token(self, token: str | None, *, empty: bool) -> str | None:
        """Give what asks for the next page, None after the last; raises UnreadableAnswerError if there is no end."""
        self._empty = self._empty + 1 if empty else 0
        if token is None:
            return None
        if token in self._tokens:
            raise _endless("the same nextToken came again")
        if self._empty >= _EMPTY_PAGES:
            raise _endless(f"{self._empty} pages came with nothing on them")
        self._tokens.add(token)
        return token


async def every_execution(
    page_of: Callable[[str | None], Awaitable[ExecutionsPage]],
) -> AsyncIterator[BatchJobExecution]:
    """Iterate over the executions of all pages; `page_of` gets one by its token, None for the first.

    Raises UnreadableAnswerError for a list without an end, and for an execution whose id can be none.
    """
    ends, token = ListEnd(), None
    while True:
        page = await page_of(token)
        if page.passed_over:  # one of them may be the one that is looked for
            raise UnreadableAnswerError("the answer cannot be read: an execution in the list has no valid id")
        for execution in page.executions:
            yield execution
        token = ends.next_token(page.next_token, empty=not page.executions)
        if token is None:
            return


_EMPTY_PAGES = 100
"""So many in a row hold nothing only where a filter passes over 200,000 of what there is."""


def _endless(why: str) -> UnreadableAnswerError:
    error = UnreadableAnswerError(f"the list does not end: {why}")
    error.may_have_started = False  # so that nobody asks again
    return error


def definition_from_api(members: Mapping[str, Any]) -> BatchJobDefinition | None:
    """Take the service's BatchJobDefinition, a union; None for a kind that is not known here."""
    if file := members.get("fileBatchJobDefinition"):
        return BatchJobDefinition("file", file["fileName"], file.get("folderPath"))
    if script := members.get("scriptBatchJobDefinition"):
        return BatchJobDefinition("script", script["scriptName"])
    return None


def _job(identifier: Mapping[str, Any] | None) -> Job | None:
    try:
        return None if identifier is None else job_from_api(identifier)
    except InvalidRequestError:
        return None
