"""The commands on a run in the ledger: what became of it, and what to do next."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from m2async.cli.app import options

commands: typer.Typer = typer.Typer()


@commands.command(epilog="Example: m2async runs --output json")
def runs(ledger: options.LedgerUrl = None, output: options.Listing = "table") -> None:
    """List the runs of the ledger, with the number of jobs in each state."""
    from m2async.cli import ledgers

    ledgers.runs(ledger, output)


@commands.command(epilog="Example: m2async status nightly-1a2b3c4d")
def status(run_name: options.RunName, ledger: options.LedgerUrl = None, output: options.Listing = "table") -> None:
    """Show how far a run is, and each job that is rejected or unknown."""
    from m2async.cli import ledgers

    ledgers.status(ledger, run_name, output)


@commands.command(
    help="Show a run while it goes on: throughput, states, throttles, and what is left.\n\n"
    "It only reads the ledger: start it at any time, from any terminal. To a file or a pipe it prints plain lines. "
    "Exit code: 0 the run has ended; 2 there is no such run; 130 after Ctrl-C, which does not stop the run.",
    epilog="Example: m2async watch nightly-1a2b3c4d",
)
def watch(run_name: options.RunName, ledger: options.LedgerUrl = None) -> None:
    """Show a run while it goes on."""
    from m2async.cli.watch import watch as command

    command(ledger, run_name)


@commands.command(
    help="Serve a page with the runs of the ledger, on this machine only, until Ctrl-C.\n\n"
    "The first line printed is its URL, which holds a token. On the page you can set the rate of a run in progress, "
    "pause it, stop it, and cancel executions. Only cancelling needs AWS credentials.",
    epilog="Example: m2async dashboard --port 8200",
)
def dashboard(
    port: Annotated[int, typer.Option("--port", min=0, max=65_535, help="Loopback port; 0 for a free one.")] = 0,
    ledger: options.LedgerUrl = None,
    endpoint_url: options.EndpointUrl = None,
    region: options.Region = None,
    profile: options.ProfileName = None,
    timeout: options.Timeout = 60.0,
) -> None:
    """Serve a page with the runs of the ledger."""
    from m2async.cli.dashboard import dashboard as command
    from m2async.cli.service import Service

    command(ledger, port, Service(endpoint_url, region, profile, timeout))


@commands.command(
    help="Follow the executions of a run until all have ended, and print each result.\n\n"
    "Start it at any time, from any terminal, as often as you like, even while the run is being submitted. "
    "Exit code: 0 every job of the run succeeded; 1 some failed, are unknown or were not started; 2 bad input; "
    "3 stopped early; 130 or 143 after SIGINT or SIGTERM.",
    epilog="Example: m2async track nightly-1a2b3c4d --max-rc 4",
)
def track(
    run_name: options.RunName,
    max_rc: options.MaxRc = None,
    ledger: options.LedgerUrl = None,
    endpoint_url: options.EndpointUrl = None,
    region: options.Region = None,
    profile: options.ProfileName = None,
    timeout: options.Timeout = 60.0,
    moved: options.Moved = False,
    output: options.JobOutput = "table",
    log_file: options.LogFile = None,
    quiet: options.Quiet = False,
) -> None:
    """Follow a run to its end."""
    from m2async.cli.rules import parse_rules
    from m2async.cli.service import Service
    from m2async.cli.track import track as command

    service = Service(endpoint_url, region, profile, timeout, moved)
    command(run_name, service, ledger, parse_rules(max_rc or []), output, log_file, quiet=quiet)


@commands.command(
    help="Cancel the executions of a run that have not ended: all, or those of a key or a status.\n\n"
    "It does not ask for confirmation. Exit code: 0 each was cancelled or had ended; 1 some could not be cancelled; "
    "3 stopped early.",
    epilog="Example: m2async cancel nightly-1a2b3c4d --status Holding",
)
def cancel(
    run_name: options.RunName,
    key: options.OnlyKeys = None,
    status: Annotated[
        list[str] | None, typer.Option("--status", metavar="S", help="Only executions of this status. Repeatable.")
    ] = None,
    rate: options.CallRate = 5.0,
    ledger: options.LedgerUrl = None,
    endpoint_url: options.EndpointUrl = None,
    region: options.Region = None,
    profile: options.ProfileName = None,
    timeout: options.Timeout = 60.0,
    moved: options.Moved = False,
    output: options.Listing = "table",
) -> None:
    """Cancel executions of a run."""
    from m2async.cli.executions import Selection
    from m2async.cli.executions import cancel as command
    from m2async.cli.service import Service

    service = Service(endpoint_url, region, profile, timeout, moved)
    command(run_name, Selection(key or (), status or ()), service, ledger, rate, output)


@commands.command(
    help="Restart the failed executions of a run, each from the step where it failed, and go on with the run.\n\n"
    "A job has failed if m2async track says so. A restart is a new attempt of the same row. Rows that were not "
    "started are started, as with m2async resume.",
    epilog="Example: m2async restart nightly-1a2b3c4d --failed --from-step STEP15 --wait",
)
def restart(
    run_name: options.RunName,
    failed: Annotated[bool, typer.Option("--failed", metavar="", help="Restart what failed; required.")] = False,
    key: options.OnlyKeys = None,
    from_step: Annotated[
        str | None,
        typer.Option("--from-step", metavar="S", help="STEP or STEP.PROCSTEP; by default the first that failed."),
    ] = None,
    rate: options.CallRate = 5.0,
    wait: options.Wait = False,
    ledger: options.LedgerUrl = None,
    settle: options.Settle = 5.0,
    endpoint_url: options.EndpointUrl = None,
    region: options.Region = None,
    profile: options.ProfileName = None,
    timeout: options.Timeout = 60.0,
    moved: options.Moved = False,
    start_anyway: options.StartAnyway = False,
    output: options.JobOutput = "table",
    quiet: options.Quiet = False,
) -> None:
    """Restart the failed executions of a run."""
    from m2async.cli.executions import restart as command
    from m2async.cli.ledgers import Book
    from m2async.cli.output import BAD_INPUT, fail
    from m2async.cli.pace import Pace
    from m2async.cli.service import Service
    from m2async.cli.submit import Awaited, OutcomeOutput
    from m2async.cli.submit import resume as resume_run
    from m2async.cli.track import track as track_run

    if not failed:
        fail("give --failed: only executions that failed are restarted", BAD_INPUT)
    service = Service(endpoint_url, region, profile, timeout, moved)
    if command(run_name, key or (), from_step, service, ledger, rate, start_anyway=start_anyway):
        if wait:
            track_run(run_name, service, ledger, {}, output, None, quiet=quiet)
        return
    pace = Pace(rate, 1.0, False, {}, 64, "adopt", settle, None, 60.0, start_anyway)
    show = OutcomeOutput(output, None, quiet, dry_run=False)
    resume_run(run_name, pace, service, Book(ledger, run_name), show, None, Awaited(ends=wait))


@commands.command(epilog="Example: m2async logs nightly-1a2b3c4d --key POSTTRAN/20261123")
def logs(
    run_name: options.RunName,
    key: options.RowKey,
    ledger: options.LedgerUrl = None,
    endpoint_url: Annotated[
        str | None, typer.Option("--endpoint-url", help="URL of CloudWatch Logs, if not AWS's own.")
    ] = None,
    region: options.Region = None,
    profile: options.ProfileName = None,
) -> None:
    """Print what a job's execution wrote to CloudWatch Logs."""
    from m2async.cli.logs import logs as command
    from m2async.cli.service import Service

    command(ledger, run_name, key, Service(endpoint_url, region, profile, 60.0))


