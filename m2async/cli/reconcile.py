"""`m2async reconcile`: find out what became of a run's unknown jobs, and send nothing."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import typer

from m2async.certainty import Decision, Doubts, write_decision
from m2async.cli.ledgers import existing_ledger, line, some
from m2async.cli.output import Form, emit_list, say
from m2async.cli.progress import Waiting
from m2async.cli.running import Signals, run
from m2async.cli.service import Service
from m2async.client import M2Client
from m2async.clock import steady_time
from m2async.errors import CallError
from m2async.ledger import Ledger, LedgerRow, RowState, Run

_COLUMNS = ("key", "application_id", "job", "state", "execution_id", "candidates")


def reconcile(run_name: str, service: Service, url: str | None, settle: float, form: Form) -> None:
    """Look for every unknown row's execution, write down what is found, and list the rows."""

    async def work(_: Signals) -> list[LedgerRow]:
        async with existing_ledger(url) as ledger:
            await ledger.run(run_name)  # a run that does not exist is not made
            async with await ledger.open_run(run_name) as opened, service.client() as client:
                unknown = [row async for row in opened.rows(RowState.UNKNOWN)]
                await _wait_till_listed(unknown, settle)
                with Waiting("unknown jobs looked for", len(unknown)) as waiting:
                    await _look_for(unknown, client, ledger, opened, settle, waiting)
                return [await opened.row(row.key) for row in unknown]

    rows = run(work)
    shown = [line(row) for row in rows]
    if form == "table":
        shown = [fields | {"candidates": some(fields["candidates"])} for fields in shown]
    emit_list(shown, _COLUMNS, form)
    left = sum(row.state is RowState.UNKNOWN for row in rows)
    say(f"{len(rows):,} jobs were unknown, {left:,} still are; jobs that are pending now are started by m2async resume")
    raise typer.Exit(1 if left else 0)


async def _wait_till_listed(unknown: Sequence[LedgerRow], settle: float) -> None:
    """Wait until the last attempt, which may have ended just now, by a crash, can be decided."""
    wait = _youngest(unknown) + settle - steady_time()
    if wait > 0:
        with Waiting("waiting until the service lists what was started"):
            await anyio.sleep(wait)


async def _look_for(
    unknown: Sequence[LedgerRow], client: M2Client, ledger: Ledger, run: Run, settle: float, waiting: Waiting
) -> None:
    """Look for each row's execution once, and write what is found."""

    async def decided(decisions: Sequence[tuple[LedgerRow, Decision]]) -> None:
        for row, decision in decisions:
            await write_decision(run, row.number, row.attempts, decision)
            waiting.advance()

    def failed(_: str, error: CallError) -> None:
        raise error

    doubts = Doubts[LedgerRow](client, ledger, run.info.id, settle=settle, decided=decided, failed=failed, looks=1)
    ended_at = _youngest(unknown)  # so that all are looked for together
    for row in unknown:
        doubts.park(row, row.request.application_id, row.number, ended_at=ended_at)
    await doubts.decide_all()


def _youngest(unknown: Sequence[LedgerRow]) -> float:
    """When the last attempt of all ended, in seconds of the epoch."""
    return max((row.ended_at or 0.0 for row in unknown), default=0.0)
