"""Calls through aiobotocore, one attempt each: for a proxy, or for sessions with event hooks of their own."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp
from botocore import exceptions as botocore_exceptions

from m2async.client.answers import Answer, parse_date, parse_retry_after
from m2async.client.settings import CREDENTIALS_ERRORS, Aws, sentence
from m2async.errors import (
    AnswerTimeoutError,
    ConnectionLostError,
    CredentialsError,
    InvalidRequestError,
    M2ServiceException,
    NotSentError,
    UnreadableAnswerError,
    service_exception,
)
from m2async.service import StartBatchJob, StartBatchJobResponse

_NOT_SENT_ERRORS = (
    botocore_exceptions.ConnectTimeoutError,
    botocore_exceptions.ProxyConnectionError,
    botocore_exceptions.SSLError,
)
_ERROR_MEMBERS_KNOWN_ELSEWHERE = frozenset({"Error", "ResponseMetadata", "message", "Message", "retryAfterSeconds"})


class AiobotocoreTransport:
    """Calls operations of the service through one aiobotocore client; never repeats a call."""

    def __init__(self, aws: Aws) -> None:
        self._client = aws.client
        aws.tls_context()  # aiobotocore reads it for the first connection, where an error looks like a lost one

    async def start_batch_job(self, request: StartBatchJob) -> StartBatchJobResponse:
        """Send a StartBatchJob request."""
        answer = await self.call("StartBatchJob", request.to_api())
        execution_id = answer.members.get("executionId")
        if not isinstance(execution_id, str) or not execution_id:
            raise UnreadableAnswerError("the answer holds no executionId")
        return StartBatchJobResponse(execution_id, answer.request_id)

    async def call(self, operation: str, members: Mapping[str, Any]) -> Answer:
        """Send one request, once; raises the CallError that says what became of it."""
        method: Callable[..., Any] = getattr(self._client, self._client_method(operation))
        try:
            answer = await method(**members)
        except botocore_exceptions.ClientError as exc:
            if exc.operation_name != operation:  # a call that was to bring credentials, such as AssumeRole
                raise CredentialsError(sentence(exc)) from exc
            raise _service_exception(exc) from exc
        except CREDENTIALS_ERRORS as exc:
            raise CredentialsError(sentence(exc)) from exc
        except botocore_exceptions.ParamValidationError as exc:
            raise InvalidRequestError(operation, dict(members), sentence(exc)) from exc
        except _NOT_SENT_ERRORS as exc:
            raise NotSentError(sentence(exc)) from exc
        except botocore_exceptions.EndpointConnectionError as exc:
            # aiobotocore gives this name also to a connection that was reset after the request was sent.
            cause = exc.kwargs.get("error")
            if isinstance(cause, aiohttp.ClientConnectorError | socket.gaierror):
                raise NotSentError(sentence(exc)) from exc
            raise ConnectionLostError(f"the connection was lost: {sentence(cause or exc)}") from exc
        except (botocore_exceptions.ReadTimeoutError, TimeoutError) as exc:
            raise AnswerTimeoutError(sentence(exc)) from exc
        except (botocore_exceptions.HTTPClientError, aiohttp.ClientError) as exc:
            raise ConnectionLostError(sentence(exc)) from exc
        except Exception as exc:
            # The request may have been sent, so no exception may pass without saying so.
            raise UnreadableAnswerError(f"the answer cannot be read: {sentence(exc)}") from exc
        metadata: Mapping[str, Any] = answer["ResponseMetadata"]
        return Answer(answer, metadata.get("RequestId"), parse_date(metadata.get("HTTPHeaders", {}).get("date")))

    async def aclose(self) -> None:
        """Do nothing: the connections are the client's, which is closed by who opened it."""

    def _client_method(self, operation: str) -> str:
        methods: Mapping[str, str] = self._client.meta.method_to_api_mapping
        return next(method for method, name in methods.items() if name == operation)


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
