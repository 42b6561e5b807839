"""What every part of a run in SQLite asks and writes by."""

from __future__ import annotations

import sqlite3
from abc import abstractmethod
from collections.abc import Callable
from typing import TypeVar

from m2async.ledger.interface import RunView
from m2async.ledger.rows import RunInfo

_T = TypeVar("_T")


class PartOfRun(RunView):
    """The methods of a run in SQLite that have one subject."""

    @abstractmethod
    async def read(self, function: Callable[[sqlite3.Connection, RunInfo], _T]) -> _T:
        """Ask something about the run as it is now."""

    @abstractmethod
    async def write_now(self, write: Callable[[sqlite3.Connection], _T]) -> _T:
        """Write in a transaction of its own, which needs no lock of the run."""
