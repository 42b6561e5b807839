"""`m2async submit`: check a whole manifest and put it into the ledger, start its jobs, print what became of each."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Literal, NamedTuple

import anyio
import typer
from anyio.abc import TaskGroup

from m2async.certainty import OnUnknown
from m2async.cli.following import Following
from m2async.cli.ledgers import Book, default_ledger, existing_ledger
from m2async.cli.log_file import Log, open_log
from m2async.cli.manifests import Manifest, show_problems
from m2async.cli.orders import LOOK_EVERY, follow_orders
from m2async.cli.outcomes import OutcomeLines
from m2async.cli.output import BAD_INPUT, STOPPED, fail, say
from m2async.cli.progress import Progress
from m2async.cli.running import Signals, run
from m2async.cli.service import Rehearsal, Service
from m2async.cli.track import EndLines, write_rules
from m2async.client import M2Client
from m2async.errors import (
    InvalidRequestError,
    M2AsyncError,
    ManifestError,
    NotSentError,
    SubmissionStoppedError,
)
from m2async.ledger import (
    PAGE,
    DuplicateKeyError,
    Ledger,
    LedgerRow,
    ManifestChangedError,
    RowState,
    Run,
    open_ledger,
)
from m2async.local import DEFAULT_APPLICATION_ID
from m2async.pacing import RetryPolicy, TokenBucket
from m2async.service import StartBatchJob, check_identifier
from m2async.submitting import Dispatch, NamedJobs, Outcome, Started, Submitter, outcome_of, preflight


class What(NamedTuple):
    """The jobs to start: the manifest's, with the options over its rows; `preflight` looks them up first."""

    manifest: str
    application: str | None
    params: dict[str, str]
    preflight: bool


class Awaited(NamedTuple):
    """The rules by which jobs are judged, by key, and whether to wait for their ends."""

    rules: Mapping[str | None, int] = {}
    ends: bool = False


class Pace(NamedTuple):
    """How fast to start them, and what to do when it is not known whether one was started."""

    rate: float | None
    burst: float | None
    adaptive: bool
    application_buckets: dict[str, TokenBucket]
    concurrency: int
    on_unknown: OnUnknown
    settle: float
    exact: bool
    hold: float


class OutcomeOutput(NamedTuple):
    """What to print and record."""

    output: Literal["table", "jsonl"]
    log_file: str | None
    quiet: bool
    dry_run: bool


def submit(
    what: What,
    pace: Pace,
    service: Service,
    rehearsal: Rehearsal | None,
    book: Book,
    show: OutcomeOutput,
    max_running: int | None,
    awaited: Awaited,
) -> None:
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
        planned = Planned(run_name, manifest, what.preflight, applications, max_running, awaited)
        ledger = open_ledger(book.url or ("memory:" if rehearsal else default_ledger()))
        try:
            _go(ledger, planned, pace, service, rehearsal, show)
        except (ManifestError, DuplicateKeyError) as exc:
            manifest.refuse(exc)


def _show_requests(manifest: Manifest, show: OutcomeOutput) -> None:
    summary = manifest.check()
    lines = OutcomeLines(show.output)
    lines.fit(summary.rows, key_width=summary.key_width, job_width=summary.job_width)
    after: dict[str, Sequence[str]] = {}
    with manifest.rows(after) as rows:
        for key, request in rows:
            lines.request(key, request, after.get(key, ()))
    say(f"{summary.rows:,} jobs would be started; nothing was sent")


def resume(
    run_name: str,
    pace: Pace,
    service: Service,
    book: Book,
    show: OutcomeOutput,
    max_running: int | None,
    awaited: Awaited,
) -> None:
    """Go on with a run from the ledger alone."""
    _check(pace, service, None)
    planned = Planned(run_name, max_running=max_running, awaited=awaited)
    _go(existing_ledger(book.url), planned, pace, service, None, show)


