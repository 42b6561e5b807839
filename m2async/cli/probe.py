"""`m2async probe`: find the quota of StartBatchJob, and say what was seen."""

from __future__ import annotations

import contextlib
import gc
import math
import random
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import anyio
import typer
from rich import progress

from m2async.cli.hints import hint
from m2async.cli.ledgers import ledger_address, say_ledger
from m2async.cli.log_file import open_log
from m2async.cli.output import BAD_INPUT, STOPPED, emit, emit_json, emit_text, fail, say
from m2async.cli.report import write
from m2async.cli.running import Signals, run
from m2async.cli.screen import console, whole
from m2async.cli.service import Service
from m2async.client import M2Client, is_loopback
from m2async.errors import AccessDeniedException, InvalidRequestError
from m2async.events import Events
from m2async.figures import Percentiles
from m2async.ledger import Ledger, RowState, Run, open_ledger
from m2async.probing import CANCELLING, Asked, Findings, Limits, Plan, Probe, Ramp, StartedUnasked, Steps
from m2async.report import probe_page
from m2async.service import FileJob, Job, ScriptJob, StartBatchJob
from m2async.texts import plural, quoted, visible

_ID_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
_CONNECTIONS = 2_000
_EVERY = 0.25  # seconds between two looks of the progress bar
_RUNS = "probe-"  # which the names of the runs of probes begin with
_BARS = " ▁▂▃▄▅▆▇█"

ToDo = Callable[[str, str], str]
"""Writes out a command on a run, by their names."""


class Load(NamedTuple):
    """What to offer: rates in calls a second, each for `seconds`, or no rates to find the quota; and the caps."""

    rates: Sequence[float]
    seconds: float
    max_rate: float
    max_calls: int
    max_seconds: float

    def plan(self) -> Plan:
        """Make the plan."""
        return Steps(self.rates, self.seconds) if self.rates else Ramp(Limits(self.max_rate, self.max_seconds))


class FindingsOutput(NamedTuple):
    """How findings are shown: on stdout, as a page in a file, and each event in a log file."""

    form: Literal["text", "json"]
    report: Path | None
    log: str | None


class Asking(NamedTuple):
    """What every call asks to start."""

    asked: Asked
    request: StartBatchJob


def parse_load(
    rate: float | None, steps: str | None, seconds: float | None, max_rate: float, max_calls: int, max_seconds: float
) -> Load:
    """Check the options of a load; ends the command if they contradict each other."""
    if rate is not None and steps is not None:
        fail("give --rate or --steps, not both", BAD_INPUT)
    if seconds is not None and rate is None and steps is None:
        fail("--seconds is for --rate and --steps; --max-seconds ends the search for the quota", BAD_INPUT)
    try:
        rates = [rate] if rate is not None else [float(text) for text in (steps or "").split(",") if steps is not None]
    except ValueError:
        fail(f"--steps {steps}: must be rates with commas between them, such as 10,20,50", BAD_INPUT)
    each = 10.0 if seconds is None else seconds
    named = [("--seconds", each), ("--max-rate", max_rate), ("--max-seconds", max_seconds)]
    for name, value in [*(("--rate" if steps is None else "--steps", one) for one in rates), *named]:
        if not (value > 0 and math.isfinite(value)):
            fail(f"{name} must be above 0, not {value:g}", BAD_INPUT)
    if rates and max(rates) > max_rate:
        fail(f"{max(rates):g} calls a second are more than --max-rate, {max_rate:g}", BAD_INPUT)
    if rates and each * len(rates) > max_seconds:
        fail(f"{each * len(rates):g} s are more than --max-seconds, {max_seconds:g}", BAD_INPUT)
    if rates and sum(rates) * each > max_calls:
        fail(f"{sum(rates) * each:,.0f} calls are more than --max-calls, {max_calls:,}", BAD_INPUT)
    return Load(rates, each, max_rate, max_calls, max_seconds)


