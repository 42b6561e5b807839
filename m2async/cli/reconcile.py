"""`m2async reconcile`: find out what became of a run's unknown jobs, and send nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import NamedTuple

import anyio
import typer

from m2async.certainty import Decision, Doubts, write_decision
from m2async.cli.evidence import Found, emit_evidence, read_evidence, shown_evidence
from m2async.cli.hints import hint
from m2async.cli.ledgers import existing_ledger, line, say_foreign, say_ledger, some
from m2async.cli.output import Form, emit_list, say
from m2async.cli.progress import Waiting
from m2async.cli.running import Signals, run
from m2async.cli.service import Service
from m2async.cli.track import say_trouble
from m2async.client import M2Client
from m2async.clock import CLOCK_TOLERANCE, steady_time
from m2async.errors import CallError
from m2async.following import LogsError
from m2async.ledger import (
    ExecutionClaimedError,
    IllegalTransitionError,
    Ledger,
    LedgerRow,
    RowDecisions,
    RowState,
    open_for_decisions,
)
from m2async.submitting import PatientLists, why_refused

_PATIENCE = 60.0
"""Seconds for which a list is asked for again that fails in passing."""

_COLUMNS = ("key", "application_id", "job", "state", "execution_id", "candidates")


class LogsWanted(NamedTuple):
    """That the candidates' logs are to be read, and where, if not from AWS itself."""

    endpoint_url: str | None


def reconcile(
    run_name: str, service: Service, url: str | None, settle: float, form: Form, logs: LogsWanted | None = None
) -> None:
    """Look for every unknown row's execution, write down what is found, and list the rows.

    With `logs`, those of before as well that were started without it being known as which.
    """
    logs_failed: list[LogsError] = []

    async def work(_: Signals) -> tuple[list[LedgerRow], list[LedgerRow], Found]:
        async with (
            existing_ledger(url) as ledger,
            open_for_decisions(ledger, run_name) as decisions,
            service.client() as client,
        ):
            say_ledger(ledger)
            await service.check_place(decisions.view, client)
            unknown = [row async for row in decisions.view.rows(RowState.UNKNOWN)]
            await _wait_till_listed(unknown, ledger, decisions, settle)
            with Waiting("unknown jobs looked for", len(unknown)) as waiting:
                await _look_for(unknown, client, ledger, decisions, settle, waiting)
            rows = [await decisions.view.row(row.key) for row in unknown]
            if logs is None:
                return rows, [], {}
            untold = [row for row in rows if row.state is RowState.UNKNOWN and row.candidates]
            untold += [row async for row in decisions.view.rows(RowState.STARTED) if row.execution_id is None]
        try:
            return rows, untold, await read_evidence(untold, service, logs.endpoint_url)
        except LogsError as error:
            logs_failed.append(error)
            return rows, untold, {}

    rows, untold, found = run(work)
    numbers = {row.number for row in rows}
    shown = [line(row) for row in (*rows, *(row for row in untold if row.number not in numbers))]
    if logs is not None and form != "table":
        shown = [fields | {"logs": shown_evidence(found, fields["key"])} for fields in shown]
    if form == "table":
        shown = [fields | {"candidates": some(fields["candidates"])} for fields in shown]
    emit_list(shown, _COLUMNS, form)
    if logs is not None and form == "table" and not logs_failed:
        emit_evidence(found, untold)
    for error in logs_failed:
        say(f"m2async: the candidates' logs cannot be read: {error}")
    left = sum(row.state is RowState.UNKNOWN for row in rows)
    say(f"{len(rows):,} jobs were unknown, {left:,} still are")
    if any(row.state is RowState.PENDING for row in rows):
        go_on = hint("resume", run_name, ledger=url, service=service)
        say(f"Jobs that are pending now surely were not started. To start them: {go_on}")
    if left:
        say("Where you know what became of a job, write it down: m2async resolve, with --started ID or --not-started")
    raise typer.Exit(1 if left or logs_failed else 0)


async def _wait_till_listed(unknown: Sequence[LedgerRow], ledger: Ledger, opened: RowDecisions, settle: float) -> None:
    """Wait until the last attempt, which may have ended just now, by a crash, can be decided.

    Another process wrote when it ended, and how well that is known by our clock changes with each answer. It surely
    was before the run was opened here.
    """
    numbers, run_id = {row.number for row in unknown}, opened.view.info.id
    ends = [
        attempt.ended_by
        for application_id in {row.request.application_id for row in unknown}
        for attempt in await ledger.open_attempts(application_id)
        if attempt.run_id == run_id and attempt.number in numbers and attempt.ended_by is not None
    ]
    if ends and max(ends) + settle + 2 * CLOCK_TOLERANCE > steady_time():
        with Waiting("waiting until the service lists what was started"):
            await anyio.sleep(settle)


async def _look_for(
    unknown: Sequence[LedgerRow],
    client: M2Client,
    ledger: Ledger,
    opened: RowDecisions,
    settle: float,
    waiting: Waiting,
) -> None:
    """Look for each row's execution once, and write what is found."""

    async def decided(decisions: Sequence[tuple[LedgerRow, Decision]]) -> None:
        for row, decision in decisions:
            with contextlib.suppress(IllegalTransitionError, ExecutionClaimedError):  # whoever submits it came first
                await write_decision(opened, row.number, row.attempts, decision)
            waiting.advance()

    def listed(application_id: str, error: CallError | None) -> None:
        if error is not None:  # which keeps nobody from deciding the rows of other applications
            failures[application_id] = error

    failures: dict[str, CallError] = {}
    lists = PatientLists(client, patience=_PATIENCE, troubled=say_trouble)
    doubts = Doubts[LedgerRow](
        lists, ledger, opened.view, settle=settle, decided=decided, listed=listed, foreign=lambda *_: None, looks=1
    )
    ended_at = steady_time() - settle  # at the latest, so that all are looked for now, and together
    for row in unknown:
        doubts.park(row, row.request.application_id, row.number, ended_at=ended_at)
    await doubts.decide_all()
    say_foreign(await opened.view.foreign())
    for application_id, error in failures.items():
        say(f"m2async: the executions of application {application_id} cannot be listed: {why_refused(error)}")
    for error in failures.values():
        raise error
