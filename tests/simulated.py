"""An endpoint whose time goes on only where somebody waits, which counts its calls; and a run on it."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from email.utils import formatdate

import anyio.lowlevel
from aiohttp import web

from m2async import LocalEndpoint, M2Client, ScriptJob, StartBatchJob
from m2async.clock import ClockOffset
from m2async.ledger import Ledger, RowState, Run
from m2async.local.definitions import ApplicationDefinition, JobDefinition, StepDefinition
from m2async.local.service import BatchService
from tests.ledger.samples import APPLICATION


class Simulation:
    """A local endpoint in simulated time.

    `now` is the service's clock, the local one is `offset` seconds behind it; `calls` counts requests by their kind.
    """

    def __init__(
        self,
        definitions: Sequence[JobDefinition],
        *,
        applications: Sequence[str] = (APPLICATION,),
        offset: float = 0.0,
    ) -> None:
        self.now = time.time()
        self.offset = offset
        self.slept: list[float] = []
        self.calls: Counter[str] = Counter()
        self.fail: Callable[[str], web.Response | None] = lambda path: None
        self.endpoint = LocalEndpoint(
            seed=1,
            clock=lambda: self.now,
            definitions=[ApplicationDefinition(id_, "Nightly", jobs=tuple(definitions)) for id_ in applications],
        )
        self._handle = self.endpoint._routes.handle
        setattr(self.endpoint._routes, "handle", self._counted)  # noqa: B010 - a method for mypy

    @property
    def service(self) -> BatchService:
        """What the endpoint really started."""
        return self.endpoint._routes._service

    def clock(self) -> float:
        """The local clock."""
        return self.now - self.offset

    async def sleep(self, seconds: float) -> None:
        """Let time go on."""
        self.slept.append(seconds)
        self.now += seconds
        await anyio.lowlevel.checkpoint()

    def answer(self, status: int, content: object, **headers: str) -> web.Response:
        """An answer for `fail` to give, by the simulated clock."""
        return web.json_response(content, status=status, headers={"Date": formatdate(self.now, usegmt=True), **headers})

    async def _counted(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.raw_path
        kind = "ids" if "executionIds=" in path else "window" if "startedAfter=" in path else path.rpartition("/")[2]
        self.calls[kind] += 1
        failure = self.fail(path)
        return await self._handle(request) if failure is None else failure

    def truth(self) -> dict[str, tuple[str, str | None]]:
        """Status and return code of every execution, as they are now."""
        return {
            execution["executionId"]: (execution["status"], execution.get("returnCode"))
            for execution in self.service.everything_started()
        }

    async def start(self, run: Run, *, every: float = 0.0, foreign: float = 0.0, seed: int = 1) -> None:
        """Start the pending rows of a run, one every so many seconds, and a share of executions of others between."""
        draw = random.Random(seed)
        rows = [row async for row in run.rows(RowState.PENDING)]
        for row in rows:
            self.now += every
            if draw.random() < foreign:
                self.service.start(StartBatchJob(APPLICATION, row.request.job))
            run.intend(row.number, row.attempts + 1, self.clock())
            written = run.started(row.number, row.attempts + 1, self.service.start(row.request))
        await written

    @asynccontextmanager
    async def client(self) -> AsyncIterator[M2Client]:
        """A client of the endpoint, while it listens."""
        async with self.endpoint, _Client(self) as client:
            yield client


class _Client(M2Client):
    """A client whose local clock is the simulation's."""

    def __init__(self, simulation: Simulation) -> None:
        super().__init__(**simulation.endpoint.client_settings())
        self._simulation = simulation

    @property
    def clock_offset(self) -> ClockOffset | None:
        return None if super().clock_offset is None else ClockOffset.of(self._simulation.offset)


def definitions(*ends: tuple[float, int]) -> list[JobDefinition]:
    """Jobs JOB0, JOB1, … that run for so many seconds and end with this return code."""
    return [
        JobDefinition(
            f"JOB{number}.jcl", f"JOB{number}", (StepDefinition("STEP1"), StepDefinition("STEP2")), {}, seconds, code
        )
        for number, (seconds, code) in enumerate(ends)
    ]


@asynccontextmanager
async def planned(
    ledger: Ledger, rows: int, jobs: int, applications: Sequence[str] = (APPLICATION,)
) -> AsyncIterator[Run]:
    """A run of so many rows, which go through the jobs and applications in turn."""
    async with await ledger.open_run("night") as run:
        await run.plan(
            (f"row-{n}", StartBatchJob(applications[n % len(applications)], ScriptJob(f"JOB{n % jobs}")))
            for n in range(rows)
        )
        yield run
