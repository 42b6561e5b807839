"""A run's rows in SQLite, and those of a manifest that is given: for a new run, or again for one that is there."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar, cast

import anyio.lowlevel

from m2async.ledger.changes import Differences
from m2async.ledger.interface import Run
from m2async.ledger.rows import LedgerRow, RunInfo, to_micros
from m2async.ledger.sqlite import again, reads
from m2async.ledger.sqlite.part import PartOfRun
from m2async.ledger.sqlite.plan import Planning
from m2async.ledger.sqlite.statements import named_statements
from m2async.ledger.sqlite.unnamed_rows import Passes, complete_likeness
from m2async.ledger.sqlite.writes import Batches, Place, Write, clear, unnamed_addition
from m2async.service import RowNumber, StartBatchJob

_SQL = named_statements("runs")
_T = TypeVar("_T")


class GivenRows(PartOfRun, Run):
    """The part of a run in SQLite that has to do with the rows of manifests."""

    _address: str
    _clock: Callable[[], float]
    _name: str
    _info: RunInfo
    _manifest: str | None
    _digest: str | None
    _place: Place
    _write: Callable[[Write], asyncio.Future[Any]]
    _passes: Passes
    _given: int = 0  # how many rows wait
    _taken_from: int | None = None  # where the rows were that it took over; None where it has its own
    _planned_before: tuple[int, ...] | None = None  # what runs there were when their rows were looked at

    @abstractmethod
    async def in_turn(self, function: Callable[[Batches], _T]) -> _T:
        """Run a function in the writer's thread."""

    async def plan(
        self,
        rows: Iterable[tuple[str, StartBatchJob]],
        *,
        after: Mapping[str, Sequence[str]] | None = None,
        check: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        if self.is_planned_with_digest():
            return
        await self.give(rows, after=after)
        if self.info.has_rows:
            differences = await self.differences(self)
            if error := differences.error(self._address, self._name):
                raise error
        if check is not None:
            await check()
        await self.amend(self)

    def is_planned_with_digest(self) -> bool:
        """Tell whether the rows of the digest that the run was opened with are its own."""
        self.check_open()
        return self._info.planned and self._digest is not None and self._digest == self._info.digest

    @abstractmethod
    def check_open(self) -> None:
        """Raise LedgerClosedError if it is not."""

    async def give(
        self, rows: Iterable[tuple[str, StartBatchJob]], *, after: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        self.check_open()
        place, given = _waiting_of(self), iter(rows)
        planning = await self.in_turn(lambda batches: Planning(place, self._address, batches))
        await self.in_turn(lambda _: planning.begin())
        while await self.in_turn(lambda _: planning.next_batch(given)):
            await anyio.lowlevel.checkpoint()
        await self.in_turn(lambda _: planning.finish(after or {}))
        self._given = planning.rows

    async def kin(self, *, rehearsal: bool) -> list[tuple[RunInfo, int]]:
        await self._complete()
        place = _waiting_of(self)

        def ask(batches: Batches) -> list[tuple[RunInfo, int]]:
            with batches.aside() as connection:
                self._planned_before = again.planned(connection)
                infos = {info.id: info for info in reads.run_infos(connection)}
                found = again.kin(connection, place, again.unlike(infos.values(), rehearsal=rehearsal))
                return [(infos[run], rows) for run, rows in found.items()]

        return await self.in_turn(ask)

    async def differences(self, given: Run, *, rehearsal: bool | None = None) -> Differences:
        await self._complete()
        place, own = _waiting_of(given), self._place

        def ask(batches: Batches) -> Differences:
            with batches.aside() as connection:
                self._planned_before = None if rehearsal is None else again.planned(connection)
                infos = reads.run_infos(connection)
                others = (
                    [info.id for info in infos]  # none of them is looked into
                    if rehearsal is None
                    else again.unlike(infos, rehearsal=rehearsal)
                )
                return again.compare(connection, place, own, others)

        return await self.in_turn(ask)

    async def amend(self, given: Run) -> bool:
        place, own, at = _waiting_of(given), self._place, to_micros(self._clock())
        has_rows = self.info.has_rows

        def write(batches: Batches) -> int | None:
            with batches.transaction() as connection:
                if self._planned_before not in {None, again.planned(connection)}:
                    return None
                rows = again.amend(connection, self._address, place, own, at) if has_rows else self._given
                connection.execute(_SQL["planned"], (rows, self._manifest, self._digest, own.id))
                if has_rows:
                    clear(connection, place)
            self._given = 0
            self._taken_from = place.base if has_rows else None
            return rows

        written = await self.in_turn(write)
        if written is not None:
            self._place.rows = written
            await self.read(lambda _, info: info)
        return written is not None

    async def given_as(self, numbers: Collection[int]) -> Mapping[int, int]:
        first = self._taken_from
        if first is None:
            return {number: number for number in numbers}

        def ask(batches: Batches) -> dict[int, int]:
            with batches.aside() as connection:
                return again.given_as(connection, first, numbers)

        return await self.in_turn(ask)

    async def add_unnamed(self, key: str, request: StartBatchJob, among: object) -> LedgerRow:
        self.check_open()
        pass_ = self._passes.number_of(among)
        write = unnamed_addition(
            self._place, RowNumber(key), request, pass_, ended=self._passes.take_ended(), is_planned=self._info.planned
        )
        return cast("LedgerRow", await self._write(write))

    async def _complete(self) -> None:
        """See that it is written of every row, also of before, which others are the same."""

        def complete(batches: Batches) -> bool:
            with batches.transaction() as connection:
                return complete_likeness(connection)

        while await self.in_turn(complete):
            await anyio.lowlevel.checkpoint()


def _waiting_of(run: Run) -> Place:
    """Give the place where the rows wait that were given to a run."""
    own = Place(run.info.id, run.info.name, 0)
    return again.place_beside(own) if run.info.has_rows else own
