"""`m2async watch`: a run as it goes, on the terminal; all that it knows is in the ledger."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from datetime import datetime
from time import monotonic, perf_counter
from typing import NoReturn

import anyio
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from m2async.cli.ledgers import with_ledger
from m2async.cli.output import BAD_INPUT, emit, fail
from m2async.cli.track import summary
from m2async.figures import Look, Looks, Phase, Rhythm, RunFigures, Trouble, words
from m2async.ledger import Ledger, RowState, RunNotFoundError, RunView
from m2async.texts import percent, visible

_LINE_EVERY = 5.0
"""Seconds between two lines, at least, where the output is no terminal."""

_QUIET = 60.0
"""Seconds without a change after which we take it that nobody follows the executions; trackers look every 30 s."""

_COLOURS = {"started": "green", "intent": "blue", "rejected": "red", "unknown": "yellow", "failed": "red"}
_BLOCKS = "▁▂▃▄▅▆▇█"


def watch(url: str | None, run_name: str) -> None:
    """Show the run until it has ended."""
    console = Console(highlight=False, markup=False, emoji=False)

    async def watching(ledger: Ledger) -> None:
        view = await _find(ledger, run_name)
        shown: Screen | Lines = (
            Screen(console) if console.is_terminal and not console.is_dumb_terminal else Lines(_LINE_EVERY)
        )
        with shown:
            await _follow(view, shown)

    with_ledger(url, watching)


async def _find(ledger: Ledger, run_name: str) -> RunView:
    try:
        return await ledger.run(run_name)
    except RunNotFoundError as error:
        await _refuse(ledger, run_name, error)


async def _refuse(ledger: Ledger, run_name: str, error: RunNotFoundError) -> NoReturn:
    names = [each.info.name for each in await ledger.runs()]
    near = difflib.get_close_matches(run_name, names, cutoff=0.4)
    hint = f"; nearest: {', '.join(near)}" if near else "" if names else "; it has no runs at all"
    fail(f"{error}{hint}", BAD_INPUT)


async def _follow(view: RunView, shown: Screen | Lines) -> None:
    looks, rhythm, changed_at, before = Looks(view), Rhythm(), monotonic(), None
    while True:
        began = perf_counter()
        look = await looks.look()
        wait = rhythm.wait_after(perf_counter() - began)
        content = (look.figures.counts, look.figures.executions)
        if content != before:
            before, changed_at = content, monotonic()
        if is_over(look.figures, monotonic() - changed_at):
            shown.end(look)
            return
        shown.show(look)
        await anyio.sleep(wait)


def is_over(figures: RunFigures, quiet: float) -> bool:
    """Whether a run in which nothing has changed for `quiet` seconds will show nothing new.

    Executions that have not ended change only while somebody follows them.
    """
    if figures.in_use:
        return False
    return figures.phase is not Phase.RUNNING or not figures.tracked or quiet >= _QUIET


class Lines:
    """The run in plain lines, one when it has changed, for a file or a pipe."""

    def __init__(self, every: float) -> None:
        self._every = every
        self._next_at = 0.0
        self._last = ""

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, look: Look) -> None:
        """Print a line, unless it would say the same, or comes too soon."""
        if monotonic() >= self._next_at:
            self._print(line(look))

    def end(self, look: Look) -> None:
        """Print the last state and the summary."""
        self._print(line(look))
        emit(summary(look.figures.executions, look.figures.counts))

    def _print(self, text: str) -> None:
        if text != self._last:
            emit(f"{datetime.now().astimezone():%H:%M:%S}  {text}")
            self._last, self._next_at = text, monotonic() + self._every


def line(look: Look) -> str:
    """A run in one line."""
    figures = look.figures
    parts = [
        words.standing(figures),
        words.states(figures),
        words.together(figures),
        words.throughput(figures),
        throttles(figures),
        words.results(figures),
    ]
    return visible("; ".join(part for part in parts if part))


def throttles(figures: RunFigures) -> str:
    """How many answers were throttles, if any."""
    if not figures.throttled:
        return ""
    return f"{figures.throttled:,} throttled ({percent(figures.throttled, figures.answered)})"


class Screen:
    """The run on a terminal, drawn anew at each look; what does not fit its height is left out from the end."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, vertical_overflow="crop")

    def __enter__(self) -> None:
        self._live.start()

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, look: Look) -> None:
        """Draw it."""
        self._live.update(drawn(look, *self._console.size), refresh=True)

    def end(self, look: Look) -> None:
        """Draw it a last time, with the summary."""
        width, height = self._console.size
        sum_ = Text(summary(look.figures.executions, look.figures.counts), style="bold")
        self._live.update(Group(drawn(look, width, height - 2), sum_), refresh=True)


