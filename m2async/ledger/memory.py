"""The ledger in memory: for tests, and for runs that nobody wants to resume."""

from __future__ import annotations

import asyncio
import itertools
import os
import platform
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import anyio.lowlevel
from msgspec.structs import replace

from m2async.clock import steady_time
from m2async.ledger import memory_activity
from m2async.ledger.activity import STRETCHES, Activity, LatencyCount
from m2async.ledger.changes import Changes
from m2async.ledger.clock_check import check_clock
from m2async.ledger.dependencies import check_same
from m2async.ledger.errors import (
    DuplicateKeyError,
    ExecutionClaimedError,
    IllegalTransitionError,
    LedgerClosedError,
    LedgerError,
    ManifestChangedError,
    RowNotFoundError,
    RunInUseError,
    RunNotFoundError,
    RunNotPlannedError,
)
from m2async.ledger.interface import PAGE, Ledger, Run, RunView
from m2async.ledger.requests import canonical_identifier
from m2async.ledger.rows import (
    Counts,
    ExecutionCount,
    HistoryEntry,
    LedgerRow,
    Observation,
    OpenAttempt,
    Orders,
    RunInfo,
    RunSummary,
    TrackedExecution,
    as_stored,
    to_micros,
    to_seconds,
)
from m2async.ledger.states import Event, RowState, Standing, follow, illegal_reason
from m2async.ledger.texts import CRASH_CODE, CRASH_MESSAGE, check_key, clean
from m2async.service import RestartJob, StartBatchJob

_ADDRESS = "memory:"


class _Content:
    """What a run holds, and since when it is open for writing."""

    def __init__(self, info: RunInfo) -> None:
        self.info = info
        self.rows: list[LedgerRow] = []
        self.number_of_key: dict[str, int] = {}
        self.after: Mapping[str, Sequence[str]] = {}
        self.history: dict[int, list[HistoryEntry]] = {}
        self.seen: dict[int, Observation] = {}
        self.rules: dict[int, int] = {}  # that of the run is row 0's
        self.planned_as: dict[int, StartBatchJob] = {}  # what rows that were restarted were first
        self.orders = Orders()
        self.open_since: float | None = None


class MemoryLedger(Ledger):
    """A ledger that is gone when it is closed; each has its own runs."""

    def __init__(self, *, clock: Callable[[], float] = steady_time) -> None:
        self.clock = clock
        self.claims: dict[str, tuple[_Content, LedgerRow]] = {}
        self._contents: dict[str, _Content] = {}
        self._ids = itertools.count(1)
        self._closed = False

    @property
    def address(self) -> str:
        return _ADDRESS

    async def open_run(
        self, name: str, *, manifest: str | None = None, digest: str | None = None, by_hand: bool = False
    ) -> Run:
        await self._check_open()
        content, now = self._contents.get(name), to_seconds(to_micros(self.clock()))
        if content is None:
            info = RunInfo(next(self._ids), name, None, None, planned=False, rows=0, created_at=now)
            content = self._contents[name] = _Content(info)
        if content.open_since is not None:
            raise RunInUseError(_ADDRESS, name, pid=os.getpid(), host=platform.node(), since=content.open_since)
        if not by_hand and any(row.doubts or row.state is RowState.INTENT for row in content.rows):
            latest = max(max(row.sent_at or 0.0, row.ended_at or 0.0) for row in content.rows)
            check_clock(_ADDRESS, name, latest, now)
        content.open_since = now
        content.orders = Orders()
        return MemoryRun(self, content, manifest, digest)

    async def run(self, name: str) -> RunView:
        await self._check_open()
        if name not in self._contents:
            raise RunNotFoundError(_ADDRESS, name)
        return MemoryRunView(self, self._contents[name])

    async def runs(self) -> list[RunSummary]:
        await self._check_open()
        return [RunSummary(content.info, _counts(content)) for content in self._contents.values()]

    async def open_attempts(self, application_id: str) -> list[OpenAttempt]:
        await self._check_open()
        return [
            attempt
            for content in self._contents.values()
            for row in content.rows
            if row.request.application_id == application_id
            for attempt in _open_attempts(content, row)
        ]

    async def claimed(self, application_id: str, execution_ids: Collection[str]) -> set[str]:
        await self._check_open()
        return {
            execution_id
            for execution_id in execution_ids
            if execution_id in self.claims and self.claims[execution_id][1].request.application_id == application_id
        }

    async def aclose(self) -> None:
        self._closed = True
        await anyio.lowlevel.checkpoint()

    def forget(self, content: _Content) -> None:
        """Remove a run that was made and never had rows."""
        if not (content.info.planned or content.rows):
            del self._contents[content.info.name]

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    async def _check_open(self) -> None:
        await anyio.lowlevel.checkpoint()
        if self._closed:
            raise LedgerClosedError(_ADDRESS, "is closed")


