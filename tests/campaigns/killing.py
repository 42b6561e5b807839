"""A command that is killed at random moments and given again: what every campaign of kills has in common."""

from __future__ import annotations

import random
import signal
from abc import ABC, abstractmethod
from pathlib import Path

import anyio
from anyio.abc import ByteReceiveStream

from m2async.ledger.sqlite.connection import integrity_problems
from tests.cli.terminal import Ended, m2async, running

KILLED = -signal.SIGKILL
AT_WORK = 0.8
"""The share of kills that come when the command has begun to print, so that it works; the others come at any time."""
_HANGS = 120.0
"""Seconds after which a command that was not killed is taken to hang."""


class Campaign(ABC):
    """One ledger, and commands that are killed over it until there were enough kills."""

    name: str
    within = 0.8
    """Seconds in which a kill comes, once the command was started or has begun to print."""
    prints_when_at_work = "stderr"

    def __init__(self, folder: Path, seed: int, kills: int) -> None:
        self.kills = self.killed_at_work = self.resumed = self.runs = self.unknown = self.adopted = self.executions = 0
        self.problems: list[str] = []
        self.damages: list[str] = []
        self.folder = folder
        self.ledger = folder / "ledger.db"
        self.seed = seed
        self._wanted = kills
        self._lives = random.Random(f"{seed}/{self.name}")

    @abstractmethod
    async def kill(self) -> None:
        """Kill commands so often, look into the ledger each time, and let the last ones come to their ends."""

    @property
    def goes_on(self) -> bool:
        """Whether there are kills left."""
        return self.kills < self._wanted

    def expect(self, holds: bool, otherwise: str) -> None:
        """Note a problem unless something holds."""
        if not holds:
            self.problems.append(f"{self.name}: {otherwise}")

    async def live(self, url: str, *command: str | Path) -> Ended:
        """Start a command, and kill it a random time later; its code is KILLED unless it had ended by then.

        With no kill left, it comes to its end. Either way its ledger must be sound afterwards.
        """
        ended = await (self._killed(command, url) if self.goes_on else self.to_its_end(url, *command))
        self.expect("Traceback" not in ended.err, ended.err)
        if self.ledger.exists():
            self.damages += integrity_problems(self.ledger)
        return ended

    async def to_its_end(self, url: str, *command: str | Path) -> Ended:
        """Run a command that must come to its end."""
        with anyio.move_on_after(_HANGS):
            return await m2async(*command, url=url)
        self.problems.append(f"{command[0]} hangs")
        return Ended(KILLED - 1, "", "")

    async def _killed(self, command: tuple[str | Path, ...], url: str) -> Ended:
        written = {"stdout": b"", "stderr": b""}
        begun = {name: anyio.Event() for name in written}

        async def read(name: str, stream: ByteReceiveStream | None) -> None:
            assert stream is not None
            async for piece in stream:
                written[name] += piece
                begun[name].set()
            begun[name].set()

        async with running(*command, url=url) as process, anyio.create_task_group() as tasks:
            tasks.start_soon(read, "stdout", process.stdout)
            tasks.start_soon(read, "stderr", process.stderr)
            at_work = self._lives.random() < AT_WORK
            if at_work:
                with anyio.move_on_after(_HANGS):
                    await begun[self.prints_when_at_work].wait()
            with anyio.move_on_after(self._lives.uniform(0.0, self.within)):
                await process.wait()
            process.kill()
            code = await process.wait()
        if code == KILLED:
            self.kills += 1
            self.killed_at_work += at_work
        return Ended(code, written["stdout"].decode(errors="replace"), written["stderr"].decode(errors="replace"))
