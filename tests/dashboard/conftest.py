from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from m2async import LocalEndpoint
from m2async.local import load_definitions


@pytest.fixture
async def endpoint(tmp_path: Path) -> AsyncIterator[LocalEndpoint]:
    """An endpoint whose job LONG runs for ten minutes."""
    path = tmp_path / "definitions.json"
    job = {"file": "LONG.jcl", "jobName": "LONG", "seconds": 600.0, "returnCode": 0, "steps": [{"step": "STEP1"}]}
    path.write_text(json.dumps({"jobs": [job]}))
    async with LocalEndpoint(seed=1, definitions=load_definitions(path)) as endpoint:
        yield endpoint
