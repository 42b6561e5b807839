from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FunctionType

import m2async

PACKAGE = Path(m2async.__file__).parent
PUBLIC = dir(m2async)
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


def test_every_designed_name_is_public() -> None:
    assert set(DESIGNED) <= set(PUBLIC)
    assert vars(m2async)["__all__"] == PUBLIC
    for name in PUBLIC:
        value = getattr(m2async, name)
        if isinstance(value, type | FunctionType):
            assert value.__module__.startswith("m2async."), name


def test_every_public_name_is_explained() -> None:
    assert not [name for name, public in definitions() if not public.docstring]


def test_whatever_a_public_name_takes_gives_raises_or_speaks_of_is_public() -> None:
    named = {name: {*annotated(public), *spoken_of(public)} for name, public in definitions()}
    assert not {name: others for name in named if (others := named[name] - set(PUBLIC))}


def test_every_exception_is_public() -> None:
    assert {error.__name__ for error in errors_below(m2async.M2AsyncError)} <= set(PUBLIC)


def test_importing_the_package_imports_nothing_heavy() -> None:
    modules = imported_by("import m2async")
    assert not modules & {"botocore", "aiobotocore", "aiohttp", "structlog", "tenacity", "msgspec", "yaml", "typer"}


@dataclass(frozen=True)
class Definition:
    """Where a name of the library is defined: the module, the statement, and the docstring in or behind it."""

    module: str
    node: ast.stmt
    docstring: str

    @property
    def is_type(self) -> bool:
        """Whether annotations can name it: a class or an alias, and no type variable or constant."""
        value = self.node.value if isinstance(self.node, ast.Assign | ast.AnnAssign) else None
        return not isinstance(value, ast.Call | ast.Constant)


def annotated(public: Definition) -> Iterator[str]:
    """The library's own types that stand in a definition's signatures."""
    for module, statement in signatures(public):
        for expression in types_in(statement):
            for node in ast.walk(expression):
                if isinstance(node, ast.Name) and (found := find(module, node.id)) and found.is_type:
                    yield node.id


def spoken_of(public: Definition) -> Iterator[str]:
    """The library's own names that stand in docstrings: words in backticks, of several humps, or in capitals."""
    for _, statement in signatures(public):
        text = (docstring_in(statement) or "") if statement is not public.node else public.docstring
        words = re.findall(r"\b[A-Z]\w*[a-z]\w*[A-Z]\w*\b|\b[A-Z]+(?:_[A-Z]+)+\b", text)
        words += [word for word in re.findall(r"`(\w+)[`(.]", text) if not word.islower() or "_" in word]
        yield from names_of_the_library().intersection(words)


def signatures(definition: Definition) -> Iterator[tuple[str, ast.stmt]]:
    """A definition, and what is public in it: the methods and fields of a class and of its bases."""
    yield definition.module, definition.node
    if isinstance(definition.node, ast.ClassDef):
        for statement in definition.node.body:
            names = names_bound_by(statement)
            if any(not name.startswith("_") or name == "__init__" for name in names):
                yield definition.module, statement
        for base in definition.node.bases:
            found = find(definition.module, base.id) if isinstance(base, ast.Name) else None
            if found is not None:
                yield from signatures(found)


def types_in(statement: ast.stmt) -> Iterator[ast.expr]:
    match statement:
        case ast.FunctionDef(args=args) | ast.AsyncFunctionDef(args=args):
            every = [*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg]
            yield from (each.annotation for each in every if each is not None and each.annotation is not None)
            if statement.returns is not None:
                yield statement.returns
        case ast.AnnAssign():
            yield statement.annotation
        case ast.Assign():
            yield statement.value


def definitions() -> Iterator[tuple[str, Definition]]:
    for name in PUBLIC:
        found = find("m2async", name)
        assert found is not None, name
        yield name, found


def find(module: str, name: str) -> Definition | None:
    """Find where a name that stands in a module is defined in the library."""
    found = modules()[module].get(name)
    return find(*found) if isinstance(found, tuple) else found


@cache
def modules() -> dict[str, dict[str, Definition | tuple[str, str]]]:
    """Every module's names: defined there, or imported from another module of the library under a name there."""
    trees = {}
    for path in [*sorted(PACKAGE.rglob("*.py")), *sorted(PACKAGE.rglob("*.pyi"))]:  # a stub goes over its module
        module = ".".join(("m2async", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        trees[module] = ast.parse(path.read_text())
    known: dict[str, dict[str, Definition | tuple[str, str]]] = {module: {} for module in trees}
    for module, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                source = f"{module}.{node.module}" if node.level else node.module or ""
                if source in trees:
                    known[module] |= {name.asname or name.name: (source, name.name) for name in node.names}
        for node, behind in zip(tree.body, [*tree.body[1:], ast.Pass()], strict=True):
            text = docstring_in(node) or docstring_of(behind)
            known[module] |= {name: Definition(module, node, text or "") for name in names_bound_by(node)}
    return known


@cache
def names_of_the_library() -> set[str]:
    """What is defined anywhere in it, but for the command."""
    return {
        name
        for module, names in modules().items()
        if not module.startswith("m2async.cli.")
        for name, found in names.items()
        if isinstance(found, Definition) and not name.startswith("_")
    }


def names_bound_by(statement: ast.stmt) -> list[str]:
    match statement:
        case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            return [name]
        case ast.Assign(targets=targets):
            return [target.id for target in targets if isinstance(target, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
    return []


def docstring_in(statement: ast.stmt) -> str | None:
    if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return ast.get_docstring(statement)
    return None


def docstring_of(statement: ast.stmt) -> str | None:
    match statement:
        case ast.Expr(value=ast.Constant(value=str(text))):
            return text
    return None


def errors_below(kind: type[m2async.M2AsyncError]) -> Iterator[type[m2async.M2AsyncError]]:
    for error in kind.__subclasses__():
        if error.__module__.startswith("m2async."):
            yield from errors_below(error)
            if not error.__name__.startswith("_"):
                yield error


def imported_by(code: str) -> set[str]:
    program = f"{code}\nimport sys; print(*sys.modules)"
    printed = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    return {name.partition(".")[0] for name in printed.split()}