class Planned(NamedTuple):
    """A run, the manifest that its rows come from if any does, and the applications that a rehearsal needs.

    `max_running` is how many executions of an application may be in progress at once.
    """

    name: str
    manifest: Manifest | None = None
    preflight: bool = False
    applications: Sequence[str] = ()
    max_running: int | None = None
    awaited: Awaited = Awaited()


def _go(
    ledger: AbstractAsyncContextManager[Ledger],
    planned: Planned,
    pace: Pace,
    service: Service,
    rehearsal: Rehearsal | None,
    show: OutcomeOutput,
) -> None:
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(open_log(show.log_file)) if show.log_file else None
        progress = stack.enter_context(Progress(hidden=show.quiet))
        command = _SubmitCommand(planned, show, progress)

        async def work(signals: Signals) -> int:
            try:
                return await command.run(signals, ledger, pace, service, rehearsal, log)
            finally:
                progress.stop()

        try:
            code = run(work, bad_input=(ManifestChangedError,))
        finally:
            command.show_summary()
    raise typer.Exit(code)


def parse_rates(texts: Sequence[str]) -> dict[str, TokenBucket]:
    """Read `--application-rate APP=R,B` options."""
    buckets: dict[str, TokenBucket] = {}
    for text in texts:
        application, _, figures = text.partition("=")
        rate, _, burst = figures.partition(",")
        try:
            check_identifier("application", application)
            buckets[application] = TokenBucket(float(rate), float(burst or 1))
        except (ValueError, InvalidRequestError) as exc:
            fail(f"--application-rate {text}: must be APP=RATE or APP=RATE,BURST: {exc}", BAD_INPUT)
    return buckets


def _check(pace: Pace, service: Service, rehearsal: Rehearsal | None) -> None:
    """Refuse options that make no sense."""
    if rehearsal and service.endpoint_url:
        fail("give --local or --endpoint-url, not both", BAD_INPUT)
    if service.timeout <= 0:
        fail(f"--timeout must be above 0, not {service.timeout:g}", BAD_INPUT)
    if pace.adaptive and pace.rate is not None:
        fail("give --adaptive or --rate, not both", BAD_INPUT)
    for prefix, rate, burst in (("--", pace.rate, pace.burst), ("--local-", *(rehearsal or (None, None)))):
        if rate is None and burst is not None:
            fail(f"{prefix}burst needs {prefix}rate", BAD_INPUT)
        if rate is not None:
            try:
                TokenBucket(rate, 1 if burst is None else burst)
            except ValueError as exc:
                fail(f"{prefix}{exc}", BAD_INPUT)


class _LazyClient:
    """The client of a submission, opened when it is first needed."""

    def __init__(
        self,
        stack: contextlib.AsyncExitStack,
        service: Service,
        rehearsal: Rehearsal | None,
        applications: Sequence[str],
        connections: int,
    ) -> None:
        self._stack = stack
        self._service = service
        self._rehearsal = rehearsal
        self._applications = applications
        self._connections = connections
        self._client: M2Client | None = None

    async def client(self) -> M2Client:
        """Give the client, with its endpoint started if that is a rehearsal's."""
        if self._client is None:
            settings = await self._rehearsal.settings(self._stack, self._applications) if self._rehearsal else {}
            client = self._service.client(max_connections=self._connections, **settings)
            self._client = await self._stack.enter_async_context(client)
        return self._client