@commands.command(epilog="Example: m2async export nightly-1a2b3c4d --format csv")
def export(
    run_name: options.RunName,
    ledger: options.LedgerUrl = None,
    form: Annotated[Literal["csv", "jsonl"], typer.Option("--format", help="How to print the rows.")] = "csv",
) -> None:
    """Print every row of a run."""
    from m2async.cli import ledgers

    ledgers.export(ledger, run_name, form)


@commands.command(
    help="Write a page that shows a run: one file that needs no network and can be passed on.\n\n"
    "Job parameters are left out, as they may be personal data. A run in progress is shown as it is now.",
    epilog="Example: m2async report nightly-1a2b3c4d -o report.html",
)
def report(
    run_name: options.RunName,
    output: Annotated[
        str | None, typer.Option("-o", "--output", metavar="FILE", help="File to write; - for stdout. [RUN.html]")
    ] = None,
    ledger: options.LedgerUrl = None,
) -> None:
    """Write a page that shows a run."""
    from m2async.cli.report import report as command

    command(ledger, run_name, output)


@commands.command(
    help="Look for the executions of a run's unknown jobs; start nothing.\n\n"
    "With --logs it reads besides what their candidates wrote to CloudWatch Logs, and prints the lines that hold a "
    "parameter value by which the jobs differ. It decides nothing by them: see m2async resolve. Exit code: 0 no job is "
    "unknown any more; 1 some still are, or the logs cannot be read; 2 bad input; 3 stopped early.",
    epilog="Example: m2async reconcile nightly-1a2b3c4d --logs",
)
def reconcile(
    run_name: options.RunName,
    ledger: options.LedgerUrl = None,
    settle: options.Settle = 5.0,
    endpoint_url: options.EndpointUrl = None,
    region: options.Region = None,
    profile: options.ProfileName = None,
    timeout: options.Timeout = 60.0,
    moved: options.Moved = False,
    output: options.Listing = "table",
    logs: Annotated[
        bool, typer.Option("--logs", metavar="", help="Search the candidates' logs for what tells the jobs apart.")
    ] = False,
    logs_endpoint_url: Annotated[
        str | None, typer.Option("--logs-endpoint-url", metavar="U", help="URL of CloudWatch Logs, if not AWS's own.")
    ] = None,
) -> None:
    """Look for the executions of a run's unknown jobs; start nothing."""
    from m2async.cli.output import BAD_INPUT, fail
    from m2async.cli.reconcile import LogsWanted
    from m2async.cli.reconcile import reconcile as command
    from m2async.cli.service import Service

    if logs_endpoint_url is not None and not logs:
        fail("--logs-endpoint-url goes with --logs", BAD_INPUT)
    wanted = LogsWanted(logs_endpoint_url) if logs else None
    command(run_name, Service(endpoint_url, region, profile, timeout, moved), ledger, settle, output, wanted)


