"""The options that several commands have."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

ManifestFile = Annotated[str, typer.Argument(help="CSV, JSONL or YAML file of jobs; - for standard input.")]
DefaultApplication = Annotated[
    str | None, typer.Option("-a", "--application", metavar="APP", help="Application of rows that name none.")
]
Params = Annotated[
    list[str] | None,
    typer.Option("--param", metavar="K=V", help="Job parameter for every row, over the row's own. Repeatable."),
]
Region = Annotated[str | None, typer.Option("--region", help="AWS region; by default as for the AWS CLI.")]
ProfileName = Annotated[str | None, typer.Option("--profile", help="AWS profile; by default as for the AWS CLI.")]
EndpointUrl = Annotated[str | None, typer.Option("--endpoint-url", help="Endpoint URL, if not AWS's own.")]
Moved = Annotated[
    bool,
    typer.Option(
        "--moved", metavar="", help="The run goes on at another endpoint, region or account than before, on purpose."
    ),
]
StartAnyway = Annotated[
    bool,
    typer.Option(
        "--start-anyway",
        metavar="",
        help="Start although the service shows executions of these jobs that the ledger does not explain.",
    ),
]
Timeout = Annotated[float, typer.Option("--timeout", metavar="S", help="Seconds to wait for an answer.")]
LedgerUrl = Annotated[
    str | None, typer.Option("--ledger", metavar="URL", help="Ledger file; by default one in your state folder.")
]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="Name of the run: see m2async runs.")]
RowKey = Annotated[str, typer.Option("--key", metavar="K", help="The row's key.")]
OnlyKeys = Annotated[list[str] | None, typer.Option("--key", metavar="K", help="Only this row. Repeatable.")]
CallRate = Annotated[float, typer.Option("--rate", metavar="R", help="Calls a second at most.")]
Rate = Annotated[
    float | None,
    typer.Option("--rate", metavar="R", help="Calls a second at most; by default m2async finds the quota."),
]
Burst = Annotated[
    float | None, typer.Option("--burst", metavar="B", help="Calls that may go out at once; with --rate. [1]")
]
Adaptive = Annotated[
    bool,
    typer.Option("--adaptive", metavar="", help="Find the quota and keep just below it (the default without --rate)."),
]
ApplicationRate = Annotated[
    list[str] | None,
    typer.Option("--application-rate", metavar="APP=R[,B]", help="A further limit for one application. Repeatable."),
]
Concurrency = Annotated[
    int, typer.Option("--concurrency", metavar="N", min=1, max=10_000, help="Calls under way at once, at most.")
]
OnUnknownChoice = Annotated[
    Literal["adopt", "hold", "resend"],
    typer.Option("--on-unknown", help="A job that may have started: look for it, report it, or risk it twice."),
]
Settle = Annotated[
    float, typer.Option("--settle", metavar="S", min=0, help="Seconds until the service lists a new execution.")
]
CertaintyChoice = Annotated[
    str | None,
    typer.Option(
        "--certainty",
        metavar="C",
        help="How many jobs may end unknown: jobs of one name wait for each other after lost answers as far as 0.1% "
        "needs (careful), or another share (1%); one goes at once (exact), or none waits (fast). [careful]",
    ),
]
Exact = Annotated[
    bool, typer.Option("--exact", metavar="", help="One job of a name at once: short for --certainty exact; slower.")
]
Hold = Annotated[
    float,
    typer.Option("--hold", metavar="S", min=0, help="Seconds that jobs wait for an application that does not run."),
]
MaxRetryAfter = Annotated[
    float,
    typer.Option("--max-retry-after", metavar="S", help="Seconds to wait at most where the service says Retry-After."),
]
JobOutput = Annotated[
    Literal["table", "jsonl"], typer.Option("--output", help="How to print each job's outcome on stdout.")
]
MaxRunning = Annotated[
    int | None,
    typer.Option(
        "--max-running", metavar="N", min=1, help="Executions in progress at once in each application, at most."
    ),
]
MaxRc = Annotated[
    list[str] | None,
    typer.Option(
        "--max-rc",
        metavar="[KEY=]N",
        help="Highest return code that is a success, for the run or for one row; kept in the ledger. Repeatable.",
    ),
]
Wait = Annotated[
    bool, typer.Option("--wait", metavar="", help="Follow the jobs until they end, and print each result.")
]
LogFile = Annotated[
    str | None, typer.Option("--log-file", metavar="F", help="Append each event to this file, as a line of JSON.")
]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", metavar="", help="No progress bar and no summary.")]
Listing = Annotated[Literal["table", "json", "jsonl"], typer.Option("--output", help="How to print the list.")]