class _SubmitCommand:
    """One run of the command: rows in, outcomes out, an exit code at its end."""

    def __init__(self, planned: Planned, show: OutcomeOutput, progress: Progress) -> None:
        self._lines = OutcomeLines(show.output)
        self._began = 0.0
        self._found_rate: float | None = None
        self._planned = planned
        self._show = show
        self._progress = progress
        self._open: dict[str, StartBatchJob] = {}  # rows that were read and have not ended
        self._last_read = 0
        self._held = 0
        self._not_started: set[str] = set()  # rows that have ended without a start, where some rows wait for others
        self._now: set[str] = set()  # the keys of this command's own outcomes, where there are earlier ones

    async def run(
        self,
        signals: Signals,
        opened: AbstractAsyncContextManager[Ledger],
        pace: Pace,
        service: Service,
        rehearsal: Rehearsal | None,
        log: Log | None,
    ) -> int:
        """Submit every row. SIGINT and SIGTERM end the intake; calls under way may still be answered."""
        signals.on_second = lambda: self._leave_at_once(log)
        async with contextlib.AsyncExitStack() as stack:
            ledger = await stack.enter_async_context(opened)
            connection = _LazyClient(stack, service, rehearsal, self._planned.applications, pace.concurrency)
            run = await self._open_run(stack, ledger, connection)
            await write_rules(run, self._planned.awaited.rules)
            client = await connection.client()
            await self._fit_lines(run)
            self._began = time.monotonic()
            self._progress.start(run.info.rows)
            before = await self._say_what_was_started_before(run)
            settings = {**pace._asdict(), "adaptive": pace.rate is None, "retry": RetryPolicy(hold=pace.hold)}
            del settings["hold"]
            submitter = Submitter(client, ledger=ledger, run=run, **settings, logger=log and log.logger)
            await stack.enter_async_context(submitter)
            beside = await stack.enter_async_context(anyio.create_task_group())
            stack.callback(beside.cancel_scope.cancel)
            beside.start_soon(self._say_what_is_held, submitter)
            following = await self._follow(client, ledger, run, submitter, beside, log)
            beside.start_soon(follow_orders, run, submitter, partial(self._interrupt, submitter, following))
            once_more = "; once more to leave at once"
            signals.on_first = lambda: self._interrupt(submitter, following, "interrupted", once_more)
            rows = run.rows(*_NOT_STARTED) if following is None else following.dispatch.rows()
            try:
                async for outcome in submitter.submit_many(self._noting(rows, in_turn=following is None)):
                    self._open.pop(outcome.key, None)
                    if before:
                        self._now.add(outcome.key)
                    if following is not None:
                        self._not_started |= {outcome.key} if not isinstance(outcome, Started) else set()
                        following.dispatch.ended(outcome)
                    self._show_outcome(outcome)
                if following is not None:
                    await self._show_what_is_held(run, following.dispatch)
                    await following.to_the_end()
            except SubmissionStoppedError:
                pass  # said below, for a run that its last job stopped, too
            self._found_rate = submitter.found_rate
            if before:
                await self._show_what_was_started_before(run)
            if submitter.stopped_by is not None:
                await self._stopped(submitter.stopped_by, run)
                return STOPPED
        counts = self._lines.counts
        if counts["skipped"] > self._held:
            return STOPPED
        failures = following.failures if following is not None else 0
        return 1 if counts["rejected"] or counts["unknown"] or self._held or failures else 0

    def show_summary(self) -> None:
        """Say how the run went, unless no job got anywhere."""
        if self._lines.counts and not self._show.quiet:
            self._lines.summary(time.monotonic() - self._began)
            if self._found_rate is not None:
                say(f"The service throttled calls: its quota is about {self._found_rate:,.3g} a second.")

    async def _open_run(self, stack: contextlib.AsyncExitStack, ledger: Ledger, connection: _LazyClient) -> Run:
        name, manifest, *_ = self._planned
        if manifest is None:
            await ledger.run(name)  # resume makes no run
            return await stack.enter_async_context(await ledger.open_run(name))
        run = await ledger.open_run(name, manifest=manifest.name, digest=manifest.digest)
        await stack.enter_async_context(run)
        await self._plan(run, manifest, connection)
        return run

    async def _plan(self, run: Run, manifest: Manifest, connection: _LazyClient) -> None:
        """Check the rows, write them into the ledger and look up what they name, unless the run has them already."""
        after: dict[str, Sequence[str]] = {}
        wanted = NamedJobs()

        async def look_up() -> None:
            report = await preflight(await connection.client(), wanted)
            for warning in report.warnings:
                say(f"m2async: {warning}")
            if report.findings:
                self._progress.stop()
                show_problems(manifest.error(report.findings))
                raise typer.Exit(BAD_INPUT)

        try:
            with (
                manifest.rows(after) as rows,
                self._progress.checking(wanted.watch(rows) if self._planned.preflight else rows) as counted,
            ):
                await run.plan(counted, after=after, check=look_up if self._planned.preflight else None)
        except asyncio.CancelledError:
            self._progress.stop()
            say("m2async: interrupted before the whole manifest was checked; nothing was sent")
            raise

    async def _fit_lines(self, run: Run) -> None:
        """Make the table fit the first and the last rows, so that a million need not be read."""
        rows = [*await run.page(), *await run.page(after=max(PAGE, run.info.rows - PAGE))]
        key_width = max((len(row.key) for row in rows), default=0)
        job_width = max((len(row.request.job.name) for row in rows), default=0)
        self._lines.fit(run.info.rows, key_width=key_width, job_width=job_width)

    async def _say_what_was_started_before(self, run: Run) -> bool:
        """Say how many jobs need no start; their lines come last, so that the others do not wait for them."""
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

    async def _follow(
        self, client: M2Client, ledger: Ledger, run: Run, submitter: Submitter, beside: TaskGroup, log: Log | None
    ) -> Following | None:
        """Track the run beside its submission, if its rows come after others or only so many may be in progress."""
        after, max_running = await run.dependencies(), self._planned.max_running
        awaited = self._planned.awaited.ends
        if not (after or awaited) and max_running is None:
            return None
        dispatch = await Dispatch.open(run, after, max_running=max_running)
        lines = EndLines(self._show.output) if awaited else None
        logger = log and log.logger
        following = Following(client, ledger, run, dispatch, stop=submitter.stop, lines=lines, logger=logger)
        beside.start_soon(following.run)
        return following

    async def _show_what_is_held(self, run: Run, dispatch: Dispatch) -> None:
        async for row in run.rows(*_NOT_STARTED):
            if row.key not in self._not_started:
                self._held += 1
                self._lines.held(row, dispatch.held(row))
                self._progress.advance(self._lines.counts)

    def _show_outcome(self, outcome: Outcome, *, before: bool = False) -> None:
        self._lines.outcome(outcome, before=before)
        self._progress.advance(self._lines.counts)

    def _leave_at_once(self, log: Log | None) -> None:
        self._progress.stop()
        if log is not None:
            log.flush()

    async def _say_what_is_held(self, submitter: Submitter) -> None:
        """Say when the jobs of an application wait because it does not run."""
        said: set[str] = set()
        while True:
            await anyio.sleep(LOOK_EVERY)
            held = submitter.held
            for application in held.keys() - said:
                error, _ = held[application]
                say(f"m2async: the jobs of application {application} wait for it to run: {error.message}")
            said = set(held)

    def _interrupt(self, submitter: Submitter, following: Following | None, reason: str, hint: str = "") -> None:
        if following is not None:
            following.leave()
        say(f"m2async: {reason}: waiting for the calls under way{hint}")
        submitter.stop(reason)

    async def _noting(self, rows: AsyncGenerator[LedgerRow, None], *, in_turn: bool) -> AsyncIterator[LedgerRow]:
        async with contextlib.aclosing(rows):
            async for row in rows:
                self._open[row.key] = row.request
                if in_turn:
                    self._last_read = row.number
                yield row

    async def _stopped(self, cause: M2AsyncError, run: Run) -> None:
        """Say why, and which jobs were not sent: those read before the stop, and those still to be read."""
        self._progress.stop()
        # What was not sent has no code of the service's, and its message says all.
        code = "" if isinstance(cause, NotSentError) else f"{cause.code}: "
        say(f"m2async: stopped: {code}{cause.message}")
        for key, request in self._open.items():
            self._lines.not_sent(key, request, cause)
        async for row in run.rows(*_NOT_STARTED, after=self._last_read):
            if row.key not in self._not_started and row.key not in self._open:
                self._lines.not_sent(row.key, row.request, cause)


_NOT_STARTED = (RowState.PENDING, RowState.REJECTED, RowState.UNKNOWN)
