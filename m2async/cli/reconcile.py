"""`m2async reconcile`: find out what became of a run's unknown jobs, and send nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import anyio
import typer

from m2async.certainty import Adopted, Ambiguous, Margins, NotStarted
from m2async.certainty import reconcile as decide
from m2async.cli.ledgers import existing_ledger, line, some
from m2async.cli.listings import Form
from m2async.cli.output import BAD_INPUT, STOPPED, emit_list, fail, say
from m2async.cli.progress import Waiting
from m2async.cli.running import Signals, run
from m2async.cli.service import Service
from m2async.clock import steady_time
from m2async.errors import ConfigurationError, M2AsyncError
from m2async.ledger import LedgerAddressError, LedgerRow, RowState, Run, RunNotFoundError

_COLUMNS = ("key", "application_id", "job", "state", "execution_id", "candidates")


def reconcile(run_name: str, service: Service, url: str | None, settle: float, form: Form) -> None:
    """Look for every unknown row's execution, write down what is found, and list the rows."""

    async def work(_: Signals) -> list[LedgerRow]:
        async with existing_ledger(url) as ledger:
            await ledger.run(run_name)  # a run that does not exist is not made
            async with await ledger.open_run(run_name) as opened, service.client() as client:
                unknown = [row async for row in opened.rows(RowState.UNKNOWN)]
                await _wait_till_listed(unknown, settle)
                of_application: dict[str, list[LedgerRow]] = defaultdict(list)
                for row in unknown:
                    of_application[row.request.application_id].append(row)
                with Waiting("unknown jobs looked for", len(unknown)) as waiting:
                    for application_id, rows in of_application.items():
                        by_id = {(opened.info.id, row.number): row for row in rows}
                        decisions = await decide(
                            client,
                            ledger,
                            application_id,
                            settled_before=steady_time() - settle,
                            margins=Margins(late=settle),
                            wanted=by_id.keys(),
                            echoes={},
                        )
                        for row_id, decision in decisions.items():
                            await _write(opened, by_id[row_id], decision)
                            waiting.advance()
                return [await opened.row(row.key) for row in unknown]

    try:
        rows = run(work)
    except (ConfigurationError, LedgerAddressError, RunNotFoundError) as exc:
        fail(str(exc), BAD_INPUT)
    except M2AsyncError as exc:
        fail(str(exc), STOPPED)
    shown = [line(row) for row in rows]
    if form == "table":
        shown = [fields | {"candidates": some(fields["candidates"])} for fields in shown]
    emit_list(shown, _COLUMNS, form)
    left = sum(row.state is RowState.UNKNOWN for row in rows)
    say(f"{len(rows):,} jobs were unknown, {left:,} still are; jobs that are pending now are started by m2async resume")
    raise typer.Exit(1 if left else 0)


async def _wait_till_listed(unknown: Iterable[LedgerRow], settle: float) -> None:
    """Wait until the last attempt, which may have ended just now, by a crash, can be decided."""
    youngest = max((row.ended_at or 0.0 for row in unknown), default=0.0)
    wait = youngest + settle - steady_time()
    if 0 < wait <= settle:
        with Waiting("waiting until the service lists what was started"):
            await anyio.sleep(wait)


async def _write(opened: Run, row: LedgerRow, decision: Adopted | NotStarted | Ambiguous) -> None:
    match decision:
        case Adopted():
            note = "its one match among the executions"
            await opened.claim(row.number, row.attempts, decision.execution_id, note)
        case NotStarted():
            await opened.not_started(row.number, row.attempts, "no execution can be its own")
        case Ambiguous():
            await opened.candidates(row.number, tuple(decision.candidates))
