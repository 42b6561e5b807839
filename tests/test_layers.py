"""The structure of the package: its map is the one in CONTRIBUTING.md, and it stays within its bounds."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.structure import CHECKOUT, DATA_ORDER, Package

ONLY_IN = {
    "tenacity": {"pacing/backoff.py"},
    "structlog": {"events.py", "submitting/submitter.py", "following/tracker.py", "cli"},
    "sqlite3": {"ledger/sqlite", "manifest/keys.py"},
    "yaml": {"manifest"},
    "httptools": {"client/wire"},
    "typer": {"cli"},
    "rich": {"cli"},
    "jinja2": {"pages"},
    "vl_convert": {"pages/charts.py"},
}
"""The libraries that are known in one place alone."""

PURE = (
    "errors.py", "texts.py", "service", "certainty/adopt.py", "certainty/calibration.py", "certainty/explained.py",
    "certainty/law.py", "certainty/start_times.py", "certainty/verdict.py", "certainty/worlds.py", "ledger/changes.py",
    "ledger/clocks.py", "submitting/consequences.py", "submitting/lane.py", "submitting/outcomes.py",
    "submitting/schedule.py", "following/evidence.py", "following/plans.py", "following/restart.py",
    "client/answers.py", "client/wire/http11.py", "client/wire/sigv4.py", "pacing/adaptive.py", "pacing/bucket.py",
    "pacing/budget.py", "pacing/circuit.py", "pacing/estimate.py", "probing/bucket_fit.py", "probing/plans.py",
    "probing/record.py", "ledger/states.py",
)  # fmt: skip
"""What decides or translates, without input, output or waiting."""

DOING = {"socket", "asyncio", "anyio", "aiohttp", "aiobotocore", "os", "ssl", "sqlite3", "threading"}


@pytest.fixture(scope="module")
def package() -> Package:
    return Package()


def libraries(package: Package) -> Iterator[tuple[str, str]]:
    """Every import of something else than the package: the file, and the library's name."""
    for path, tree in package.trees.items():
        file = str(path.relative_to(package.root))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                yield file, (node.module or "").partition(".")[0]
            elif isinstance(node, ast.Import):
                yield from ((file, alias.name.partition(".")[0]) for alias in node.names)


def is_in(file: str, places: tuple[str, ...] | set[str]) -> bool:
    return any(file == place or file.startswith(f"{place}/") for place in places)


def test_the_map_in_contributing_is_that_of_the_code(package: Package) -> None:
    assert package.map() in Path(CHECKOUT, "CONTRIBUTING.md").read_text(), "see: python -m tests.structure --map"
    assert set(DATA_ORDER) == set(package.rooms)


def test_no_room_or_file_imports_itself_by_way_of_others(package: Package) -> None:
    assert package.circle() is None


def test_the_pipelines_do_not_know_each_other(package: Package) -> None:
    imports = package.pairs()
    for one in ("submitting", "following", "local"):
        assert not imports[one] & ({"submitting", "following", "local"} - {one})


def test_a_room_is_entered_by_its_face(package: Package) -> None:
    assert package.past_the_face() == []


def test_every_folder_says_in_a_sentence_what_lives_there(package: Package) -> None:
    for folder in package.folders:
        assert package.sentence(folder).endswith("."), folder


def test_names_and_sizes_stay_within_bounds(package: Package) -> None:
    figures = package.figures()
    assert figures["modules at the root"] in range(7)
    assert package.names_used_twice() == []
    assert max(package.lengths().values()) <= 600


def test_only_the_place_that_knows_a_library_imports_it(package: Package) -> None:
    wrong = [
        f"{file} imports {library}"
        for file, library in libraries(package)
        if library in ONLY_IN and not is_in(file, ONLY_IN[library])
    ]
    assert wrong == []


def test_what_decides_does_no_input_or_output(package: Package) -> None:
    assert all((package.root / place).exists() for place in PURE)
    assert [f"{file} imports {name}" for file, name in libraries(package) if is_in(file, PURE) and name in DOING] == []
