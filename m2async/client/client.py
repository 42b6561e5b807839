"""M2Client: the batch operations of AWS Mainframe Modernization, one attempt a call, typed answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, TypeVar
from urllib.parse import urlsplit

import msgspec

from m2async.client.answers import Answer
from m2async.client.settings import Aws, SessionCredentials, Settings, is_loopback
from m2async.client.wire.pool import Pool
from m2async.client.wire.sigv4 import check_credentials
from m2async.client.wire.transport import WireTransport
from m2async.clock import steady_time
from m2async.errors import ConfigurationError, UnreadableAnswerError
from m2async.events import transport_chosen
from m2async.service import (
    Application,
    BatchJobDefinition,
    BatchJobExecution,
    ExecutionsPage,
    JobStep,
    StartBatchJob,
    StartBatchJobResponse,
    check_identifier,
    definition_from_api,
)

if TYPE_CHECKING:
    from aiobotocore.session import AioSession

_T = TypeVar("_T")
CallNext = Callable[[StartBatchJob], Coroutine[Any, Any, StartBatchJobResponse]]
"""What sends a request: the next middleware, or the client itself."""

Middleware = Callable[[StartBatchJob, CallNext], Coroutine[Any, Any, StartBatchJobResponse]]
"""What stands around the starts of a client (`M2Client.use`): a function of the request and of what sends it."""

_PAGE_SIZE = 2_000  # MaxResults: the most that the service gives at once


class Transport(Protocol):
    """What sends requests and gives their answers, one attempt each."""

    async def start_batch_job(self, request: StartBatchJob) -> StartBatchJobResponse:
        """Send a StartBatchJob request, or raise the CallError that says what became of it."""

    async def call(self, operation: str, members: Mapping[str, Any]) -> Answer:
        """Send a request of another operation, in the same way."""

    async def aclose(self) -> None:
        """Close the connections."""


class M2Client:
    """An asyncio client of the service; every method sends each of its requests once.

    Arguments:
        region_name, profile_name, endpoint_url: as in boto3; by default from the environment and the
            AWS configuration files, as for every AWS tool.
        session: an aiobotocore session of the caller's, instead of `profile_name`.
        transport: "wire" sends on connections of our own, "aiobotocore" through aiobotocore. By default
            it is the wire, but for a proxy or a session with event hooks of its own, which a log
            event then says.
        verify: as in boto3: whether TLS certificates are verified, or the path of a CA bundle.
        plain_http_to: hosts besides those of loopback to which plain HTTP may go.
        connect_timeout: seconds for making a connection.
        read_timeout: seconds of waiting for an answer.
        max_connections: how many connections are kept at most; further calls wait for one.

    Use it as an async context manager. Opening raises ConfigurationError or CredentialsError. A call
    raises a CallError, whose `may_have_started` says whether the request may have had its effect:
    M2ServiceException or a subclass for an error answer, else NotSentError, AnswerTimeoutError,
    ConnectionLostError, UnreadableAnswerError or CredentialsError.
    """

    def __init__(
        self,
        region_name: str | None = None,
        *,
        profile_name: str | None = None,
        endpoint_url: str | None = None,
        session: AioSession | None = None,
        transport: Literal["wire", "aiobotocore"] | None = None,
        verify: bool | str | None = None,
        plain_http_to: Collection[str] = (),
        connect_timeout: float = 5.0,
        read_timeout: float = 60.0,
        max_connections: int = 256,
    ) -> None:
        if session is not None and profile_name is not None:
            raise ValueError("give session or profile_name, not both")
        self._settings = Settings(
            session=session,
            profile_name=profile_name,
            region_name=region_name,
            endpoint_url=endpoint_url,
            verify=verify,
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
            max_connections=max_connections,
        )
        self._chosen = transport
        self._plain_http_to = frozenset(plain_http_to)
        self._middlewares: list[Middleware] = []
        self._opened: AsyncExitStack | None = None
        self._clock_offset: float | None = None

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            self._aws = await Aws.open(self._settings)
            stack.push_async_callback(self._aws.aclose)
            self._check_scheme()
            credentials = await self._aws.credentials()
            check_credentials(await credentials.current())
            self._transport = await self._open_transport(credentials)
            stack.push_async_callback(self._transport.aclose)
            self._start: CallNext = self._transport.start_batch_job
            for middleware in self._middlewares:
                self._wrap(middleware)
            self._opened = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._check_open()
        stack, self._opened = self._opened, None
        if stack is not None:
            await stack.aclose()

    @property
    def endpoint_url(self) -> str:
        """The endpoint that was resolved; the client must be open."""
        self._check_open()
        return self._aws.endpoint_url

    @property
    def region_name(self) -> str:
        """The region that was resolved; the client must be open."""
        self._check_open()
        return self._aws.region_name

    @property
    def clock_offset(self) -> float | None:
        """How far the service's clock is ahead of the local one, in seconds, give or take one.

        Read off the `Date` of the last answer to a call other than StartBatchJob; None before there was one.
        """
        return self._clock_offset

    def start_batch_job(self, request: StartBatchJob) -> Coroutine[Any, Any, StartBatchJobResponse]:
        """Start a batch job (StartBatchJob): to be awaited."""
        if self._opened is None:
            self._check_open()
        return self._start(request)

    def use(self, middleware: Middleware) -> None:
        """Wrap `start_batch_job` in `async (request, call_next) -> response`; the last one added runs first."""
        self._middlewares.append(middleware)
        if self._opened is not None:
            self._wrap(middleware)

    async def get_batch_job_execution(self, application_id: str, execution_id: str) -> BatchJobExecution:
        """Get one execution (GetBatchJobExecution)."""
        answer = await self._call(
            "GetBatchJobExecution", {"applicationId": application_id, "executionId": execution_id}
        )
        return _read(answer.members, BatchJobExecution)

    async def cancel_batch_job_execution(
        self, application_id: str, execution_id: str, *, auth_secrets_manager_arn: str | None = None
    ) -> None:
        """Cancel an execution (CancelBatchJobExecution); it ends as Cancelled some time later."""
        members = {"applicationId": application_id, "executionId": execution_id}
        await self._call("CancelBatchJobExecution", _given(members, authSecretsManagerArn=auth_secrets_manager_arn))

    async def list_batch_job_executions(
        self,
        application_id: str,
        *,
        execution_ids: Sequence[str] | None = None,
        job_name: str | None = None,
        started_after: datetime | None = None,
        started_before: datetime | None = None,
        status: str | None = None,
        page_size: int = _PAGE_SIZE,
    ) -> AsyncIterator[BatchJobExecution]:
        """Iterate over an application's executions (ListBatchJobExecutions), following `nextToken`.

        `execution_ids` holds at most 10; `page_size` is 1 to 2,000.
        """
        token: str | None = None
        while True:
            page = await self.get_batch_job_executions_page(
                application_id,
                execution_ids=execution_ids,
                job_name=job_name,
                started_after=started_after,
                started_before=started_before,
                status=status,
                page_size=page_size,
                next_token=token,
            )
            for execution in page.executions:
                yield execution
            token = page.next_token
            if token is None:
                return

    async def get_batch_job_executions_page(
        self,
        application_id: str,
        *,
        execution_ids: Sequence[str] | None = None,
        job_name: str | None = None,
        started_after: datetime | None = None,
        started_before: datetime | None = None,
        status: str | None = None,
        page_size: int = _PAGE_SIZE,
        next_token: str | None = None,
    ) -> ExecutionsPage:
        """Get one page of an application's executions (ListBatchJobExecutions), for callers who pace each call."""
        members = _given(
            {"applicationId": application_id},
            executionIds=None if execution_ids is None else list(execution_ids),
            jobName=job_name,
            startedAfter=started_after,
            startedBefore=started_before,
            status=status,
            maxResults=page_size,
            nextToken=next_token,
        )
        page = (await self._call("ListBatchJobExecutions", members)).members
        executions = [_read(item, BatchJobExecution) for item in _listed(page, "batchJobExecutions")]
        return ExecutionsPage(executions, page.get("nextToken") or None)

    async def list_batch_job_definitions(
        self, application_id: str, *, prefix: str | None = None, page_size: int = _PAGE_SIZE
    ) -> AsyncIterator[BatchJobDefinition]:
        """Iterate over an application's batch job definitions (ListBatchJobDefinitions)."""
        members = _given({"applicationId": application_id}, prefix=prefix)
        async for page in self._pages("ListBatchJobDefinitions", members, page_size):
            for item in _listed(page, "batchJobDefinitions"):
                definition = definition_from_api(item)
                if definition is not None:
                    yield definition

    async def list_batch_job_restart_points(
        self, application_id: str, execution_id: str, *, auth_secrets_manager_arn: str | None = None
    ) -> list[JobStep]:
        """List the steps from which an execution may be restarted (ListBatchJobRestartPoints)."""
        members = {"applicationId": application_id, "executionId": execution_id}
        answer = await self._call(
            "ListBatchJobRestartPoints", _given(members, authSecretsManagerArn=auth_secrets_manager_arn)
        )
        return [_read(step, JobStep) for step in answer.members.get("batchJobSteps", ())]

    async def get_application(self, application_id: str) -> Application:
        """Get one application (GetApplication)."""
        answer = await self._call("GetApplication", {"applicationId": application_id})
        return _read(answer.members, Application)

    async def list_applications(
        self,
        *,
        names: Sequence[str] | None = None,
        environment_id: str | None = None,
        page_size: int = _PAGE_SIZE,
    ) -> AsyncIterator[Application]:
        """Iterate over the applications (ListApplications); `names` holds at most 10."""
        members = _given({}, names=None if names is None else list(names), environmentId=environment_id)
        async for page in self._pages("ListApplications", members, page_size):
            for item in _listed(page, "applications"):
                yield _read(item, Application)

    async def _pages(self, operation: str, members: dict[str, Any], page_size: int) -> AsyncIterator[Mapping[str, Any]]:
        members = {**members, "maxResults": page_size}
        while True:
            page = (await self._call(operation, members)).members
            yield page
            token = page.get("nextToken")
            if not token:
                return
            members["nextToken"] = token

    async def _call(self, operation: str, members: Mapping[str, Any]) -> Answer:
        for member, field in (("applicationId", "application_id"), ("executionId", "execution_id")):
            if member in members:
                check_identifier(field, members[member])
        self._check_open()
        answer = await self._transport.call(operation, members)
        if answer.date is not None:
            self._clock_offset = answer.date.timestamp() + 0.5 - steady_time()  # the header has whole seconds
        return answer

    def _wrap(self, middleware: Middleware) -> None:
        call_next = self._start
        self._start = lambda request: middleware(request, call_next)

    def _check_open(self) -> None:
        if self._opened is None:
            raise RuntimeError("the client is not open: use it as 'async with M2Client(...) as client'")

    def _check_scheme(self) -> None:
        """Refuse to send parameters and session tokens unencrypted over a network."""
        try:
            url = urlsplit(self._aws.endpoint_url)
            url.port  # noqa: B018 - raises for a port that there is not
        except ValueError as exc:
            raise ConfigurationError(f"the endpoint {self._aws.endpoint_url}: {exc}") from exc
        if url.scheme == "https":
            return
        if url.scheme != "http":
            raise ConfigurationError(f"the endpoint {self._aws.endpoint_url} is neither https nor http")
        if not is_loopback(self._aws.endpoint_url) and url.hostname not in self._plain_http_to:
            raise ConfigurationError(
                f"the endpoint {self._aws.endpoint_url} is plain HTTP, which goes to loopback only: use https"
            )

    async def _open_transport(self, credentials: SessionCredentials) -> Transport:
        aws, settings = self._aws, self._settings
        chosen = self._chosen
        if chosen is None:
            why = "proxy" if aws.proxy() else "event hooks" if aws.has_event_hooks() else None
            if why is not None:
                transport_chosen("aiobotocore", why)
            chosen = "wire" if why is None else "aiobotocore"
        if chosen == "aiobotocore":
            from m2async.client.via_aiobotocore import AiobotocoreTransport

            return AiobotocoreTransport(aws)
        url = urlsplit(aws.endpoint_url)
        pool = Pool(
            url.hostname or "",
            url.port or (443 if url.scheme == "https" else 80),
            tls=aws.tls_context(),
            max_connections=settings.max_connections,
            connect_timeout=settings.connect_timeout,
            read_timeout=settings.read_timeout,
        )
        return WireTransport(aws.endpoint_url, aws.region_name, credentials, pool)


def _given(members: Mapping[str, Any], **optional: Any) -> dict[str, Any]:
    return {**members, **{name: value for name, value in optional.items() if value is not None}}


def _listed(page: Mapping[str, Any], member: str) -> list[Any]:
    """The items of a page. One without its list is not an empty list: what is missing there may exist."""
    items = page.get(member)
    if not isinstance(items, list):
        raise UnreadableAnswerError(f"the answer cannot be read: it holds no {member}")
    return items


def _read(members: Mapping[str, Any], kind: type[_T]) -> _T:
    try:
        return msgspec.convert(members, kind, strict=False)
    except msgspec.ValidationError as exc:
        raise UnreadableAnswerError(f"the answer cannot be read: {exc}") from exc
