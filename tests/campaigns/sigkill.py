"""Kill commands at random moments, give the same command again, and compare the ledger with the truth.

    python -m tests.campaigns.sigkill [COMMAND ...] [--kills 200] [--at-once 4] [--seed N]

Four campaigns kill `submit`: with distinct and with identical identifiers, each with and without `--exact`. The
endpoint, which answers every fifth call late, is a process of its own and goes on. A run that ends in between is
followed by another in the same ledger. One campaign each kills the other commands (killed_later.py). By default all are
run, each with so many kills, and what came of each is printed as it ends. Ends with an error if a job was started
twice, is lost or has another's execution id, if the ledger's file is damaged after a kill, if `--exact` leaves
something unknown, or if a command that is given again does not come to its right end.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import anyio

from tests.campaigns.faults import audit, jobs_file, really_started, serving
from tests.campaigns.killed_later import KILLED_LATER
from tests.campaigns.killing import KILLED, Campaign

ROWS = 3_000
COMMANDS = ("submit", *KILLED_LATER)


class KilledSubmit(Campaign):
    """`submit`: the same command goes on."""

    prints_when_at_work = "stdout"

    def __init__(self, folder: Path, seed: int, kills: int, *, identical: bool, exact: bool, rows: int = ROWS) -> None:
        self.name = f"submit {'identical' if identical else 'distinct'}{', exact' if exact else ''}"
        super().__init__(folder, seed, kills)
        self._identical = identical
        self._exact = exact
        self._rows = rows // 6 if identical and exact else rows  # which are started one after the other

    async def kill(self) -> None:
        async with serving("--seed", str(self.seed), "--fault", "latency=0.2") as url:
            while self.goes_on:
                command = self._next_run()
                while self.goes_on and (await self.live(url, *command)).code == KILLED:
                    await self._look(url, ended=False)
                await self._finish(command, url)
                await self._look(url, ended=True)

    def _next_run(self) -> list[str]:
        first = self.runs * self._rows
        self.runs += 1
        path = self.folder / f"{self.runs}.csv"
        jobs_file(path, range(first, first + self._rows), identical=self._identical)
        options = ["--ledger", str(self.ledger), "--run", str(self.runs), "--settle", "0.3", "--timeout", "2"]
        return ["submit", str(path), *options, "--rate", "100", "-q", *(["--exact"] if self._exact else [])]

    async def _finish(self, command: list[str], url: str) -> None:
        """Let the run come to its end, with the same command."""
        await self.to_its_end(url, *command)
        if not self._exact:
            await self.to_its_end(url, *command)  # nothing competes any more with what was left unknown

    async def _look(self, url: str, *, ended: bool) -> None:
        if not self.ledger.exists():
            return
        executions = await really_started(url)
        self.executions = len(executions)
        last = range((self.runs - 1) * self._rows, self.runs * self._rows)
        own = [execution for execution in executions if int(execution["jobParams"]["NUMBER"]) in last]
        if not own and not ended:
            return  # the run may not be in the ledger yet
        found = await audit(self.ledger, str(self.runs), own, ended=ended)
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


async def campaigns(
    kills: int,
    seed: int,
    folder: Path,
    commands: Sequence[str] = COMMANDS,
    *,
    at_once: int = 4,
    rows: int = ROWS,
    tell: Callable[[Campaign], None] = lambda ended: None,
) -> list[Campaign]:
    """Run the campaigns of these commands, so many at once, and tell each that ends; `rows` is for `submit`."""
    made: list[Campaign] = []

    def own_folder() -> Path:
        own = folder / str(len(made))
        own.mkdir()
        return own

    if "submit" in commands:
        for identical, exact in [(False, False), (False, True), (True, False), (True, True)]:
            made.append(KilledSubmit(own_folder(), seed, kills, identical=identical, exact=exact, rows=rows))
    for command in commands:
        if command in KILLED_LATER:
            made.append(KILLED_LATER[command](own_folder(), seed, kills))
    limit = anyio.CapacityLimiter(at_once)

    async def run(campaign: Campaign) -> None:
        async with limit:
            await campaign.kill()
            tell(campaign)

    async with anyio.create_task_group() as tasks:
        for campaign in made:
            tasks.start_soon(run, campaign)
    return made


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("commands", nargs="*", metavar="COMMAND", help=f"of {', '.join(COMMANDS)}; by default all")
    arguments.add_argument("--kills", type=int, default=200, help="of each campaign")
    arguments.add_argument("--at-once", type=int, default=4, help="how many campaigns run side by side")
    arguments.add_argument("--seed", type=int, default=random.randrange(2**32), help="by default a new one")
    options = arguments.parse_args()
    if unknown := set(options.commands) - set(COMMANDS):
        arguments.error(f"no such command: {', '.join(unknown)}")
    print(f"seed {options.seed}")
    _print_cells([*_COLUMNS])
    with tempfile.TemporaryDirectory() as folder:
        made = anyio.run(
            partial(campaigns, at_once=options.at_once, tell=_print),
            options.kills, options.seed, Path(folder), options.commands or COMMANDS,
        )  # fmt: skip
    troubles = Counter(trouble for one in made for trouble in [*one.problems, *one.damages])
    if troubles:
        raise SystemExit("\n".join(f"{count} × {trouble}" for trouble, count in troubles.items()))


_COLUMNS = {
    "KILLED": 25, "KILLS": 7, "AT WORK": 9, "IN DOUBT": 10, "RUNS": 6, "EXECUTIONS": 12, "ADOPTED": 9, "UNKNOWN": 9,
    "DAMAGES": 9, "PROBLEMS": 10,
}  # fmt: skip


def _print(one: Campaign) -> None:
    _print_cells((
        one.name, one.kills, one.killed_at_work, one.resumed, one.runs, one.executions, one.adopted, one.unknown,
        len(one.damages), len(one.problems),
    ))  # fmt: skip


def _print_cells(cells: Sequence[object]) -> None:
    line = "".join(f"{cell!s:<{width}}" for cell, width in zip(cells, _COLUMNS.values(), strict=True))
    print(line.rstrip(), flush=True)


if __name__ == "__main__":
    main()
