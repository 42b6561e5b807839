"""The order of the modules: reading goes from top to bottom, and so do the imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import m2async

PACKAGE = Path(m2async.__file__).parent
LAYERS = {
    "clock": 0,
    "errors": 0,
    "keys": 0,
    "service": 0,
    "manifest": 1,
    "pacing": 1,
    "pages": 1,
    "events": 2,
    "ledger": 2,
    "client": 3,
    "certainty": 3,
    "figures": 3,
    "submitting": 4,
    "following": 4,
    "local": 4,
    "probing": 5,
    "dashboard": 6,
    "report": 6,
    "cli": 7,
}
ONLY_IN = {
    "tenacity": {"pacing"},
    "structlog": {"events", "submitting", "following", "cli"},
    "yaml": {"manifest"},
    "typer": {"cli"},
    "hdrh": {"figures"},
    "jinja2": {"pages"},
    "vl_convert": {"pages"},
}


def imports() -> Iterator[tuple[Path, str, str]]:
    """Every import: the file, the room it is in, and the module that it imports."""
    for path in sorted(PACKAGE.rglob("*.py")):
        if path == PACKAGE / "__init__.py":
            continue
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                yield path, room, node.module or ""
            elif isinstance(node, ast.Import):
                yield from ((path, room, name.name) for name in node.names)


def test_every_module_has_its_layer() -> None:
    rooms = {path.name.removesuffix(".py") for path in PACKAGE.iterdir() if not path.name.startswith("__")}
    assert rooms - {"py.typed"} == LAYERS.keys()


def test_imports_point_down_and_pipelines_do_not_know_each_other() -> None:
    wrong = []
    for path, room, module in imports():
        if module.startswith("m2async."):
            other = module.split(".")[1]
            if other != room and (LAYERS[other] > LAYERS[room] or LAYERS[other] == LAYERS[room] == 4):
                wrong.append(f"{path.relative_to(PACKAGE)} imports {module}")
    assert not wrong


def test_only_the_module_that_knows_a_library_imports_it() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {module}"
        for path, room, module in imports()
        if (library := module.partition(".")[0]) in ONLY_IN and room not in ONLY_IN[library]
    ]
    assert not wrong


def test_pure_modules_do_no_input_or_output() -> None:
    doing = {"socket", "asyncio", "anyio", "aiohttp", "aiobotocore", "os", "ssl", "sqlite3"}
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {module}"
        for path, room, module in imports()
        if LAYERS[room] == 0 and module.partition(".")[0] in doing
    ]
    assert not wrong
