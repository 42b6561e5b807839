"""The commands that submit a run, and those that steer a run in progress."""

from __future__ import annotations

from typing import Annotated

import typer

from m2async.cli.app import options

commands: typer.Typer = typer.Typer()


@commands.command(
    help="Start every job of a manifest, and print what became of each.\n\n"
    "The whole manifest is checked before anything is sent. Exit code: 0 every job was started; 1 some were rejected, "
    "or it is not known whether they started; 2 bad input, nothing was sent; 3 stopped early; 130 or 143 after SIGINT "
    "or SIGTERM.",
    epilog="Example: m2async submit nightly.csv -a ab2cdefghijklmnopqrstuvwxy --rate 20 --burst 40",
)
def submit(
    manifest: options.ManifestFile,
    application: options.DefaultApplication = None,
    param: options.Params = None,
    rate: options.Rate = None,
    burst: options.Burst = None,
    adaptive: options.Adaptive = False,
    application_rate: options.ApplicationRate = None,
    concurrency: options.Concurrency = 64,
    max_running: options.MaxRunning = None,
    wait: options.Wait = False,
    max_rc: options.MaxRc = None,
    ledger: options.LedgerUrl = None,
    run_name: Annotated[
        str | None, typer.Option("--run", metavar="NAME", help="Name of the run; by default made from the manifest.")
    ] = None,
    amend: Annotated[
        bool,
        typer.Option(
            "--amend", metavar="", help="The manifest was corrected: start what is new in its run, and nothing twice."
        ),
    ] = False,
    again: Annotated[
        bool,
        typer.Option("--again", metavar="", help="Start all of a manifest once more, if its last run has finished."),
    ] = False,
    on_unknown: options.OnUnknownChoice = "adopt",
    settle: options.Settle = 5.0,
    certainty: options.CertaintyChoice = None,
    exact: options.Exact = False,
    hold: options.Hold = 60.0,
    max_retry_after: options.MaxRetryAfter = 60.0,
    no_preflight: Annotated[
        bool, typer.Option("--no-preflight", metavar="", help="Skip the check that applications and jobs exist.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", metavar="", help="Print what would be sent, and send nothing.")
    ] = False,
    local: Annotated[
        bool, typer.Option("--local", metavar="", help="Rehearse: start a local endpoint for this run and send to it.")
    ] = False,
    local_rate: Annotated[
        float | None, typer.Option("--local-rate", metavar="R", help="Quota of the local endpoint, calls a second.")
    ] = None,
    local_burst: Annotated[
        float | None,
        typer.Option("--local-burst", metavar="B", help="Burst of that quota; by default one second of calls."),
    ] = None,
    endpoint_url: options.EndpointUrl = None,
    region: options.Region = None,
    profile: options.ProfileName = None,
    timeout: options.Timeout = 60.0,
    moved: options.Moved = False,
    start_anyway: options.StartAnyway = False,
    output: options.JobOutput = "table",
    log_file: options.LogFile = None,
    quiet: options.Quiet = False,
) -> None:
    """Start every job of a manifest."""
    from m2async.cli.manifests import parse_params
    from m2async.cli.opening import Wish
    from m2async.cli.output import BAD_INPUT, fail
    from m2async.cli.pace import Pace, chosen_certainty, parse_rates
    from m2async.cli.rules import parse_rules
    from m2async.cli.service import Rehearsal, Service
    from m2async.cli.submit import Awaited, OutcomeOutput, What
    from m2async.cli.submit import submit as run

    if not local and (local_rate is not None or local_burst is not None):
        fail("--local-rate and --local-burst need --local", BAD_INPUT)
    run(
        What(manifest, application, parse_params(param or []), not no_preflight, Wish(run_name, amend, again)),
        Pace(
            rate,
            burst,
            adaptive,
            parse_rates(application_rate or []),
            concurrency,
            on_unknown,
            settle,
            chosen_certainty(certainty, exact=exact),
            hold,
            start_anyway,
            max_retry_after,
        ),
        Service(endpoint_url, region, profile, timeout, moved),
        Rehearsal(local_rate, local_burst) if local else None,
        ledger,
        OutcomeOutput(output, log_file, quiet, dry_run),
        max_running,
        Awaited(parse_rules(max_rc or []), ends=wait),
    )


