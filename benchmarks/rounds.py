"""Contenders in alternating rounds, each in a process of its own, and the ratios between them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

_SETTINGS = {
    "AWS_ACCESS_KEY_ID": "local",
    "AWS_SECRET_ACCESS_KEY": "local",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class Round(NamedTuple):
    """One round of one contender: calls a second, and microseconds of its CPU time a call."""

    rate: float
    cpu: float


def play(module: str, contenders: Sequence[str], *, url: str, calls: int, rounds: int) -> dict[str, list[Round]]:
    """Run `python -m MODULE --contender NAME` for each contender in turn, `rounds` times over.

    Each prints one line of JSON with `seconds` and `cpu_seconds` for `calls` calls, its own start-up and
    warm-up left out.
    """
    results: dict[str, list[Round]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name in contenders:
            line = subprocess.run(
                [sys.executable, "-m", module, "--contender", name, "--url", url, "--calls", str(calls)],
                check=True,
                stdout=subprocess.PIPE,
                env={**os.environ, **_SETTINGS},
            ).stdout
            figures = json.loads(line)
            results[name].append(Round(calls / figures["seconds"], 1e6 * figures["cpu_seconds"] / calls))
            print(f"round {number + 1}: {name}: {results[name][-1].rate:,.0f} calls/s", file=sys.stderr)
    return results


def show(results: dict[str, list[Round]], *, peer: str) -> str:
    """A table of each contender's median (least to most), and its ratio to `peer`, round by round."""
    lines = [f"{'':<28}{'calls/s':>24}{'CPU µs/call':>24}{'calls/s, ×':>20}{'CPU, ×':>20}"]
    for name, own in results.items():
        pairs = list(zip(own, results[peer], strict=True))
        lines.append(
            f"{name:<28}"
            f"{_spread([r.rate for r in own], ',.0f'):>24}"
            f"{_spread([r.cpu for r in own], ',.0f'):>24}"
            f"{_spread([a.rate / b.rate for a, b in pairs], '.2f'):>20}"
            f"{_spread([a.cpu / b.cpu for a, b in pairs], '.3f'):>20}"
        )
    lines.append(f"median (least to most); × is the ratio to {peer!r} in the same round")
    return "\n".join(lines)


def _spread(values: list[float], form: str) -> str:
    return f"{median(values):{form}} ({min(values):{form}}-{max(values):{form}})"
