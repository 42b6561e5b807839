"""M2Client: the batch operations of AWS Mainframe Modernization, one attempt a call, typed answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, TypeVar
from urllib.parse import urlsplit

from m2async.client.answers import Answer
from m2async.client.once import OnlyRequest
from m2async.client.reading import (
    account_in,
    read_application,
    read_definition,
    read_execution,
    read_executions,
    read_items,
    read_next_token,
    read_step,
    reading,
)
from m2async.client.settings import Aws, SessionCredentials, Settings, is_loopback
from m2async.client.wire.pool import Pool
from m2async.client.wire.proxy import Proxy, Tunnel
from m2async.client.wire.sigv4 import check_credentials
from m2async.client.wire.transport import WireTransport
from m2async.clock import ClockOffset, ServiceClock
from m2async.errors import ConfigurationError
from m2async.events import transport_chosen
from m2async.loops import Home
from m2async.service import (
    SENDING,
    Application,
    BatchJobDefinition,
    BatchJobExecution,
    ExecutionsPage,
    JobStep,
    ListEnd,
    StartBatchJob,
    StartBatchJobResponse,
    check_identifier,
    every_execution,
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

    def signing_time(self) -> float:
        """What a signature made now would be dated, in seconds of the epoch."""

    async def start_batch_job(self, request: StartBatchJob, not_after: float | None = None) -> StartBatchJobResponse:
        """Send a StartBatchJob request, or raise the CallError that says what became of it.

        A request that would be dated later than `not_after` is not sent.
        """

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
        self._clock = ServiceClock()
        self._account_of_application: str | None = None

    async def __aenter__(self) -> Self:
        self._home = Home("the client")
        async with AsyncExitStack() as stack:
            self._aws = await Aws.open(self._settings)
            stack.push_async_callback(self._aws.aclose)
            self._check_scheme()
            credentials = self._credentials = await self._aws.credentials()
            check_credentials(await credentials.current())
            self._transport = await self._open_transport(credentials)
            stack.push_async_callback(self._transport.aclose)
            self._start = self._transport.start_batch_job
            self._opened = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._check_open()
        if self._home.is_forked:  # its connections are another process's, which goes on with them
            return
        self._home.check()
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
    def account_id(self) -> str | None:
        """The AWS account, as the credentials say or an application that was looked up; None if neither did."""
        self._check_open()
        return self._credentials.account_id or self._account_of_application

    @property
    def clock_offset(self) -> ClockOffset | None:
        """How far the service's clock is ahead of the local one, in seconds, and how exactly that is known.

        Read off the `Date` of answers; None before there was one.
        """
        return self._clock.offset

    def signing_time(self) -> float:
        """What a signature made now would be dated, in seconds of the epoch; the client must be open.

        It is the machine's clock, corrected by what the service said of it when it refused a signature.
        """
        self._check_open()
        return self._transport.signing_time()

    def start_batch_job(
        self, request: StartBatchJob, *, not_after: float | None = None
    ) -> Coroutine[Any, Any, StartBatchJobResponse]:
        """Start a batch job (StartBatchJob): to be awaited.

        A request that would be signed with a later date than `not_after`, by `signing_time`, is not sent: that is a
        SignatureTooLateError.
        """
        if (sending := SENDING.get()) is not None:
            sending.is_prepared()
        if self._opened is None:
            self._check_open()
        if not self._middlewares:
            return self._start(request, not_after)
        start = OnlyRequest(partial(self._start, not_after=not_after))
        call: CallNext = start.send
        for middleware in self._middlewares:
            call = partial(_call, middleware, call)
        return start.outcome_of(call, request)

    def use(self, middleware: Middleware) -> None:
        """Wrap `start_batch_job` in `async (request, call_next) -> response`; the last one added runs first.

        A call sends one request: whoever calls on again gets a RepeatedCallError, but after an error that says that
        nothing was sent, such as NotSentError. What the request brought stands, whatever is made of it around. An error
        of a middleware's own before it called on is raised; one that comes later goes to the event loop's exception
        handler.
        """
        self._middlewares.append(middleware)

    async def get_batch_job_execution(self, application_id: str, execution_id: str) -> BatchJobExecution:
        """Get one execution (GetBatchJobExecution)."""
        answer = await self._call(
            "GetBatchJobExecution", {"applicationId": application_id, "executionId": execution_id}
        )
        with reading("GetBatchJobExecution"):
            execution = read_execution(answer.members)
            if execution.execution_id != execution_id:
                raise ValueError("it is of another execution")
        return execution

    async def cancel_batch_job_execution(
        self, application_id: str, execution_id: str, *, auth_secrets_manager_arn: str | None = None
    ) -> None:
        """Cancel an execution (CancelBatchJobExecution); it ends as Cancelled some time later."""
        members = {"applicationId": application_id, "executionId": execution_id}
        await self._call("CancelBatchJobExecution", _given(members, authSecretsManagerArn=auth_secrets_manager_arn))

    def list_batch_job_executions(
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

        `execution_ids` holds at most 10; `page_size` is 1 to 2,000. A list with an execution whose id can be none, or
        of another application, is an UnreadableAnswerError.
        """
        return every_execution(
            lambda token: self.get_batch_job_executions_page(
                application_id,
                execution_ids=execution_ids,
                job_name=job_name,
                started_after=started_after,
                started_before=started_before,
                status=status,
                page_size=page_size,
                next_token=token,
            )
        )

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
        with reading("ListBatchJobExecutions"):
            return read_executions(page, application_id)

    async def list_batch_job_definitions(
        self, application_id: str, *, prefix: str | None = None, page_size: int = _PAGE_SIZE
    ) -> AsyncIterator[BatchJobDefinition]:
        """Iterate over an application's batch job definitions (ListBatchJobDefinitions)."""
        members = _given({"applicationId": application_id}, prefix=prefix)
        items = self._items("ListBatchJobDefinitions", members, page_size, "batchJobDefinitions", read_definition)
        async for definition in items:
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
        with reading("ListBatchJobRestartPoints"):
            return [read_step(step) for step in read_items(answer.members, "batchJobSteps", missing=[])]

    async def get_application(self, application_id: str) -> Application:
        """Get one application (GetApplication)."""
        answer = await self._call("GetApplication", {"applicationId": application_id})
        with reading("GetApplication"):
            return self._application(answer.members)

    async def list_applications(
        self,
        *,
        names: Sequence[str] | None = None,
        environment_id: str | None = None,
        page_size: int = _PAGE_SIZE,
    ) -> AsyncIterator[Application]:
        """Iterate over the applications (ListApplications); `names` holds at most 10."""
        members = _given({}, names=None if names is None else list(names), environmentId=environment_id)
        async for application in self._items("ListApplications", members, page_size, "applications", self._application):
            yield application

    def _application(self, members: Any) -> Application:
        application = read_application(members)
        self._account_of_application = account_in(application.application_arn) or self._account_of_application
        return application

    async def _items(
        self, operation: str, members: dict[str, Any], page_size: int, member: str, read: Callable[[Any], _T]
    ) -> AsyncIterator[_T]:
        ends = ListEnd(operation)
        members = {**members, "maxResults": page_size}
        while True:
            page = (await self._call(operation, members)).members
            with reading(operation):
                listed = read_items(page, member)
                items = [read(item) for item in listed]
                asks_for_more = read_next_token(page)
            for item in items:
                yield item
            token = ends.next_token(asks_for_more, listed)
            if token is None:
                return
            members["nextToken"] = token

    async def _call(self, operation: str, members: Mapping[str, Any]) -> Answer:
        for member, field in (("applicationId", "application_id"), ("executionId", "execution_id")):
            if member in members:
                check_identifier(field, members[member])
        self._check_open()
        return await self._transport.call(operation, members)

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
            why = "proxy" if aws.proxy_url() else "event hooks" if aws.has_event_hooks() else None
            if why is not None:
                transport_chosen("aiobotocore", why)
            chosen = "wire" if why is None else "aiobotocore"
        url = urlsplit(aws.endpoint_url)
        host, port, tls = url.hostname or "", url.port or (443 if url.scheme == "https" else 80), aws.tls_context()
        proxy = aws.proxy() if chosen == "aiobotocore" else None
        is_forwarded = proxy is not None and tls is None
        if proxy is not None and is_forwarded:
            self._check_plain_proxy(proxy)
            host, port, tls = proxy.host, proxy.port, proxy.tls
        pool = Pool(
            host,
            port,
            tls=tls,
            max_connections=settings.max_connections,
            connect_timeout=settings.connect_timeout,
            read_timeout=settings.read_timeout,
            tunnel=None if proxy is None or is_forwarded else Tunnel(proxy),
            is_direct=proxy is None,
        )
        if chosen != "aiobotocore":
            return WireTransport(aws.endpoint_url, aws.region_name, credentials, pool, self._clock)
        from m2async.client.via_aiobotocore import AiobotocoreTransport

        forwarded = (proxy.authorization or "") if proxy and is_forwarded else None
        return AiobotocoreTransport(aws, pool, forwarded, self._clock)

    def _check_plain_proxy(self, proxy: Proxy) -> None:
        """Refuse to send what would be readable on the way to a proxy."""
        if proxy.tls is None and not is_loopback(f"//{proxy.host}") and proxy.host not in self._plain_http_to:
            raise ConfigurationError(
                f"the endpoint {self._aws.endpoint_url} is plain HTTP, which would go through the proxy {proxy.host}: "
                "use https, or leave the endpoint out of the proxy's with NO_PROXY"
            )


def _call(
    middleware: Middleware, call_next: CallNext, request: StartBatchJob
) -> Coroutine[Any, Any, StartBatchJobResponse]:
    return middleware(request, call_next)


def _given(members: Mapping[str, Any], **optional: Any) -> dict[str, Any]:
    return {**members, **{name: value for name, value in optional.items() if value is not None}}
