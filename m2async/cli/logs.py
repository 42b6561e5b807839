"""`m2async logs`: print what a job wrote."""

from __future__ import annotations

import typer

from m2async.cli.ledgers import named_group, with_ledger
from m2async.cli.output import BAD_INPUT, emit, fail, say
from m2async.cli.running import Signals, run
from m2async.cli.service import Service
from m2async.following import JobLogs
from m2async.ledger import Ledger, TrackedExecution


def logs(url: str | None, run_name: str, key: str, service: Service) -> None:
    """Print the log streams of a row's execution; the row's result does not depend on them."""

    async def find(ledger: Ledger) -> tuple[TrackedExecution | None, str]:
        view = await ledger.run(run_name)
        row = await view.row(key)
        found = await view.executions(row.number, row.number)
        group = await named_group(view, found[0]) if found and found[0].group is not None else ""
        return found[0] if found else None, group

    execution, group = with_ledger(url, find)
    if execution is None:
        fail(f"{key} has no execution, as far as is known, so there are no logs to read", BAD_INPUT)
    if group:
        fail(f"{group}, so there are no logs to read", BAD_INPUT)
    result, reason = execution.judgement
    say(f"{key}: {result.value}: {reason}")

    async def work(_: Signals) -> int:
        reader = JobLogs(service.region, profile_name=service.profile, endpoint_url=service.endpoint_url)
        async with reader:
            streams = await reader.streams(execution.application_id, execution.execution_id)
            for stream in streams:
                emit(f"==> {stream.group} {stream.name} <==")
                async for message in reader.messages(stream):
                    emit(message.rstrip("\n"))
            return len(streams)

    count = run(work, explained=lambda exc: f"the logs of {execution.execution_id} cannot be read: {exc}")
    if not count:
        say(f"m2async: there are no logs of {execution.execution_id}, or not yet")
    raise typer.Exit(0 if count else 1)
