"""The commands on what has become of a run, which go by the ledger."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from m2async.cli.app.options import (
    CallRate,
    EndpointUrl,
    JobOutput,
    LedgerUrl,
    Listing,
    LogFile,
    MaxRc,
    OnlyKeys,
    ProfileName,
    Quiet,
    Region,
    RowKey,
    RunName,
    Settle,
    Timeout,
    Wait,
)

commands = typer.Typer()


@commands.command(epilog="Example: m2async runs --output json")
def runs(ledger: LedgerUrl = None, output: Listing = "table") -> None:
    """List the runs of the ledger, with the number of jobs in each state."""
    from m2async.cli import ledgers

    ledgers.runs(ledger, output)


@commands.command(epilog="Example: m2async status nightly-1a2b3c4d")
def status(run_name: RunName, ledger: LedgerUrl = None, output: Listing = "table") -> None:
    """Show how far a run is, and each job that is rejected or unknown."""
    from m2async.cli import ledgers

    ledgers.status(ledger, run_name, output)


@commands.command(
    help="Show a run as it goes: throughput, states, throttles, what is left, until it has ended.\n\n"
    "It only reads the ledger: start it at any time, from any terminal. Where the output is no terminal it prints "
    "plain lines. Exit code: 0 the run has ended; 2 there is no such run; 130 after Ctrl-C, which the run does not "
    "notice.",
    epilog="Example: m2async watch nightly-1a2b3c4d",
)
def watch(run_name: RunName, ledger: LedgerUrl = None) -> None:
    """Show a run as it goes."""
    from m2async.cli.watch import watch as command

    command(ledger, run_name)


@commands.command(
    help="Serve a page with the runs of the ledger, on this machine alone, until it is interrupted.\n\n"
    "Prints its URL, with a token in it, on the first line. A run in progress can be given another rate there, be "
    "paused and stopped, and executions can be cancelled, for which alone the service is called.",
    epilog="Example: m2async dashboard --port 8200",
)
def dashboard(
    port: Annotated[int, typer.Option("--port", min=0, max=65_535, help="Loopback port; 0 for a free one.")] = 0,
    ledger: LedgerUrl = None,
    endpoint_url: EndpointUrl = None,
    region: Region = None,
    profile: ProfileName = None,
    timeout: Timeout = 60.0,
) -> None:
    """Serve a page with the runs of the ledger."""
    from m2async.cli.dashboard import dashboard as command
    from m2async.cli.service import Service

    command(ledger, port, Service(endpoint_url, region, profile, timeout))


@commands.command(
    help="Follow the executions of a run until all have ended, and print what each came to.\n\n"
    "It may be started at any time, from any terminal, also while the run is being submitted, and as often as you "
    "like. Exit code: 0 every job of the run succeeded; 1 some failed, are unknown or were not started; 2 bad input; "
    "3 stopped early; 130 or 143 after SIGINT or SIGTERM.",
    epilog="Example: m2async track nightly-1a2b3c4d --max-rc 4",
)
def track(
    run_name: RunName,
    max_rc: MaxRc = None,
    ledger: LedgerUrl = None,
    endpoint_url: EndpointUrl = None,
    region: Region = None,
    profile: ProfileName = None,
    timeout: Timeout = 60.0,
    output: JobOutput = "table",
    log_file: LogFile = None,
    quiet: Quiet = False,
) -> None:
    """Follow a run to its end."""
    from m2async.cli.service import Service
    from m2async.cli.track import parse_rules
    from m2async.cli.track import track as command

    service = Service(endpoint_url, region, profile, timeout)
    command(run_name, service, ledger, parse_rules(max_rc or []), output, log_file, quiet=quiet)


@commands.command(
    help="Cancel the executions of a run that have not ended: all, or those of a key or a status.\n\n"
    "It does not ask. Exit code: 0 each was cancelled or had ended; 1 some could not be; 3 stopped early.",
    epilog="Example: m2async cancel nightly-1a2b3c4d --status Holding",
)
def cancel(
    run_name: RunName,
    key: OnlyKeys = None,
    status: Annotated[
        list[str] | None, typer.Option("--status", metavar="S", help="Only executions of this status. Repeatable.")
    ] = None,
    rate: CallRate = 5.0,
    ledger: LedgerUrl = None,
    endpoint_url: EndpointUrl = None,
    region: Region = None,
    profile: ProfileName = None,
    timeout: Timeout = 60.0,
    output: Listing = "table",
) -> None:
    """Cancel executions of a run."""
    from m2async.cli.executions import Selection
    from m2async.cli.executions import cancel as command
    from m2async.cli.service import Service

    service = Service(endpoint_url, region, profile, timeout)
    command(run_name, Selection(key or (), status or ()), service, ledger, rate, output)


@commands.command(
    help="Restart the failed executions of a run, each from the step where it failed, and go on with the run.\n\n"
    "What failed is what m2async track says so of. A restart is a new attempt of the same row; rows that were not "
    "started are started, as m2async resume does.",
    epilog="Example: m2async restart nightly-1a2b3c4d --failed --from-step STEP15 --wait",
)
def restart(
    run_name: RunName,
    failed: Annotated[bool, typer.Option("--failed", metavar="", help="Those that failed; has to be given.")] = False,
    key: OnlyKeys = None,
    from_step: Annotated[
        str | None,
        typer.Option("--from-step", metavar="S", help="STEP or STEP.PROCSTEP; by default the first that failed."),
    ] = None,
    rate: CallRate = 5.0,
    wait: Wait = False,
    ledger: LedgerUrl = None,
    settle: Settle = 5.0,
    endpoint_url: EndpointUrl = None,
    region: Region = None,
    profile: ProfileName = None,
    timeout: Timeout = 60.0,
    output: JobOutput = "table",
    quiet: Quiet = False,
) -> None:
    """Restart the failed executions of a run."""
    from m2async.cli.executions import restart as command
    from m2async.cli.ledgers import Book
    from m2async.cli.output import BAD_INPUT, fail
    from m2async.cli.service import Service
    from m2async.cli.submit import Awaited, OutcomeOutput, Pace
    from m2async.cli.submit import resume as resume_run

    if not failed:
        fail("give --failed: only executions that failed are restarted", BAD_INPUT)
    service = Service(endpoint_url, region, profile, timeout)
    command(run_name, key or (), from_step, service, ledger, rate)
    pace = Pace(rate, 1.0, False, {}, 64, "adopt", settle, False, 60.0)
    show = OutcomeOutput(output, None, quiet, dry_run=False)
    resume_run(run_name, pace, service, Book(ledger, run_name), show, None, Awaited(ends=wait))


@commands.command(epilog="Example: m2async logs nightly-1a2b3c4d --key POSTTRAN/20261123")
def logs(
    run_name: RunName,
    key: RowKey,
    ledger: LedgerUrl = None,
    endpoint_url: Annotated[
        str | None, typer.Option("--endpoint-url", help="URL of CloudWatch Logs, if another than AWS's.")
    ] = None,
    region: Region = None,
    profile: ProfileName = None,
) -> None:
    """Print what a job's execution wrote to CloudWatch Logs."""
    from m2async.cli.logs import logs as command
    from m2async.cli.service import Service

    command(ledger, run_name, key, Service(endpoint_url, region, profile, 60.0))


