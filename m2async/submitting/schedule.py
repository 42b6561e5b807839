"""Which rows may be started: after those that they come after, and at most so many of an application at once.

Pure decisions: rows, starts and ends go in, rows to start come out, and for each row that is held the way from what
failed to it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

_SHOWN = 4
"""How many rows of the way to a held one are named: what failed, and those next to the held one."""


class _HeldRow(NamedTuple):
    """Why a row is held: the row that failed, why it did, and the row in between that is held as well, if any."""

    failed: str
    why: str
    behind: str
    steps: int


class Schedule:
    """The rows of a run, by their keys, as far as they are not started.

    Arguments:
        after: the keys that rows come after, by key; there must be an order in which all can start.
        max_running: how many rows of an application may be in progress at once; None for no limit.

    A row is in progress from when it is taken until it succeeds or fails. One of which it is not known whether it was
    started stays in progress, and what comes after it is held. All rows that were started before are to be told before
    how any of them ended.
    """

    def __init__(self, after: Mapping[str, Sequence[str]], *, max_running: int | None = None) -> None:
        self._max_running = max_running
        self._missing = {key: len(set(earlier)) for key, earlier in after.items()}
        self._later: dict[str, list[str]] = {}
        for key, earlier in after.items():
            for other in set(earlier):
                self._later.setdefault(other, []).append(key)
        self._waiting: dict[str, str] = {}  # the application of each row that others have to end before
        self._ready: dict[str, deque[str]] = {}  # by application; none is empty
        self._running: dict[str, str] = {}  # the application of each row in progress
        self._running_in: Counter[str] = Counter()
        self._doubtful: set[str] = set()  # those of them that may not be
        self._started: set[str] = set()  # of those that come after others
        self._backlog = 0
        self._holds: dict[str, _HeldRow] = {}

    # What is told

    def add(self, key: str, application: str) -> None:
        """Take in a row that is to be started."""
        if key in self._holds:
            return
        if self._missing.get(key):
            self._waiting[key] = application
        else:
            self._is_ready(key, application)

    def started(self, key: str, application: str) -> None:
        """Take note of a row that was started before."""
        if key in self._missing:
            self._started.add(key)
        self._running[key] = application
        self._running_in[application] += 1

    def succeeded(self, key: str) -> None:
        """Take note that a row ended well: what came after nothing else may start."""
        self._leave(key)
        for later in self._later.get(key, ()):
            self._missing[later] -= 1
            if not self._missing[later] and later in self._waiting:
                self._is_ready(later, self._waiting.pop(later))

    def failed(self, key: str, why: str) -> None:
        """Take note that a row ended otherwise or was not started: what comes after it is held."""
        self._leave(key)
        self._hold_behind(key, why)

    def doubted(self, key: str, why: str) -> None:
        """Take note that a row may or may not have been started, and that this will not be found out."""
        self._doubtful.add(key)
        self._hold_behind(key, why)

    # What follows

    def take(self, most: int) -> list[str]:
        """Give rows to start now, first come, first served, in turns between applications; they are in progress."""
        taken: list[str] = []
        while len(taken) < most:
            free = [application for application in self._ready if self._has_room(application)]
            if not free:
                break
            for application in free[: most - len(taken)]:
                key = self._ready[application].popleft()
                if not self._ready[application]:
                    del self._ready[application]
                self._backlog -= 1
                self.started(key, application)
                taken.append(key)
        return taken

    @property
    def backlog(self) -> int:
        """How many rows wait for nothing but to be taken."""
        return self._backlog

    @property
    def waits(self) -> bool:
        """Whether rows wait, for room or for others that may yet succeed."""
        return bool(self._ready or self._waiting)

    @property
    def may_go_on(self) -> bool:
        """Whether an end is to come that may let further rows start."""
        return len(self._running) > len(self._doubtful)

    def is_running(self, key: str) -> bool:
        """Whether a row is in progress."""
        return key in self._running

    def held(self, key: str) -> str | None:
        """Say why a row is held, as the way from what failed to it; None if it is not."""
        hold = self._holds.get(key)
        if hold is None:
            return None
        way = [key]
        step = hold
        while step.steps > 1 and len(way) < _SHOWN - 1:
            way.append(step.behind)
            step = self._holds[step.behind]
        if step.steps > 1:
            way.append(f"… {step.steps - 1:,} more …")
        return " -> ".join([f"{hold.failed} ({hold.why})", *reversed(way)])

    # The state

    def _is_ready(self, key: str, application: str) -> None:
        self._ready.setdefault(application, deque()).append(key)
        self._backlog += 1

    def _leave(self, key: str) -> None:
        application = self._running.pop(key, None)
        if application is not None:
            self._running_in[application] -= 1

    def _has_room(self, application: str) -> bool:
        return self._max_running is None or self._running_in[application] < self._max_running

    def _hold_behind(self, key: str, why: str) -> None:
        behind = deque([(key, 1)])
        while behind:
            earlier, steps = behind.popleft()
            for later in self._later.get(earlier, ()):
                if later not in self._holds and later not in self._started:
                    self._holds[later] = _HeldRow(key, why, earlier, steps)
                    self._waiting.pop(later, None)
                    behind.append((later, steps + 1))
