"""`m2async cancel` and `m2async restart`: what an operator does to executions of a run, one call after another."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, NamedTuple, TypeVar

import typer

from m2async.cli.ledgers import existing_ledger
from m2async.cli.output import BAD_INPUT, Form, emit_list, fail, say
from m2async.cli.progress import Waiting
from m2async.cli.running import Signals, run
from m2async.cli.service import Service
from m2async.cli.track import explained, say_trouble
from m2async.client import M2Client
from m2async.errors import M2ServiceException
from m2async.following import OF_ALL, Calls, NoRestartPointError, Tracker, cancel_executions, restart_job
from m2async.ledger import (
    IllegalTransitionError,
    Ledger,
    RowState,
    Run,
    RunView,
    TrackedExecution,
)
from m2async.service import Result

T = TypeVar("T")


class Selection(NamedTuple):
    """Which executions of a run: those of these keys and statuses, or all if none is named."""

    keys: Collection[str] = ()
    statuses: Collection[str] = ()

    async def of(self, view: RunView) -> list[TrackedExecution]:
        """Give them, in the order of the run; raises RowNotFoundError."""
        for key in self.keys:
            await view.row(key)
        return [
            execution
            async for execution in view.all_executions()
            if (not self.keys or execution.key in self.keys)
            and (not self.statuses or execution.status in self.statuses)
        ]


def cancel(run_name: str, selection: Selection, service: Service, url: str | None, rate: float, form: Form) -> None:
    """Cancel the selected executions that have not ended, and list what came of each."""
    _check_rate(rate)

    async def work(ledger: Ledger, client: M2Client) -> list[dict[str, Any]]:
        view = await ledger.run(run_name)
        await _refresh(client, ledger, view)
        chosen = await selection.of(view)
        still_open = sum(not execution.ended for execution in chosen)
        say(f"cancelling {still_open:,} executions of run {run_name}; {len(chosen) - still_open:,} have ended")
        counts = await view.counts()
        if in_doubt := counts[RowState.UNKNOWN] + counts[RowState.INTENT]:
            say(f"{in_doubt:,} jobs may be running, but their execution ids are not known")
        ends: list[dict[str, Any]] = []
        with Waiting("executions cancelled", len(chosen)) as waiting:
            async for end in cancel_executions(client, Calls(rate, say_trouble), view, chosen):
                ends.append(end._asdict())
                waiting.advance()
        return ends

    lines = _with_service(url, service, work)
    emit_list(lines, ("key", "execution_id", "outcome", "reason"), form)
    raise typer.Exit(1 if any(line["outcome"] == "not cancelled" for line in lines) else 0)


def restart(
    run_name: str, keys: Sequence[str], from_step: str | None, service: Service, url: str | None, rate: float
) -> None:
    """Mark what failed, to be restarted when the run goes on; ends the command if nothing did."""
    _check_rate(rate)

    async def work(ledger: Ledger, client: M2Client) -> int:
        await ledger.run(run_name)  # a run that does not exist is not made
        async with await ledger.open_run(run_name) as opened:
            await _refresh(client, ledger, opened)
            chosen = await Selection(keys).of(opened)
            failed = [execution for execution in chosen if execution.judgement.result is Result.FAILURE]
            calls = Calls(rate, say_trouble)
            restarted = 0
            with Waiting("executions looked into", len(failed)) as waiting:
                for execution in failed:
                    restarted += await _restart(client, calls, opened, execution, from_step)
                    waiting.advance()
            return restarted

    if not _with_service(url, service, work):
        fail("no execution was restarted", 1)


async def _restart(
    client: M2Client, calls: Calls, opened: Run, execution: TrackedExecution, from_step: str | None
) -> bool:
    application_id, execution_id, key = execution.application_id, execution.execution_id, execution.key
    secret = (await opened.row(key)).request.auth_secrets_manager_arn
    try:
        steps = await calls(
            lambda: client.list_batch_job_restart_points(application_id, execution_id, auth_secrets_manager_arn=secret)
        )
        job = restart_job(execution_id, steps, from_step, execution.max_rc)
        note = f"restart of {execution_id}: {execution.judgement.reason}"
        await opened.restart(execution.number, execution.attempts, job, note)
    except (NoRestartPointError, IllegalTransitionError) as error:
        say(f"m2async: {key} is not restarted: {error.message}")
        return False
    except M2ServiceException as error:
        if isinstance(error, OF_ALL):
            raise
        say(f"m2async: {key} is not restarted: {error}")
        return False
    say(f"{key}: {job.name} ({execution.judgement.reason})")
    return True


async def _refresh(client: M2Client, ledger: Ledger, view: RunView) -> None:
    """Ask the service which executions have ended."""
    async with Tracker(client, ledger, view, troubled=say_trouble) as tracker:
        with Waiting("asking what has ended"):
            await tracker.refresh()


def _check_rate(rate: float) -> None:
    if not 0 < rate < float("inf"):
        fail(f"--rate must be above 0, not {rate:g}", BAD_INPUT)


def _with_service(url: str | None, service: Service, work: Callable[[Ledger, M2Client], Awaitable[T]]) -> T:
    async def using(_: Signals) -> T:
        async with existing_ledger(url) as ledger, service.client() as client:
            return await work(ledger, client)

    return run(using, explained=explained)
