"""Which service a command calls: AWS's, another endpoint, or a local one of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any, NamedTuple

from m2async.client import M2Client
from m2async.local import DEFAULT_APPLICATION_ID, LocalEndpoint


class Service(NamedTuple):
    """The options with which every command that calls the service names it; `timeout` in seconds."""

    endpoint_url: str | None
    region: str | None
    profile: str | None
    timeout: float

    def client(self, **settings: Any) -> M2Client:
        """Make a client; `settings` override the options."""
        named: dict[str, Any] = {
            "region_name": self.region,
            "profile_name": self.profile,
            "endpoint_url": self.endpoint_url,
            "read_timeout": self.timeout,
        }
        return M2Client(**{**named, **settings})


class Rehearsal(NamedTuple):
    """The options of a local endpoint that lives as long as the command."""

    rate: float | None
    burst: float | None

    async def settings(self, stack: contextlib.AsyncExitStack, applications: Iterable[str]) -> dict[str, Any]:
        """Start the endpoint with these applications, and give the settings of its clients."""
        others = [application for application in applications if application != DEFAULT_APPLICATION_ID]
        endpoint = LocalEndpoint(rate=self.rate, burst=self.burst, extra_applications=others)
        return (await stack.enter_async_context(endpoint)).client_settings()
