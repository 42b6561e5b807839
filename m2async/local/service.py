"""Applications and executions: the state behind the endpoint's operations, with the clock passed in."""

from __future__ import annotations

import random
import re
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import PurePosixPath
from typing import Any

from msgspec.structs import replace

from m2async.local import refusals
from m2async.local.definitions import ApplicationDefinition, JobDefinition, StepDefinition
from m2async.local.execution import Execution, schedule
from m2async.service import FileJob, RestartJob, S3Job, ScriptJob, StartBatchJob

_ID_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
_EXAMINED_PER_CALL = 20_000  # a page may end early, with a token, so that no call looks at every execution

_start_time: Callable[[Execution], float] = attrgetter("start_time")
_number: Callable[[Execution], int] = attrgetter("number")


class LocalApplication:
    """One application, its jobs, and its executions in the order of their start.

    With `accepts_any_file` a file that is not among the jobs is taken for a job of one step.
    """

    def __init__(self, definition: ApplicationDefinition, created_at: float, *, accepts_any_file: bool = False) -> None:
        self.definition = definition
        self.created_at = created_at
        self.accepts_any_file = accepts_any_file
        self.executions: list[Execution] = []
        self.executions_of_job: dict[str, list[Execution]] = defaultdict(list)
        self._job_of_file = {job.file: job for job in definition.jobs}
        self._job_of_name = {_stem(job.file): job for job in definition.jobs}
        self._job_of_name.update({job.job_name: job for job in definition.jobs})

    def job_of_file(self, file: str) -> JobDefinition | None:
        """Find the job by the name of its file, or None if the application has no such file."""
        job = self._job_of_file.get(file)
        return _unlisted(file) if job is None and self.accepts_any_file else job

    def job_of_script(self, script: str) -> JobDefinition:
        """Find the job that has a script's name, or else a job of one step."""
        return self._job_of_name.get(script) or self._job_of_name.get(_stem(script)) or _unlisted(script)

    def job_in_bucket(self, job: S3Job) -> JobDefinition:
        """Find the job that a bucket's file or script names, or else a job of one step."""
        name = PurePosixPath(job.name).name
        return self._job_of_file.get(name) or self.job_of_script(name)

    def add(self, execution: Execution) -> None:
        """Put in the newest execution."""
        self.executions.append(execution)
        self.executions_of_job[execution.definition.job_name].append(execution)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionQuery:
    """What ListBatchJobExecutions asks for; times are in seconds of the epoch and exclusive."""

    max_results: int
    execution_ids: Sequence[str] | None = None
    job_name: str | None = None
    status: str | None = None
    started_after: float | None = None
    started_before: float | None = None
    before_number: int | None = None
    """The number of the execution at which the page before ended."""


