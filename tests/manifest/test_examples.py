from __future__ import annotations

import json
from pathlib import Path

from m2async.manifest import check_manifest, read_manifest
from m2async.service.requests import FileJob
from tests.manifest.samples import APP

_ROOT = Path(__file__).parents[2]
_MEMBERS = {job["file"]: job for job in json.loads((_ROOT / "m2async/local/carddemo-jobs.json").read_text())["jobs"]}


def test_the_carddemo_manifest_has_every_member_with_its_symbols() -> None:
    found = {}
    for key, request in read_manifest(_ROOT / "examples/carddemo.csv", application_id=APP):
        assert isinstance(request.job, FileJob)
        assert key == request.job.name.partition(".")[0]
        found[request.job.name] = dict(request.params)
    assert len(found) == 46
    assert found == {file: job.get("symbols", {}) for file, job in _MEMBERS.items()}


def test_the_month_end_sweep_makes_the_jobs_that_it_says() -> None:
    path = _ROOT / "examples/month-end.yaml"
    assert check_manifest(path, application_id=APP).rows == 1_200
    assert "1,200 jobs" in path.read_text().splitlines()[0]
    assert {request.job.name for _, request in read_manifest(path, application_id=APP)} <= set(_MEMBERS)
    assert len({str(request.to_api()) for _, request in read_manifest(path, application_id=APP)}) == 1_200
