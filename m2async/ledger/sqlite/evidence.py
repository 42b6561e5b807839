"""What a run in SQLite shows of the service: what it answered, and what it listed that somebody else had started."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from m2async.ledger.requests import canonical_identifier, job_of_identifier
from m2async.ledger.rows import AnsweredAttempt, ForeignExecution, RunInfo, to_micros, to_seconds
from m2async.ledger.sqlite import reads
from m2async.ledger.sqlite.part import PartOfRun
from m2async.ledger.sqlite.statements import named_statements
from m2async.ledger.texts import clean

_SQL = named_statements("reads", "runs")
_WITNESSES = 50


class Evidence(PartOfRun):
    """The part of a run in SQLite that has to do with what is known for certain of executions."""

    async def answered_near(self, application_id: str, number: int, rows: int) -> list[AnsweredAttempt]:
        return await self.read(lambda connection, info: answered_near(connection, info, application_id, number, rows))

    async def foreign(self) -> list[ForeignExecution]:
        return await self.read(foreign)

    async def note_foreign(self, executions: Sequence[ForeignExecution]) -> list[ForeignExecution]:
        if not executions:
            return []
        run_id = self.info.id

        def write(connection: sqlite3.Connection) -> list[ForeignExecution]:
            return [
                each
                for each in executions
                if connection.execute(
                    _SQL["note_foreign"],
                    (run_id, clean(each.execution_id), each.application_id, canonical_identifier(each.job),
                     to_micros(each.start_time)),
                ).rowcount
            ]  # fmt: skip

        return await self.write_now(write)


def answered_near(
    connection: sqlite3.Connection, info: RunInfo, application_id: str, number: int, rows: int
) -> list[AnsweredAttempt]:
    """Give answered attempts of an application among so many rows before and behind a row, the nearest first."""
    clocks, row = reads.clocks_of(connection), (info.id << 32) + number
    span = clocks.span
    asked = {
        "application_id": application_id, "near": row, "first": row - rows, "last": row + rows, "limit": _WITNESSES,
    }  # fmt: skip
    return [
        AnsweredAttempt(
            execution_id,
            application_id,
            job_of_identifier(job),
            sent_after=span(clock, to_seconds(sent_at))[0],
            ended_before=span(clock, to_seconds(ended_at))[1],
            uptimes=clocks.uptimes(clock, to_seconds(sent_at), clock, to_seconds(ended_at)),
        )
        for execution_id, job, sent_at, ended_at, clock in connection.execute(_SQL["answered_near"], asked).fetchall()
    ]


def foreign(connection: sqlite3.Connection, info: RunInfo) -> list[ForeignExecution]:
    """Give the executions of a run's jobs that somebody else was seen to start."""
    return [
        ForeignExecution(execution_id, application_id, job_of_identifier(job), to_seconds(started_at))
        for execution_id, application_id, job, started_at in connection.execute(_SQL["foreign"], (info.id,))
    ]
