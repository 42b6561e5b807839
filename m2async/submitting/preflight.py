"""Looking whether applications run and define the jobs that rows name, before the first of them is started.

| what a row names | checked |
|---|---|
| the application | that it exists and is Running |
| a script, a file | that the application defines one of that name, if it lists any of that kind |
| a job in an S3 bucket, a restart | nothing: the service does not list them |

What cannot be looked up, for want of a permission or because the call fails, stops nothing: it is told.
"""

from __future__ import annotations

import difflib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol, TypeVar

import anyio

from m2async.errors import AccessDeniedException, CallError, ResourceNotFoundException
from m2async.pacing import RetryPolicy, repeated
from m2async.service import Application, BatchJobDefinition, FileJob, Job, ScriptJob, StartBatchJob

T = TypeVar("T")
_CALLS_AT_ONCE = 8
_MOST_HINTS = 50
_POLICY = RetryPolicy(patience=3.0, unreachable=1.0)
_QUESTION = {
    "GetApplication": "whether the applications run",
    "ListBatchJobDefinitions": "whether the jobs are defined",
}
_KIND_OF_JOB: Mapping[type[Job], str] = {ScriptJob: "script", FileJob: "file"}


class LooksUpApplications(Protocol):
    """What the preflight needs of a client; M2Client is one."""

    async def get_application(self, application_id: str, /) -> Application:
        """Give an application as it is."""

    def list_batch_job_definitions(self, application_id: str, /) -> AsyncIterator[BatchJobDefinition]:
        """Iterate over the jobs that an application defines."""


class Finding(NamedTuple):
    """Something that a row names and that is not so: the first such row's key, the column, and the reason."""

    key: str
    column: str
    reason: str


class Report(NamedTuple):
    """What was found wrong, what could not be looked up, and what nobody can look up."""

    findings: list[Finding]
    warnings: list[str]
    notes: list[str]


class NamedJobs:
    """What rows name: each application and job once, with the key of the first row that names it."""

    def __init__(self) -> None:
        self.jobs_of: dict[str, dict[Job, str]] = {}
        self.first_of: dict[str, str] = {}

    def watch(self, rows: Iterable[tuple[str, StartBatchJob]]) -> Iterator[tuple[str, StartBatchJob]]:
        """Give the rows on, and take note of what they name."""
        last: Job | None = None
        last_application: str | None = None
        for row in rows:
            request = row[1]
            if request.job is not last or request.application_id != last_application:
                last, last_application = request.job, request.application_id
                self._note(*row)
            yield row

    def _note(self, key: str, request: StartBatchJob) -> None:
        jobs = self.jobs_of.get(request.application_id)
        if jobs is None:
            jobs = self.jobs_of[request.application_id] = {}
            self.first_of[request.application_id] = key
        if type(request.job) in _KIND_OF_JOB and request.job not in jobs:
            jobs[request.job] = key


async def preflight(client: LooksUpApplications, wanted: NamedJobs) -> Report:
    """Look up every application, and the definitions of each once."""
    reports: dict[str, Report] = {}
    limit = anyio.CapacityLimiter(_CALLS_AT_ONCE)

    async def look(application_id: str) -> None:
        async with limit:
            reports[application_id] = await _ApplicationCheck(client, application_id).report(wanted)

    async with anyio.create_task_group() as tasks:
        for application_id in wanted.jobs_of:
            tasks.start_soon(look, application_id)
    in_order = [reports[application_id] for application_id in wanted.jobs_of]
    return Report(
        [finding for report in in_order for finding in report.findings],
        list(dict.fromkeys(warning for report in in_order for warning in report.warnings)),
        [note for report in in_order for note in report.notes],
    )


class _ApplicationCheck:
    """Looks at one application; a call that fails leaves a warning, and its question open."""

    def __init__(self, client: LooksUpApplications, application_id: str) -> None:
        self._client = client
        self._id = application_id
        self._warnings: list[str] = []

    async def report(self, wanted: NamedJobs) -> Report:
        """Give all that is to be said of it."""
        jobs, findings, notes = wanted.jobs_of[self._id], list[Finding](), list[str]()
        try:
            application = await self._ask("GetApplication", self._application)
            definitions = await self._ask("ListBatchJobDefinitions", self._definitions) if jobs else None
        except ResourceNotFoundException:
            reason = f"{self._id}: there is no such application in this account and region"
            return Report([Finding(wanted.first_of[self._id], "application_id", reason)], [], [])
        if application is not None and application.status != "Running":
            reason = f"{self._id}: the application is {application.status}, not Running, and would start nothing"
            findings.append(Finding(wanted.first_of[self._id], "application_id", reason))
        if definitions is not None:
            wrong, notes = judge_jobs(self._id, jobs, definitions)
            findings += wrong
        return Report(findings, self._warnings, notes)

    async def _application(self) -> Application:
        return await self._client.get_application(self._id)

    async def _definitions(self) -> list[BatchJobDefinition]:
        return [definition async for definition in self._client.list_batch_job_definitions(self._id)]

    async def _ask(self, operation: str, call: Callable[[], Awaitable[T]]) -> T | None:
        try:
            return await repeated(call, _POLICY, reached=lambda: False, before_wait=lambda error, seconds: None)
        except ResourceNotFoundException:
            raise
        except AccessDeniedException:
            self._warnings.append(
                f"not checked: {_QUESTION[operation]}, since the permission m2:{operation} is missing"
            )
        except CallError as error:
            self._warnings.append(f"not checked: {_QUESTION[operation]}: {operation}: {error.code}: {error.message}")
        return None


def judge_jobs(
    application_id: str, jobs: Mapping[Job, str], definitions: Collection[BatchJobDefinition]
) -> tuple[list[Finding], list[str]]:
    """Say which jobs an application does not define, and what cannot be told because it lists none of their kind.

    `jobs` are scripts and files, each with the key of the first row that names it; `definitions` are all that the
    application lists.
    """
    folders_of: dict[str, dict[str, set[str | None]]] = {}
    for definition in definitions:
        folders_of.setdefault(definition.type, {}).setdefault(definition.name, set()).add(definition.folder_path)
    findings: list[Finding] = []
    unlisted: dict[str, None] = {}
    for job, key in jobs.items():
        kind = _KIND_OF_JOB[type(job)]
        if kind not in folders_of:
            unlisted[kind] = None
            continue
        folders, folder = folders_of[kind].get(job.name), job.folder_path if isinstance(job, FileJob) else None
        if folders is None:
            hint = _nearest(job.name, folders_of[kind]) if len(findings) < _MOST_HINTS else ""
            findings.append(
                Finding(key, kind, f"{job.name!r}: application {application_id} defines no such {kind}{hint}")
            )
        elif folder is not None and not folders & {None, folder}:
            others = ", ".join(sorted(map(str, folders)))
            reason = f"{folder!r}: application {application_id} defines {job.name!r} in {others}"
            findings.append(Finding(key, "folder", reason))
    notes = [f"application {application_id} lists no {kind}s, so their names are not checked" for kind in unlisted]
    return findings, notes


def _nearest(name: str, known: Collection[str]) -> str:
    of_lower = {other.lower(): other for other in known}
    near = [of_lower[other] for other in difflib.get_close_matches(name.lower(), of_lower, n=3)]
    return f"; nearest {'is' if len(near) == 1 else 'are'} {', '.join(near)}" if near else ""