def drawn(look: Look, width: int, height: int) -> RenderableType:
    """Lay a run out for a terminal of this size, in characters."""
    figures = look.figures
    head = Text(visible(figures.info.name), style="bold", no_wrap=True, overflow="ellipsis")
    facts = [
        ("", words.standing(figures)),
        ("jobs", words.states(figures)),
        ("", words.together(figures)),
        ("rate", words.throughput(figures)),
        ("", history(figures, width - 13)),
        ("pace", words.pace(figures)),
        ("throttled", f"{figures.throttled:,} of {figures.answered:,} calls" if figures.answered else ""),
        ("errors", words.troubles(figures)),
        ("answers", words.latency(figures)),
        ("executions", words.executions(figures)),
        ("results", words.results(figures)),
    ]
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(width=11, style="dim")
    table.add_column()
    for name, value in facts:
        if value:
            table.add_row(name, Text(visible(value)))
    console = Console(width=width, height=height, color_system=None)
    used = 2 + len(console.render_lines(table, console.options.update(width=width)))
    return Group(head, state_bar(figures, width), table, *_troubles(look, width, height - used - 1))


def state_bar(figures: RunFigures, width: int) -> Text:
    """Draw the jobs as a line that has a part for each state, at least a character for each that any is in."""
    counts = {state: count for state, count in figures.counts.items() if count and state is not RowState.PENDING}
    parts = {state: max(1, count * width // figures.info.jobs) for state, count in counts.items()}
    if parts:
        largest = max(parts, key=lambda state: parts[state])
        parts[largest] -= max(0, sum(parts.values()) - width)
    bar = Text.assemble(*(("━" * length, _COLOURS[state.label]) for state, length in parts.items()))
    bar.append("━" * (width - sum(parts.values())), "bright_black")
    return bar


def _troubles(look: Look, width: int, height: int) -> list[Text]:
    """The latest troubles in so many lines, or none where there are none."""
    if not look.in_trouble or height < 3:
        return []
    shown = look.troubles[: height - 2]
    title = f"Latest of {look.in_trouble:,} in trouble" if look.in_trouble > len(shown) else "In trouble"
    return [Text(), Text(title, style="bold"), *(_trouble(each, width) for each in shown)]


def _trouble(trouble: Trouble, width: int) -> Text:
    key = visible(trouble.key)
    room = max(8, width // 3)
    if cell_len(key) > room:
        key = f"{Text(key)[: room - 1]}…"
    text = Text.assemble(
        f"{key}  ", (trouble.what, _COLOURS[trouble.what]), f"  {visible(trouble.reason)}",
        no_wrap=True, overflow="ellipsis",
    )  # fmt: skip
    text.truncate(width, overflow="ellipsis")
    return text


def history(figures: RunFigures, width: int) -> str:
    """Draw the starts of each stretch of time in one line of characters, at most `width` of them."""
    values = _fewer([stretch.started for stretch in figures.stretches], max(1, width))
    top = max(values, default=0)
    if not top or len(values) < 2:
        return ""
    return "".join(_BLOCKS[min(len(_BLOCKS) - 1, int(value / top * len(_BLOCKS)))] for value in values)


def _fewer(values: Sequence[int], most: int) -> list[float]:
    """Replace neighbours by their mean until there are at most so many."""
    each = -(-len(values) // most) if values else 1
    groups = [values[start : start + each] for start in range(0, len(values), each)]
    return [sum(group) / len(group) for group in groups]
