"""The commands on the service itself: its quota, its applications and jobs, and a local stand-in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from m2async.cli.app import options

commands: typer.Typer = typer.Typer()


@commands.command(
    help="Find the quota of StartBatchJob: its rate and burst, by an open-loop load test.\n\n"
    "By default no job starts: every call names an application that does not exist or, with -a, a job that it does "
    "not define. The rate rises until calls are throttled. Exit code: 0 it ran to its end; 1 some started jobs could "
    "not be cancelled, or lost answers may have started some; 2 bad input, nothing was sent; 3 stopped early; 130 or "
    "143 after SIGINT or SIGTERM.",
    epilog="Example: m2async probe --region eu-central-1 --output json",
)
def probe(
    application: Annotated[
        str | None, typer.Option("-a", "--application", metavar="APP", help="Application to name in the calls.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option("--rate", metavar="R", help="Offer this rate only, in calls a second.")
    ] = None,
    steps: Annotated[
        str | None, typer.Option("--steps", metavar="R1,R2,…", help="Offer these rates, one after the other.")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option("--seconds", metavar="S", help="How long to offer each of these rates. [10]")
    ] = None,
    max_rate: Annotated[float, typer.Option("--max-rate", metavar="R", help="Calls a second at most.")] = 2_000.0,
    max_calls: Annotated[int, typer.Option("--max-calls", metavar="N", min=1, help="Calls at most.")] = 20_000,
    max_seconds: Annotated[
        float, typer.Option("--max-seconds", metavar="S", help="Seconds of sending at most.")
    ] = 60.0,
    start_real_jobs: Annotated[
        bool,
        typer.Option("--start-real-jobs", metavar="", help="Start the named job, and cancel all that was started."),
    ] = False,
    script: Annotated[
        str | None, typer.Option("--script", metavar="NAME", help="Script to start, with --start-real-jobs.")
    ] = None,
    file: Annotated[
        str | None, typer.Option("--file", metavar="NAME", help="File to start, with --start-real-jobs.")
    ] = None,
    ledger: options.LedgerUrl = None,
    endpoint_url: options.EndpointUrl = None,
    region: options.Region = None,
    profile: options.ProfileName = None,
    timeout: options.Timeout = 10.0,
    output: Annotated[Literal["text", "json"], typer.Option("--output", help="How to print what was found.")] = "text",
    report: Annotated[
        Path | None, typer.Option("--report", metavar="FILE", help="Write the findings as a page, too: one HTML file.")
    ] = None,
    log_file: options.LogFile = None,
) -> None:
    """Find the quota."""
    from m2async.cli.probe import FindingsOutput, parse_asking, parse_load
    from m2async.cli.probe import probe as command
    from m2async.cli.service import Service

    command(
        parse_load(rate, steps, seconds, max_rate, max_calls, max_seconds),
        parse_asking(application, script, file, real=start_real_jobs),
        Service(endpoint_url, region, profile, timeout),
        ledger,
        FindingsOutput(output, report, log_file),
    )


@commands.command(
    help="Serve a local endpoint that behaves like the service, until Ctrl-C.\n\n"
    "The first line printed is its URL. Any AWS SDK can use it; access key id and secret must be the same text, such "
    "as local and local. Faults: 500, throttle, drop-before-accept, accept-then-500, accept-then-drop, "
    "accept-then-hang, latency.",
    epilog="Example: m2async local --rate 20 --burst 40 --fault accept-then-drop=0.05",
)
def local(
    port: Annotated[int, typer.Option("--port", min=0, max=65_535, help="Loopback port; 0 for a free one.")] = 0,
    rate: Annotated[
        float | None, typer.Option("--rate", metavar="R", help="StartBatchJob quota, calls a second.")
    ] = None,
    burst: Annotated[
        float | None, typer.Option("--burst", metavar="B", help="Burst of the quota; by default one second of calls.")
    ] = None,
    fault: Annotated[
        list[str] | None,
        typer.Option("--fault", metavar="NAME=SHARE", help="Inject a fault into this share of calls. Repeatable."),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", metavar="N", help="Make faults and ids repeatable.")] = None,
    definitions: Annotated[
        str | None, typer.Option("--definitions", metavar="FILE", help="Applications and jobs (JSON).")
    ] = None,
) -> None:
    """Serve a local endpoint."""
    from m2async.cli import local as command

    command.serve(port=port, rate=rate, burst=burst, faults=fault or [], seed=seed, definitions=definitions)


@commands.command(epilog="Example: m2async apps --region eu-central-1 --output json")
def apps(
    endpoint_url: options.EndpointUrl = None,
    region: options.Region = None,
    profile: options.ProfileName = None,
    timeout: options.Timeout = 60.0,
    output: options.Listing = "table",
) -> None:
    """List the applications: application_id, name, status."""
    from m2async.cli import listings
    from m2async.cli.service import Service

    listings.apps(Service(endpoint_url, region, profile, timeout), output)


@commands.command(epilog="Example: m2async jobs -a ab2cdefghijklmnopqrstuvwxy --prefix CB")
def jobs(
    application: Annotated[
        str | None, typer.Option("-a", "--application", metavar="APP", help="Only this application.")
    ] = None,
    prefix: Annotated[str | None, typer.Option("--prefix", help="Only jobs whose names begin with this.")] = None,
    endpoint_url: options.EndpointUrl = None,
    region: options.Region = None,
    profile: options.ProfileName = None,
    timeout: options.Timeout = 60.0,
    output: options.Listing = "table",
) -> None:
    """List the batch jobs that the applications define: application_id, type, job, folder."""
    from m2async.cli import listings
    from m2async.cli.service import Service

    listings.jobs(Service(endpoint_url, region, profile, timeout), application, prefix, output)
