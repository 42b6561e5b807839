"""Contenders in alternating rounds, each in a process of its own, and the ratios between them."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple, TypeVar

from benchmarks.nginx import Server

_T = TypeVar("_T")

CONCURRENCY = 64
"""Connections, and calls under way at once, of every contender."""

_SETTINGS = {
    "AWS_ACCESS_KEY_ID": "local",
    "AWS_SECRET_ACCESS_KEY": "local",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "NODE_NO_WARNINGS": "1",
}


class Contender(NamedTuple):
    """A program that makes `--calls N` calls to `--url URL` and prints one line of JSON.

    The line has `seconds` and `cpu_seconds`, start-up and warm-up left out. `weight` is how many calls it
    makes for each call of the peer, so that a round of each takes about as long; `missing` says why it
    cannot run here.
    """

    name: str
    command: Sequence[str | Path]
    weight: float = 1.0
    missing: str | None = None


class Round(NamedTuple):
    """One round of one contender: calls a second, and microseconds of its CPU time a call."""

    rate: float
    cpu: float


class Goal(NamedTuple):
    """What a benchmark is to show: a figure, and the least or the most that it may be."""

    text: str
    figure: float
    least: float | None = None
    most: float | None = None

    def __str__(self) -> str:
        met = (self.least is None or self.figure >= self.least) and (self.most is None or self.figure <= self.most)
        return f"{'met    ' if met else 'NOT MET'}  {self.text}: {self.figure:.3g}"


Results = Mapping[str, Sequence[Round]]


def contender(module: str, name: str, weight: float = 1.0) -> Contender:
    """A contender that is a coroutine of `module`, run by its `--contender NAME`."""
    return Contender(name, [sys.executable, "-m", module, "--contender", name], weight)


def environment(server: Server | None = None) -> dict[str, str]:
    """The environment of every measured process: the caller's, without its AWS and proxy settings."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("AWS_") and not name.lower().endswith("_proxy")
    }
    bundle = server.ca_bundle if server is not None else None
    trust = {} if bundle is None else {"AWS_CA_BUNDLE": str(bundle), "NODE_EXTRA_CA_CERTS": str(bundle)}
    return {**kept, **_SETTINGS, **trust}


def play(contenders: Sequence[Contender], server: Server, *, calls: int, rounds: int) -> Results:
    """Run each contender in turn, `rounds` times over."""
    results: dict[str, list[Round]] = {one.name: [] for one in contenders if not one.missing}
    for number in range(rounds):
        for one in contenders:
            if one.missing:
                continue
            own_calls = max(CONCURRENCY, round(calls * one.weight))
            output = subprocess.run(
                [*one.command, "--url", server.url, "--calls", str(own_calls)],
                check=True,
                stdout=subprocess.PIPE,
                env=environment(server),
            ).stdout
            figures = json.loads(output)
            results[one.name].append(Round(own_calls / figures["seconds"], 1e6 * figures["cpu_seconds"] / own_calls))
            print(f"round {number + 1}: {one.name}: {results[one.name][-1].rate:,.0f} calls/s", file=sys.stderr)
    return results


async def timed(run: Callable[[_T], Awaitable[None]], make: Callable[[int], _T], calls: int) -> None:
    """Run calls that were made beforehand, after a warm-up: there connections are made and code gets warm."""
    await run(make(warm_up(calls)))
    made = make(calls)
    with measured():
        await run(made)


def warm_up(calls: int) -> int:
    """How many calls go before those that count."""
    return max(2 * CONCURRENCY, calls // 4)


@contextlib.contextmanager
def measured() -> Iterator[None]:
    """Print what the block took, as a contender's one line."""
    gc.collect()
    gc.freeze()  # the calls made beforehand are not looked through again and again
    began, cpu = time.perf_counter(), _cpu_seconds()
    yield
    print(json.dumps({"seconds": time.perf_counter() - began, "cpu_seconds": _cpu_seconds() - cpu}))


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def rate_ratios(results: Results, name: str, peer: str) -> list[float]:
    """Calls a second of one, in those of a peer, round by round."""
    return [own.rate / other.rate for own, other in zip(results[name], results[peer], strict=True)]


def cpu_ratios(results: Results, name: str, peer: str) -> list[float]:
    """CPU time a call of one, in that of a peer, round by round."""
    return [own.cpu / other.cpu for own, other in zip(results[name], results[peer], strict=True)]


def show(contenders: Sequence[Contender], results: Results, *, peer: str, floor: str | None = None) -> str:
    """A table of each contender's medians, the spread beneath, and its ratios round by round."""
    columns = ["calls/s", "CPU µs a call", "calls/s, ×", "CPU, ×", *(["of the floor"] if floor else [])]
    lines = [_line("", columns)]
    for one in contenders:
        if one.missing:
            lines.append(f"{one.name:<24}  {one.missing}")
            continue
        own = results[one.name]
        columns_of_values = [
            ([each.rate for each in own], ",.0f"),
            ([each.cpu for each in own], ",.0f" if own[0].cpu >= 100 else ".1f"),
            (rate_ratios(results, one.name, peer) if peer in results else [], ".2f"),
            (cpu_ratios(results, one.name, peer) if peer in results else [], ".3f"),
            (rate_ratios(results, one.name, floor) if floor and floor in results else [], ".2f"),
        ][: len(columns)]
        lines.append(
            _line(one.name, [f"{median(values):{form}}" if values else "" for values, form in columns_of_values])
        )
        spreads = [
            f"({min(values):{form}}-{max(values):{form}})" if values else "" for values, form in columns_of_values
        ]
        lines.append(_line("", spreads))
    lines.append(f"medians, and (least-most); ×: the ratio to {peer} in the same round")
    if floor:
        lines.append(f"of the floor: calls/s as a share of those of the {floor}")
    return "\n".join(lines)


def _line(name: str, cells: Sequence[str]) -> str:
    widths = (18, 15, 14, 15, 14)  # with the name: 100 columns
    return (f"{name:<24}" + "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=False))).rstrip()
