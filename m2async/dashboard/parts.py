"""What the pages show: the parts that change, made from what was seen of the ledger."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from markupsafe import escape

from m2async.dashboard.actions import CANCEL_RATE, Cancelling, PastAction
from m2async.dashboard.feed import Parts
from m2async.errors import M2AsyncError
from m2async.figures import AnswerStretch, Look, Phase, RunFigures, words
from m2async.ledger import RowState
from m2async.pages import STATES, Pages, charts
from m2async.service import Result
from m2async.texts import NOTHING, number, percent, plural, seconds, visible

_SHOWN = 20  # troubles
_FAILURES = 5  # reasons why executions could not be cancelled
_BARS = {
    RowState.STARTED: "started",
    RowState.UNKNOWN: "unknown",
    RowState.REJECTED: "bad",
    RowState.INTENT: "throttled",
    RowState.PENDING: "line",
}
"""The colour of each state's bar, in the order of the bars."""

_PHASES = {
    Phase.EMPTY: ("pending", "○"),
    Phase.STARTING: ("open", "▶"),
    Phase.STOPPED: ("bad", "■"),
    Phase.RUNNING: ("open", "●"),
    Phase.ENDED: ("good", "✓"),
}


def href(name: str) -> str:
    """Give the address of a run's page, as seen from the list."""
    return f"run?name={quoted(name)}"


def quoted(name: str) -> str:
    """Write a name for a URL; one that is no text of Unicode, as a command line may have it, included."""
    return quote(name, safe="", errors="surrogateescape")


def of_runs(pages: Pages, runs: Iterable[RunFigures]) -> Parts:
    """Make the list of the runs."""
    return {"trouble": "", "runs": pages.part("runs/list.html", rows=[_row(figures) for figures in runs])}


def of_trouble(error: M2AsyncError) -> Parts:
    """Say that the ledger cannot be read."""
    return {"trouble": _text(f"{error.code}: {error.message}")}


def of_run(pages: Pages, look: Look, cancelling: Cancelling | None, done: Sequence[PastAction]) -> Parts:
    """Make the page of a run."""
    figures = look.figures
    states = _states(figures)
    phase = words.phase(figures)
    return {
        "trouble": "",
        "phase": _text(phase),
        "headline": _text(f"{phase[:1].upper()}{phase[1:]}"),
        "standing": pages.part(
            "run/standing.html",
            words="; ".join(filter(None, (words.progress(figures), words.together(figures)))),
            states=states,
        ),
        "tiles": pages.part("run/tiles.html", tiles=_tiles(figures)),
        "orders": _text(_orders(figures)),
        "rate_finding": _text(_rate_finding(figures)),
        "rate_drawing": _rate_drawing(tuple(_complete(figures)), figures.width),
        "rate_table": _rate_table(pages, figures),
        "executions": _executions(pages, figures),
        "errors": _errors(pages, figures),
        "troubles": pages.part("run/troubles.html", troubles=look.troubles[:_SHOWN], count=look.in_trouble),
        "latency_finding": _text(words.latency(figures) or "No call was answered yet."),
        "latency_drawing": _latency_drawing(tuple(figures.curve), figures.latency.count if figures.latency else 0),
        "done": pages.part("run/done.html", done=done, cancelling=_cancelling(cancelling)),
        "will_cancel": pages.part(
            "run/will_cancel.html",
            in_progress=figures.in_use,
            still_open=figures.results[Result.OPEN],
            in_doubt=figures.counts[RowState.UNKNOWN] + figures.counts[RowState.INTENT],
            rate=CANCEL_RATE,
            time=words.clock(figures.results[Result.OPEN] / CANCEL_RATE),
        ),
        "controls": _controls(figures, cancelling),
    }


def _row(figures: RunFigures) -> dict[str, Any]:
    """A run in the list."""
    results = figures.results
    kind, mark = _kind(figures)
    return {
        "name": figures.info.name,
        "href": href(figures.info.name),
        "created_at": figures.info.created_at,
        "kind": kind,
        "mark": mark,
        "word": words.phase(figures),
        "settled": words.settled(figures),
        "jobs": figures.info.jobs,
        "states": _states(figures),
        "started": figures.counts[RowState.STARTED],
        "rejected": figures.counts[RowState.REJECTED],
        "unknown": figures.counts[RowState.UNKNOWN],
        "succeeded": results[Result.SUCCESS],
        "failed": results[Result.FAILURE],
    }


def _kind(figures: RunFigures) -> tuple[str, str]:
    """How good that is, as the style calls it, and the mark of it."""
    if figures.phase is Phase.ENDED and figures.results[Result.SUCCESS] < figures.info.jobs:
        is_bad = figures.results[Result.FAILURE] or figures.counts[RowState.REJECTED]
        return ("bad", "✕") if is_bad else ("unknown", "?")
    return _PHASES[figures.phase]


def _states(figures: RunFigures) -> list[dict[str, Any]]:
    """The states that any job is in, with their shares of 100, one behind the other."""
    begin, states = 0.0, []
    for state, colour in _BARS.items():
        if count := figures.counts[state]:
            share = 100 * count / figures.info.jobs
            states.append(
                {**STATES[state.label]._asdict(), "count": count, "begin": begin, "share": share, "colour": colour}
            )
            begin += share
    return states


