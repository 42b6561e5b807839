"""The ledger in SQLite: the event loop waits for none of its threads (desk.py)."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Sequence
from typing import Self

from m2async.clock import steady_time
from m2async.ledger.interface import Ledger, Run, RunView
from m2async.ledger.rows import OpenAttempt, RunInfo, RunSummary
from m2async.ledger.sqlite import belonging, reads
from m2async.ledger.sqlite.desk import Desk
from m2async.ledger.sqlite.run import SqliteRun
from m2async.ledger.sqlite.run_view import SqliteRunView
from m2async.ledger.sqlite.statements import migrations, named_statements
from m2async.ledger.sqlite.storage import Storage

_SQL = named_statements("decisions")


class SqliteLedger(Ledger):
    """A ledger in an SQLite database; make it with `open`."""

    def __init__(self, storage: Storage, clock: Callable[[], float]) -> None:
        self.desk: Desk = Desk(storage, clock)
        self._runs: set[SqliteRun] = set()
        self._executions_indexed = False

    @classmethod
    async def open(
        cls, storage: Storage, *, clock: Callable[[], float] = steady_time, scripts: Sequence[str] | None = None
    ) -> Self:
        """Open the ledger of a storage; see `open_ledger`.

        `scripts` are the migrations that lead to the schema, by default the package's.
        """
        ledger = cls(storage, clock)
        try:
            await ledger.desk.writer.call(lambda: storage.open(scripts or migrations()))
        except BaseException:
            await ledger.aclose()
            raise
        return ledger

    @property
    def address(self) -> str:
        return self.desk.address

    async def open_run(
        self,
        name: str,
        *,
        manifest: str | None = None,
        digest: str | None = None,
        by_hand: bool = False,
        to_send: bool = True,
    ) -> Run:
        self.desk.check_open()
        run = SqliteRun(self.desk, name, manifest, digest, self._runs.discard)
        self._runs.add(run)
        try:
            await self.desk.writer.call(lambda: run.take(by_hand=by_hand, to_send=to_send))
        except BaseException:
            await run.aclose()
            raise
        return run

    async def run(self, name: str) -> RunView:
        view = SqliteRunView(self.desk, name)
        await view.read(_nothing)
        return view

    async def last_of(self, digest: str) -> RunInfo | None:
        return await self.desk.read(lambda connection: reads.last_of(connection, digest))

    async def runs(self) -> list[RunSummary]:
        return await self.desk.read(reads.run_summaries)

    async def open_attempts(self, application_id: str) -> list[OpenAttempt]:
        return await self.desk.read(lambda connection: reads.open_attempts(connection, application_id))

    async def is_new(self) -> bool:
        return await self.desk.read(belonging.is_new)

    async def claimed(self, application_id: str, execution_ids: Collection[str], *, often: bool = True) -> set[str]:
        self.desk.check_open()
        if not often:
            return await self.desk.read(
                lambda connection: belonging.claimed_once(connection, application_id, execution_ids)
            )
        if not self._executions_indexed:
            await self.desk.writer.call(self._index_executions)
            self._executions_indexed = True
        return await self.desk.read(lambda connection: reads.claimed(connection, application_id, execution_ids))

    async def aclose(self) -> None:
        if not self.desk.close():
            return
        try:
            for run in list(self._runs):
                await run.aclose()
        finally:
            await self.desk.aclose()

    # In the writer's thread

    def _index_executions(self) -> None:
        with self.desk.batches.transaction() as connection:
            connection.execute(_SQL["index_executions"])


def _nothing(connection: sqlite3.Connection, info: RunInfo) -> None:
    """Ask nothing but what is known of the run."""