@commands.command(
    help="Check a manifest, and that its applications run and define its jobs; start nothing.\n\n"
    "What the service does not list cannot be checked: jobs in S3 buckets, restarts, and scripts of an application "
    "that lists none. Exit code: 0 nothing wrong was found; 2 something is wrong; 3 no credentials.",
    epilog="Example: m2async check nightly.csv -a ab2cdefghijklmnopqrstuvwxy",
)
def check(
    manifest: options.ManifestFile,
    application: options.DefaultApplication = None,
    param: options.Params = None,
    endpoint_url: options.EndpointUrl = None,
    region: options.Region = None,
    profile: options.ProfileName = None,
    timeout: options.Timeout = 60.0,
) -> None:
    """Check a manifest, and what it names."""
    from m2async.cli.check import check as command
    from m2async.cli.manifests import parse_params
    from m2async.cli.service import Service

    command(manifest, application, parse_params(param or []), Service(endpoint_url, region, profile, timeout))


@commands.command(epilog="Example: m2async resume nightly-1a2b3c4d --rate 20")
def resume(
    run_name: options.RunName,
    rate: options.Rate = None,
    burst: options.Burst = None,
    adaptive: options.Adaptive = False,
    application_rate: options.ApplicationRate = None,
    concurrency: options.Concurrency = 64,
    max_running: options.MaxRunning = None,
    wait: options.Wait = False,
    max_rc: options.MaxRc = None,
    ledger: options.LedgerUrl = None,
    on_unknown: options.OnUnknownChoice = "adopt",
    settle: options.Settle = 5.0,
    certainty: options.CertaintyChoice = None,
    exact: options.Exact = False,
    hold: options.Hold = 60.0,
    max_retry_after: options.MaxRetryAfter = 60.0,
    endpoint_url: options.EndpointUrl = None,
    region: options.Region = None,
    profile: options.ProfileName = None,
    timeout: options.Timeout = 60.0,
    moved: options.Moved = False,
    start_anyway: options.StartAnyway = False,
    output: options.JobOutput = "table",
    log_file: options.LogFile = None,
    quiet: options.Quiet = False,
) -> None:
    """Go on with a run from the ledger: start what was not started, and nothing twice."""
    from m2async.cli.ledgers import Book
    from m2async.cli.pace import Pace, chosen_certainty, parse_rates
    from m2async.cli.rules import parse_rules
    from m2async.cli.service import Service
    from m2async.cli.submit import Awaited, OutcomeOutput
    from m2async.cli.submit import resume as run

    run(
        run_name,
        Pace(
            rate,
            burst,
            adaptive,
            parse_rates(application_rate or []),
            concurrency,
            on_unknown,
            settle,
            chosen_certainty(certainty, exact=exact),
            hold,
            start_anyway,
            max_retry_after,
        ),
        Service(endpoint_url, region, profile, timeout, moved),
        Book(ledger, run_name),
        OutcomeOutput(output, log_file, quiet, dry_run=False),
        max_running,
        Awaited(parse_rules(max_rc or []), ends=wait),
    )


@commands.command(epilog="Example: m2async rate nightly-1a2b3c4d 80")
def rate(
    run_name: options.RunName,
    rate: Annotated[float, typer.Argument(metavar="R", help="Calls a second at most.")],
    burst: Annotated[float, typer.Option("--burst", metavar="B", help="Calls that may go out at once.")] = 1.0,
    ledger: options.LedgerUrl = None,
) -> None:
    """Set the rate of a run in progress, from another terminal."""
    from m2async.cli.orders import rate as command

    command(ledger, run_name, rate, burst)


@commands.command(epilog="Example: m2async pause nightly-1a2b3c4d")
def pause(run_name: options.RunName, ledger: options.LedgerUrl = None) -> None:
    """Pause a run, from another terminal: nothing more is sent, now or later, until m2async unpause."""
    from m2async.cli.orders import pause as command

    command(ledger, run_name)


@commands.command(epilog="Example: m2async unpause nightly-1a2b3c4d")
def unpause(run_name: options.RunName, ledger: options.LedgerUrl = None) -> None:
    """Let a run go on that was paused or stopped."""
    from m2async.cli.orders import unpause as command

    command(ledger, run_name)


@commands.command(epilog="Example: m2async stop nightly-1a2b3c4d")
def stop(run_name: options.RunName, ledger: options.LedgerUrl = None) -> None:
    """End the submission of a run, from another terminal: nothing more of it is sent until m2async unpause."""
    from m2async.cli.orders import stop as command

    command(ledger, run_name)