class BatchService:
    """The batch part of the service, each operation at the time that `clock` tells, in seconds of the epoch.

    Operations raise the service's own exceptions. Times never go back: an earlier one counts as the latest seen.
    """

    def __init__(
        self,
        definitions: Iterable[ApplicationDefinition],
        extra_applications: Iterable[str],
        clock: Callable[[], float],
        seed: object,
    ) -> None:
        self._clock = clock
        self._latest = float("-inf")
        self._ids = random.Random(f"{seed}/ids")
        self._lives = random.Random(f"{seed}/lives")
        self._executions: dict[str, Execution] = {}
        now = int(self._now())
        self.applications: Mapping[str, LocalApplication] = {
            **{
                application_id: LocalApplication(
                    ApplicationDefinition(application_id, _name_of(application_id)), now, accepts_any_file=True
                )
                for application_id in extra_applications
            },
            **{definition.application_id: LocalApplication(definition, now) for definition in definitions},
        }

    def application(self, application_id: str) -> LocalApplication:
        """Find an application."""
        application = self.applications.get(application_id)
        if application is None:
            raise refusals.not_found(refusals.APPLICATION, application_id)
        return application

    def start(self, request: StartBatchJob) -> str:
        """Start a job; gives the execution's id."""
        application = self.application(request.application_id)
        status = application.definition.status
        if status != "Running":
            raise refusals.conflict(refusals.APPLICATION, request.application_id, f"is {status}, not Running")
        definition = self._job(application, request)
        if definition.failures is not None:
            before = len(application.executions_of_job[definition.job_name])
            definition = replace(definition, return_code=definition.return_code if before < definition.failures else 0)
        number = len(self._executions) + 1
        execution = schedule(number, self._new_id(), request, definition, self._now(), self._lives)
        self._executions[execution.execution_id] = execution
        application.add(execution)
        return execution.execution_id

    def get(self, application_id: str, execution_id: str) -> dict[str, Any]:
        """Show one execution."""
        return self._execution(application_id, execution_id).details(self._now())

    def cancel(self, application_id: str, execution_id: str) -> None:
        """Begin to cancel an execution."""
        execution, now = self._execution(application_id, execution_id), self._now()
        if not execution.cancel(now):
            raise refusals.conflict(refusals.EXECUTION, execution_id, f"has ended as {execution.status(now)}")

    def restart_points(self, application_id: str, execution_id: str) -> list[dict[str, Any]]:
        """Show the steps of an execution."""
        return self._execution(application_id, execution_id).restart_points(self._now())

    def executions(self, application_id: str, query: ExecutionQuery) -> tuple[list[dict[str, Any]], int | None]:
        """Show the executions that match, newest first, and the number at which a next page begins, if any."""
        candidates = self._candidates(self.application(application_id), query)
        low, high = 0, len(candidates)
        if query.started_after is not None:
            low = bisect_right(candidates, query.started_after, key=_start_time)
        if query.started_before is not None:
            high = bisect_left(candidates, query.started_before, key=_start_time)
        if query.before_number is not None:
            high = min(high, bisect_left(candidates, query.before_number, key=_number))
        page: list[dict[str, Any]] = []
        now = self._now()
        end = max(low, high - _EXAMINED_PER_CALL)
        while high > end and len(page) < query.max_results:
            high -= 1
            execution = candidates[high]
            if query.status is None or execution.status(now) == query.status:
                page.append(execution.summary(now))
        return page, candidates[high].number if high > low else None

    def everything_started(self) -> list[dict[str, Any]]:
        """Show all executions of all applications in the order of their start, with their parameters."""
        now = self._now()
        return [
            {**execution.details(now), "jobParams": execution.request.params} for execution in self._executions.values()
        ]

    def _candidates(self, application: LocalApplication, query: ExecutionQuery) -> Sequence[Execution]:
        if query.execution_ids is None:
            if query.job_name is None:
                return application.executions
            return application.executions_of_job.get(query.job_name, [])
        known = (self._executions.get(execution_id) for execution_id in set(query.execution_ids))
        return sorted(
            (
                execution
                for execution in known
                if execution is not None
                and execution.request.application_id == application.definition.application_id
                and query.job_name in {None, execution.definition.job_name}
            ),
            key=_number,
        )

    def _job(self, application: LocalApplication, request: StartBatchJob) -> JobDefinition:
        job = request.job
        definition: JobDefinition | None = None
        if isinstance(job, FileJob):
            definition = application.job_of_file(job.file_name)
        elif isinstance(job, ScriptJob):
            definition = application.job_of_script(job.script_name)
        elif isinstance(job, S3Job):
            definition = application.job_in_bucket(job)
        elif isinstance(job, RestartJob):
            definition = self._execution(request.application_id, job.execution_id).definition
            steps = [step.step for step in definition.steps]
            for field, step in (("fromStep", job.from_step), ("toStep", job.to_step)):
                if step is not None and step not in steps:
                    field = f"batchJobIdentifier.restartBatchJobIdentifier.jobStepRestartMarker.{field}"
                    raise refusals.invalid(field, f"must be one of the job's steps: {', '.join(steps)}")
        if definition is None:
            raise refusals.not_found(refusals.JOB_DEFINITION, job.name)
        return definition

    def _execution(self, application_id: str, execution_id: str) -> Execution:
        self.application(application_id)
        execution = self._executions.get(execution_id)
        if execution is None or execution.request.application_id != application_id:
            raise refusals.not_found(refusals.EXECUTION, execution_id)
        return execution

    def _new_id(self) -> str:
        while True:
            execution_id = "".join(self._ids.choices(_ID_ALPHABET, k=26))
            if execution_id not in self._executions:
                return execution_id

    def _now(self) -> float:
        self._latest = max(self._latest, self._clock())
        return self._latest


def _unlisted(name: str) -> JobDefinition:
    """Make the definition of a job of which only the name is known."""
    job_name = re.sub(r"\s", "", _stem(name))[:100] or "JOB"
    return JobDefinition(name, job_name, (StepDefinition("STEP01"),))


def _stem(name: str) -> str:
    return PurePosixPath(name).stem


def _name_of(application_id: str) -> str:
    """Make an EntityName of an application's id."""
    return "app-" + re.sub(r"[^A-Za-z0-9_-]", "-", application_id)[:56]
