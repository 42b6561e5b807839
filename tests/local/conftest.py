from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from m2async.local import LocalEndpoint


class Clock:
    """A clock that tests set; it begins at the real time, by which unmodified clients sign."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def _no_credentials_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
async def _no_task_is_left() -> AsyncIterator[None]:
    yield
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.fixture
async def endpoint(clock: Clock) -> AsyncIterator[LocalEndpoint]:
    async with LocalEndpoint(seed=1, clock=clock) as endpoint:
        yield endpoint