def _tiles(figures: RunFigures) -> list[dict[str, str]]:
    def per_second(rate: float | None) -> str:
        return NOTHING if rate is None else f"{number(round(rate, 1))}/s"

    left = "" if figures.remaining is None else f"{words.clock(figures.remaining)} left"
    latency = figures.latency
    peak = f"peak {per_second(figures.peak_rate)}" if figures.began else ""
    if figures.rate is None:
        rate = {"name": "Mean rate", "value": per_second(figures.mean_rate), "note": peak}
    else:
        note = f"mean {per_second(figures.mean_rate)}, {peak}"
        rate = {"name": "Started now", "value": per_second(figures.rate), "note": note}
    return [
        rate,
        {"name": "Time", "value": words.clock(words.elapsed(figures)), "note": left},
        {
            "name": "Throttled",
            "value": number(figures.throttled),
            "note": f"{percent(figures.throttled, figures.answered)} of {plural(figures.answered, 'call')}",
        },
        {
            "name": "Time to answer, p50",
            "value": seconds(latency.p50 if latency else None),
            "note": f"p99 {seconds(latency.p99)}" if latency else "",
        },
        {
            "name": "Succeeded",
            "value": number(figures.results[Result.SUCCESS]),
            "note": f"{figures.results[Result.FAILURE]:,} failed" if figures.tracked else "not followed yet",
        },
    ]


def _orders(figures: RunFigures) -> str:
    """What the run was told, or that it is not in progress."""
    if not figures.in_use and (figures.orders.paused or figures.orders.stopped):
        return "The run is not in progress, and may not be gone on with until somebody lets it go on."
    if not figures.in_use:
        return "The run is not in progress, so only its executions can be cancelled."
    return f"The run was {told}." if (told := words.told(figures.orders)) else "The run keeps its own pace."


def _rate_finding(figures: RunFigures) -> str:
    if not figures.stretches:
        return "Nothing was sent yet."
    return f"Starts and throttles a second, in stretches of {seconds(figures.width)}: {words.throughput(figures)}."


def _complete(figures: RunFigures) -> Sequence[AnswerStretch]:
    """The stretches that are over: a rate drawn from a part of one would fall at the end."""
    last = figures.in_use and len(figures.stretches) > 1 and figures.stretches[-1].at + figures.width > figures.read_at
    return figures.stretches[:-1] if last else figures.stretches


@lru_cache(maxsize=16)
def _rate_drawing(stretches: tuple[AnswerStretch, ...], width: float) -> str:
    if not stretches:
        return ""
    panels = [
        charts.Panel("Started, a second", "started", [each.started / width for each in stretches]),
        charts.Panel("Throttled, a second", "throttled", [each.throttled / width for each in stretches]),
    ]
    return str(charts.over_time(panels, width))


@lru_cache(maxsize=16)
def _latency_drawing(curve: tuple[tuple[float, float], ...], calls: int) -> str:
    return str(charts.latency(curve, calls)) if curve else ""


def _rate_table(pages: Pages, figures: RunFigures) -> str:
    first = figures.stretches[0].at if figures.stretches else 0.0
    return pages.part(
        "run/table.html",
        headings=("From", "Started", "Throttled", "Refused", "Unknown"),
        rows=[
            (seconds(each.at - first), *map(number, (each.started, each.throttled, each.refused, each.unknown)))
            for each in figures.stretches
        ],
        otherwise="Nothing was sent yet.",
    )


def _executions(pages: Pages, figures: RunFigures) -> str:
    rows = [
        (
            visible(alike.status or "not seen yet"),
            visible(alike.return_code or ""),
            "open" if alike.judgement.result is Result.OPEN else alike.judgement.result.value,
            number(alike.rows),
        )
        for alike in figures.executions
    ]
    return pages.part(
        "run/table.html",
        headings=("Status", "Return code", "Result", "Jobs"),
        rows=rows,
        otherwise="No job was started yet.",
    )


def _errors(pages: Pages, figures: RunFigures) -> str:
    rows = [
        (code.code, "no" if code.surely_not_started else "perhaps", number(code.attempts)) for code in figures.codes
    ]
    return pages.part(
        "run/table.html", headings=("Code", "Started the job", "Calls"), rows=rows, otherwise="None so far."
    )


def _cancelling(cancelling: Cancelling | None) -> dict[str, Any] | None:
    """How far the cancelling is, and what came of it."""
    if cancelling is None:
        return None
    asked = sum(cancelling.outcomes.values())
    words_ = f"Cancelling: {cancelling.step}" if cancelling.active else "Cancelling has ended"
    if cancelling.total:
        words_ += f"; {asked:,} of {plural(cancelling.total, 'execution')}: {cancelling.summary()}"
    return {
        "words": words_,
        "total": cancelling.total,
        "asked": asked,
        "share": 100 * asked / max(1, cancelling.total),
        "failures": cancelling.failures[:_FAILURES],
    }


def _controls(figures: RunFigures, cancelling: Cancelling | None) -> dict[str, object]:
    """What the page's script needs to know: what can be done, and what fields begin with."""
    orders = figures.orders
    kind, _ = _kind(figures)
    in_progress = figures.in_use and not orders.stopped
    held = orders.paused or (orders.stopped and not figures.in_use)
    return {
        "kind": {"unknown": "unsure"}.get(kind, kind),
        "in_progress": in_progress,
        "can_pause": in_progress or held,
        "can_cancel": cancelling is None or not cancelling.active,
        "paused": held,
        "rate": orders.rate,
        "burst": orders.burst,
    }


def _text(text: str) -> str:
    """Write a text as HTML."""
    return str(escape(visible(text)))
