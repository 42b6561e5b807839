from __future__ import annotations

import subprocess
import sys

import m2async

DESIGNED = [
    "StartBatchJob",
    "ScriptJob",
    "FileJob",
    "S3Job",
    "RestartJob",
    "M2Client",
    "Submitter",
    "Tracker",
    "TokenBucket",
    "LocalEndpoint",
    "Outcome",
    "Started",
    "Rejected",
    "Unknown",
    "read_manifest",
    "open_ledger",
    "ThrottlingException",
    "M2ServiceException",
]


def test_every_public_name_is_there_and_knows_where_it_is_public() -> None:
    assert set(DESIGNED) <= set(m2async.__all__)
    assert m2async.__all__ == sorted(m2async.__all__)
    for name in m2async.__all__:
        assert getattr(m2async, name).__module__.startswith("m2async.")
        assert getattr(m2async, name).__doc__
    assert set(m2async.__all__) <= set(dir(m2async))


def test_names_for_type_checkers_are_those_at_run_time() -> None:
    assert m2async._MODULE_OF_NAME.keys() == set(m2async.__all__)
    checked = "\n".join(["import m2async", *(f"m2async.{name}" for name in m2async.__all__)])
    subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file=", "--strict", "-c", checked],
        check=True,
        stdout=subprocess.DEVNULL,
    )


def test_importing_the_package_imports_nothing_heavy() -> None:
    modules = imported_by("import m2async")
    assert not modules & {"botocore", "aiobotocore", "aiohttp", "structlog", "tenacity", "msgspec", "yaml", "typer"}


def imported_by(code: str) -> set[str]:
    program = f"{code}\nimport sys; print(*sys.modules)"
    printed = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    return {name.partition(".")[0] for name in printed.split()}