class MemoryRunView(RunView):
    """A run in memory, for reading."""

    def __init__(self, ledger: MemoryLedger, content: _Content) -> None:
        self._ledger = ledger
        self._content = content

    @property
    def info(self) -> RunInfo:
        return self._content.info

    async def counts(self) -> Counts:
        await self._check_ledger()
        return _counts(self._content)

    async def page(self, *states: RowState, after: int = 0, limit: int = PAGE) -> list[LedgerRow]:
        await self._check_ledger()
        page: list[LedgerRow] = []
        for row in self._content.rows[after:]:
            if len(page) == limit:
                break
            if not states or row.state in states:
                page.append(row)
        return page

    async def row(self, key: str) -> LedgerRow:
        await self._check_ledger()
        if key not in self._content.number_of_key:
            raise RowNotFoundError(_ADDRESS, self.info.name, key)
        return self._content.rows[self._content.number_of_key[key] - 1]

    async def rows_of(self, keys: Collection[str]) -> list[LedgerRow]:
        return sorted([await self.row(key) for key in keys], key=lambda row: row.number)

    async def dependencies(self) -> Mapping[str, Sequence[str]]:
        await self._check_ledger()
        return dict(self._content.after)

    async def history(self, number: int) -> list[HistoryEntry]:
        await self._check_ledger()
        return list(self._content.history.get(number, ()))

    # Executions

    async def in_use(self) -> bool:
        await self._check_ledger()
        return self._content.open_since is not None

    async def executions(self, first: int, last: int, *, open_only: bool = False) -> list[TrackedExecution]:
        await self._check_ledger()
        started = (row for row in self._content.rows[first - 1 : last] if row.state is RowState.STARTED)
        executions = (self._execution(row, row.execution_id or "") for row in started)
        return [execution for execution in executions if not (open_only and execution.ended)]

    async def execution_counts(self) -> list[ExecutionCount]:
        every = await self.executions(1, len(self._content.rows))
        counted = Counter((seen.status, seen.return_code, seen.ended, seen.gone, seen.max_rc) for seen in every)
        return [ExecutionCount(*alike, rows) for alike, rows in sorted(counted.items(), key=_order)]

    async def observe(self, observations: Sequence[Observation]) -> None:
        await self._check_ledger()
        for seen in observations:
            row, before = self._content.rows[seen.number - 1], self._content.seen.get(seen.number)
            if row.state is not RowState.STARTED or row.execution_id != clean(seen.execution_id):
                continue
            if before is None or before.execution_id != row.execution_id or _rank(before) <= _rank(seen):
                self._content.seen[seen.number] = seen._replace(
                    execution_id=clean(seen.execution_id),
                    status=seen.status and clean(seen.status),
                    return_code=seen.return_code and clean(seen.return_code),
                    start_time=_stored(seen.start_time),
                    end_time=_stored(seen.end_time),
                )

    async def set_rule(self, max_rc: int, key: str | None = None) -> None:
        self._content.rules[0 if key is None else (await self.row(key)).number] = max_rc

    # How it goes, and what it is told

    async def activity(self, stretches: int = STRETCHES) -> Activity:
        await self._check_ledger()
        return memory_activity.activity(self._content.rows, self._content.history, stretches)

    async def latencies(self) -> list[LatencyCount]:
        await self._check_ledger()
        return memory_activity.latencies(self._content.rows, self._content.history)

    async def orders(self) -> Orders:
        await self._check_ledger()
        return self._content.orders

    async def set_pace(self, rate: float, burst: float) -> None:
        await self._order(rate=rate, burst=burst)

    async def set_paused(self, paused: bool) -> None:
        await self._order(paused=paused)

    async def stop(self) -> None:
        await self._order(stopped=True)

    async def _order(self, **orders: Any) -> None:
        await self._check_ledger()
        self._content.orders = replace(self._content.orders, **orders)

    def _execution(self, row: LedgerRow, execution_id: str) -> TrackedExecution:
        content = self._content
        max_rc = content.rules.get(row.number, content.rules.get(0))
        execution = TrackedExecution(
            row.number, row.key, row.request.application_id, row.request.job, execution_id, row.attempts, row.adopted,
            row.sent_at or 0.0, max_rc=max_rc,
        )  # fmt: skip
        seen = content.seen.get(row.number)
        if seen is None or seen.execution_id != execution_id:
            return execution
        return replace(
            execution, status=seen.status, return_code=seen.return_code, start_time=seen.start_time,
            end_time=seen.end_time, ended=seen.ended, gone=seen.gone,
        )  # fmt: skip

    async def _check_ledger(self) -> None:
        await anyio.lowlevel.checkpoint()
        if self._ledger.closed:
            raise LedgerClosedError(_ADDRESS, "is closed")


