"""`m2async submit`: check a whole manifest and put it into the ledger, start its jobs, print what became of each."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Literal, NamedTuple

import typer

from m2async.cli.ledgers import Book, default_ledger
from m2async.cli.log_file import Log, open_log
from m2async.cli.manifests import Manifest
from m2async.cli.outcomes import OutcomeLines
from m2async.cli.output import BAD_INPUT, STOPPED, fail, say
from m2async.cli.progress import Progress
from m2async.cli.running import Signals, run
from m2async.cli.service import Rehearsal, Service
from m2async.errors import (
    ConfigurationError,
    CredentialsError,
    M2AsyncError,
    ManifestError,
    SubmissionStoppedError,
)
from m2async.jobs import StartBatchJob
from m2async.ledger import (
    PAGE,
    DuplicateKeyError,
    Ledger,
    LedgerAddressError,
    LedgerError,
    LedgerRow,
    ManifestChangedError,
    RowState,
    Run,
    RunNotFoundError,
    open_ledger,
)
from m2async.local import DEFAULT_APPLICATION_ID
from m2async.manifest import ManifestRow
from m2async.outcomes import Outcome
from m2async.pacing import TokenBucket
from m2async.recording import outcome_of
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
    settle: float
    exact: bool


class Show(NamedTuple):
    """What to print and record."""

    output: Literal["table", "jsonl"]
    log_file: str | None
    quiet: bool
    dry_run: bool


def submit(what: What, pace: Pace, service: Service, rehearsal: Rehearsal | None, book: Book, show: Show) -> None:
    """Check everything before anything is sent; exits with a code of the command's contract."""
    _check(pace, service, rehearsal)
    application = what.application or (DEFAULT_APPLICATION_ID if rehearsal else None)
    with contextlib.ExitStack() as stack:
        manifest = Manifest(stack, what.manifest, application, what.params)
        if show.dry_run:
            _show_requests(manifest, show)
            return
        applications = manifest.check().applications if rehearsal else ()
        run_name = book.run or manifest.run_name()
        planned = Planned(run_name, manifest.name, manifest.digest, manifest.rows(), applications)
        ledger = book.url or ("memory:" if rehearsal else default_ledger())
        try:
            _go(ledger, planned, pace, service, rehearsal, show)
        except (ManifestError, DuplicateKeyError) as exc:
            manifest.refuse(exc)


def _show_requests(manifest: Manifest, show: Show) -> None:
    summary = manifest.check()
    lines = OutcomeLines(show.output)
    lines.fit(summary.rows, key_width=summary.key_width, job_width=summary.job_width)
    for key, request in manifest.rows():
        lines.request(key, request)
    say(f"{summary.rows:,} jobs would be started; nothing was sent")


def resume(run_name: str, pace: Pace, service: Service, book: Book, show: Show) -> None:
    """Go on with a run from the ledger alone."""
    _check(pace, service, None)
    _go(book.url or default_ledger(), Planned(run_name), pace, service, None, show)


class Planned(NamedTuple):
    """A run, its rows where they come from a manifest, and the applications that a rehearsal needs."""

    name: str
    manifest: str | None = None
    digest: str | None = None
    rows: Iterator[ManifestRow] | None = None
    applications: Sequence[str] = ()


