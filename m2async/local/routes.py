"""The endpoint's routes: from an HTTP request to the service's operation and back, and the faults on the way."""

from __future__ import annotations

import asyncio
import math
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from functools import partial
from typing import Any, NoReturn
from urllib.parse import unquote

import msgspec
from aiohttp import web

from m2async.errors import M2ServiceException
from m2async.local import inputs, refusals
from m2async.local.faults import Fault, Faults
from m2async.local.inputs import Query
from m2async.local.service import BatchService, ExecutionQuery, LocalApplication
from m2async.local.signature import SignatureVerifier, SignedRequest
from m2async.pacing import TokenBucket

# The longest valid StartBatchJob: 500 parameters of 1,024 characters, each as two \u escapes, and what stands around.
MAX_BODY = 8 * 1024 * 1024

_IDENTIFIER = r"\S{1,80}"
_ENTITY_NAME = r"[A-Za-z0-9][A-Za-z0-9_\-]{1,59}"
_STRING_100 = r"\S{1,100}"


@dataclass(frozen=True, slots=True)
class LocalAnswer:
    """What is sent back with status 200, and the fault that it meets on its way."""

    content: Mapping[str, Any]
    fault: Fault | None = None


Handler = Callable[[Query, bytes], LocalAnswer]
"""What answers a request, given its query and its body."""


class Routes:
    """Answers requests: finds the operation, checks the signature, then does what is asked for.

    The quota is `bucket`'s and counts StartBatchJob alone; without a bucket there is none.
    """

    def __init__(
        self,
        service: BatchService,
        verifier: SignatureVerifier,
        faults: Faults,
        bucket: TokenBucket | None,
        clock: Callable[[], float],
    ) -> None:
        self._service = service
        self._verifier = verifier
        self._faults = faults
        self._bucket = bucket
        self._clock = clock

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        try:
            answer = await self._answer(request)
        except M2ServiceException as error:
            return self._error_response(error)
        if answer.fault in {Fault.DROP_BEFORE_ACCEPT, Fault.ACCEPT_THEN_DROP}:
            await _drop(request)
        if answer.fault is Fault.ACCEPT_THEN_HANG:
            await _hang()
        if answer.fault is Fault.LATENCY:
            await asyncio.sleep(self._faults.delay())
        return self._response(200, answer.content, {})

    async def _answer(self, request: web.BaseRequest) -> LocalAnswer:
        path, _, query = request.raw_path.partition("?")
        operation, is_public = self._operation(request.method, path)
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            raise refusals.too_large(MAX_BODY) from None
        if not is_public:
            signed = SignedRequest(request.method, request.raw_path, request.headers, body)
            self._verifier.check(signed, self._clock())
        return operation(Query(query), body)

    def _operation(self, method: str, path: str) -> tuple[Handler, bool]:
        """Find the operation, and whether it needs no signature."""
        public = False
        operation: Handler
        match method, [unquote(segment) for segment in path.split("/")[1:]]:
            case "GET", ["applications"]:
                operation = self._list_applications
            case "GET", ["applications", application]:
                operation = partial(self._get_application, application)
            case "GET", ["applications", application, "batch-job-definitions"]:
                operation = partial(self._list_definitions, application)
            case "POST", ["applications", application, "batch-job"]:
                operation = partial(self._start, application)
            case "GET", ["applications", application, "batch-job-executions"]:
                operation = partial(self._list_executions, application)
            case "GET", ["applications", application, "batch-job-executions", execution]:
                operation = partial(self._get_execution, application, execution)
            case "POST", ["applications", application, "batch-job-executions", execution, "cancel"]:
                operation = partial(self._cancel_execution, application, execution)
            case "GET", ["applications", application, "batch-job-executions", execution, "steps"]:
                operation = partial(self._list_restart_points, application, execution)
            case "GET", ["_local", "executions"]:
                operation, public = self._everything_started, True
            case "POST", ["_local", "quota"]:
                operation, public = self._set_quota, True
            case _:
                raise refusals.unknown_operation(method, path)
        return operation, public

    # The operations, each with the members of its output shape

    def _start(self, application_id: str, _query: Query, body: bytes) -> LocalAnswer:
        fault = self._faults.draw()
        self._take_quota()
        if fault is Fault.INTERNAL_ERROR:
            raise refusals.internal_error()
        if fault is Fault.THROTTLE:
            raise refusals.throttled(None)
        if fault is Fault.DROP_BEFORE_ACCEPT:
            return LocalAnswer({}, fault)
        execution_id = self._service.start(inputs.read_start(application_id, body))
        if fault is Fault.ACCEPT_THEN_500:
            raise refusals.internal_error()
        return LocalAnswer({"executionId": execution_id}, fault)

    def _take_quota(self) -> None:
        now = self._clock()
        if self._bucket is None or self._bucket.try_take(now):
            return
        wait = self._bucket.next_token_at(now) - now
        raise refusals.throttled(math.ceil(wait) if wait >= 1 else None)

    def _get_execution(self, application_id: str, execution_id: str, _query: Query, _body: bytes) -> LocalAnswer:
        return LocalAnswer(self._service.get(*_identifiers(application_id, execution_id)))

    def _list_executions(self, application_id: str, query: Query, _body: bytes) -> LocalAnswer:
        wanted = ExecutionQuery(
            max_results=query.max_results(),
            execution_ids=query.matching_list("executionIds", _IDENTIFIER),
            job_name=query.matching("jobName", _STRING_100),
            status=query.status(),
            started_after=query.time("startedAfter"),
            started_before=query.time("startedBefore"),
            before_number=query.position(),
        )
        [application_id] = _identifiers(application_id)
        executions, position = self._service.executions(application_id, wanted)
        return LocalAnswer({"batchJobExecutions": executions, **inputs.next_token(position)})

    def _cancel_execution(self, application_id: str, execution_id: str, _query: Query, body: bytes) -> LocalAnswer:
        identifiers = _identifiers(application_id, execution_id)
        inputs.read_cancel(body)
        self._service.cancel(*identifiers)
        return LocalAnswer({})

    def _list_restart_points(self, application_id: str, execution_id: str, query: Query, _body: bytes) -> LocalAnswer:
        identifiers = _identifiers(application_id, execution_id)
        query.check_secret()
        return LocalAnswer({"batchJobSteps": self._service.restart_points(*identifiers)})

    def _list_applications(self, query: Query, _body: bytes) -> LocalAnswer:
        size, start = query.max_results(), query.position() or 0
        names = query.matching_list("names", _ENTITY_NAME)
        environment = query.matching("environmentId", _IDENTIFIER)
        found = [
            _application_summary(application)
            for application in self._service.applications.values()
            # The endpoint's applications are deployed to no environment.
            if environment is None and (names is None or application.definition.name in names)
        ]
        return LocalAnswer({"applications": found[start : start + size], **_next_after(start + size, len(found))})

    def _get_application(self, application_id: str, _query: Query, _body: bytes) -> LocalAnswer:
        application = self._service.application(*_identifiers(application_id))
        created_at = application.created_at
        return LocalAnswer(
            {
                **_application_members(application),
                "deployedVersion": {"applicationVersion": 1, "status": "Succeeded"},
                "latestVersion": {"applicationVersion": 1, "creationTime": created_at, "status": "Available"},
            }
        )

    def _list_definitions(self, application_id: str, query: Query, _body: bytes) -> LocalAnswer:
        application = self._service.application(*_identifiers(application_id))
        size, start = query.max_results(), query.position() or 0
        prefix = query.text("prefix") or ""
        files = [job.file for job in application.definition.jobs if job.file.startswith(prefix)]
        found = [{"fileBatchJobDefinition": {"fileName": file}} for file in files[start : start + size]]
        return LocalAnswer({"batchJobDefinitions": found, **_next_after(start + size, len(files))})

    def _everything_started(self, _query: Query, _body: bytes) -> LocalAnswer:
        return LocalAnswer({"executions": self._service.everything_started()})

    def _set_quota(self, _query: Query, body: bytes) -> LocalAnswer:
        rate, burst = inputs.read_quota(body)
        try:
            if self._bucket is None:
                self._bucket = TokenBucket(rate, burst)
            else:
                self._bucket.set_rate(rate, burst, self._clock())
        except ValueError as exc:
            raise refusals.unreadable(str(exc)) from exc
        return LocalAnswer({"rate": rate, "burst": burst})

    # The way back

    def _error_response(self, error: M2ServiceException) -> web.Response:
        headers = {"x-amzn-ErrorType": error.code}
        if error.retry_after is not None:
            headers["Retry-After"] = f"{error.retry_after:.0f}"
        return self._response(error.http_status, {"message": error.message, **error.details}, headers)

    def _response(self, status: int, content: Mapping[str, Any], headers: dict[str, str]) -> web.Response:
        headers["x-amzn-RequestId"] = str(uuid.uuid4())
        headers["Date"] = formatdate(self._clock(), usegmt=True)  # the clock that signatures are checked against
        return web.Response(
            body=msgspec.json.encode(content), status=status, headers=headers, content_type="application/json"
        )