def parse_asking(application: str | None, script: str | None, file: str | None, *, real: bool) -> Asking:
    """Say what every call asks for: nothing that exists, unless real jobs are to be started."""
    if real:
        if application is None or (script is None) == (file is None):
            fail("--start-real-jobs needs -a APP and the job: --script NAME or --file NAME", BAD_INPUT)
        job: Job = ScriptJob(script) if script is not None else FileJob(file or "")
        return Asking("real jobs", _request(application, job))
    if script is not None or file is not None:
        fail("--script and --file start a job: give --start-real-jobs as well", BAD_INPUT)
    draw = random.SystemRandom()
    job = ScriptJob("NOJOB" + "".join(draw.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ", k=11)))
    if application is not None:
        return Asking("no job", _request(application, job))
    return Asking("no application", _request("".join(draw.choices(_ID_ALPHABET, k=26)), job))


def _request(application: str, job: Job) -> StartBatchJob:
    try:
        return StartBatchJob(application, job)
    except InvalidRequestError as exc:
        fail(str(exc), BAD_INPUT)


def probe(load: Load, asking: Asking, service: Service, ledger: str | None, show: FindingsOutput) -> None:
    """Probe, and print what was found, whatever ends it."""
    if show.report is not None and not (show.report.parent.is_dir() and not show.report.is_dir()):
        fail(f"--report {show.report}: must be a file in a folder that exists", BAD_INPUT)

    to_do = partial(hint, ledger=ledger, service=service)
    gc.collect()
    gc.freeze()  # a collection of all that was imported would halt the sending for 50 ms

    async def probing(signals: Signals) -> Probe:
        async with contextlib.AsyncExitStack() as stack:
            events = None if show.log is None else Events(logger=stack.enter_context(open_log(show.log)).logger)
            client = await stack.enter_async_context(service.client(max_connections=_CONNECTIONS))
            into: Run | None = None
            if asking.asked == "real jobs":
                opened = await stack.enter_async_context(open_ledger(ledger_address(ledger)))
                say_ledger(opened, is_new=await opened.is_new())
                await _say_what_earlier_ones_left(opened, to_do)
                name = await _free_name(opened)
                into = await stack.enter_async_context(await opened.open_run(name))
                await service.check_place(into, client)
                say(
                    f"Every call is recorded in run {name}. A submit of {asking.request.job.name} with another ledger "
                    "takes what is started here for somebody else's; with this one: "
                    f"{whole(f'--ledger {quoted(opened.address)}')}"
                )
            made = Probe(
                client,
                load.plan(),
                asking.request,
                asked=asking.asked,
                stand_in=asking.asked == "no application" and is_loopback(client.endpoint_url),
                run=into,
                max_calls=load.max_calls,
                max_seconds=load.max_seconds,
                events=events,
            )
            signals.on_first = lambda: made.stop("It was interrupted")
            signals.on_second = lambda: _say_what_is_left(made, into, to_do)
            say(_what_is_sent(client, asking))
            failure: Exception | None = None
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_show, made, load)
                try:
                    await made.run()
                except BaseException as exc:
                    _say_what_is_left(made, into, to_do)
                    if not isinstance(exc, Exception):
                        raise
                    failure = exc  # raised below, so that the task group does not wrap it
                finally:
                    tasks.cancel_scope.cancel()
            if failure is not None:
                raise failure
            _tell(made, show, to_do)
            _say_what_is_in_doubt(made, into, to_do)
        return made

    ended = run(probing)
    if ended.error is not None:
        fail(_explained(ended, asking), STOPPED)
    if ended.not_cancelled or ended.in_doubt:
        raise typer.Exit(1)


def _what_is_sent(client: M2Client, asking: Asking) -> str:
    application, job = asking.request.application_id, asking.request.job.name
    match asking.asked:
        case "no application":
            what = f"Every call names application {application}, which does not exist: nothing is started."
        case "no job":
            what = f"Every call names job {job}, which no application defines: nothing is started."
        case "real jobs":
            what = f"Every call that is accepted starts {job}; it is cancelled when the probe ends."
    return f"Probing {client.endpoint_url}. {what}"


async def _free_name(ledger: Ledger) -> str:
    """Name the run of this probe: another may have begun in the same second."""
    taken = {summary.info.name for summary in await ledger.runs()}
    name = first = f"{_RUNS}{datetime.now():%Y%m%d-%H%M%S}"
    number = 1
    while name in taken:
        number += 1
        name = f"{first}-{number}"
    return name


async def _say_what_earlier_ones_left(ledger: Ledger, to_do: ToDo) -> None:
    """Say which runs of earlier probes have executions that were not cancelled, as after a crash."""
    for summary in await ledger.runs():
        view = await ledger.run(summary.info.name)
        if not summary.info.name.startswith(_RUNS) or await view.in_use():
            continue
        left = sum(a.rows for a in await view.execution_counts() if not a.ended and a.status != CANCELLING)
        in_doubt = summary.counts[RowState.INTENT] + summary.counts[RowState.UNKNOWN]
        if left:
            say(f"{plural(left, 'execution')} of an earlier probe may be running: {to_do('cancel', view.info.name)}")
        if in_doubt:
            way_out = _way_out(view.info.name, to_do)
            say(f"{plural(in_doubt, 'call')} of an earlier probe may have started a job: {way_out}")


def _say_what_is_left(made: Probe, into: Run | None, to_do: ToDo) -> None:
    """Name every execution that was started and is not known to be cancelled, for a probe that ends badly."""
    settled = {*made.cancelled, *made.had_ended}
    left = [execution_id for execution_id in made.started if execution_id not in settled]
    if left:
        say("\n".join([f"m2async: {plural(len(left), 'execution')} not cancelled:", *left]))
        if into is not None:
            say(f"m2async: to go on cancelling: {to_do('cancel', into.info.name)}")
    _say_what_is_in_doubt(made, into, to_do)


def _say_what_is_in_doubt(made: Probe, into: Run | None, to_do: ToDo) -> None:
    if made.in_doubt and into is not None:
        say(f"m2async: {plural(made.in_doubt, 'call')} may have started a job: {_way_out(into.info.name, to_do)}")


def _way_out(name: str, to_do: ToDo) -> str:
    return f"{to_do('reconcile', name)}, then {to_do('cancel', name)}"


def _explained(ended: Probe, asking: Asking) -> str:
    """Why the probe stopped, and what to do."""
    error = ended.error
    if isinstance(error, StartedUnasked):
        return f"stopped at once: {error.message}"
    if isinstance(error, AccessDeniedException) and asking.asked == "no application":
        return f"{error}; if only some applications are permitted, name one with -a: nothing is started in it"
    return str(error)


async def _show(made: Probe, load: Load) -> None:
    """Show how far it is, on a terminal."""
    with progress.Progress(
        progress.BarColumn(bar_width=None),
        progress.TextColumn("{task.description}"),
        console=console(),
        disable=not sys.stderr.isatty(),
        refresh_per_second=4,
        transient=True,
        expand=True,
    ) as bar:
        task = bar.add_task("", total=load.plan().seconds)
        while True:
            bar.update(task, completed=made.elapsed, description=_how_far(made))
            await anyio.sleep(_EVERY)


def _how_far(made: Probe) -> str:
    ended = len(made.cancelled) + len(made.had_ended) + len(made.not_cancelled)
    if ended:
        return f"{ended:,}/{len(made.started):,} cancelled"
    return f"{made.elapsed:.0f} s  {made.calls:,} calls  {made.throttled:,} throttled"


def _tell(made: Probe, show: FindingsOutput, to_do: ToDo) -> None:
    """Print and write what was found, which is nothing if the very first call failed."""
    if made.error is not None and made.calls == 1 and not made.started:
        return
    findings = made.findings()
    if show.form == "json":
        emit_json(findings.to_json())
    else:
        for line in text(findings):
            emit(visible(line))
        if findings.run is not None and findings.not_cancelled:
            emit_text(f"to go on cancelling: {to_do('cancel', findings.run)}")
    if show.report is not None:
        try:
            write(show.report, probe_page(findings))
        except OSError as exc:
            say(f"m2async: --report {show.report} cannot be written: {exc.strerror}")


# The findings as text, 80 columns wide


def text(findings: Findings) -> Iterator[str]:
    """Lay out what was found."""
    yield from _sent(findings)
    yield ""
    yield from _found(findings)
    if findings.timeline:
        yield ""
        yield from _chart(findings)
    if findings.latency is not None:
        yield ""
        yield from _latency(findings)
    if findings.started:
        yield ""
        yield from _fates(findings)
    for note in findings.notes:
        yield ""
        yield from _wrapped(note)


def _sent(findings: Findings) -> Iterator[str]:
    yield f"{findings.calls:,} calls in {findings.seconds:,.1f} s: " + ", ".join(
        f"{count:,} {what}"
        for count, what in (
            (findings.accepted, "accepted"),
            (findings.throttled, "throttled"),
            (findings.unknown, "unknown"),
        )
        if count or what != "unknown"
    )
    for what, codes in (("accepted, then refused", findings.refused), ("unknown", findings.unknown_codes)):
        for code, count in codes.items():
            yield f"  {what}: {count:,} {code}"
    for quota in findings.quotas:
        named = " ".join(part for part in (quota.service_code, quota.quota_code) if part) or "no quota named"
        yield f"  throttled: {quota.calls:,}, {named}"


def _found(findings: Findings) -> Iterator[str]:
    if findings.rate is None:
        yield "rate   not found"
    else:
        yield f"rate   {findings.rate:g}/s, between {findings.rate_least:g} and {findings.rate_most:g}"
    if findings.burst is not None:
        within = "" if findings.burst_least == findings.burst_most else (
            f", between {findings.burst_least:,} and {findings.burst_most:,}"
        )  # fmt: skip
        yield f"burst  {findings.burst:,}{within}"
    elif findings.profile == "ramp":
        yield "burst  not found"
    if findings.use_rate is not None:
        yield f"use:   --rate {findings.use_rate:g}" + (f" --burst {findings.use_burst}" if findings.use_burst else "")


def _chart(findings: Findings) -> Iterator[str]:
    """Calls a second over time: two rows of bars on one scale."""
    spans = findings.timeline
    most = max(span.sent for span in spans) or 1
    length = spans[0].end - spans[0].begin
    for name in ("accepted", "throttled"):
        counts = [getattr(span, name) for span in spans]
        yield (f"{name:<10}" + "".join(_BARS[math.ceil(8 * count / most)] for count in counts)).rstrip()
    yield f"          {len(spans)} × {length:g} s; the highest bar is {most / length:,.0f} calls a second"


def _latency(findings: Findings) -> Iterator[str]:
    """Percentiles, from when calls were due: of each step, and of all."""
    yield f"{'latency, ms':<14}{'calls':>8}{'thrott.':>9}" + "".join(
        f"{name:>9}" for name in ("p50", "p90", "p99", "p99.9", "max")
    )
    for step in findings.steps:
        yield _latency_line(f"{step.rate:,.5g}/s", step.calls, step.throttled, step.latency)
    if len(findings.steps) != 1:
        yield _latency_line("all", findings.calls, findings.throttled, findings.latency)


def _latency_line(name: str, calls: int, throttled: int, figures: Percentiles | None) -> str:
    cells = [] if figures is None else [figures.p50, figures.p90, figures.p99, figures.p999, figures.max]
    return f"{name:<14}{calls:>8,}{throttled:>9,}" + "".join(f"{1000 * cell:>9,.4g}" for cell in cells)


def _fates(findings: Findings) -> Iterator[str]:
    yield (
        f"executions started: {len(findings.started):,}; cancelled: {len(findings.cancelled):,}; had ended: "
        f"{len(findings.had_ended):,}; not cancelled: {len(findings.not_cancelled):,}"
    )
    for one in findings.not_cancelled:
        yield from _wrapped(f"  {one.execution_id}: {one.reason}")


def _wrapped(text: str) -> Iterator[str]:
    yield from textwrap.wrap(text, 80, subsequent_indent="  " if text.startswith("  ") else "")
