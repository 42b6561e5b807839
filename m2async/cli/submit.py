"""`m2async submit`: check the whole manifest, start its jobs, print what became of each."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Literal, NamedTuple

import typer
from structlog.typing import FilteringBoundLogger

from m2async.cli.log_file import open_log
from m2async.cli.manifests import Manifest, show_problems
from m2async.cli.outcomes import OutcomeLines
from m2async.cli.output import BAD_INPUT, STOPPED, fail, say
from m2async.cli.progress import Progress
from m2async.cli.running import Signals, run
from m2async.cli.service import Rehearsal, Service
from m2async.errors import CallError, ConfigurationError, CredentialsError, ManifestError, SubmissionStoppedError
from m2async.jobs import StartBatchJob
from m2async.local import DEFAULT_APPLICATION_ID
from m2async.manifest import ManifestRow, ManifestSummary
from m2async.pacing import TokenBucket
from m2async.retry import OnUnknown
from m2async.submitter import Submitter


class What(NamedTuple):
    """The jobs to start: the manifest's, with the options that go over its rows."""

    manifest: str
    application: str | None
    params: dict[str, str]


class Pace(NamedTuple):
    """How fast to start them, and what to do when it is not known whether one was started."""

    rate: float | None
    burst: float | None
    concurrency: int
    on_unknown: OnUnknown


class Show(NamedTuple):
    """What to print and record."""

    output: Literal["table", "jsonl"]
    log_file: str | None
    quiet: bool
    dry_run: bool


def submit(what: What, pace: Pace, service: Service, rehearsal: Rehearsal | None, show: Show) -> None:
    """Check everything before anything is sent; exits with a code of the command's contract."""
    _check(pace, service, rehearsal)
    application = what.application or (DEFAULT_APPLICATION_ID if rehearsal else None)
    with contextlib.ExitStack() as stack:
        manifest = Manifest(stack, what.manifest, application, what.params)
        summary = manifest.check()
        lines = OutcomeLines(show.output, summary)
        if show.dry_run:
            for key, request in manifest.rows():
                lines.request(key, request)
            say(f"{summary.rows:,} jobs would be started; nothing was sent")
            return
        log = stack.enter_context(open_log(show.log_file)) if show.log_file else None
        progress = stack.enter_context(Progress(summary.rows, hidden=show.quiet))
        submission = _Submission(manifest.rows(), summary, lines, progress)
        began = time.monotonic()
        try:
            code = run(lambda signals: submission.run(signals, pace, service, rehearsal, log))
        except ConfigurationError as exc:
            progress.stop()
            fail(str(exc), BAD_INPUT)
        except CredentialsError as exc:
            progress.stop()
            fail(f"no credentials: {exc}", STOPPED)
        finally:
            progress.stop()
            if lines.counts and not show.quiet:
                lines.summary(time.monotonic() - began)
    raise typer.Exit(code)


def _check(pace: Pace, service: Service, rehearsal: Rehearsal | None) -> None:
    """Refuse options that make no sense."""
    if rehearsal and service.endpoint_url:
        fail("--local starts an endpoint of its own: give it without --endpoint-url", BAD_INPUT)
    if service.timeout <= 0:
        fail(f"--timeout must be above 0, not {service.timeout:g}", BAD_INPUT)
    for prefix, rate, burst in (("--", pace.rate, pace.burst), ("--local-", *(rehearsal or (None, None)))):
        if rate is None and burst is not None:
            fail(f"{prefix}burst goes with {prefix}rate, which is not given", BAD_INPUT)
        if rate is not None:
            try:
                TokenBucket(rate, 1 if burst is None else burst)
            except ValueError as exc:
                fail(f"{prefix}{exc}", BAD_INPUT)


class _Submission:
    """One run: rows in, outcomes out, an exit code at its end."""

    def __init__(
        self, rows: Iterator[ManifestRow], summary: ManifestSummary, lines: OutcomeLines, progress: Progress
    ) -> None:
        self._rows = rows
        self._summary = summary
        self._lines = lines
        self._progress = progress
        self._open: dict[str, StartBatchJob] = {}  # rows that were read and have not ended

    async def run(
        self,
        signals: Signals,
        pace: Pace,
        service: Service,
        rehearsal: Rehearsal | None,
        log: FilteringBoundLogger | None,
    ) -> int:
        """Submit every row; SIGINT and SIGTERM end the intake, and leave calls under way their grace."""
        signals.on_second = self._progress.stop
        async with contextlib.AsyncExitStack() as stack:
            settings = await rehearsal.settings(stack, self._summary.applications) if rehearsal else {}
            client = service.client(max_connections=pace.concurrency, **settings)
            submitter = Submitter(await stack.enter_async_context(client), **pace._asdict(), logger=log)
            await stack.enter_async_context(submitter)
            signals.on_first = lambda: self._interrupt(submitter)
            try:
                async for outcome in submitter.submit_many(self._noting()):
                    del self._open[outcome.key]
                    self._lines.outcome(outcome)
                    self._progress.advance(self._lines.counts)
            except SubmissionStoppedError:
                pass  # said below, as it is where the last job was the one that stopped the run
            except ManifestError as exc:  # it was sound when it was checked
                show_problems(exc)
                return STOPPED
            if submitter.stopped_by is not None:
                self._stopped(submitter.stopped_by)
                return STOPPED
        counts = self._lines.counts
        if counts["skipped"]:
            return STOPPED
        return 1 if counts["rejected"] or counts["unknown"] else 0

    def _interrupt(self, submitter: Submitter) -> None:
        say("m2async: interrupted: waiting for the calls under way; once more to leave at once")
        submitter.stop("interrupted")

    def _noting(self) -> Iterator[ManifestRow]:
        for row in self._rows:
            self._open[row.key] = row.request
            yield row

    def _stopped(self, cause: CallError) -> None:
        """Say why, and which jobs were not sent: those read before the stop, and those still to be read."""
        self._progress.stop()
        say(f"m2async: stopped: {cause.code}: {cause.message}")
        for key, request in self._open.items():
            self._lines.not_sent(key, request, cause)
        for key, request in self._rows:
            self._lines.not_sent(key, request, cause)
