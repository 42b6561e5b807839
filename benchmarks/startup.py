"""How long it takes to start: whole processes, in alternating rounds.

python -m benchmarks.startup [--rounds 11]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks.rounds import Goal, environment

_SCRIPTS = Path(sys.executable).parent
ASYNCIO = "import asyncio"
LIBRARY = "import m2async"
CLIENT = "import m2async; m2async.M2Client"
HELP = "m2async --help"
PEER = "aws --version"


def programs() -> dict[str, list[str]]:
    found = {code: [sys.executable, "-c", code] for code in (ASYNCIO, LIBRARY, CLIENT)}
    for line in (HELP, PEER):
        name, option = line.split()
        if (script := _SCRIPTS / name).exists():
            found[line] = [str(script), option]
    return found


def milliseconds(command: Sequence[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment())
    return 1e3 * (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=11)
    arguments = parser.parse_args()
    commands = programs()
    for command in commands.values():  # what is compiled and read is in place from here on
        milliseconds(command)
    results: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(arguments.rounds):
        for name, command in commands.items():
            results[name].append(milliseconds(command))
    print(f"{'':<36}{'ms':>20}{f'more than {ASYNCIO!r}':>36}")
    for name, own in results.items():
        more = [each - other for each, other in zip(own, results[ASYNCIO], strict=True)]
        print(f"{name:<36}{_spread(own):>20}{_spread(more):>36}")
    print("medians, and (least-most) of whole processes")
    added = median(each - other for each, other in zip(results[LIBRARY], results[ASYNCIO], strict=True))
    print(Goal(f"ms that {LIBRARY!r} takes longer than {ASYNCIO!r}, at most 100", added, most=100))
    if HELP in results:
        print(Goal(f"ms of {HELP!r}, at most 250", median(results[HELP]), most=250))
    if HELP in results and PEER in results:
        times = median(other / own for own, other in zip(results[HELP], results[PEER], strict=True))
        print(f"{PEER!r} takes {times:.2f} times as long as {HELP!r}")


def _spread(values: Sequence[float]) -> str:
    return f"{median(values):.0f} ({min(values):.0f}-{max(values):.0f})"


if __name__ == "__main__":
    main()
