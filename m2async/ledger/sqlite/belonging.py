"""Where a run in SQLite belongs, and what is asked of it before it is sent there."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable
from typing import TypeVar

from msgspec.structs import replace

from m2async.ledger.destinations import Destination
from m2async.ledger.errors import SentElsewhereError
from m2async.ledger.requests import canonical_identifier
from m2async.ledger.rows import RunInfo, to_micros, to_seconds
from m2async.ledger.sqlite.part import PartOfRun
from m2async.ledger.sqlite.reads import clocks_of, run_info
from m2async.ledger.sqlite.statements import as_json, named_statements
from m2async.ledger.states import RowState
from m2async.service import Job, RestartJob

_SQL = named_statements("destinations")
_T = TypeVar("_T")


class Belonging(PartOfRun):
    """The part of a run in SQLite that has to do with its destination."""

    _address: str
    _clock: Callable[[], float]

    async def belong_to(self, destination: Destination, *, moved: bool = False) -> str | None:
        before = await self.read(lambda _, info: info.sent_to)
        if before is not None and before == _together(before, destination):
            return None
        name, at = self.info.name, to_micros(self._clock())
        note = await self.write_now(
            lambda connection: belong(connection, self._address, name, destination, moved=moved, at=at)
        )
        await self.read(lambda _, info: info)
        return note

    async def applications(self, *states: RowState) -> list[str]:
        def ask(connection: sqlite3.Connection, info: RunInfo) -> list[str]:
            asked = {**_span(info), "states": _bits(states or RowState)}
            return [found for (found,) in connection.execute(_SQL["applications"], asked)]

        return await self.read(ask)

    async def named_jobs(self, application_id: str, jobs: Collection[Job], *states: RowState) -> set[Job]:
        named_by = {job: job.execution_id if isinstance(job, RestartJob) else canonical_identifier(job) for job in jobs}
        names = as_json(sorted(set(named_by.values())))

        def ask(connection: sqlite3.Connection, info: RunInfo) -> set[Job]:
            bits = _bits(states if states and info.planned else RowState)
            asked = {**_span(info), "application_id": application_id, "given": names, "states": bits}
            found = {name for (name,) in connection.execute(_SQL["named_jobs"], asked)}
            return {job for job, name in named_by.items() if name in found}

        return await self.read(ask)

    async def last_sent(self) -> float | None:
        def ask(connection: sqlite3.Connection, info: RunInfo) -> float | None:
            span = clocks_of(connection).span
            sent = connection.execute(_SQL["last_sent"], _span(info)).fetchall()
            return max((span(clock, to_seconds(at))[0] for clock, at in sent), default=None)

        return await self.read(ask)

    async def accept(self, until: float) -> None:
        given = (self.info.id, to_micros(until))
        await self.write_now(lambda connection: connection.execute(_SQL["accept"], given))

    async def accepted(self) -> float | None:
        def ask(connection: sqlite3.Connection, info: RunInfo) -> float | None:
            found = connection.execute(_SQL["accepted"], (info.id,)).fetchone()
            return None if found is None else to_seconds(found[0])

        return await self.read(ask)


def belong(
    connection: sqlite3.Connection, address: str, name: str, destination: Destination, *, moved: bool, at: int
) -> str | None:
    """Let a run belong to a destination, and give what a user should know of it; raises SentElsewhereError."""
    info = run_info(connection, name)
    if info is None or info.sent_to == (now := _together(info.sent_to, destination)):
        return None
    before, note = info.sent_to, None
    is_started, in_doubt = connection.execute(_SQL["standing_of_run"], _span(info)).fetchone()
    if before is None and in_doubt and not moved:
        raise SentElsewhereError(address, name, None, destination, in_doubt=in_doubt)
    if before is None:
        note = f"the ledger does not say where it was sent before; now assumed: {now}" if is_started else None
    elif differ := before.differences(now):
        rehearsed = before.is_rehearsal or now.is_rehearsal
        bound_by = in_doubt if differ != ["endpoint"] else 0  # other regions do not list what became of those jobs
        if rehearsed or bound_by or (is_started and not moved):
            raise SentElsewhereError(address, name, before, destination, in_doubt=bound_by)
        why = "on purpose" if is_started else "where nothing was started"
        note = f"moved {why} from {before} to {now}"
    given = (info.id, now.endpoint_url, now.region_name, now.account_id, at, note)
    connection.execute(_SQL["add_destination"], given)
    return note


def forget(connection: sqlite3.Connection, run_id: int) -> None:
    """Forget where a run that is removed belonged: another may get its id."""
    connection.execute(_SQL["forget_destinations"], (run_id,))
    connection.execute(_SQL["forget_accepted"], (run_id,))


def claimed_once(connection: sqlite3.Connection, application_id: str, execution_ids: Collection[str]) -> set[str]:
    """Give the executions that belong to rows, by reading the whole ledger once."""
    asked = {"given": as_json(list(execution_ids)), "application_id": application_id}
    return {execution_id for (execution_id,) in connection.execute(_SQL["claimed_once"], asked)}


def is_new(connection: sqlite3.Connection) -> bool:
    """Tell whether there are no runs."""
    return bool(connection.execute(_SQL["is_new"]).fetchone()[0])


def _bits(states: Iterable[RowState]) -> int:
    return sum(1 << state for state in states)


def _together(before: Destination | None, now: Destination) -> Destination:
    """Give a destination with the account that was known before, where it is not known now."""
    if before is not None and now.account_id is None:
        return replace(now, account_id=before.account_id)
    return now


def _span(info: RunInfo) -> dict[str, int]:
    base = info.id << 32
    return {"first": base + 1, "last": base + info.rows}
