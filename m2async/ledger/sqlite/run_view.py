"""A run of an SQLite ledger, for reading."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeVar

from m2async.ledger.activity import STRETCHES, Activity, LatencyCount
from m2async.ledger.errors import RowNotFoundError, RunNotFoundError
from m2async.ledger.interface import PAGE
from m2async.ledger.rows import (
    Counts,
    ExecutionCount,
    HistoryEntry,
    LedgerRow,
    Observation,
    RunInfo,
    TrackedExecution,
    to_micros,
)
from m2async.ledger.sqlite import activity, belonging, dependencies, evidence, reads, told, tracking
from m2async.ledger.sqlite.desk import Desk
from m2async.ledger.states import RowState
from m2async.ledger.texts import clean

_T = TypeVar("_T")


class SqliteRunView(belonging.Belonging, evidence.Evidence, told.Told):
    """A run in SQLite, for reading."""

    def __init__(self, desk: Desk, name: str) -> None:
        self._desk = desk
        self._address = desk.address
        self._clock = desk.clock
        self._name = name
        self._info: RunInfo

    @property
    def info(self) -> RunInfo:
        return self._info

    async def counts(self) -> Counts:
        return await self.read(reads.counts)

    async def page(self, *states: RowState, after: int = 0, limit: int = PAGE) -> list[LedgerRow]:
        return await self.read(lambda connection, info: reads.page(connection, info, states, after, limit))

    async def row(self, key: str) -> LedgerRow:
        def ask(connection: sqlite3.Connection, info: RunInfo) -> LedgerRow | None:
            return reads.row_of_key(connection, info.id, key, (info.id << 32) + info.rows)

        row = await self.read(ask)
        if row is None:
            raise RowNotFoundError(self._address, self._name, key)
        return row

    async def rows_of(self, keys: Collection[str]) -> list[LedgerRow]:
        address = self._address
        return await self.read(lambda connection, info: dependencies.rows_of(connection, address, info, keys))

    async def dependencies(self) -> Mapping[str, Sequence[str]]:
        return await self.read(dependencies.read)

    async def history(self, number: int) -> list[HistoryEntry]:
        return await self.read(lambda connection, info: reads.history(connection, (info.id << 32) + number))

    # Executions

    async def in_use(self) -> bool:
        return self._desk.storage.is_locked(self.info.id)

    async def executions(self, first: int, last: int, *, open_only: bool = False) -> list[TrackedExecution]:
        return await self.read(
            lambda connection, info: tracking.executions(connection, info, first, last, open_only=open_only)
        )

    async def together(self, group: int) -> list[TrackedExecution]:
        return await self.read(lambda connection, info: tracking.together(connection, info, group))

    async def execution_counts(self) -> list[ExecutionCount]:
        return await self.read(tracking.counts)

    async def observe(self, observations: Sequence[Observation]) -> None:
        base, at = self.info.id << 32, to_micros(self._clock())
        cleaned = [
            seen._replace(
                execution_id=clean(seen.execution_id),
                status=seen.status and clean(seen.status),
                return_code=seen.return_code and clean(seen.return_code),
            )
            for seen in observations
        ]
        await self.write_now(lambda connection: tracking.observe(connection, base, cleaned, at))

    async def set_rule(self, max_rc: int, key: str | None = None) -> None:
        row = (self.info.id << 32) + (0 if key is None else (await self.row(key)).number)
        await self.write_now(lambda connection: tracking.set_rule(connection, row, max_rc))

    # How it goes, and what it is told

    async def activity(self, stretches: int = STRETCHES) -> Activity:
        return await self.read(lambda connection, info: activity.activity(connection, info, stretches))

    async def latencies(self) -> list[LatencyCount]:
        return await self.read(activity.latencies)

    async def write_now(self, write: Callable[[sqlite3.Connection], _T]) -> _T:
        """Write in a transaction of its own, which needs no lock of the run."""

        def commit() -> _T:
            with self._desk.batches.transaction() as connection:
                return write(connection)

        return await self._desk.write(commit)

    async def read(self, function: Callable[[sqlite3.Connection, RunInfo], _T]) -> _T:
        def ask(connection: sqlite3.Connection) -> tuple[RunInfo | None, _T | None]:
            info = reads.run_info(connection, self._name)
            return info, None if info is None else function(connection, info)

        info, answer = await self._desk.read(ask)
        if info is None:
            raise RunNotFoundError(self._address, self._name)
        self._info = info
        return answer  # type: ignore[return-value] # there is one where there is a run
