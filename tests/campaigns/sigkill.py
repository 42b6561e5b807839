"""Kill the command at random moments, start the same command again, and compare the ledger with the truth.

    python -m tests.campaigns.sigkill [--kills 200] [--seed N]

Four campaigns side by side, each with so many kills: with distinct and with identical identifiers, each with and
without `--exact`. The endpoint, which answers every fifth call late, is a process of its own and goes on. A run that
ends in between is followed by another in the same ledger. Ends with an error if a job was started twice, is lost or has
another's execution id, if the ledger's file is damaged after a kill, or if `--exact` leaves something unknown.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import tempfile
from collections import Counter
from pathlib import Path

import anyio

from m2async.ledger.sqlite.connection import integrity_problems
from tests.campaigns.faults import audit, jobs_file, really_started, serving
from tests.cli.terminal import m2async, running

ROWS = 3_000
AT_WORK = 0.8
"""The share of kills that come when the command has begun to print, so that it sends; the others come at any time."""


class Campaign:
    """One ledger, and the runs that are killed in it."""

    def __init__(self, folder: Path, seed: int, *, identical: bool, exact: bool, rows: int = ROWS) -> None:
        self.name = f"{'identical' if identical else 'distinct'}{', exact' if exact else ''}"
        self.kills = self.killed_at_work = self.resumed = self.runs = self.unknown = self.adopted = self.executions = 0
        self.problems: list[str] = []
        self.damages: list[str] = []
        self._ledger = folder / "ledger.db"
        self._folder = folder
        self._seed = seed
        self._identical = identical
        self._exact = exact
        self._rows = rows // 6 if identical and exact else rows  # which are started one after the other
        self._lives = random.Random(f"{seed}/{self.name}")

    async def kill(self, kills: int) -> None:
        """Kill the command so often, and look into the ledger each time; let the last run come to its end."""
        async with serving("--seed", str(self._seed), "--fault", "latency=0.2") as url:
            while self.kills < kills:
                command = self._next_run()
                while self.kills < kills and await self._killed(command, url):
                    await self._look(url, ended=False)
                await self._finish(command, url)
                await self._look(url, ended=True)

    def _next_run(self) -> list[str]:
        first = self.runs * self._rows
        self.runs += 1
        path = self._folder / f"{self.runs}.csv"
        jobs_file(path, range(first, first + self._rows), identical=self._identical)
        options = ["--ledger", str(self._ledger), "--run", str(self.runs), "--settle", "0.3", "--timeout", "2"]
        return ["submit", str(path), *options, "--rate", "100", "-q", *(["--exact"] if self._exact else [])]

    async def _killed(self, command: list[str], url: str) -> bool:
        """Start the command and kill it a random time later; tells False if it had ended by then."""
        async with running(*command, url=url) as process:
            assert process.stdout is not None
            at_work = self._lives.random() < AT_WORK
            if at_work:
                with contextlib.suppress(anyio.EndOfStream):
                    await process.stdout.receive()
            with anyio.move_on_after(self._lives.uniform(0.0, 0.8)):
                async for _ in process.stdout:
                    pass
                await process.wait()
            if process.returncode is not None:
                return False
            process.kill()
        self.kills += 1
        self.killed_at_work += at_work
        return True

    async def _finish(self, command: list[str], url: str) -> None:
        """Let the run come to its end, with the same command."""
        await m2async(*command, url=url)
        if not self._exact:
            await m2async(*command, url=url)  # nothing competes any more with what was left unknown

    async def _look(self, url: str, *, ended: bool) -> None:
        if not self._ledger.exists():
            return
        self.damages += integrity_problems(self._ledger)
        executions = await really_started(url)
        self.executions = len(executions)
        last = range((self.runs - 1) * self._rows, self.runs * self._rows)
        own = [execution for execution in executions if int(execution["jobParams"]["NUMBER"]) in last]
        if not own and not ended:
            return  # the run may not be in the ledger yet
        found = await audit(self._ledger, str(self.runs), own, ended=ended)
        self.problems += found.problems
        if ended:
            self.unknown += found.states["unknown"]
            self.adopted += found.adopted
            if found.states["pending"] or found.states["rejected"]:
                self.problems.append(f"run {self.runs} ended with {dict(found.states)}")
            if self._exact and found.states["unknown"]:
                self.problems.append(f"run {self.runs} is exact and ended with {found.states['unknown']} unknown")
        else:
            self.resumed += bool(found.states["intent"] or found.states["unknown"])


async def campaigns(kills: int, seed: int, folder: Path, *, rows: int = ROWS) -> list[Campaign]:
    """Run the four campaigns at once."""
    made: list[Campaign] = []
    async with anyio.create_task_group() as tasks:
        for number, (identical, exact) in enumerate([(False, False), (False, True), (True, False), (True, True)]):
            own = folder / str(number)
            own.mkdir()
            made.append(Campaign(own, seed, identical=identical, exact=exact, rows=rows))
            tasks.start_soon(made[-1].kill, kills)
    return made


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--kills", type=int, default=200, help="of each of the four campaigns")
    arguments.add_argument("--seed", type=int, default=random.randrange(2**32), help="by default a new one")
    options = arguments.parse_args()
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        made = anyio.run(campaigns, options.kills, options.seed, Path(folder))
    widths = (19, 7, 9, 10, 6, 12, 9, 9, 9, 10)
    heads = ("IDENTIFIERS", "KILLS", "AT WORK", "IN DOUBT", "RUNS", "EXECUTIONS", "ADOPTED", "UNKNOWN", "DAMAGES")
    print("".join(f"{head:<{width}}" for head, width in zip((*heads, "PROBLEMS"), widths, strict=True)))
    for one in made:
        cells = (
            one.name, one.kills, one.killed_at_work, one.resumed, one.runs, one.executions, one.adopted, one.unknown,
            len(one.damages), len(one.problems),
        )  # fmt: skip
        print("".join(f"{cell!s:<{width}}" for cell, width in zip(cells, widths, strict=True)))
    troubles = Counter(trouble for one in made for trouble in [*one.problems, *one.damages])
    if troubles:
        raise SystemExit("\n".join(f"{count} × {trouble}" for trouble, count in troubles.items()))


if __name__ == "__main__":
    main()
