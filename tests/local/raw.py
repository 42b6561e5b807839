"""Requests written byte by byte to an endpoint, so that tests decide what stands on the wire."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from m2async.local import DEFAULT_APPLICATION_ID, LocalEndpoint

START_PATH = f"/applications/{DEFAULT_APPLICATION_ID}/batch-job"
EXECUTIONS_PATH = f"/applications/{DEFAULT_APPLICATION_ID}/batch-job-executions"
SCRIPT = {"batchJobIdentifier": {"scriptBatchJobIdentifier": {"scriptName": "POSTTRAN"}}}


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return self.headers["x-amzn-errortype"]


def signed_headers(
    endpoint: LocalEndpoint,
    method: str,
    target: str,
    body: bytes = b"",
    *,
    key_id: str = "local",
    secret: str = "local",
    service: str = "m2",
    headers: Mapping[str, str] | None = None,
) -> dict[str, str]:
    request = AWSRequest(method, endpoint.url + target, {**(headers or {}), "Host": endpoint.url[7:]}, body)
    SigV4Auth(Credentials(key_id, secret), service, "us-east-1").add_auth(request)
    return dict(request.headers.items())


async def send(
    endpoint: LocalEndpoint, method: str, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> Reply:
    """Send a request as it is given; raises ConnectionError if the connection ends without an answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(endpoint.url.rpartition(":")[2]))
    try:
        lines = [f"{method} {target} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in {"Host": endpoint.url[7:], **(headers or {})}.items()]
        lines += [f"Content-Length: {len(body)}", "Connection: close", "", ""]
        writer.write("\r\n".join(lines).encode() + body)
        answer = await reader.read()
    finally:
        writer.close()
    if not answer:
        raise ConnectionResetError("closed without an answer")
    head, _, content = answer.partition(b"\r\n\r\n")
    status_line, *header_lines = head.decode().split("\r\n")
    parsed = (line.partition(": ") for line in header_lines)
    return Reply(int(status_line.split()[1]), {name.lower(): value for name, _, value in parsed}, content)


async def call(endpoint: LocalEndpoint, method: str, target: str, body: object = None) -> Reply:
    """Send a rightly signed request with a JSON body."""
    content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    return await send(endpoint, method, target, content, signed_headers(endpoint, method, target, content))


async def start(endpoint: LocalEndpoint, body: object = SCRIPT, application_id: str = DEFAULT_APPLICATION_ID) -> Reply:
    return await call(endpoint, "POST", f"/applications/{application_id}/batch-job", body)


async def started(endpoint: LocalEndpoint) -> list[dict[str, Any]]:
    """Everything that the endpoint has really started."""
    executions: list[dict[str, Any]] = (await send(endpoint, "GET", "/_local/executions")).json["executions"]
    return executions
