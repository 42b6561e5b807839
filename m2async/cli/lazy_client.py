"""The client of a submission, and whether it goes where the run belongs."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from m2async.cli.service import Rehearsal, Service
from m2async.client import M2Client
from m2async.ledger import Run


class LazyClient:
    """The client of a submission, opened when it is first needed."""

    def __init__(
        self,
        stack: contextlib.AsyncExitStack,
        service: Service,
        rehearsal: Rehearsal | None,
        applications: Sequence[str],
        connections: int,
    ) -> None:
        self._stack = stack
        self._service = service
        self._rehearsal = rehearsal
        self._applications = applications
        self._connections = connections
        self._client: M2Client | None = None

    @property
    def is_rehearsal(self) -> bool:
        """Whether it is the client of a rehearsal."""
        return self._rehearsal is not None

    async def client(self) -> M2Client:
        """Give the client, with its endpoint started if that is a rehearsal's."""
        if self._client is None:
            if self._rehearsal is None:
                client = self._service.client(max_connections=self._connections)
            else:
                applications, timeout = self._applications, self._service.timeout
                client = await self._rehearsal.client(
                    self._stack, applications, read_timeout=timeout, max_connections=self._connections
                )
            self._client = await self._stack.enter_async_context(client)
        return self._client

    async def check_place(self, run: Run) -> None:
        """See that a run which was sent before goes on where it belongs."""
        if run.info.sent_to is not None:
            await self._service.check_place(run, await self.client())
