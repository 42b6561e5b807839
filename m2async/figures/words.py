"""A run's figures in words, the same on a terminal and on a page."""

from __future__ import annotations

from collections import Counter

from m2async.figures.figures import Phase, RunFigures, is_throttle
from m2async.ledger import Orders, RowState
from m2async.service import Result
from m2async.texts import number, percent, plural, seconds

_RESULTS = {Result.SUCCESS: "succeeded", Result.FAILURE: "failed", Result.OPEN: "not ended"}


def settled(figures: RunFigures) -> int:
    """How many jobs are settled: started, rejected or unknown."""
    return sum(figures.counts[state] for state in (RowState.STARTED, RowState.REJECTED, RowState.UNKNOWN))


def phase(figures: RunFigures) -> str:
    """How far the run is, in a word or two; a rehearsal says that it is one."""
    sent_to = figures.info.sent_to
    return f"rehearsal, {_phase(figures)}" if sent_to is not None and sent_to.is_rehearsal else _phase(figures)


def _phase(figures: RunFigures) -> str:
    if not figures.in_use:
        held = {"stopped": figures.orders.stopped, "paused": figures.orders.paused}
        word = next((word for word, is_so in held.items() if is_so), None)
        if word is None or figures.phase is not Phase.STOPPED:
            return figures.phase.value
        return f"{word} until m2async unpause"
    if figures.orders.stopped:
        return "stopping: waiting for the calls under way"
    if figures.orders.paused:
        return "paused"
    return figures.phase.value if figures.info.jobs else "its manifest is being checked"


def elapsed(figures: RunFigures) -> float | None:
    """Seconds from the first send until now, or until the last answer of a run that is not in progress."""
    until = figures.read_at if figures.in_use else figures.ended
    return None if figures.began is None or until is None else max(0.0, until - figures.began)


def progress(figures: RunFigures) -> str:
    """How much of the run is done, in what time, and how long the rest takes."""
    parts = [
        f"{settled(figures):,} of {plural(figures.info.jobs, 'job')} ({percent(settled(figures), figures.info.jobs)})"
    ]
    if (time := elapsed(figures)) is not None:
        parts.append(f"for {clock(time)}" if figures.in_use else f"in {clock(time)}")
    if figures.remaining is not None and not figures.orders.paused and not figures.orders.stopped:
        parts.append(f"{clock(figures.remaining)} left")
    return ", ".join(parts)


def standing(figures: RunFigures) -> str:
    """How the run stands, in a line."""
    return f"{phase(figures)}: {progress(figures)}" if figures.info.jobs else phase(figures)


def states(figures: RunFigures) -> str:
    """How many jobs are in each state; empty ones are left out."""
    counted = {RowState.STARTED: figures.counts[RowState.STARTED], **figures.counts}
    parts = [f"{count:,} {state.label}" for state, count in counted.items() if count or state is RowState.STARTED]
    return ", ".join(parts)


def together(figures: RunFigures) -> str:
    """How many jobs were started together, if any were."""
    if not figures.together:
        return ""
    untold = f"; what {figures.untold:,} of them came to cannot be told either" if figures.untold else ""
    return f"{plural(figures.together, 'job')} started with others: which execution is whose cannot be told{untold}"


def throughput(figures: RunFigures) -> str:
    """Starts a second: of late, on average, at the most."""
    if figures.began is None:
        return ""
    named = {"now": figures.rate, "mean": figures.mean_rate, "peak": figures.peak_rate}
    return ", ".join(f"{number(round(rate, 1))}/s {name}" for name, rate in named.items() if rate is not None)


def pace(figures: RunFigures) -> str:
    """What the run was told, while it is in progress."""
    return told(figures.orders) if figures.in_use else ""


def told(orders: Orders) -> str:
    """Orders in words, or nothing where there are none."""
    parts = []
    if orders.rate is not None:
        parts.append(f"told {number(orders.rate)} calls a second, bursts of {number(orders.burst or 1.0)}")
    if orders.paused:
        parts.append("paused")
    if orders.stopped:
        parts.append("told to stop")
    return ", ".join(parts)


def troubles(figures: RunFigures) -> str:
    """The errors that calls ended with, by code, the most frequent first; throttles are told elsewhere."""
    return ", ".join(f"{code.attempts:,} {code.code}" for code in figures.codes if not is_throttle(code.code))


def latency(figures: RunFigures) -> str:
    """How long answers took."""
    if figures.latency is None:
        return ""
    named = {"p50": figures.latency.p50, "p99": figures.latency.p99, "max": figures.latency.max}
    return ", ".join(f"{name} {seconds(value)}" for name, value in named.items())


def executions(figures: RunFigures) -> str:
    """How many executions have each status, as far as they were followed."""
    counted: Counter[str] = Counter()
    for alike in figures.executions:
        counted[alike.status or "not seen yet"] += alike.rows
    return ", ".join(f"{count:,} {status}" for status, count in counted.most_common())


def results(figures: RunFigures) -> str:
    """What the executions came to, once any was followed."""
    if not figures.tracked:
        return ""
    return ", ".join(f"{figures.results[result]:,} {word}" for result, word in _RESULTS.items())


def clock(value: float | None) -> str:
    """Write a duration in whole seconds at the most."""
    if value is None or value > 59.5:
        return seconds(value)
    return f"{max(0, round(value))} s"