def _go(ledger: str, planned: Planned, pace: Pace, service: Service, rehearsal: Rehearsal | None, show: Show) -> None:
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(open_log(show.log_file)) if show.log_file else None
        progress = stack.enter_context(Progress(hidden=show.quiet))
        submission = _Submission(planned, show, progress)
        try:
            code = run(lambda signals: submission.run(signals, ledger, pace, service, rehearsal, log))
        except (ConfigurationError, ManifestChangedError, LedgerAddressError, RunNotFoundError) as exc:
            progress.stop()
            fail(str(exc), BAD_INPUT)
        except CredentialsError as exc:
            progress.stop()
            fail(f"no credentials: {exc}", STOPPED)
        except DuplicateKeyError:  # the manifest's fault
            raise
        except LedgerError as exc:
            progress.stop()
            fail(str(exc), STOPPED)
        finally:
            progress.stop()
            submission.show_summary()
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
    """One run of the command: rows in, outcomes out, an exit code at its end."""

    def __init__(self, planned: Planned, show: Show, progress: Progress) -> None:
        self._lines = OutcomeLines(show.output)
        self._began = 0.0
        self._planned = planned
        self._show = show
        self._progress = progress
        self._open: dict[str, StartBatchJob] = {}  # rows that were read and have not ended
        self._last_read = 0
        self._now: set[str] = set()  # the keys of this command's own outcomes, where there are earlier ones

    async def run(
        self,
        signals: Signals,
        ledger_url: str,
        pace: Pace,
        service: Service,
        rehearsal: Rehearsal | None,
        log: Log | None,
    ) -> int:
        """Submit every row; SIGINT and SIGTERM end the intake, and leave calls under way their grace."""
        signals.on_second = lambda: self._leave_at_once(log)
        async with contextlib.AsyncExitStack() as stack:
            ledger = await stack.enter_async_context(open_ledger(ledger_url))
            run = await self._open_run(stack, ledger)
            settings = await rehearsal.settings(stack, self._planned.applications) if rehearsal else {}
            client = await stack.enter_async_context(service.client(max_connections=pace.concurrency, **settings))
            await self._fit_lines(run)
            self._began = time.monotonic()
            self._progress.start(run.info.rows)
            before = await self._say_what_was_started_before(run)
            submitter = Submitter(client, ledger=ledger, run=run, **pace._asdict(), logger=log and log.logger)
            await stack.enter_async_context(submitter)
            signals.on_first = lambda: self._interrupt(submitter)
            try:
                async for outcome in submitter.submit_many(self._noting(run.rows(*_NOT_STARTED))):
                    self._open.pop(outcome.key, None)
                    if before:
                        self._now.add(outcome.key)
                    self._show_outcome(outcome)
            except SubmissionStoppedError:
                pass  # said below, as it is where the last job was the one that stopped the run
            if before:
                await self._show_what_was_started_before(run)
            if submitter.stopped_by is not None:
                await self._stopped(submitter.stopped_by, run)
                return STOPPED
        counts = self._lines.counts
        if counts["skipped"]:
            return STOPPED
        return 1 if counts["rejected"] or counts["unknown"] else 0

    def show_summary(self) -> None:
        """Say how the run went, if anything became of any job."""
        if self._lines.counts and not self._show.quiet:
            self._lines.summary(time.monotonic() - self._began)

    async def _open_run(self, stack: contextlib.AsyncExitStack, ledger: Ledger) -> Run:
        planned = self._planned
        if planned.rows is None:
            await ledger.run(planned.name)  # resume makes no run
        run = await ledger.open_run(planned.name, manifest=planned.manifest, digest=planned.digest)
        await stack.enter_async_context(run)
        if planned.rows is not None:
            await self._plan(run, planned.rows)
        return run

    async def _plan(self, run: Run, rows: Iterator[ManifestRow]) -> None:
        """Check the rows while they go into the ledger; not one is read of a run that has them."""
        try:
            with self._progress.checking(rows) as counted:
                await run.plan(counted)
        except asyncio.CancelledError:
            self._progress.stop()
            say("m2async: interrupted before the whole manifest was checked; nothing was sent")
            raise

    async def _fit_lines(self, run: Run) -> None:
        """Make the table fit the first and the last rows: all of a small run, and a million need not be read."""
        rows = [*await run.page(), *await run.page(after=max(PAGE, run.info.rows - PAGE))]
        key_width = max((len(row.key) for row in rows), default=0)
        job_width = max((len(row.request.job.name) for row in rows), default=0)
        self._lines.fit(run.info.rows, key_width=key_width, job_width=job_width)

    async def _say_what_was_started_before(self, run: Run) -> bool:
        """Say how many jobs need no start; the first of the others does not wait for their lines."""
        started = (await run.counts())[RowState.STARTED]
        if started and not self._show.quiet:
            left = run.info.rows - started
            say(
                f"run {run.info.name}: {started:,} jobs were started before, {left:,} are left; "
                "another --run NAME starts them all again"
            )
        return started > 0

    async def _show_what_was_started_before(self, run: Run) -> None:
        async for row in run.rows(RowState.STARTED):
            if row.key not in self._now:
                self._show_outcome(outcome_of(row), before=True)

    def _show_outcome(self, outcome: Outcome, *, before: bool = False) -> None:
        self._lines.outcome(outcome, before=before)
        self._progress.advance(self._lines.counts)

    def _leave_at_once(self, log: Log | None) -> None:
        self._progress.stop()
        if log is not None:
            log.flush()

    def _interrupt(self, submitter: Submitter) -> None:
        say("m2async: interrupted: waiting for the calls under way; once more to leave at once")
        submitter.stop("interrupted")

    async def _noting(self, rows: AsyncIterator[LedgerRow]) -> AsyncIterator[LedgerRow]:
        async for row in rows:
            self._open[row.key] = row.request
            self._last_read = row.number
            yield row

    async def _stopped(self, cause: M2AsyncError, run: Run) -> None:
        """Say why, and which jobs were not sent: those read before the stop, and those still to be read."""
        self._progress.stop()
        say(f"m2async: stopped: {cause.code}: {cause.message}")
        for key, request in self._open.items():
            self._lines.not_sent(key, request, cause)
        async for row in run.rows(*_NOT_STARTED, after=self._last_read):
            self._lines.not_sent(row.key, row.request, cause)


_NOT_STARTED = (RowState.PENDING, RowState.REJECTED, RowState.UNKNOWN)
