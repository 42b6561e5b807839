from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from m2async import LocalEndpoint, M2Client
from tests.virtual_time import assert_no_task_is_left

settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("here")  # how long an example takes says how busy the machine is


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are processors: tests wait for answers and for timers."""
    return (os.cpu_count() or 1) + 1


@pytest.fixture(autouse=True)
def no_aws_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test depends on, or reaches, what the machine is set up for."""
    for name in os.environ:
        if name.startswith("AWS_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-aws-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-aws-credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))  # where the command's own ledger is


@pytest.fixture(autouse=True)
async def no_task_is_left() -> AsyncIterator[None]:
    yield
    await assert_no_task_is_left()


@pytest.fixture
async def endpoint() -> AsyncIterator[LocalEndpoint]:
    async with LocalEndpoint(seed=1) as endpoint:
        yield endpoint


@pytest.fixture
async def client(endpoint: LocalEndpoint) -> AsyncIterator[M2Client]:
    async with M2Client(**endpoint.client_settings()) as client:
        yield client
