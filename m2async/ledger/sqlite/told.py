"""What a run in SQLite is told, and what is asked of whoever has it open."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from m2async.ledger.rows import Orders, to_micros
from m2async.ledger.sqlite import reads
from m2async.ledger.sqlite.part import PartOfRun
from m2async.ledger.sqlite.statements import named_statements

_SQL = named_statements("orders")


class Told(PartOfRun):
    """The part of a run in SQLite that has to do with orders."""

    _clock: Callable[[], float]

    async def orders(self) -> Orders:
        return await self.read(reads.orders)

    async def set_pace(self, rate: float, burst: float) -> None:
        await self._order("order_pace", rate=rate, burst=burst)

    async def set_paused(self, paused: bool) -> None:
        await self._order("order_pause", paused=int(paused), at=to_micros(self._clock()))

    async def stop(self) -> None:
        await self._order("order_stop", at=to_micros(self._clock()))

    async def ask(self, what: str) -> int:
        asked = self.info.id, what
        entry = await self.write_now(lambda connection: connection.execute(_SQL["ask"], asked).lastrowid)
        return cast("int", entry)

    async def answer_to(self, entry: int) -> str | None:
        return await self.read(lambda connection, _: reads.answer_to(connection, entry))

    async def withdraw(self, entry: int) -> bool:
        found = await self.write_now(lambda connection: connection.execute(_SQL["withdraw"], (entry,)).fetchone())
        return found is not None and bool(found[0])

    async def _order(self, statement: str, **values: float) -> None:
        given = {"run": self.info.id, **values}
        await self.write_now(lambda connection: connection.execute(_SQL[statement], given))