@commands.command(
    help="Write down what became of jobs in doubt, once you have found out.\n\n"
    "Of one job with --key, of many from a file, or of all that are in doubt. A later word replaces an earlier one "
    "until the job is sent again. A file is checked as a whole, and then written as a whole. Exit code: 0 it was "
    "written; 2 nothing was.",
    epilog="Example: m2async resolve nightly-1a2b3c4d --key POSTTRAN/20261123 --not-started",
)
def resolve(
    run_name: options.RunName,
    key: Annotated[str | None, typer.Option("--key", metavar="K", help="The row's key.")] = None,
    started: Annotated[
        str | None, typer.Option("--started", metavar="ID", help="It was started, as this execution.")
    ] = None,
    not_started: Annotated[bool, typer.Option("--not-started", metavar="", help="It was not started.")] = False,
    from_file: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="CSV with key and execution_id; empty: it was not started."),
    ] = None,
    all_in_doubt: Annotated[
        bool, typer.Option("--all", metavar="", help="All jobs in doubt; goes with --not-started.")
    ] = False,
    ledger: options.LedgerUrl = None,
) -> None:
    """Write down what became of jobs in doubt."""
    from m2async.cli import resolve as command
    from m2async.cli.output import BAD_INPUT, fail

    if (key is not None) + (from_file is not None) + all_in_doubt != 1:
        fail("give one of --key, --from and --all", BAD_INPUT)
    if key is not None:
        command.resolve(ledger, run_name, key, started, not_started=not_started)
    elif from_file is not None:
        if started is not None or not_started:
            fail("--from says what became of each job: it goes without --started and --not-started", BAD_INPUT)
        command.resolve_from(ledger, run_name, from_file)
    elif started is not None or not not_started:
        fail("--all goes with --not-started only", BAD_INPUT)
    else:
        command.resolve_all_not_started(ledger, run_name)
