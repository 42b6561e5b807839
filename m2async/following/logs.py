"""The logs of an execution, from CloudWatch Logs: read only when asked for, and no part of any result.

Where they are: log groups `/aws/vendedlogs/m2/{application}/…`, streams `{execution}/{job id}/{job name}/{step}/{DD}`
(AWS Mainframe Modernization User Guide, "Monitoring applications with Amazon CloudWatch").
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, NamedTuple, Self

from aiobotocore.session import AioSession
from botocore.exceptions import BotoCoreError, ClientError

from m2async.client import sentence
from m2async.errors import M2AsyncError


class LogsError(M2AsyncError):
    """The logs cannot be read."""


class LogStream(NamedTuple):
    """A log stream, and the group that it is in."""

    group: str
    name: str


class JobLogs:
    """Reads the logs of executions; an async context manager.

    Arguments:
        region_name, profile_name: as in boto3; by default from the environment, as for every AWS tool.
        endpoint_url: of CloudWatch Logs, where it is not AWS's own.
    """

    def __init__(
        self, region_name: str | None = None, *, profile_name: str | None = None, endpoint_url: str | None = None
    ) -> None:
        self._session = AioSession(profile=profile_name)
        self._region_name = region_name or os.environ.get("AWS_REGION")
        self._endpoint_url = endpoint_url
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        try:
            creation = self._session.create_client(
                "logs", region_name=self._region_name, endpoint_url=self._endpoint_url
            )
            self._client: Any = await self._stack.enter_async_context(creation)
        except (BotoCoreError, ClientError, ValueError) as exc:
            raise LogsError(sentence(exc)) from exc
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def streams(self, application_id: str, execution_id: str) -> list[LogStream]:
        """Find the streams of an execution, in the order of their groups and names; raises LogsError."""
        groups = self._items(
            "describe_log_groups", "logGroups", logGroupNamePrefix=f"/aws/vendedlogs/m2/{application_id}/"
        )
        return [
            LogStream(group["logGroupName"], stream["logStreamName"])
            async for group in groups
            async for stream in self._items(
                "describe_log_streams",
                "logStreams",
                logGroupName=group["logGroupName"],
                logStreamNamePrefix=f"{execution_id}/",
            )
        ]

    async def messages(self, stream: LogStream) -> AsyncIterator[str]:
        """Iterate over the messages of a stream, the oldest first; raises LogsError."""
        members: dict[str, Any] = {
            "logGroupName": stream.group,
            "logStreamName": stream.name,
            "startFromHead": True,
        }
        while True:
            page = await self._call("get_log_events", members)
            for event in page["events"]:
                yield event["message"]
            if page["nextForwardToken"] == members.get("nextToken"):  # the end of the stream
                return
            members["nextToken"] = page["nextForwardToken"]

    async def _items(self, operation: str, member: str, **members: str) -> AsyncIterator[dict[str, Any]]:
        given: dict[str, Any] = dict(members)
        while True:
            page = await self._call(operation, given)
            for item in page[member]:
                yield item
            if not page.get("nextToken"):
                return
            given["nextToken"] = page["nextToken"]

    async def _call(self, operation: str, members: dict[str, Any]) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = await getattr(self._client, operation)(**members)
        except (BotoCoreError, ClientError) as exc:
            raise LogsError(sentence(exc)) from exc
        return answer
