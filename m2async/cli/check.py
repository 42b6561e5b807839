"""`m2async check`: a manifest, and whether its applications run and define its jobs."""

from __future__ import annotations

import contextlib

import typer

from m2async.cli.manifests import Manifest, show_problems
from m2async.cli.output import BAD_INPUT, say
from m2async.cli.progress import Waiting
from m2async.cli.running import Signals, run
from m2async.cli.service import Service
from m2async.submitting import NamedJobs, Report, preflight
from m2async.texts import plural


def check(path: str, application: str | None, params: dict[str, str], service: Service) -> None:
    """Check everything that can be checked without starting a job; exits with 2 if anything is wrong."""
    with contextlib.ExitStack() as stack:
        manifest = Manifest(stack, path, application, params)
        summary = manifest.check()
        wanted = NamedJobs()
        with manifest.unchanged(), manifest.rows({}) as rows:
            for _ in wanted.watch(rows):
                pass
        report = _look_up(service, wanted)
        for line in (*report.warnings, *report.notes):
            say(f"m2async: {line}")
        if report.findings:
            show_problems(manifest.error(report.findings))
            raise typer.Exit(BAD_INPUT)
    jobs, applications = plural(summary.rows, "job"), plural(len(summary.applications), "application")
    say(f"{jobs} of {applications}: nothing wrong was found")


def _look_up(service: Service, wanted: NamedJobs) -> Report:
    async def look(_: Signals) -> Report:
        async with service.client() as client:
            with Waiting("looking up the applications"):
                return await preflight(client, wanted)

    return run(look)
