"""`m2async cancel` and `m2async restart`: what an operator does to executions of a run, one call after another."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import typer

from m2async.cli.ledgers import existing_ledger, named_group, say_ledger
from m2async.cli.output import BAD_INPUT, Form, emit_list, fail, say
from m2async.cli.progress import Waiting
from m2async.cli.running import Signals, run
from m2async.cli.service import Service
from m2async.cli.track import explained, say_trouble
from m2async.client import M2Client
from m2async.errors import InvalidRequestError, M2ServiceException, ResourceNotFoundException
from m2async.following import (
    OF_ALL,
    NoRestartPointError,
    Tracker,
    cancel_executions,
    observation,
    restart_job,
    seen,
)
from m2async.ledger import (
    IllegalTransitionError,
    Ledger,
    RowDecisions,
    RowEvent,
    RowState,
    RunView,
    TrackedExecution,
    open_for_decisions,
)
from m2async.pacing import Calls
from m2async.service import RestartJob, Result
from m2async.submitting import refuse_restarted

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

    async def work(ledger: Ledger, client: M2Client) -> tuple[list[dict[str, Any]], bool]:
        say_ledger(ledger)
        view = await ledger.run(run_name)
        await service.check_place(view, client)
        await _refresh(client, ledger, view)
        chosen = await selection.of(view)
        chosen, in_groups = await _apart_from_groups(view, selection.keys, chosen)
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
        return ends, in_groups

    lines, left_out = _with_service(url, service, work)
    emit_list(lines, ("key", "execution_id", "outcome", "reason"), form)
    raise typer.Exit(1 if left_out or any(line["outcome"] == "not cancelled" for line in lines) else 0)


def restart(
    run_name: str,
    keys: Sequence[str],
    from_step: str | None,
    service: Service,
    url: str | None,
    rate: float,
    *,
    start_anyway: bool,
) -> bool:
    """Mark what failed, to be restarted when the run goes on; ends the command if nothing did, now or before.

    Gives whether another process has the run open: then that restarts them.
    """
    _check_rate(rate)

    async def work(ledger: Ledger, client: M2Client) -> tuple[bool, bool]:
        async with open_for_decisions(ledger, run_name, to_send=True) as opened:
            await service.check_place(opened.view, client)
            await _refresh(client, ledger, opened.view)
            chosen = await Selection(keys).of(opened.view)
            chosen, _ = await _apart_from_groups(opened.view, keys, chosen)
            failed = [execution for execution in chosen if execution.own_judgement.result is Result.FAILURE]
            if not start_anyway:
                for warning in await refuse_restarted(client, ledger, opened.view, failed):
                    say(f"m2async: {warning}")
            calls = Calls(rate, say_trouble)
            restarted = False
            with Waiting("executions looked into", len(failed)) as waiting:
                for execution in failed:
                    restarted |= await _restart(client, calls, opened, execution, from_step)
                    waiting.advance()
            if opened.held_by is not None:
                return restarted, True
            marked = await _marked_before(opened.view, keys)
            if not restarted and marked:
                jobs = "1 job was" if marked == 1 else f"{marked:,} jobs were"
                say(f"{jobs} marked for restart before and not started: going on with that")
            elif not failed:
                succeeded = sum(execution.judgement.result is Result.SUCCESS for execution in chosen)
                say(f"none failed: {succeeded:,} executions succeeded, {len(chosen) - succeeded:,} have no result yet")
            return restarted or marked > 0, False

    restarted, elsewhere = _with_service(url, service, work)
    if not restarted:
        fail("no execution was restarted", 1)
    if elsewhere:
        say(f"run {run_name} is in progress: the process that submits it restarts them now")
    return elsewhere


async def _apart_from_groups(
    view: RunView, keys: Collection[str], chosen: Sequence[TrackedExecution]
) -> tuple[list[TrackedExecution], bool]:
    """Leave out what is chosen by its key and shares executions with other rows, and say so; tells whether any does."""
    alone = [execution for execution in chosen if not keys or execution.group is None]
    for execution in chosen:
        if keys and execution.group is not None:
            say(f"m2async: {await named_group(view, execution)}: nothing is done to them")
    return alone, len(alone) < len(chosen)


async def _marked_before(view: RunView, keys: Collection[str]) -> int:
    """How many rows were marked by a command that did not come to their restart."""
    marked = 0
    async for row in view.rows(RowState.PENDING, RowState.UNKNOWN, RowState.REJECTED):
        if isinstance(row.request.job, RestartJob) and (not keys or row.key in keys):
            marked += any(entry.event is RowEvent.RESTART for entry in await view.history(row.number))
    return marked


async def _restart(
    client: M2Client, calls: Calls, opened: RowDecisions, execution: TrackedExecution, from_step: str | None
) -> bool:
    application_id, execution_id = execution.application_id, execution.execution_id
    key = execution.key if execution.known_id else f"{execution_id}, one of a group,"
    secret = (await opened.view.row(execution.key)).request.auth_secrets_manager_arn
    try:
        present = await _present(client, calls, opened.view, execution)
        if present is None or present.own_judgement.result is not Result.FAILURE:
            reason = "the service does not know its execution" if present is None else present.own_judgement.reason
            say(f"m2async: {key} is not restarted: {reason}")
            return False
        steps = await calls(
            lambda: client.list_batch_job_restart_points(application_id, execution_id, auth_secrets_manager_arn=secret)
        )
        job = restart_job(execution_id, steps, from_step, execution.max_rc)
        note = f"restart of {execution_id}: {execution.own_judgement.reason}"
        await opened.restart(execution.number, execution.attempts, job, note)
    except (NoRestartPointError, IllegalTransitionError, InvalidRequestError) as error:
        say(f"m2async: {key} is not restarted: {error.message}")
        return False
    except M2ServiceException as error:
        if isinstance(error, OF_ALL):
            raise
        say(f"m2async: {key} is not restarted: {error}")
        return False
    say(f"{key.rstrip(',')}: {job.name} ({execution.own_judgement.reason})")
    return True


async def _present(
    client: M2Client, calls: Calls, view: RunView, execution: TrackedExecution
) -> TrackedExecution | None:
    """Ask the service how an execution that failed stands now, and write it down; None if it does not know it."""
    try:
        now = await calls(lambda: client.get_batch_job_execution(execution.application_id, execution.execution_id))
    except (ResourceNotFoundException, InvalidRequestError):
        return None
    present = seen(execution, now)
    await view.observe([observation(present)])
    return present


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

    return run(using, explained=partial(explained, ledger=url))
