from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from m2async.ledger import Ledger, open_ledger
from tests.ledger.samples import Clock


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    left = {thread for thread in threading.enumerate() if thread.name.startswith("ledger")} - before
    assert not left, f"the test left threads behind: {left}"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture(params=["memory", "sqlite"])
async def ledger(request: pytest.FixtureRequest, path: Path, clock: Clock) -> AsyncIterator[Ledger]:
    """Every ledger that there is."""
    async with open_ledger("memory:" if request.param == "memory" else path, clock=clock) as ledger:
        yield ledger


@pytest.fixture
async def sqlite(path: Path, clock: Clock) -> AsyncIterator[Ledger]:
    async with open_ledger(path, clock=clock, busy_timeout=0.1) as ledger:
        yield ledger
