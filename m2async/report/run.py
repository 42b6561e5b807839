"""A run as a page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime

from m2async.figures import JobTally, RunFigures, duration_of, read_figures
from m2async.ledger import RowState, RunView
from m2async.pages import Pages, marks
from m2async.report import drawings
from m2async.report.table import MOST_ROWS, Table
from m2async.report.verdict import verdict
from m2async.service import Result
from m2async.texts import moment, number, plural, seconds

_KINDS = ("started", "throttled", "refused", "unknown")


async def run_page(
    view: RunView,
    *,
    command: Callable[..., str],
    advance: Callable[[], object] = lambda: None,
    most_rows: int = MOST_ROWS,
) -> str:
    """Make the page of a run as it is now.

    Arguments:
        view: the run.
        command: writes out a command on a run: it is given the command, the run's name, and further options.
        advance: is told of each row that has been read.
        most_rows: rows that the page's table has at most.

    Raises LedgerError.
    """
    figures = await read_figures(view)
    table, tally = Table(figures.info.created_at, await view.dependencies(), most_rows), JobTally()
    async for row, execution in view.jobs():
        tally.add(row, execution)
        table.add(row, execution, await view.history(row.number) if table.asks_history(row, execution) else ())
        advance()
    jobs = tally.figures()
    packed = table.pack()
    return Pages("m2async.report", duration=duration_of, command=command).render(
        "run.html",
        scripts=["table.js"] if table.seen else [],
        figures=figures,
        jobs=jobs,
        verdict=verdict(figures, jobs, command),
        charts=list(_charts(figures)),
        states=[(state, figures.counts[state]) for state in RowState if figures.counts[state]],
        results=figures.results,
        Result=Result,
        STATES=marks.STATES,
        RESULTS=marks.RESULTS,
        ends=_ends(figures),
        table=table,
        packed=packed,
        offset=_offset(figures.read_at),
        day=_day(figures),
    )


def _offset(at: float) -> int:
    """How far this machine's time is ahead of UTC, in minutes."""
    ahead = datetime.fromtimestamp(at).astimezone().utcoffset()
    return 0 if ahead is None else round(ahead.total_seconds() / 60)


def _day(figures: RunFigures) -> str:
    """The date of the whole run; empty if it had more than one."""
    days = {moment(at)[:10] for at in (figures.began, figures.ended) if at is not None}
    return days.pop() if len(days) == 1 else ""


def _ends(figures: RunFigures) -> list[tuple[str, str, Result, int]]:
    """Status, return code, result and number of executions, the most frequent first."""
    counted: dict[tuple[str, str, Result], int] = {}
    for alike in figures.executions:
        status = "not known any more" if alike.gone else alike.status or "not seen yet"
        kind = (status, alike.return_code or "", alike.judgement.result)
        counted[kind] = counted.get(kind, 0) + alike.rows
    return sorted(((*kind, rows) for kind, rows in counted.items()), key=lambda end: -end[-1])


def _charts(figures: RunFigures) -> Iterator[drawings.Chart]:
    if figures.stretches:
        counts = {kind: [getattr(each, kind) for each in figures.stretches] for kind in _KINDS}
        yield drawings.over_time("Starts and throttles over time", _rate_finding(figures), counts, figures.width)
    if figures.latency is not None:
        yield drawings.latency(figures.latency, figures.curve)


def _rate_finding(figures: RunFigures) -> str:
    parts = [f"Peak {number(figures.peak_rate)} starts a second over {seconds(figures.width)}"]
    if figures.mean_rate is not None:
        parts.append(f"mean {number(figures.mean_rate)}")
    return f"{', '.join(parts)}; {plural(figures.throttled, 'throttle')}."
