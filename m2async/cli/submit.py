"""`m2async submit`: check a whole manifest and put it into the ledger, start its jobs, print what became of each."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Literal, NamedTuple

import anyio
import typer
from anyio.abc import TaskGroup

from m2async.cli.fault import tell_fault
from m2async.cli.following import Following
from m2async.cli.hindrances import Hindrances
from m2async.cli.hints import advised, hint, start_anew_hint
from m2async.cli.lazy_client import LazyClient
from m2async.cli.ledgers import (
    Book,
    existing_ledger,
    ledger_address,
    say_foreign,
    say_ledger,
    say_refused,
)
from m2async.cli.log_file import Log, open_log
from m2async.cli.manifests import Manifest, show_problems
from m2async.cli.opening import Readers, Wish, open_run
from m2async.cli.outcomes import OutcomeLines
from m2async.cli.output import BAD_INPUT, STOPPED, fail, say
from m2async.cli.pace import Pace, check_rate
from m2async.cli.progress import Progress
from m2async.cli.rules import RuledRows, write_rules
from m2async.cli.running import Signals, run
from m2async.cli.service import Rehearsal, Service
from m2async.cli.told_rows import ToldRows
from m2async.cli.track import EndLines
from m2async.client import M2Client
from m2async.errors import (
    M2AsyncError,
    NotSentError,
    SubmissionStoppedError,
    UnexpectedError,
)
from m2async.ledger import (
    PAGE,
    ForeignExecution,
    IllegalTransitionError,
    Ledger,
    LedgerError,
    ManifestChangedError,
    RowState,
    Run,
    open_ledger,
)
from m2async.local import DEFAULT_APPLICATION_ID
from m2async.submitting import (
    Dispatch,
    NamedJobs,
    Steering,
    Submitter,
    preflight,
)
from m2async.texts import moment, plural


class What(NamedTuple):
    """The jobs to start: the manifest's, with the options over its rows; `preflight` looks them up first.

    `wish` says which run they are.
    """

    manifest: str
    application: str | None
    params: dict[str, str]
    preflight: bool
    wish: Wish = Wish()


class Awaited(NamedTuple):
    """The rules by which jobs are judged, by key, and whether to wait for their ends."""

    rules: Mapping[str | None, int] = {}
    ends: bool = False


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
    ledger_url: str | None,
    show: OutcomeOutput,
    max_running: int | None,
    awaited: Awaited,
) -> None:
    """Check everything before anything is sent; exits with a code of the command's contract."""
    _check(pace, service, rehearsal)
    if what.wish.name is not None and what.wish.again:
        fail("give --run or --again, not both: a run of another name starts all rows anew", BAD_INPUT)
    if what.wish.amend and what.wish.again:
        fail("give --amend or --again, not both: one starts what is new, the other all rows anew", BAD_INPUT)
    application = what.application or (DEFAULT_APPLICATION_ID if rehearsal else None)
    with contextlib.ExitStack() as stack:
        manifest = Manifest(stack, what.manifest, application, what.params)
        if show.dry_run:
            _show_requests(manifest, show)
            return
        applications = manifest.check().applications if rehearsal else ()
        manifest.run_name()  # which reads it whole, before a ledger is made
        anew = start_anew_hint(
            what.manifest,
            what.application,
            what.params,
            named=what.wish.name is not None,
            rehearsal=rehearsal is not None,
            ledger=ledger_url,
            service=service,
        )
        wish = what.wish._replace(names_rows=bool(awaited.rules.keys() - {None}))
        planned = Planned("", manifest, wish, what.preflight, applications, max_running, awaited, anew)
        ledger = open_ledger("memory:" if rehearsal and ledger_url is None else ledger_address(ledger_url))
        with manifest.unchanged():
            _go(ledger, ledger_url, planned, pace, service, rehearsal, show)


def _show_requests(manifest: Manifest, show: OutcomeOutput) -> None:
    summary = manifest.check()
    lines = OutcomeLines(show.output)
    lines.fit(summary.rows, key_width=summary.key_width, job_width=summary.job_width)
    after: dict[str, Sequence[str]] = {}
    with manifest.unchanged(), manifest.rows(after) as rows:
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
    _go(existing_ledger(book.url), book.url, planned, pace, service, None, show)


class Planned(NamedTuple):
    """A run, the manifest that its rows come from if any does, and the applications that a rehearsal needs.

    `name` is that of a run to resume, `wish` what is said of a manifest's run. `max_running` is how many executions of
    an application may be in progress at once; `anew` is the command that starts all rows of the manifest once more.
    """

    name: str = ""
    manifest: Manifest | None = None
    wish: Wish = Wish()
    preflight: bool = False
    applications: Sequence[str] = ()
    max_running: int | None = None
    awaited: Awaited = Awaited()
    anew: str = ""


