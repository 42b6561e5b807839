"""The commands and their options; what they do is in the modules named after them, imported when they run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

app: typer.Typer = typer.Typer(
    name="m2async",
    help="Start AWS Mainframe Modernization batch jobs in bulk.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Region = Annotated[str | None, typer.Option("--region", help="AWS region; by default as for the AWS CLI.")]
ProfileName = Annotated[str | None, typer.Option("--profile", help="AWS profile; by default as for the AWS CLI.")]
EndpointUrl = Annotated[str | None, typer.Option("--endpoint-url", help="URL of another endpoint than AWS's.")]
Timeout = Annotated[float, typer.Option("--timeout", metavar="S", help="Seconds to wait for an answer.")]
LedgerUrl = Annotated[
    str | None, typer.Option("--ledger", metavar="URL", help="Ledger, a file; by default one in your state folder.")
]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="Name of the run: see m2async runs.")]
Rate = Annotated[
    float | None,
    typer.Option("--rate", metavar="R", help="Calls a second at most; by default the quota is looked for."),
]
Burst = Annotated[
    float | None, typer.Option("--burst", metavar="B", help="Calls that may go out at once; with --rate. [1]")
]
Adaptive = Annotated[
    bool,
    typer.Option("--adaptive", metavar="", help="Find the quota and keep just below it; so without --rate."),
]
ApplicationRate = Annotated[
    list[str] | None,
    typer.Option(
        "--application-rate", metavar="APP=R[,B]", help="Rate and burst of one application besides. Repeatable."
    ),
]
Concurrency = Annotated[
    int, typer.Option("--concurrency", metavar="N", min=1, max=10_000, help="Calls under way at once, at most.")
]
OnUnknownChoice = Annotated[
    Literal["adopt", "hold", "resend"],
    typer.Option("--on-unknown", help="A job that may have started: look for it, report it, or risk it twice."),
]
Settle = Annotated[
    float, typer.Option("--settle", metavar="S", min=0, help="Seconds until the service's list shows an execution.")
]
Exact = Annotated[
    bool, typer.Option("--exact", metavar="", help="One unanswered start per job name: no doubt, but slower.")
]
Hold = Annotated[
    float,
    typer.Option("--hold", metavar="S", min=0, help="Seconds that jobs wait for an application that does not run."),
]
JobOutput = Annotated[
    Literal["table", "jsonl"], typer.Option("--output", help="How to print each job's outcome on stdout.")
]
MaxRunning = Annotated[
    int | None,
    typer.Option("--max-running", metavar="N", min=1, help="Executions in progress at once in each application."),
]
MaxRc = Annotated[
    list[str] | None,
    typer.Option(
        "--max-rc",
        metavar="[KEY=]N",
        help="Greatest return code of a success, for the run or for one row; kept in the ledger. Repeatable.",
    ),
]
Wait = Annotated[
    bool, typer.Option("--wait", metavar="", help="Follow the jobs to their ends, and print what each came to.")
]
LogFile = Annotated[
    str | None, typer.Option("--log-file", metavar="F", help="Append one JSON line an event to this file.")
]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", metavar="", help="No progress bar and no summary.")]
Listing = Annotated[Literal["table", "json", "jsonl"], typer.Option("--output", help="How to print the list.")]


@app.command(
    help="Start every job of a manifest, and print what became of each.\n\n"
    "The whole manifest is checked before anything is sent. Exit code: 0 every job was started; 1 some were rejected "
    "or may or may not have been started; 2 bad input, nothing was sent; 3 stopped early; 130 or 143 after SIGINT or "
    "SIGTERM.",
    epilog="Example: m2async submit nightly.csv -a ab2cdefghijklmnopqrstuvwxy --rate 20 --burst 40",
)
def submit(
    manifest: Annotated[str, typer.Argument(help="CSV, JSONL or YAML file of jobs; - for standard input.")],
    application: Annotated[
        str | None, typer.Option("-a", "--application", metavar="APP", help="Application of rows that name none.")
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option("--param", metavar="K=V", help="Job parameter for every row, over the row's own. Repeatable."),
    ] = None,
    rate: Rate = None,
    burst: Burst = None,
    adaptive: Adaptive = False,
    application_rate: ApplicationRate = None,
    concurrency: Concurrency = 64,
    max_running: MaxRunning = None,
    wait: Wait = False,
    max_rc: MaxRc = None,
    ledger: LedgerUrl = None,
    run_name: Annotated[
        str | None, typer.Option("--run", metavar="NAME", help="Run in the ledger; by default the manifest's.")
    ] = None,
    on_unknown: OnUnknownChoice = "adopt",
    settle: Settle = 5.0,
    exact: Exact = False,
    hold: Hold = 60.0,
    no_preflight: Annotated[
        bool, typer.Option("--no-preflight", metavar="", help="Do not look first whether applications and jobs exist.")
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
        float | None, typer.Option("--local-burst", metavar="B", help="Burst of that quota; by default a second's.")
    ] = None,
    endpoint_url: EndpointUrl = None,
    region: Region = None,
    profile: ProfileName = None,
    timeout: Timeout = 60.0,
    output: JobOutput = "table",
    log_file: LogFile = None,
    quiet: Quiet = False,
) -> None:
    """Start every job of a manifest."""
    from m2async.cli.ledgers import Book
    from m2async.cli.manifests import parse_params
    from m2async.cli.output import BAD_INPUT, fail
    from m2async.cli.service import Rehearsal, Service
    from m2async.cli.submit import Awaited, OutcomeOutput, Pace, What, parse_rates
    from m2async.cli.submit import submit as run
    from m2async.cli.track import parse_rules

    if not local and (local_rate is not None or local_burst is not None):
        fail("--local-rate and --local-burst are the quota of --local, which is not given", BAD_INPUT)
    run(
        What(manifest, application, parse_params(param or []), not no_preflight),
        Pace(rate, burst, adaptive, parse_rates(application_rate or []), concurrency, on_unknown, settle, exact, hold),
        Service(endpoint_url, region, profile, timeout),
        Rehearsal(local_rate, local_burst) if local else None,
        Book(ledger, run_name),
        OutcomeOutput(output, log_file, quiet, dry_run),
        max_running,
        Awaited(parse_rules(max_rc or []), ends=wait),
    )


@app.command(
    help="Check a manifest, and whether the applications run and define the jobs that it names; start nothing.\n\n"
    "What the service does not list cannot be checked: jobs in S3 buckets, restarts, and scripts of an application "
    "that lists none. Exit code: 0 nothing wrong was found; 2 something is wrong; 3 no credentials.",
    epilog="Example: m2async check nightly.csv -a ab2cdefghijklmnopqrstuvwxy",
)
def check(
    manifest: Annotated[str, typer.Argument(help="CSV, JSONL or YAML file of jobs; - for standard input.")],
    application: Annotated[
        str | None, typer.Option("-a", "--application", metavar="APP", help="Application of rows that name none.")
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option("--param", metavar="K=V", help="Job parameter for every row, over the row's own. Repeatable."),
    ] = None,
    endpoint_url: EndpointUrl = None,
    region: Region = None,
    profile: ProfileName = None,
    timeout: Timeout = 60.0,
) -> None:
    """Check a manifest, and what it names."""
    from m2async.cli.check import check as command
    from m2async.cli.manifests import parse_params
    from m2async.cli.service import Service

    command(manifest, application, parse_params(param or []), Service(endpoint_url, region, profile, timeout))


@app.command(epilog="Example: m2async resume nightly-1a2b3c4d --rate 20")
def resume(
    run_name: RunName,
    rate: Rate = None,
    burst: Burst = None,
    adaptive: Adaptive = False,
    application_rate: ApplicationRate = None,
    concurrency: Concurrency = 64,
    max_running: MaxRunning = None,
    wait: Wait = False,
    max_rc: MaxRc = None,
    ledger: LedgerUrl = None,
    on_unknown: OnUnknownChoice = "adopt",
    settle: Settle = 5.0,
    exact: Exact = False,
    hold: Hold = 60.0,
    endpoint_url: EndpointUrl = None,
    region: Region = None,
    profile: ProfileName = None,
    timeout: Timeout = 60.0,
    output: JobOutput = "table",
    log_file: LogFile = None,
    quiet: Quiet = False,
) -> None:
    """Go on with a run from the ledger: start what was not started, and nothing twice."""
    from m2async.cli.ledgers import Book
    from m2async.cli.service import Service
    from m2async.cli.submit import Awaited, OutcomeOutput, Pace, parse_rates
    from m2async.cli.submit import resume as run
    from m2async.cli.track import parse_rules

    run(
        run_name,
        Pace(rate, burst, adaptive, parse_rates(application_rate or []), concurrency, on_unknown, settle, exact, hold),
        Service(endpoint_url, region, profile, timeout),
        Book(ledger, run_name),
        OutcomeOutput(output, log_file, quiet, dry_run=False),
        max_running,
        Awaited(parse_rules(max_rc or []), ends=wait),
    )


@app.command(epilog="Example: m2async rate nightly-1a2b3c4d 80")
def rate(
    run_name: RunName,
    rate: Annotated[float, typer.Argument(metavar="R", help="Calls a second at most.")],
    burst: Annotated[float, typer.Option("--burst", metavar="B", help="Calls that may go out at once.")] = 1.0,
    ledger: LedgerUrl = None,
) -> None:
    """Set the rate of a run in progress, from another terminal."""
    from m2async.cli.orders import rate as command

    command(ledger, run_name, rate, burst)


@app.command(epilog="Example: m2async pause nightly-1a2b3c4d")
def pause(run_name: RunName, ledger: LedgerUrl = None) -> None:
    """Let a run in progress send nothing more for now, from another terminal."""
    from m2async.cli.orders import pause as command

    command(ledger, run_name)


@app.command(epilog="Example: m2async unpause nightly-1a2b3c4d")
def unpause(run_name: RunName, ledger: LedgerUrl = None) -> None:
    """Let a paused run go on, from another terminal."""
    from m2async.cli.orders import unpause as command

    command(ledger, run_name)


@app.command(epilog="Example: m2async stop nightly-1a2b3c4d")
def stop(run_name: RunName, ledger: LedgerUrl = None) -> None:
    """End a run in progress, as Ctrl-C does, from another terminal; its executions go on."""
    from m2async.cli.orders import stop as command

    command(ledger, run_name)


@app.command(epilog="Example: m2async runs --output json")
def runs(ledger: LedgerUrl = None, output: Listing = "table") -> None:
    """List the runs of the ledger, with the number of jobs in each state."""
    from m2async.cli import ledgers

    ledgers.runs(ledger, output)


@app.command(epilog="Example: m2async status nightly-1a2b3c4d")
def status(run_name: RunName, ledger: LedgerUrl = None, output: Listing = "table") -> None:
    """Show how far a run is, and each job that is rejected or unknown."""
    from m2async.cli import ledgers

    ledgers.status(ledger, run_name, output)


@app.command(
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


@app.command(
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


@app.command(
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


@app.command(
    help="Cancel the executions of a run that have not ended: all, or those of a key or a status.\n\n"
    "It does not ask. Exit code: 0 each was cancelled or had ended; 1 some could not be; 3 stopped early.",
    epilog="Example: m2async cancel nightly-1a2b3c4d --status Holding",
)
def cancel(
    run_name: RunName,
    key: Annotated[list[str] | None, typer.Option("--key", metavar="K", help="Only this row. Repeatable.")] = None,
    status: Annotated[
        list[str] | None, typer.Option("--status", metavar="S", help="Only executions of this status. Repeatable.")
    ] = None,
    rate: Annotated[float, typer.Option("--rate", metavar="R", help="Calls a second at most.")] = 5.0,
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


@app.command(
    help="Restart the failed executions of a run, each from the step where it failed, and go on with the run.\n\n"
    "What failed is what m2async track says so of. A restart is a new attempt of the same row; rows that were not "
    "started are started, as m2async resume does.",
    epilog="Example: m2async restart nightly-1a2b3c4d --failed --from-step STEP15 --wait",
)
def restart(
    run_name: RunName,
    failed: Annotated[bool, typer.Option("--failed", metavar="", help="Those that failed; has to be given.")] = False,
    key: Annotated[list[str] | None, typer.Option("--key", metavar="K", help="Only this row. Repeatable.")] = None,
    from_step: Annotated[
        str | None,
        typer.Option("--from-step", metavar="S", help="STEP or STEP.PROCSTEP; by default the first that failed."),
    ] = None,
    rate: Annotated[float, typer.Option("--rate", metavar="R", help="Calls a second at most.")] = 5.0,
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


@app.command(epilog="Example: m2async logs nightly-1a2b3c4d --key POSTTRAN/20261123")
def logs(
    run_name: RunName,
    key: Annotated[str, typer.Option("--key", metavar="K", help="The row's key.")],
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


@app.command(epilog="Example: m2async export nightly-1a2b3c4d --format csv")
def export(
    run_name: RunName,
    ledger: LedgerUrl = None,
    form: Annotated[Literal["csv", "jsonl"], typer.Option("--format", help="How to print the rows.")] = "csv",
) -> None:
    """Print every row of a run."""
    from m2async.cli import ledgers

    ledgers.export(ledger, run_name, form)


@app.command(
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


@app.command(epilog="Example: m2async reconcile nightly-1a2b3c4d")
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


@app.command(epilog="Example: m2async resolve nightly-1a2b3c4d --key POSTTRAN/20261123 --not-started")
def resolve(
    run_name: RunName,
    key: Annotated[str, typer.Option("--key", metavar="K", help="The row's key.")],
    started: Annotated[
        str | None, typer.Option("--started", metavar="ID", help="It was started, as this execution.")
    ] = None,
    not_started: Annotated[bool, typer.Option("--not-started", metavar="", help="It was not started.")] = False,
    ledger: LedgerUrl = None,
) -> None:
    """Say what became of an unknown job, where nobody else can tell."""
    from m2async.cli import ledgers

    ledgers.resolve(ledger, run_name, key, started, not_started=not_started)


@app.command(
    help="Find the quota of StartBatchJob: its rate and burst, by an open-loop load test.\n\n"
    "By default nothing can be started: calls name an application that does not exist or, with -a, a job that none "
    "defines. The rate goes up until calls are throttled. Exit code: 0 it ran to its end; 1 some started jobs could "
    "not be cancelled; 2 bad input, nothing was sent; 3 stopped early; 130 or 143 after SIGINT or SIGTERM.",
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
    max_seconds: Annotated[float, typer.Option("--max-seconds", metavar="S", help="Seconds of calls at most.")] = 60.0,
    start_real_jobs: Annotated[
        bool,
        typer.Option("--start-real-jobs", metavar="", help="Start the job that is named, and cancel each start of it."),
    ] = False,
    script: Annotated[
        str | None, typer.Option("--script", metavar="NAME", help="Script to start, with --start-real-jobs.")
    ] = None,
    file: Annotated[
        str | None, typer.Option("--file", metavar="NAME", help="File to start, with --start-real-jobs.")
    ] = None,
    ledger: LedgerUrl = None,
    endpoint_url: EndpointUrl = None,
    region: Region = None,
    profile: ProfileName = None,
    timeout: Timeout = 10.0,
    output: Annotated[Literal["text", "json"], typer.Option("--output", help="How to print what was found.")] = "text",
    report: Annotated[
        Path | None, typer.Option("--report", metavar="FILE", help="Write a page of it as well, in one HTML file.")
    ] = None,
    log_file: LogFile = None,
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


@app.command(
    help="Serve a local endpoint that behaves as the service does, until it is interrupted.\n\n"
    "Prints its URL on the first line. Any AWS SDK can use it, with an access key whose secret is the same text, such "
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
        float | None, typer.Option("--burst", metavar="B", help="Burst of the quota; by default a second's.")
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


@app.command(epilog="Example: m2async apps --region eu-central-1 --output json")
def apps(
    endpoint_url: EndpointUrl = None,
    region: Region = None,
    profile: ProfileName = None,
    timeout: Timeout = 60.0,
    output: Listing = "table",
) -> None:
    """List the applications: application_id, name, status."""
    from m2async.cli import listings
    from m2async.cli.service import Service

    listings.apps(Service(endpoint_url, region, profile, timeout), output)


@app.command(epilog="Example: m2async jobs -a ab2cdefghijklmnopqrstuvwxy --prefix CB")
def jobs(
    application: Annotated[
        str | None, typer.Option("-a", "--application", metavar="APP", help="Only this application.")
    ] = None,
    prefix: Annotated[str | None, typer.Option("--prefix", help="Only jobs whose names begin so.")] = None,
    endpoint_url: EndpointUrl = None,
    region: Region = None,
    profile: ProfileName = None,
    timeout: Timeout = 60.0,
    output: Listing = "table",
) -> None:
    """List the batch jobs that the applications define: application_id, type, job, folder."""
    from m2async.cli import listings
    from m2async.cli.service import Service

    listings.jobs(Service(endpoint_url, region, profile, timeout), application, prefix, output)