@commands.command(epilog="Example: m2async export nightly-1a2b3c4d --format csv")
def export(
    run_name: RunName,
    ledger: LedgerUrl = None,
    form: Annotated[Literal["csv", "jsonl"], typer.Option("--format", help="How to print the rows.")] = "csv",
) -> None:
    """Print every row of a run."""
    from m2async.cli import ledgers

    ledgers.export(ledger, run_name, form)


@commands.command(
    help="Write a page that shows a run: one file, which needs no network and can be passed on.\n\n"
    "It has no job parameters, as they may be personal data. A run in progress is shown as it is.",
    epilog="Example: m2async report nightly-1a2b3c4d -o report.html",
)
def report(
    run_name: RunName,
    output: Annotated[
        str | None, typer.Option("-o", "--output", metavar="FILE", help="Where to; - for stdout. [RUN.html]")
    ] = None,
    ledger: LedgerUrl = None,
) -> None:
    """Write a page that shows a run."""
    from m2async.cli.report import report as command

    command(ledger, run_name, output)


@commands.command(epilog="Example: m2async reconcile nightly-1a2b3c4d")
def reconcile(
    run_name: RunName,
    ledger: LedgerUrl = None,
    settle: Settle = 5.0,
    endpoint_url: EndpointUrl = None,
    region: Region = None,
    profile: ProfileName = None,
    timeout: Timeout = 60.0,
    output: Listing = "table",
) -> None:
    """Look for the executions of a run's unknown jobs; nothing is sent."""
    from m2async.cli.reconcile import reconcile as command
    from m2async.cli.service import Service

    command(run_name, Service(endpoint_url, region, profile, timeout), ledger, settle, output)


@commands.command(epilog="Example: m2async resolve nightly-1a2b3c4d --key POSTTRAN/20261123 --not-started")
def resolve(
    run_name: RunName,
    key: RowKey,
    started: Annotated[
        str | None, typer.Option("--started", metavar="ID", help="It was started, as this execution.")
    ] = None,
    not_started: Annotated[bool, typer.Option("--not-started", metavar="", help="It was not started.")] = False,
    ledger: LedgerUrl = None,
) -> None:
    """Say what became of an unknown job, where nobody else can tell."""
    from m2async.cli import ledgers

    ledgers.resolve(ledger, run_name, key, started, not_started=not_started)
