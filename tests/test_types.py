"""What type checkers say to those who use the package as it is installed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

import m2async

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
EMBEDDING = '''
from collections.abc import AsyncIterator
from typing import assert_never

from m2async import CallNext, LedgerRow, Outcome, Pacer, RowState, SubmittedJobs, TokenBucket, open_ledger
from m2async import M2Client, Rejected, RunInUseError, Started, StartBatchJob, StartBatchJobResponse, Submitter, Unknown


class Client:
    """Starts jobs in its own way."""

    async def start_batch_job(self, request: StartBatchJob, /) -> StartBatchJobResponse:
        return StartBatchJobResponse("execution", request_id=None)


async def watched(request: StartBatchJob, call_next: CallNext) -> StartBatchJobResponse:
    return await call_next(request)


def told(outcome: Outcome) -> str:
    match outcome:
        case Started():
            return outcome.execution_id or ", ".join(outcome.candidates)
        case Rejected() | Unknown():
            return f"{outcome.key} {outcome.state} {outcome.attempts} {outcome.error.code} {outcome.to_line()}"
    assert_never(outcome)


async def unfinished() -> AsyncIterator[LedgerRow]:
    async with open_ledger("nightly.db") as ledger:
        try:
            async with await ledger.open_run("nightly") as run:
                async for row in run.rows(RowState.PENDING):
                    yield row
        except RunInUseError as error:
            print(error.pid, error.host)


async def main() -> None:
    pacer = Pacer(TokenBucket(20.0, burst=40.0))
    async with M2Client() as client, Submitter(client, pacer=pacer), Submitter(Client(), rate=1.0) as submitter:
        client.use(watched)
        outcomes: SubmittedJobs = submitter.submit_many(unfinished())
        async for outcome in outcomes:
            print(told(outcome))
        await outcomes.aclose()
'''
MISTAKES = """
import m2async
from m2async import Submiter
from m2async import results
from m2async.local import LocalEndpiont
m2async.M2Cleint
m2async.Submitter(m2async.TokenBucket(1.0))
"""


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a wheel and a source distribution of the package."""
    folder = tmp_path_factory.mktemp("distributions")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-t", "sdist", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    return folder


@pytest.fixture(scope="module")
def installed(distributions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that has the wheel as pip would have put it there."""
    folder = tmp_path_factory.mktemp("installed")
    [wheel] = distributions.glob("*.whl")
    with ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder with what is shown to users, and with more of the public face and with mistakes."""
    (tmp_path / "readme.py").write_text(README)
    (tmp_path / "embedding.py").write_text(EMBEDDING)
    (tmp_path / "mistakes.py").write_text(MISTAKES)
    for example in (ROOT / "examples").glob("*.py"):
        (tmp_path / f"example_{example.name}").write_text(example.read_text())
    return tmp_path


def test_stubs_and_marker_are_in_wheel_and_source(distributions: Path) -> None:
    needed = {"m2async/py.typed", "m2async/__init__.pyi", "m2async/local/__init__.pyi"}
    [wheel], [source] = distributions.glob("*.whl"), distributions.glob("*.tar.gz")
    with ZipFile(wheel) as archive:
        assert needed <= set(archive.namelist())
    with tarfile.open(source) as archive:
        assert needed <= {name.partition("/")[2] for name in archive.getnames()}


@pytest.mark.parametrize("mode", ["basic", "strict"])
def test_pyright_accepts_what_is_right_and_finds_each_mistake(mode: str, installed: Path, programs: Path) -> None:
    (programs / "pyrightconfig.json").write_text(json.dumps({"typeCheckingMode": mode}))
    found = json.loads(check([sys.executable, "-m", "pyright", "--outputjson"], installed, programs))
    assert found["summary"]["filesAnalyzed"] == len(list(programs.glob("*.py")))
    errors = [(Path(one["file"]).name, one["range"]["start"]["line"]) for one in found["generalDiagnostics"]]
    assert {file for file, _ in errors} == {"mistakes.py"}, found["generalDiagnostics"]
    assert {line + 1 for _, line in errors} == lines_with_mistakes()


def test_mypy_accepts_what_is_right_and_finds_each_mistake(installed: Path, programs: Path) -> None:
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir", str(programs / "cache")]
    names = sorted(path.name for path in programs.glob("*.py"))
    found = check([*command, *names], installed, programs)
    errors = re.findall(r"^(\w+\.py):(\d+): error", found, re.MULTILINE)
    assert {file for file, _ in errors} == {"mistakes.py"}, found
    assert {int(line) for _, line in errors} == lines_with_mistakes()


def test_every_type_of_every_module_is_known(installed: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pyright", "--verifytypes", "m2async", "--ignoreexternal", "--outputjson"]
    found = json.loads(check(command, installed, tmp_path))["typeCompleteness"]
    assert found["packageRootDirectory"] == str(installed / "m2async")
    exported = [symbol for symbol in found["symbols"] if symbol["isExported"]]
    assert not {symbol["name"]: symbol["diagnostics"] for symbol in exported if not is_known(symbol)}
    assert len(exported) > len(dir(m2async))


def is_known(symbol: dict[str, Any]) -> bool:
    return bool(symbol["isTypeKnown"]) and not symbol["isTypeAmbiguous"]


def lines_with_mistakes() -> set[int]:
    return {number for number, line in enumerate(MISTAKES.splitlines(), 1) if line not in {"", "import m2async"}}


def check(command: Sequence[str], installed: Path, folder: Path) -> str:
    """What a checker says in a folder, for a Python that has the package where it is installed."""
    environment = {
        **os.environ,
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),  # of `python`, for pyright
        "PYTHONPATH": str(installed),
        "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1",  # that there is a later one, which it asks the network for
    }
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode in {0, 1}, done.stderr
    return done.stdout
