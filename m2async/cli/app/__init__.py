"""The commands and their options. What a command does is in a module of its name, imported when it runs."""

from __future__ import annotations

import logging

import typer

from m2async.cli.app import runs, service, submission
from m2async.cli.output import Saying

app: typer.Typer = typer.Typer(
    name="m2async",
    help="Start AWS Mainframe Modernization batch jobs in bulk.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(submission.commands)
app.add_typer(runs.commands)
app.add_typer(service.commands)
logging.getLogger("m2async.ledger").addHandler(Saying())
