"""An open-loop load test of StartBatchJob's quota; plans.py decides what is sent, and when.

Every call has a time at which it is due, and is sent then, whatever became of the others. Nothing is sent twice, and
what was started is cancelled in the end, whatever failed before.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable
from time import monotonic
from typing import Protocol, TypeVar

import anyio

from m2async.clock import steady_time
from m2async.errors import (
    CallError,
    M2AsyncError,
    M2ServiceException,
    NotSentError,
    ThrottlingException,
)
from m2async.events import Events
from m2async.following import OF_ALL, CancelsExecutions, Fate, cancel_execution
from m2async.ledger import LedgerRow, Observation, Run
from m2async.pacing import Calls, RetryPolicy
from m2async.probing.findings import Findings, NotCancelled
from m2async.probing.plans import Plan
from m2async.probing.record import Call, CallStretch, QuotaVerdict, Record, SentStretch
from m2async.probing.summary import Asked, Setting, Starts, summarize
from m2async.service import StartBatchJob, StartBatchJobResponse

CANCELLING = "Cancelling"
"""The status that is written of an execution whose cancellation the service took."""

_T = TypeVar("_T")
_UNREACHED = 20  # calls in a row that found no connection, after which no more are tried
_SPIN = 0.002  # seconds before a call is due from when on the loop is kept turning: its timers are no finer than 1 ms
_AHEAD = 0.2  # seconds of calls whose intents are written in one go
_CANCELS = 8  # calls under way at once
_CANCEL_RATE = 100.0  # calls a second
_PATIENT = RetryPolicy(patience=600.0, unreachable=60.0)  # with cancels, which may be throttled as well


class StartsAndCancels(CancelsExecutions, Protocol):
    """What a probe needs of a client; M2Client is one."""

    @property
    def endpoint_url(self) -> str:
        """The endpoint."""

    async def start_batch_job(self, request: StartBatchJob, /) -> StartBatchJobResponse:
        """Send the request once, or raise the CallError that says what became of it."""


class StartedUnasked(M2AsyncError):  # noqa: N818 - it is what happened
    """A call that was to start nothing was answered with an execution id."""


class Probe:
    """Makes the calls of a plan, each once, and cancels what they start.

    Arguments:
        client: an open M2Client, or whatever else starts and cancels; with connections for every call under way.
        plan: what to send when.
        request: the request that is sent each time.
        asked: what it asks for; unless it is for real jobs, an execution id as answer ends the probe.
        stand_in: whether the endpoint is known to be no service, so that an execution id stands for no job.
        run: the ledger's run for real jobs: an intent is durable there before its call is sent.
        max_calls, max_seconds: how many calls are made at most, and for how long.
        events: is told of each start.

    `run` ends when all is answered and what was started is cancelled; then `findings` tells.
    """

    def __init__(
        self,
        client: StartsAndCancels,
        plan: Plan,
        request: StartBatchJob,
        *,
        asked: Asked,
        stand_in: bool = False,
        run: Run | None = None,
        max_calls: int,
        max_seconds: float,
        events: Events | None = None,
    ) -> None:
        self.calls: int = 0
        self.throttled: int = 0
        self.error: M2AsyncError | None = None
        self.started: list[str] = []
        self.cancelled: list[str] = []
        self.had_ended: list[str] = []
        self.not_cancelled: list[NotCancelled] = []
        self.in_doubt: int = 0  # calls of real jobs that may have started one
        self._client = client
        self._endpoint_url = client.endpoint_url
        self._plan = plan
        self._request = request
        self._asked: Asked = asked
        self._stand_in = stand_in
        self._intents = None if run is None else _Intents(run, request)
        self._run_name = None if run is None else run.info.name
        self._max_calls = max_calls
        self._max_seconds = max_seconds
        self._events = events or Events()
        self._began = steady_time()
        self._zero = monotonic()
        self._ended_by: str | None = None
        self._over = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake: asyncio.Future[None] | None = None
        self._unreached = 0
        self._failure: Exception | None = None
        self.stand_in_starts: int = 0

    @property
    def elapsed(self) -> float:
        """Seconds since it began."""
        return monotonic() - self._zero

    def stop(self, reason: str) -> None:
        """Send nothing more; `run` ends once what is under way is answered and cancelled."""
        if self._ended_by is None:
            self._ended_by = reason
        self._turn()

    async def run(self) -> None:
        """Make the calls, and cancel what they started.

        Raises LedgerError if the ledger cannot be written, and what a call raises that is no CallError; both once all
        is cancelled. What else ends it early is in `error`: the error of a call that every other would meet as well, or
        StartedUnasked.
        """
        self._began, self._zero = steady_time(), monotonic()
        try:
            for stretch in self._plan.stretches():
                await self._make(stretch)
                if self._ended_by is not None:
                    return
        finally:
            with anyio.CancelScope(shield=True):
                await self._answers()
                await self._cancel_all()
                if self._intents is not None:
                    await self._intents.aclose()
            if self._failure is not None:
                raise self._failure

    def findings(self) -> Findings:
        """What was found, up to now."""
        setting = Setting(
            self._endpoint_url,
            self._request.application_id,
            self._request.job.name,
            self._asked,
            self._began,
            self._run_name,
            self.stand_in_starts,
        )
        starts = Starts(self.started, self.cancelled, self.had_ended, self.not_cancelled)
        return summarize(self._plan, setting, starts, ended_by=self._ended_by)

    # Sending

    async def _make(self, stretch: CallStretch) -> None:
        """Make the calls of a stretch, and wait for their answers."""
        record, begin = Record(), self.elapsed + stretch.rest
        first = not self._plan.done
        self._plan.done.append(SentStretch(stretch, record))
        self._over = False
        for offset in stretch.offsets:
            await self._until(begin + offset)
            if self._over or self._is_at_its_end() or stretch.over(record, self.elapsed):
                break
            row = None if self._intents is None else await self._intents.take(record)
            self._send(record, stretch, begin + offset, row)
            if first:  # it shows whether anything of this kind can be sent at all
                first = False
                await self._answers()
                begin = self.elapsed
        await self._answers()

    def _is_at_its_end(self) -> bool:
        if self._ended_by is None:
            if self.calls >= self._max_calls:
                self.stop(f"The cap of {self._max_calls:,} calls was reached")
            elif self.elapsed >= self._max_seconds:
                self.stop(f"The cap of {self._max_seconds:,.4g} seconds was reached")
        return self._ended_by is not None

    async def _until(self, due: float) -> None:
        """Wait until a time comes, or the stretch is over."""
        while not self._over and self._ended_by is None and (wait := due - self.elapsed) > 0:
            if wait <= _SPIN:
                await asyncio.sleep(0)
                continue
            loop = asyncio.get_running_loop()
            self._wake = loop.create_future()
            timer = loop.call_later(min(wait - _SPIN / 2, self._max_seconds), self._turn)
            try:
                await self._wake
            finally:
                timer.cancel()
                self._wake = None

    def _turn(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def _send(self, record: Record, stretch: CallStretch, due: float, row: LedgerRow | None) -> None:
        self.calls += 1
        call = record.sent(due, self.elapsed)
        task = asyncio.get_running_loop().create_task(self._call(record, stretch, call, row))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _call(self, record: Record, stretch: CallStretch, call: Call, row: LedgerRow | None) -> None:
        try:
            response = await self._client.start_batch_job(self._request)
        except CallError as error:
            self._failed(record, call, row, error)
        except Exception as error:  # noqa: BLE001 - raised once what was started is cancelled
            self._failure = self._failure or error
            record.answered(call, self.elapsed, QuotaVerdict.UNKNOWN, type(error).__name__)
            if self._intents is not None and row is not None:
                self._intents.in_doubt(row, type(error).__name__, str(error))
                self.in_doubt += 1
            self.stop("A call failed in a way that no call should")
        else:
            record.answered(call, self.elapsed, QuotaVerdict.ACCEPTED)
            self._started(call, row, response)
        if stretch.over(record, self.elapsed):
            self._over = True
            self._turn()

    def _failed(self, record: Record, call: Call, row: LedgerRow | None, error: CallError) -> None:
        now = self.elapsed
        self._unreached = self._unreached + 1 if isinstance(error, NotSentError) else 0
        if isinstance(error, ThrottlingException):
            self.throttled += 1
            record.answered(call, now, QuotaVerdict.THROTTLED, error.code, (error.quota_code, error.service_code))
        else:
            refused = isinstance(error, M2ServiceException) and not error.may_have_started
            record.answered(call, now, QuotaVerdict.ACCEPTED if refused else QuotaVerdict.UNKNOWN, error.code)
            if isinstance(error, OF_ALL) or self._unreached >= min(_UNREACHED, self.calls):
                self.error = self.error or error
                self.stop("A call failed as every other would")
        if self._intents is not None and row is not None:
            self._intents.failed(row, error)
            self.in_doubt += error.may_have_started

    def _started(self, call: Call, row: LedgerRow | None, response: StartBatchJobResponse) -> None:
        if self._stand_in:
            self.stand_in_starts += 1
            return
        self.started.append(response.execution_id)
        key = response.execution_id if row is None else row.key
        elapsed = (call.answered or call.sent) - call.sent
        self._events.started(key, self._request, response.execution_id, response.request_id, 1, elapsed)
        if self._intents is not None and row is not None:
            self._intents.started(row, response)
        elif self.error is None:
            self.error = StartedUnasked(
                f"a call that was to start nothing started {self._request.job.name} of application "
                f"{self._request.application_id} as {response.execution_id}"
            )
            self.stop("A job was started, although none was asked for")

    async def _answers(self) -> None:
        """Wait for every call that is under way; none is left behind, whoever cancels this."""
        with anyio.CancelScope(shield=True):
            while self._tasks:
                # `gather` of tasks that are done takes no turn of the loop, and they leave the set in the next one
                await asyncio.wait(self._tasks)

    # Cancelling

    async def _cancel_all(self) -> None:
        left, calls = deque(self.started), Calls(_CANCEL_RATE, lambda error, seconds: None, policy=_PATIENT)

        async def work() -> None:
            while left:
                await self._cancel(calls, left.popleft())

        async with anyio.create_task_group() as tasks:
            for _ in range(min(_CANCELS, len(left))):
                tasks.start_soon(work)

    async def _cancel(self, calls: Calls, execution_id: str) -> None:
        try:
            fate = await cancel_execution(self._client, calls, self._request.application_id, execution_id)
        except CallError as error:
            fate = Fate("not cancelled", f"{error.code}: {error.message}")
        except Exception as error:  # noqa: BLE001 - it keeps no other from being cancelled
            fate = Fate("not cancelled", repr(error))
        if self._intents is not None:
            self._intents.cancelled(execution_id, fate)
        match fate.outcome:
            case "cancelling":
                self.cancelled.append(execution_id)
            case "had ended":
                self.had_ended.append(execution_id)
            case "not cancelled":
                self.not_cancelled.append(NotCancelled(execution_id=execution_id, reason=fate.reason))


class _Intents:
    """Intents of a ledger's run, durable before their calls are due; what came of each call is written behind."""

    def __init__(self, run: Run, request: StartBatchJob) -> None:
        self._run = run
        self._request = request
        self._ready: deque[LedgerRow] = deque()
        self._number = 0
        self._filling: asyncio.Task[None] | None = None
        self._writes: list[Awaitable[None]] = []
        self._rows: dict[str, LedgerRow] = {}  # by their executions
        self._fates: list[Observation] = []

    async def take(self, record: Record) -> LedgerRow:
        """Give a row whose intent is durable; waits only if calls have overtaken the disk."""
        wanted = _calls_ahead(record)
        if len(self._ready) < wanted and self._filling is None:
            self._filling = asyncio.get_running_loop().create_task(self._fill(wanted))
        while not self._ready:
            filling, self._filling = self._filling, None
            await (filling or self._fill(wanted))
        if self._filling is not None and self._filling.done():
            filling, self._filling = self._filling, None
            await filling
        return self._ready.popleft()

    def started(self, row: LedgerRow, response: StartBatchJobResponse) -> None:
        """Write the service's answer."""
        self._rows[response.execution_id] = row
        self._writes.append(self._run.started(row.number, 1, response.execution_id, response.request_id))

    def cancelled(self, execution_id: str, fate: Fate) -> None:
        """Have it written that an execution is cancelled or had ended: what is not is found by a later look."""
        if fate.outcome != "not cancelled":
            ended = fate.outcome == "had ended"
            status = fate.reason.removeprefix("as ") if ended else CANCELLING
            number = self._rows[execution_id].number
            self._fates.append(Observation(number, execution_id, status, None, None, None, ended=ended))

    def failed(self, row: LedgerRow, error: CallError) -> None:
        """Write how the call failed; a row is not tried again."""
        write = self._run.unknown if error.may_have_started else self._run.rejected
        request_id = error.request_id if isinstance(error, M2ServiceException) else None
        self._writes.append(write(row.number, 1, error.code, error.message, request_id))

    def in_doubt(self, row: LedgerRow, code: str, message: str) -> None:
        """Write that nothing says whether the call started its job."""
        self._writes.append(self._run.unknown(row.number, 1, code, message))

    async def aclose(self) -> None:
        """Take back what was not sent, and see that all is durable; raises LedgerError."""
        if self._filling is not None:
            await asyncio.gather(self._filling, return_exceptions=True)
        for row in self._ready:
            self._writes.append(self._run.rejected(row.number, 1, "NotSentError", "the probe ended before it was sent"))
        self._ready.clear()
        for outcome in await asyncio.gather(*self._writes, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome
        await self._run.observe(self._fates)

    async def _fill(self, wanted: int) -> None:
        names = [f"call-{number:06}" for number in range(self._number + 1, self._number + wanted + 1)]
        self._number += wanted
        rows = await asyncio.gather(*(self._run.add(name, self._request) for name in names))
        await asyncio.gather(*(self._run.intend(row.number, 1, steady_time()) for row in rows))
        self._ready.extend(rows)


def _calls_ahead(record: Record) -> int:
    """How many calls will come while a block of intents is written."""
    latest = record.calls[-20:]
    seconds = latest[-1].due - latest[0].due if len(latest) > 1 else 1.0
    return max(4, min(500, round(_AHEAD * len(latest) / seconds)))
