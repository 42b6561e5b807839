"""The comparison of control laws in docs/pacing.md: its table, printed, and its plots, in docs/plots.

    python -m benchmarks.quota.plots

Everything comes from the simulator of the tests, in virtual time and from fixed seeds; the plots are plain SVG.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import mean

from benchmarks.quota.laws import Aimd, Cubic, EstimateOnly, Gradient
from m2async.pacing import AdaptiveRate
from tests.pacing.simulator import Law, Result, Scenario, simulate

FOLDER = Path(__file__).parents[2] / "docs" / "plots"
LAWS: dict[str, tuple[Callable[[], Law], str]] = {
    "m2async": (AdaptiveRate, "#0b6e4f"),
    "AIMD": (partial(Aimd, 20, 0.7), "#c1440e"),
    "CUBIC": (partial(Cubic, 0.4, 0.7), "#5b3fa0"),
    "gradient": (partial(Gradient, 0.7), "#a07800"),
    "estimate only": (EstimateOnly, "#4a6fa5"),
}
SEEDS = range(2000, 2006)  # others than those that the laws' constants were chosen with
STEPS = ((20.0, 50.0), (40.0, 300.0))


def unknown(rate: float, latency: float) -> list[Scenario]:
    workers = max(64, int(2 * rate * latency))
    return [Scenario(rate, rate, latency, workers, seed=seed) for seed in SEEDS]


CASES = {
    **{f"unknown {rate:,}/s, 20 ms": unknown(rate, 0.02) for rate in (50, 200, 1000)},
    **{f"unknown {rate:,}/s, 200 ms": unknown(rate, 0.2) for rate in (50, 200, 1000)},
    **{f"unknown {rate:,}/s, 2 s": unknown(rate, 2.0) for rate in (50, 200, 1000)},
    "5/s, burst 100, 200 ms": [Scenario(5, 100, 0.2, 64, seed=seed) for seed in SEEDS],
    "200 → 50 → 300/s, 20 ms": [Scenario(200, 200, 0.02, 64, steps=STEPS, seed=seed) for seed in SEEDS],
    "200 → 50 → 300/s, 200 ms": [Scenario(200, 200, 0.2, 120, steps=STEPS, seed=seed) for seed in SEEDS],
    "two on 200/s, 20 ms": [Scenario(200, 200, 0.02, 64, joins=(0, 0), seed=seed) for seed in SEEDS],
    "one joins after 10 s": [Scenario(200, 200, 0.02, 64, joins=(0, 10), seed=seed) for seed in SEEDS],
}


def table() -> str:
    """A row a case, a column a law: used, used after 5 s, throttled, and the smaller share of two senders."""
    lines = ["| case | " + " | ".join(LAWS) + " |", "|---|" + "---|" * len(LAWS)]
    for name, scenarios in CASES.items():
        cells = [_cell([simulate(scenario, law) for scenario in scenarios]) for law, _ in LAWS.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(results: Sequence[Result]) -> str:
    figures = [mean(result.used() for result in results), mean(result.used(5) for result in results)]
    text = " / ".join(f"{figure:.0%}" for figure in figures)
    text += f" / {mean(result.throttled() for result in results):.1%}"
    if len(results[0].senders) == 2:
        joined = max(results[0].scenario.joins)
        shares = [result.share(0, joined) for result in results]
        smaller = sorted(min(share, 1 - share) for share in shares)
        text += f", share {smaller[0]:.0%}-{smaller[-1]:.0%}"
    return text


# The plots

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 760, 300, 48, 36, 30


class Plot:
    """Lines over time in seconds, as SVG."""

    def __init__(self, title: str, seconds: float, highest: float, unit: str) -> None:
        self._seconds = seconds
        self._highest = highest
        self._parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">',
            "<style>text{font-size:12px}</style>",
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
            f'<text x="{LEFT}" y="18" font-weight="bold">{title}</text>',
        ]
        for part in range(5):
            value = highest * part / 4
            y = self._y(value)
            self._parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - 20}" stroke="#ddd"/>')
            self._parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}{unit}</text>')
        for at in range(0, round(seconds) + 1, 10):
            self._parts.append(
                f'<text x="{self._x(at):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{at} s</text>'
            )
        self._labels = 0

    def line(self, name: str, color: str, points: Sequence[tuple[float, float]], *, dashed: bool = False) -> None:
        """Draw a line, with its name beneath the plot."""
        path = "L".join(f"{self._x(at):.1f} {self._y(min(value, self._highest)):.1f}" for at, value in points)
        dashes = ' stroke-dasharray="5 4"' if dashed else ""
        self._parts.append(f'<path d="M{path}" fill="none" stroke="{color}" stroke-width="1.4"{dashes}/>')
        x = LEFT + 118 * self._labels
        self._parts.append(f'<path d="M{x} {HEIGHT - 9}h18" stroke="{color}" stroke-width="2.5"{dashes}/>')
        self._parts.append(f'<text x="{x + 23}" y="{HEIGHT - 5}">{name}</text>')
        self._labels += 1

    def write(self, name: str) -> None:
        FOLDER.mkdir(exist_ok=True)
        (FOLDER / name).write_text("\n".join([*self._parts, "</svg>"]) + "\n", encoding="utf-8")

    def _x(self, at: float) -> float:
        return LEFT + (WIDTH - 20 - LEFT) * at / self._seconds

    def _y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * value / self._highest


def sent_by_time(
    result: Result, sender: int, *, width: float = 0.5, accepted: bool = False
) -> list[tuple[float, float]]:
    """Calls a second that one sender sent, or that were accepted, in each interval of `width` seconds."""
    counts = [0] * math.ceil(result.scenario.seconds / width)
    for at, was_accepted in result.senders[sender].answers:
        counts[int(at / width)] += was_accepted or not accepted
    return [((number + 0.5) * width, count / width) for number, count in enumerate(counts)]


def plot_steps() -> None:
    """How each law follows a quota that changes."""
    plot = Plot(
        "Calls sent a second; the quota steps 200 → 50 → 300/s, answers take 200 ms (cut off at 400)", 60, 400, ""
    )
    plot.line("quota", "#999", [(0, 200), (20, 200), (20, 50), (40, 50), (40, 300), (60, 300)], dashed=True)
    scenario = CASES["200 → 50 → 300/s, 200 ms"][0]
    for name, (law, color) in LAWS.items():
        plot.line(name, color, sent_by_time(simulate(scenario, law), 0))
    plot.write("steps.svg")


def plot_throttles() -> None:
    """What share of each second's answers are throttles."""
    plot = Plot("Throttled, % of the calls of each 2 s; an unknown quota of 200/s, answers take 200 ms", 60, 24, "")
    scenario = CASES["unknown 200/s, 200 ms"][0]
    for name, (law, color) in LAWS.items():
        result = simulate(scenario, law)
        plot.line(name, color, [(at + 1, 100 * result.throttled(at, at + 2)) for at in range(0, 60, 2)])
    plot.write("throttles.svg")


def plot_sharing() -> None:
    """Two senders that know nothing of each other."""
    plot = Plot("Accepted calls a second of two senders on a quota of 200/s; the second joins after 10 s", 60, 240, "")
    result = simulate(CASES["one joins after 10 s"][0], AdaptiveRate)
    for sender, (name, color) in enumerate((("first", "#0b6e4f"), ("second", "#c1440e"))):
        plot.line(name, color, sent_by_time(result, sender, width=1.0, accepted=True))
    plot.write("sharing.svg")


if __name__ == "__main__":
    print(table())
    plot_steps()
    plot_throttles()
    plot_sharing()