def _go(
    ledger: AbstractAsyncContextManager[Ledger],
    url: str | None,
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
            code = run(work, explained=partial(advised, ledger=url, service=service), bad_input=(ManifestChangedError,))
        finally:
            to_do = partial(hint, run=command.run_name, ledger=url, service=service)
            command.show_summary(to_do if rehearsal is None else None)
    raise typer.Exit(code)


def _check(pace: Pace, service: Service, rehearsal: Rehearsal | None) -> None:
    """Refuse options that make no sense."""
    if rehearsal and service.endpoint_url:
        fail("give --local or --endpoint-url, not both", BAD_INPUT)
    if service.timeout <= 0:
        fail(f"--timeout must be above 0, not {service.timeout:g}", BAD_INPUT)
    pace.check()
    if rehearsal is not None:
        check_rate("--local-", rehearsal.rate, rehearsal.burst)


class _SubmitCommand:
    """One run of the command: rows in, outcomes out, an exit code at its end; `run_name` is known once it is open."""

    def __init__(self, planned: Planned, show: OutcomeOutput, progress: Progress) -> None:
        self.run_name: str = planned.name
        self._lines = OutcomeLines(show.output)
        self._began = 0.0
        self._found_rate: float | None = None
        self._foreign: list[ForeignExecution] = []
        self._hindrances: Hindrances | None = None
        self._planned = planned
        self._show = show
        self._progress = progress
        self._ruled: RuledRows | None = None  # once the manifest is read

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
            is_new = await ledger.is_new()
            connection = LazyClient(stack, service, rehearsal, self._planned.applications, pace.concurrency)
            run = await self._open_run(stack, ledger, connection)
            self.run_name = run.info.name
            if rehearsal is None or ledger.address != "memory:":
                say_ledger(ledger, is_new=is_new)
            rules = self._planned.awaited.rules
            await write_rules(run, rules if self._ruled is None else await self._ruled.of_rows_in(run))
            client = await connection.client()
            await self._fit_lines(run)
            self._began = time.monotonic()
            self._progress.start(run.info.jobs)
            before = await self._say_what_was_started_before(run)
            await self._say_what_is_waited_for(run, pace)
            is_first = await run.last_sent() is None
            submitter = Submitter(client, ledger=ledger, run=run, **pace.settings(), logger=log and log.logger)
            await stack.enter_async_context(submitter)
            for warning in submitter.warnings:
                say(f"m2async: {warning}")
            self._hindrances = hindrances = Hindrances(submitter, self._progress)
            beside = await stack.enter_async_context(anyio.create_task_group())
            stack.callback(beside.cancel_scope.cancel)
            beside.start_soon(hindrances.watch)
            following = await self._follow(client, ledger, run, submitter, beside, log)
            dispatch = None if following is None else following.dispatch
            rows = ToldRows(run, dispatch, self._lines, self._progress, before=before)
            steering = self._steer(run, submitter, following, rows)
            await steering.begin()
            beside.start_soon(steering.follow)
            once_more = "; once more to leave at once"
            signals.on_first = lambda: self._interrupt(submitter, following, "interrupted", once_more)
            try:
                with contextlib.suppress(IllegalTransitionError):  # a restart that was asked for came to a row first
                    async for outcome in submitter.submit_many(rows.read()):
                        rows.submitted(outcome)
                await rows.show_what_is_sent_no_more()
                await steering.all_sent()
                if following is not None:
                    await rows.show_what_is_held()
                    await following.to_the_end()
                    await steering.all_sent()
                if is_first and not self._planned.awaited.ends:  # else tracking has listed them
                    for warning in await submitter.look_for_others():
                        say(f"m2async: {warning}")
            except SubmissionStoppedError:
                pass  # said below, for a run that its last job stopped, too
            self._found_rate = submitter.found_rate
            hindrances.look()
            stopped_by = submitter.stopped_by
            try:
                self._foreign = await run.foreign()
                await rows.show_what_was_started_before()
            except LedgerError as exc:  # often why it stopped
                stopped_by = stopped_by or exc
            if stopped_by is not None:
                await self._stopped(stopped_by, rows)
                return STOPPED
        counts = self._lines.counts
        if counts["skipped"] > rows.held:
            return STOPPED
        failures = following.failures if following is not None else 0
        return 1 if counts["rejected"] or counts["unknown"] or rows.held or failures else 0

    def show_summary(self, hint: Callable[[str], str] | None) -> None:
        """Say how the run went, unless no job got anywhere; `hint` writes out a command on it."""
        if self._lines.counts and not self._show.quiet:
            self._lines.summary(time.monotonic() - self._began, hint)
            if self._found_rate is not None:
                say(f"The service throttled calls: its quota is about {self._found_rate:,.3g} a second.")
            if self._hindrances is not None:
                self._hindrances.summary()
            say_foreign(self._foreign)
            if self._hindrances is not None:
                say_refused(self._hindrances.refused, self._lines.counts["unknown"])

    async def _open_run(self, stack: contextlib.AsyncExitStack, ledger: Ledger, connection: LazyClient) -> Run:
        name, manifest, *_ = self._planned
        if manifest is None:
            await ledger.run(name)  # resume makes no run
            run = await stack.enter_async_context(await ledger.open_run(name))
        else:
            wanted = NamedJobs()
            readers = Readers(
                partial(self._read, manifest, wanted), partial(self._look_up, manifest, wanted, connection)
            )
            run = await open_run(
                stack, ledger, manifest, self._planned.wish, readers, rehearsal=connection.is_rehearsal
            )
        await connection.check_place(run)
        return run

    async def _read(self, manifest: Manifest, wanted: NamedJobs, run: Run) -> None:
        """Check the rows, and write them into the ledger; none of them counts yet."""
        after: dict[str, Sequence[str]] = {}
        self._ruled = ruled = RuledRows(self._planned.awaited.rules)
        try:
            with (
                manifest.rows(after) as rows,
                self._progress.checking(
                    ruled.watch(wanted.watch(rows) if self._planned.preflight else rows)
                ) as counted,
            ):
                await run.give(counted, after=after)
        except asyncio.CancelledError:
            self._progress.stop()
            say("m2async: interrupted before the whole manifest was checked; nothing was sent")
            raise

    async def _look_up(self, manifest: Manifest, wanted: NamedJobs, connection: LazyClient, run: Run) -> None:
        """Check all else that was given, and look up what the rows name, where the run belongs."""
        if self._ruled is not None:
            self._ruled.check()
        await connection.check_place(run)
        client = await connection.client()
        if not self._planned.preflight or run.info.digest == manifest.digest:
            return
        report = await preflight(client, wanted)
        for warning in report.warnings:
            say(f"m2async: {warning}")
        if report.findings:
            self._progress.stop()
            show_problems(manifest.error(report.findings))
            raise typer.Exit(BAD_INPUT)

    async def _fit_lines(self, run: Run) -> None:
        """Make the table fit the first and the last rows, so that a million need not be read."""
        rows = [*await run.page(), *await run.page(after=max(PAGE, run.info.rows - PAGE))]
        key_width = max((len(row.key) for row in rows), default=0)
        job_width = max((len(row.request.job.name) for row in rows), default=0)
        self._lines.fit(run.info.jobs, key_width=key_width, job_width=job_width)

    async def _say_what_was_started_before(self, run: Run) -> bool:
        """Say how many jobs need no start; their lines come last, so that the others do not wait for them."""
        started, jobs = (await run.counts())[RowState.STARTED], run.info.jobs
        before = f"{plural(started, 'job')} {'was' if started == 1 else 'were'} started before"
        anew = f"; to start all of them anew: {self._planned.anew}" if self._planned.anew else ""
        if started == jobs > 0:
            since = f"of run {run.info.name}, begun {moment(run.info.created_at)}"
            say(f"m2async: nothing was started: {before}, 0 are left, {since}{anew}")
        elif started and not self._show.quiet:
            left = jobs - started
            say(f"run {run.info.name}: {before}, {left:,} {'is' if left == 1 else 'are'} left{anew}")
        return started > 0

    async def _say_what_is_waited_for(self, run: Run, pace: Pace) -> None:
        """Say that jobs which an earlier command left in doubt are looked for first."""
        unknown = (await run.counts())[RowState.UNKNOWN]
        if unknown and pace.on_unknown == "adopt" and not self._show.quiet:
            say(
                f"run {run.info.name}: {plural(unknown, 'job')} may have been started before: looked for among the "
                f"service's executions, as soon as {pace.settle:g} s have passed since the last attempt"
            )

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

    def _steer(self, run: Run, submitter: Submitter, following: Following | None, rows: ToldRows) -> Steering:
        return Steering(
            run,
            submitter,
            stop=partial(self._interrupt, submitter, following),
            tell=lambda said: say(f"m2async: {said}"),
            restarted=rows.restarted,
            ended=rows.ended,
        )

    def _leave_at_once(self, log: Log | None) -> None:
        self._progress.stop()
        if log is not None:
            log.flush()

    def _interrupt(self, submitter: Submitter, following: Following | None, reason: str, hint: str = "") -> None:
        if following is not None:
            following.leave()
        say(f"m2async: {reason}: waiting for the calls under way{hint}")
        submitter.stop(reason)

    async def _stopped(self, cause: M2AsyncError, rows: ToldRows) -> None:
        """Say why, and which jobs were not sent."""
        self._progress.stop()
        if isinstance(cause, UnexpectedError):
            tell_fault(cause)
        else:
            # What was not sent has no code of the service's, and its message says all.
            code = "" if isinstance(cause, NotSentError) else f"{cause.code}: "
            say(f"m2async: stopped: {code}{cause.message}")
        await rows.show_what_was_not_sent(cause)
