"""Calls through aiobotocore: one attempt each, and every foreign exception translated once, here.

aiobotocore resolves what AWS users know how to set: profile, region, SSO, assumed roles, web
identity, `AWS_ENDPOINT_URL_M2`, FIPS and dual-stack endpoints, CA bundle and proxies.
"""

from __future__ import annotations

import math
import os
import socket
import ssl
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore import exceptions as botocore_exceptions

from m2async.errors import (
    AnswerTimeoutError,
    ConfigurationError,
    ConnectionLostError,
    CredentialsError,
    M2ServiceException,
    NotSentError,
    UnreadableAnswerError,
    service_exception,
)

_CREDENTIALS_ERRORS = (
    botocore_exceptions.NoCredentialsError,
    botocore_exceptions.PartialCredentialsError,
    botocore_exceptions.CredentialRetrievalError,
    botocore_exceptions.MetadataRetrievalError,
    botocore_exceptions.NoAuthTokenError,
    botocore_exceptions.TokenRetrievalError,
    botocore_exceptions.RefreshWithMFAUnsupportedError,
    botocore_exceptions.SSOError,
    botocore_exceptions.LoginError,
)
_NOT_SENT_ERRORS = (
    botocore_exceptions.ConnectTimeoutError,
    botocore_exceptions.ProxyConnectionError,
    botocore_exceptions.SSLError,
)
_ERROR_MEMBERS_KNOWN_ELSEWHERE = frozenset({"Error", "ResponseMetadata", "message", "Message", "retryAfterSeconds"})


class Answer(NamedTuple):
    """A successful answer: its members as the service names them, and the request id."""

    members: Mapping[str, Any]
    request_id: str | None


class AiobotocoreTransport:
    """Calls operations of the m2 service through one aiobotocore client; never repeats a call."""

    def __init__(self, client: Any, stack: AsyncExitStack) -> None:
        self._client = client
        self._stack = stack

    @classmethod
    async def open(
        cls,
        *,
        session: AioSession | None,
        profile_name: str | None,
        region_name: str | None,
        endpoint_url: str | None,
        connect_timeout: float,
        read_timeout: float,
        max_connections: int,
    ) -> AiobotocoreTransport:
        """Resolve settings and credentials, and make the client.

        Raises ConfigurationError or CredentialsError where they cannot be resolved.
        """
        config = AioConfig(
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
            max_pool_connections=max_connections,
            # One attempt a call: a repeated StartBatchJob can be a second payment run.
            retries={"total_max_attempts": 1, "mode": "standard"},
            user_agent_extra="m2async",
        )
        stack = AsyncExitStack()
        try:
            session = session or AioSession(profile=profile_name)
            _check_ca_bundle(session.get_config_variable("ca_bundle"))
            # The other SDKs and the AWS CLI read AWS_REGION; botocore by itself reads only AWS_DEFAULT_REGION.
            region_name = region_name or os.environ.get("AWS_REGION")
            client = await stack.enter_async_context(
                session.create_client("m2", region_name=region_name, endpoint_url=endpoint_url, config=config)
            )
        except _CREDENTIALS_ERRORS as exc:
            raise CredentialsError(_sentence(exc)) from exc
        except botocore_exceptions.ClientError as exc:  # a call that was to bring credentials
            raise CredentialsError(_sentence(exc)) from exc
        except botocore_exceptions.NoRegionError as exc:
            raise ConfigurationError("no AWS region is set: give --region (region_name=) or set AWS_REGION") from exc
        except (botocore_exceptions.BotoCoreError, ValueError, OSError) as exc:
            raise ConfigurationError(_sentence(exc)) from exc
        return cls(client, stack)

    @property
    def endpoint_url(self) -> str:
        """The endpoint that was resolved."""
        return str(self._client.meta.endpoint_url)

    @property
    def region_name(self) -> str:
        """The region that was resolved."""
        return str(self._client.meta.region_name)

    async def call(self, operation: str, members: Mapping[str, Any]) -> Answer:
        """Send one request, once.

        Raises the CallError that says what became of it, and CredentialsError if it could not be signed.
        """
        method: Callable[..., Any] = getattr(self._client, self._client_method(operation))
        try:
            answer = await method(**members)
        except botocore_exceptions.ClientError as exc:
            if exc.operation_name != operation:  # a call that was to bring credentials, such as AssumeRole
                raise CredentialsError(_sentence(exc)) from exc
            raise _service_exception(exc) from exc
        except _CREDENTIALS_ERRORS as exc:
            raise CredentialsError(_sentence(exc)) from exc
        except botocore_exceptions.ParamValidationError as exc:
            raise ConfigurationError(_sentence(exc)) from exc
        except _NOT_SENT_ERRORS as exc:
            raise NotSentError(_sentence(exc)) from exc
        except botocore_exceptions.EndpointConnectionError as exc:
            # aiobotocore gives this name also to a connection that was reset after the request was sent.
            cause = exc.kwargs.get("error")
            if isinstance(cause, aiohttp.ClientConnectorError | socket.gaierror):
                raise NotSentError(_sentence(exc)) from exc
            raise ConnectionLostError(f"the connection was lost: {_sentence(cause or exc)}") from exc
        except (botocore_exceptions.ReadTimeoutError, TimeoutError) as exc:
            raise AnswerTimeoutError(_sentence(exc)) from exc
        except (botocore_exceptions.HTTPClientError, aiohttp.ClientError) as exc:
            raise ConnectionLostError(_sentence(exc)) from exc
        except Exception as exc:
            # The request may have been sent, so no exception may pass without saying so.
            raise UnreadableAnswerError(f"the answer cannot be read: {_sentence(exc)}") from exc
        return Answer(answer, answer["ResponseMetadata"].get("RequestId"))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._stack.aclose()

    def _client_method(self, operation: str) -> str:
        methods: Mapping[str, str] = self._client.meta.method_to_api_mapping
        return next(method for method, name in methods.items() if name == operation)


def _check_ca_bundle(path: str | None) -> None:
    """Read the CA bundle early: aiobotocore reads it for the first connection, where it looks like a lost one."""
    if path is None:
        return
    try:
        ssl.create_default_context(cafile=path)
    except OSError as exc:
        raise ConfigurationError(f"the CA bundle {path} cannot be read: {exc.strerror or exc}") from exc


def parse_retry_after(value: str | None) -> float | None:
    """Read a `Retry-After` header in seconds from now: a number, or an HTTP date (RFC 9110, section 10.2.3)."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(value).astimezone(UTC) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _service_exception(exc: botocore_exceptions.ClientError) -> M2ServiceException:
    response: Mapping[str, Any] = exc.response
    metadata = response.get("ResponseMetadata", {})
    error = response.get("Error", {})
    headers: Mapping[str, str] = metadata.get("HTTPHeaders", {})
    return service_exception(
        str(error.get("Code", "")),
        str(error.get("Message") or response.get("message") or "no message was given"),
        http_status=metadata.get("HTTPStatusCode", 0),
        request_id=metadata.get("RequestId"),
        retry_after=parse_retry_after(headers.get("retry-after")),
        details={name: value for name, value in response.items() if name not in _ERROR_MEMBERS_KNOWN_ELSEWHERE},
    )


def _sentence(exc: BaseException) -> str:
    return " ".join(str(exc).split()) or type(exc).__name__
