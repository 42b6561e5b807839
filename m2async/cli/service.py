"""Which service a command calls: AWS's, another endpoint, or a local one of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any, NamedTuple

from m2async.cli.output import say
from m2async.client import M2Client
from m2async.ledger import RunView, destination_of
from m2async.local import DEFAULT_APPLICATION_ID, LocalEndpoint


class Service(NamedTuple):
    """The options with which every command that calls the service names it; `timeout` in seconds."""

    endpoint_url: str | None
    region: str | None
    profile: str | None
    timeout: float
    moved: bool = False

    def client(self, **settings: Any) -> M2Client:
        """Make a client; `settings` override the options."""
        named: dict[str, Any] = {
            "region_name": self.region,
            "profile_name": self.profile,
            "endpoint_url": self.endpoint_url,
            "read_timeout": self.timeout,
        }
        return M2Client(**{**named, **settings})

    async def check_place(self, run: RunView, client: M2Client) -> None:
        """See, before anything is asked or sent, that a run belongs where the client's calls go, or `moved` there.

        Raises SentElsewhereError.
        """
        destination = destination_of(client)
        if destination is not None and (note := await run.belong_to(destination, moved=self.moved)):
            say(f"m2async: run {run.info.name}: {note}")


class RehearsalClient(M2Client):
    """A client of a local endpoint that ends with the command: its runs are rehearsals."""

    is_rehearsal = True


class Rehearsal(NamedTuple):
    """The options of a local endpoint that lives as long as the command."""

    rate: float | None
    burst: float | None

    async def client(
        self, stack: contextlib.AsyncExitStack, applications: Iterable[str], **settings: Any
    ) -> RehearsalClient:
        """Start the endpoint with these applications, and make a client of it."""
        others = [application for application in applications if application != DEFAULT_APPLICATION_ID]
        endpoint = LocalEndpoint(rate=self.rate, burst=self.burst, extra_applications=others)
        return RehearsalClient(**settings, **(await stack.enter_async_context(endpoint)).client_settings())