class MemoryRun(MemoryRunView, Run):
    """A run in memory, for writing."""

    def __init__(self, ledger: MemoryLedger, content: _Content, manifest: str | None, digest: str | None) -> None:
        super().__init__(ledger, content)
        self._manifest = manifest
        self._digest = digest
        self._closed = False
        for row in content.rows:
            if row.state is RowState.INTENT:
                self._end(row.number, row.attempts, Event.CRASH, code=CRASH_CODE, message=CRASH_MESSAGE)

    # Rows

    async def plan(
        self,
        rows: Iterable[tuple[str, StartBatchJob]],
        *,
        after: Mapping[str, Sequence[str]] | None = None,
        check: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._check_open()
        await anyio.lowlevel.checkpoint()
        content, info = self._content, self.info
        if info.planned and self._digest is not None and self._digest == info.digest:
            return
        if info.planned or content.rows:
            self._compare(rows)
            planned, number_of_key = content.rows, content.number_of_key
        else:
            planned, number_of_key = self._planned(rows)
        if info.planned:
            check_same(_ADDRESS, info.name, content.after, after or {})
        else:
            content.after = _in_order(info.name, after or {}, number_of_key)
        if check is not None:
            await check()
        content.rows, content.number_of_key = planned, number_of_key
        digest = self._digest
        content.info = replace(info, planned=True, rows=len(planned), manifest=self._manifest, digest=digest)

    def _planned(self, rows: Iterable[tuple[str, StartBatchJob]]) -> tuple[list[LedgerRow], dict[str, int]]:
        planned: list[LedgerRow] = []
        number_of_key: dict[str, int] = {}
        for number, (key, request) in enumerate(rows, 1):
            if key in number_of_key:
                raise DuplicateKeyError(_ADDRESS, key, number_of_key[key], number)
            number_of_key[key] = number
            planned.append(LedgerRow(number, key, request))
        return planned, number_of_key

    def _compare(self, rows: Iterable[tuple[str, StartBatchJob]]) -> None:
        changes = Changes(len(self._content.rows))
        for given, (key, request) in enumerate(rows, 1):
            number = self._content.number_of_key.get(key)
            if number is None:
                changes.added(key)
                continue
            same = self._planned_as(number) == request
            twice = changes.found(key, given, number, same=same)
            if twice is not None:
                raise DuplicateKeyError(_ADDRESS, key, *twice)
        missing = [self._content.rows[number - 1].key for number in changes.missing()]
        error = changes.error(_ADDRESS, self.info.name, missing)
        if error is not None:
            raise error

    async def add(self, key: str, request: StartBatchJob) -> LedgerRow:
        self._check_open()
        check_key(key)
        await anyio.lowlevel.checkpoint()
        content, number = self._content, self._content.number_of_key.get(key)
        if number is not None:
            row = content.rows[number - 1]
            if self._planned_as(number) != request:
                raise ManifestChangedError(_ADDRESS, self.info.name, changed=[key])
            return row
        if content.info.planned:
            raise ManifestChangedError(_ADDRESS, self.info.name, added=[key])
        row = LedgerRow(len(content.rows) + 1, key, request)
        content.rows.append(row)
        content.number_of_key[key] = row.number
        content.info = replace(content.info, rows=row.number)
        return row

    # Attempts

    def intend(self, number: int, attempt: int, at: float, *, resend: bool = False) -> asyncio.Future[None]:
        return self._written(self._intend, number, attempt, at, resend)

    def started(
        self, number: int, attempt: int, execution_id: str, request_id: str | None = None
    ) -> asyncio.Future[None]:
        return self._written(self._end, number, attempt, Event.STARTED, clean(execution_id), request_id)

    def refused(
        self, number: int, attempt: int, code: str, message: str, request_id: str | None = None
    ) -> asyncio.Future[None]:
        return self._written(self._end, number, attempt, Event.REFUSED, None, request_id, code, message)

    def rejected(
        self, number: int, attempt: int, code: str, message: str, request_id: str | None = None
    ) -> asyncio.Future[None]:
        return self._written(self._end, number, attempt, Event.REJECTED, None, request_id, code, message)

    def unknown(
        self, number: int, attempt: int, code: str, message: str, request_id: str | None = None
    ) -> asyncio.Future[None]:
        return self._written(self._end, number, attempt, Event.UNKNOWN, None, request_id, code, message)

    def _intend(self, number: int, attempt: int, at: float, resend: bool) -> None:
        row, event = self._row(number), Event.RESEND if resend else Event.INTEND
        state, _ = self._next(row, event, f"intent of attempt {attempt}", fits=row.attempts == attempt - 1)
        sent_at = to_seconds(to_micros(at))
        self._put(replace(row, state=state, attempts=attempt, sent_at=sent_at, ended_at=None))

    def _end(
        self,
        number: int,
        attempt: int,
        event: Event,
        execution_id: str | None = None,
        request_id: str | None = None,
        code: str | None = None,
        message: str | None = None,
    ) -> None:
        row, now = self._row(number), self._now()
        state, doubts = self._next(row, event, f"the end of attempt {attempt}", fits=row.attempts == attempt)
        request_id, code, message = (text and clean(text) for text in (request_id, code, message))
        ended = replace(row, state=state, doubts=doubts, ended_at=now, execution_id=execution_id, request_id=request_id)
        if not (row.doubts and event in {Event.REFUSED, Event.REJECTED}):
            ended = replace(ended, error_code=code, error_message=message)
        if event is Event.STARTED and execution_id is not None:
            self._ledger.claims.setdefault(execution_id, (self._content, row))
        else:
            in_doubt = doubts > row.doubts
            self._note(row, HistoryEntry(attempt, event, row.sent_at, now, code, message, request_id, open=in_doubt))
        self._put(ended)

    # Decisions

    def claim(
        self, number: int, attempt: int, execution_id: str, note: str, *, inferred: bool = True
    ) -> asyncio.Future[None]:
        return self._written(self._claim, number, attempt, clean(execution_id), clean(note), inferred)

    def not_started(self, number: int, attempt: int, note: str) -> asyncio.Future[None]:
        return self._written(self._decide, number, attempt, Event.NOT_STARTED, clean(note))

    def retry(self, number: int, attempt: int, note: str) -> asyncio.Future[None]:
        return self._written(self._decide, number, attempt, Event.RETRY, clean(note))

    def give_up(self, number: int, attempt: int, note: str) -> asyncio.Future[None]:
        return self._written(self._decide, number, attempt, Event.GIVEN_UP, clean(note))

    def restart(self, number: int, attempt: int, job: RestartJob, note: str) -> asyncio.Future[None]:
        return self._written(self._restart, number, attempt, job, clean(note))

    def candidates(self, number: int, execution_ids: Sequence[str]) -> asyncio.Future[None]:
        return self._written(self._candidates, number, tuple(clean(execution_id) for execution_id in execution_ids))

    def _claim(self, number: int, attempt: int, execution_id: str, note: str, inferred: bool) -> None:
        if execution_id in self._ledger.claims:
            content, holder = self._ledger.claims[execution_id]
            raise ExecutionClaimedError(_ADDRESS, execution_id, content.info.name, holder.key)
        row, now = self._row(number), self._now()
        entries = self._content.history.get(number, [])
        [*attempts] = [entry for entry in entries if entry.open and entry.attempt == attempt]
        what = f"to claim an execution for attempt {attempt}"
        state, doubts = self._next(row, Event.CLAIMED, what, fits=bool(attempts))
        self._settle(row, attempt)
        self._note(row, HistoryEntry(attempt, Event.CLAIMED, None, now, execution_id=execution_id, note=note))
        self._ledger.claims[execution_id] = (self._content, row)
        self._put(
            LedgerRow(
                number, row.key, row.request, state, row.attempts, doubts, row.sent_at, now,
                execution_id, adopted=inferred, note=note,
            )
        )  # fmt: skip

    def _decide(self, number: int, attempt: int, event: Event, note: str) -> None:
        row = self._row(number)
        what = {
            Event.NOT_STARTED: f"to call attempt {attempt} not started",
            Event.RETRY: f"to try again after attempt {attempt}",
            Event.GIVEN_UP: f"to give up after attempt {attempt}",
        }[event]
        state, doubts = self._next(row, event, what, fits=row.attempts == attempt > 0)
        self._settle(row)
        self._note(row, HistoryEntry(attempt, event, None, self._now(), note=note))
        self._put(replace(row, state=state, doubts=doubts, candidates=(), note=note))

    def _restart(self, number: int, attempt: int, job: RestartJob, note: str) -> None:
        row, now = self._row(number), self._now()
        what = f"to restart after attempt {attempt}"
        state, _ = self._next(row, Event.RESTART, what, fits=row.attempts == attempt)
        self._note(row, HistoryEntry(attempt, Event.RESTART, None, now, execution_id=row.execution_id, note=note))
        self._content.planned_as.setdefault(number, row.request)
        self._content.seen.pop(number, None)
        request = replace(row.request, job=job)
        self._put(
            replace(
                row, request=request, state=state, ended_at=now, execution_id=None, request_id=None, adopted=False,
                note=note,
            )
        )  # fmt: skip

    def _candidates(self, number: int, execution_ids: tuple[str, ...]) -> None:
        row = self._row(number)
        if not row.doubts:
            raise self._illegal(row, "to note candidates")
        self._put(replace(row, candidates=execution_ids))

    # The one row

    def _written(self, write: Callable[..., None], number: int, *values: object) -> asyncio.Future[None]:
        """Make a write at once, and give its result as SQLite's writes do."""
        if not 0 < number <= len(self._content.rows) or self._closed:
            raise self._not_writable(number)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            write(number, *values)
        except LedgerError as exc:
            future.set_exception(exc)
        else:
            future.set_result(None)
        return future

    def _row(self, number: int) -> LedgerRow:
        return self._content.rows[number - 1]

    def _planned_as(self, number: int) -> StartBatchJob:
        return self._content.planned_as.get(number) or self._row(number).request

    def _put(self, row: LedgerRow) -> None:
        self._content.rows[row.number - 1] = row

    def _next(self, row: LedgerRow, event: Event, what: str, *, fits: bool) -> Standing:
        standing = follow(Standing(row.state, row.doubts), event)
        if standing is None or not fits:
            raise self._illegal(row, what)
        return standing

    def _illegal(self, row: LedgerRow, what: str) -> IllegalTransitionError:
        reason = illegal_reason(what, Standing(row.state, row.doubts), row.attempts)
        return IllegalTransitionError(_ADDRESS, self.info.name, row.number, reason)

    def _note(self, row: LedgerRow, entry: HistoryEntry) -> None:
        self._content.history.setdefault(row.number, []).append(entry)

    def _settle(self, row: LedgerRow, attempt: int | None = None) -> None:
        """Close the attempts that are in doubt: one, or all."""
        entries = self._content.history.get(row.number, [])
        entries[:] = [replace(entry, open=entry.open and attempt not in {None, entry.attempt}) for entry in entries]

    def _now(self) -> float:
        return to_seconds(to_micros(self._ledger.clock()))

    # Closing

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            self._content.open_since = None
            self._ledger.forget(self._content)
        await anyio.lowlevel.checkpoint()

    def _check_open(self) -> None:
        if self._closed or self._ledger.closed:
            raise LedgerClosedError(_ADDRESS, f"run {self.info.name!r} is closed")

    def _not_writable(self, number: int) -> LedgerError:
        if self._closed:
            return LedgerClosedError(_ADDRESS, f"run {self.info.name!r} is closed")
        if not self._content.rows and not self.info.planned:
            return RunNotPlannedError(_ADDRESS, self.info.name)
        return RowNotFoundError(_ADDRESS, self.info.name, number)


def _rank(seen: Observation) -> int:
    """How much an observation says: that an execution ended more than that it is gone, and that more than the rest."""
    return 2 * seen.ended - seen.gone


def _stored(seconds: float | None) -> float | None:
    return None if seconds is None else as_stored(seconds)


def _order(counted: tuple[tuple[str | None, str | None, bool, bool, int | None], int]) -> tuple[object, ...]:
    (status, return_code, ended, gone, max_rc), _ = counted
    return status or "", return_code or "", ended, gone, -1 if max_rc is None else max_rc


def _in_order(
    run: str, after: Mapping[str, Sequence[str]], number_of_key: Mapping[str, int]
) -> Mapping[str, Sequence[str]]:
    for key in (key for keys in after.values() for key in keys):
        if key not in number_of_key:
            raise RowNotFoundError(_ADDRESS, run, key)
    number = number_of_key.__getitem__
    return {key: sorted(after[key], key=number) for key in sorted(after, key=number)}


def _counts(content: _Content) -> Counts:
    counted = Counter(row.state for row in content.rows)
    return {state: counted[state] for state in RowState}


def _open_attempts(content: _Content, row: LedgerRow) -> Iterator[OpenAttempt]:
    def attempt(number: int, sent_at: float | None, ended_at: float | None) -> OpenAttempt:
        job = row.request.job
        return OpenAttempt(
            content.info.id, content.info.name, row.number, row.key, number, row.state,
            row.request.application_id, job, canonical_identifier(job), sent_at or 0.0, ended_at,
        )  # fmt: skip

    for entry in content.history.get(row.number, ()):
        if entry.open:
            yield attempt(entry.attempt, entry.sent_at, entry.ended_at)
    if row.state is RowState.INTENT:
        yield attempt(row.attempts, row.sent_at, None)