async def _drop(request: web.BaseRequest) -> NoReturn:
    if request.transport is not None:
        request.transport.abort()
    await _hang()


async def _hang() -> NoReturn:
    """Wait until the connection is lost, which cancels its handler."""
    await asyncio.get_running_loop().create_future()
    raise AssertionError("nothing ends this wait")


def _identifiers(application_id: str, *execution_id: str) -> tuple[str, ...]:
    names = ("applicationId", "executionId")
    return tuple(map(inputs.read_identifier, names, (application_id, *execution_id)))


def _application_members(application: LocalApplication) -> dict[str, Any]:
    definition = application.definition
    resource = re.sub(r"[^A-Za-z0-9:_/+=,@.-]", "-", definition.application_id)
    return {
        "applicationArn": f"arn:aws:m2:us-east-1:000000000000:app/{resource}",
        "applicationId": definition.application_id,
        "creationTime": application.created_at,
        "engineType": "microfocus",
        "name": definition.name,
        "status": definition.status,
    }


def _application_summary(application: LocalApplication) -> dict[str, Any]:
    return {
        **_application_members(application),
        "applicationVersion": 1,
        "deploymentStatus": "Deployed",
        "versionStatus": "Available",
    }


def _next_after(end: int, total: int) -> dict[str, str]:
    return inputs.next_token(end if end < total else None)
