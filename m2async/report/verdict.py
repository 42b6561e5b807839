"""What a reader wants to know first: whether a run is finished, whether all went well, and what needs attention."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from m2async.figures import JobFigures, Phase, RunFigures
from m2async.ledger import RowState
from m2async.service import Result
from m2async.texts import plural, seconds

Tone = Literal["good", "bad", "unsure", "open"]
"""How a verdict is coloured."""


class Attention(NamedTuple):
    """Something to look at: how many jobs, the filter of the table that shows them, what it means and what to do."""

    kind: Literal["bad", "unknown", "pending"]
    mark: str
    what: str
    filter: str
    advice: str
    command: str = ""


class RunVerdict(NamedTuple):
    """The run in a headline and a sentence."""

    kind: Tone
    headline: str
    sentence: str
    attention: tuple[Attention, ...]


def verdict(figures: RunFigures, jobs: JobFigures, command: Callable[..., str]) -> RunVerdict:
    """Sum a run up; `command` writes out a command on a run."""
    kind, headline = _headline(figures)
    return RunVerdict(kind, headline, " ".join(_sentences(figures)), tuple(_attention(figures, jobs, command)))


def _headline(figures: RunFigures) -> tuple[Tone, str]:
    counts, results, rows = figures.counts, figures.results, figures.info.jobs
    all_jobs = "The job was" if rows == 1 else f"All {rows:,} jobs were"
    match figures.phase:
        case Phase.EMPTY:
            return "open", "This run has no jobs"
        case Phase.STARTING if not rows:
            return "open", "In progress: its manifest is being checked"
        case Phase.STARTING:
            return "open", f"In progress: {counts[RowState.STARTED]:,} of {plural(rows, 'job')} started"
        case Phase.STOPPED:
            if pending := counts[RowState.PENDING]:
                return "unsure", f"Not finished: {pending:,} of {plural(rows, 'job')} not started"
            return "unsure", f"Not finished: {plural(counts[RowState.INTENT], 'call')} cut off"
    if counts[RowState.UNKNOWN]:
        unknown = counts[RowState.UNKNOWN]
        return "unsure", f"All sent, but it is not known whether {plural(unknown, 'job')} started"
    if counts[RowState.REJECTED]:
        return "bad", f"{counts[RowState.REJECTED]:,} of {plural(rows, 'job')} were not started"
    if results[Result.FAILURE]:
        return "bad", f"{all_jobs} started; {results[Result.FAILURE]:,} failed"
    if figures.untold:
        return "unsure", f"{all_jobs} started; what {plural(figures.untold, 'job')} came to cannot be told"
    if results[Result.SUCCESS] == rows:
        return "good", f"{all_jobs} started and succeeded"
    return "open", f"{all_jobs} started"


def _sentences(figures: RunFigures) -> Iterator[str]:
    results = figures.results
    if figures.phase is Phase.STARTING:
        if figures.orders.stopped:
            yield "It was told to stop, and waits for the calls under way."
        elif figures.orders.paused:
            yield "It is paused."
        elif figures.remaining is not None:
            yield f"At the present rate the rest is sent in {seconds(figures.remaining)}."
        yield "This page shows the run as it was when the page was made."
    if figures.counts[RowState.STARTED]:
        if not figures.tracked:
            yield "What became of the started jobs is not known: nobody has followed them yet."
        elif left := results[Result.OPEN] - figures.untold:
            yield (
                f"{results[Result.SUCCESS]:,} succeeded, {results[Result.FAILURE]:,} failed, and "
                f"{left:,} had not ended when they were last looked at."
            )


def _attention(figures: RunFigures, jobs: JobFigures, command: Callable[..., str]) -> Iterator[Attention]:
    counts, run = figures.counts, figures.info.name
    then = " once the run is no longer in progress" if figures.in_use else ""
    if unknown := counts[RowState.UNKNOWN]:
        yield Attention(
            "unknown", "?", f"{plural(unknown, 'job')} unknown", "state=unknown",
            f"They may be running. To look for their executions{then}:", command("reconcile", run),
        )  # fmt: skip
    if jobs.maybe_twice:
        yield Attention(
            "unknown", "?", f"{plural(jobs.maybe_twice, 'job')} perhaps started twice", "state=doubt",
            "Each has an execution, and an earlier attempt that may have started another.",
        )  # fmt: skip
    if figures.together:
        yield Attention(
            "unknown", "?", f"{plural(figures.together, 'job')} started together", "state=together",
            "Each was started as one of the executions that it lists as candidates; which is whose cannot be told. "
            "What it came to is known once all of them came to the same. If you know it, write it down:",
            command("resolve", run, "--key", "KEY", "--started", "ID"),
        )  # fmt: skip
    if failed := figures.results[Result.FAILURE]:
        yield Attention(
            "bad", "✕", f"{plural(failed, 'job')} failed", "result=failed",
            f"To restart them from the step that failed{then}:", command("restart", run, "--failed"),
        )  # fmt: skip
    if rejected := counts[RowState.REJECTED]:
        yield Attention(
            "bad", "✕", f"{plural(rejected, 'job')} rejected", "state=rejected",
            f"They surely were not started; the table says why. To try again{then}:", command("resume", run),
        )  # fmt: skip
    if figures.phase is not Phase.STOPPED:
        return
    if in_flight := counts[RowState.INTENT]:
        yield Attention(
            "unknown", "?", f"{plural(in_flight, 'job')} in flight", "state=intent",
            "The process ended during their calls, so they may have been started. To look for them:",
            command("resume", run),
        )  # fmt: skip
    if pending := counts[RowState.PENDING]:
        yield Attention(
            "pending", "○", f"{plural(pending, 'job')} pending", "state=pending",
            "They surely have not been started. To go on with the run:", command("resume", run),
        )  # fmt: skip
