"""The structure of the package in figures, and its map; reads the source as text and imports nothing of it.

python -m tests.structure            the figures
python -m tests.structure PATH       those of another checkout
python -m tests.structure --map      the map that stands in CONTRIBUTING.md
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

CHECKOUT = Path(__file__).parents[1]
NAME = "m2async"

DATA_ORDER = (
    "cli", "manifest", "service", "submitting", "pacing", "ledger", "client", "certainty", "following",
    "events", "errors", "loops", "clock", "probing", "figures", "texts", "pages", "report", "dashboard",
    "local",
)  # fmt: skip
"""The rooms as a request passes them, from the command to its outcome; then what is shown of it, and the rest."""


class Import(NamedTuple):
    """One import within the package: by which file, of which, and by the name of which module."""

    source: Path
    target: Path
    module: str


class Package:
    """The package of a checkout."""

    def __init__(self, checkout: Path = CHECKOUT) -> None:
        self.root = checkout / NAME
        self.trees = {path: ast.parse(path.read_text()) for path in sorted(self.root.rglob("*.py"))}

    def room(self, path: Path) -> str:
        """The room that a file is in: a folder of the root, or a module there."""
        return path.relative_to(self.root).parts[0].removesuffix(".py")

    @property
    def rooms(self) -> list[str]:
        """All rooms."""
        return sorted({self.room(path) for path in self.trees} - {"__init__"})

    @property
    def folders(self) -> list[Path]:
        """All folders of the package, rooms and those within them, but for its root."""
        return sorted({path.parent for path in self.trees} - {self.root})

    def sentence(self, place: Path) -> str:
        """What a folder, or a module by its name without ending, says of itself first; empty if it says nothing."""
        tree = self.trees.get(place / "__init__.py") or self.trees.get(place.with_suffix(".py"))
        text = (ast.get_docstring(tree) if tree else None) or ""
        return " ".join(text.split("\n\n")[0].split())

    def imports(self) -> Iterator[Import]:
        """Every import of a file of the package by another."""
        for path, tree in self.trees.items():
            for node in ast.walk(tree):
                if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == NAME:
                    module = node.module.replace(".", "/")
                    for alias in node.names:
                        target = self._file(f"{module}/{alias.name}") or self._file(module)
                        if target is not None and target != path:
                            yield Import(path, target, node.module)

    def _file(self, module: str) -> Path | None:
        place = self.root.parent / module
        return next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path in self.trees), None)

    def pairs(self) -> dict[str, set[str]]:
        """The rooms that each room imports."""
        found: dict[str, set[str]] = {room: set() for room in self.rooms}
        for source, target, _ in self.imports():
            if self.room(source) not in {"__init__", self.room(target)} and self.room(target) != "__init__":
                found[self.room(source)].add(self.room(target))
        return found

    def circle(self) -> list[str] | None:
        """A circle of rooms, or else of files, that import each other; None if there is none."""
        files: dict[str, set[str]] = defaultdict(set)
        for source, target, _ in self.imports():
            files[str(source.relative_to(self.root))].add(str(target.relative_to(self.root)))
        return _circle(self.pairs()) or _circle(files)

    def past_the_face(self) -> list[str]:
        """Imports of a room's inner modules from outside of it."""
        return [
            f"{source.relative_to(self.root)} imports {target.relative_to(self.root)}"
            for source, target, module in self.imports()
            if self.room(source) not in {"__init__", self.room(target)} and module.count(".") > 1
        ]

    def classes(self) -> Iterator[tuple[Path, ast.ClassDef]]:
        """Every class."""
        for path, tree in self.trees.items():
            yield from ((path, node) for node in ast.walk(tree) if isinstance(node, ast.ClassDef))

    def classes_named_twice(self) -> list[str]:
        """Names that several public classes bear."""
        return _more_than_once((path, node.name) for path, node in self.classes() if not node.name.startswith("_"))

    def names_used_twice(self) -> list[str]:
        """Names that several things bear: classes, whether private or not, and aliases of types."""

        def every() -> Iterator[tuple[Path, str]]:
            yield from ((path, node.name.lstrip("_")) for path, node in self.classes())
            for path, tree in self.trees.items():
                yield from ((path, name.lstrip("_")) for name in _aliases(tree))

        return _more_than_once(every())

    def most_methods(self) -> tuple[int, str]:
        """How many methods and properties the largest class has, with what it inherits within the package."""
        by_name = {node.name: node for _, node in self.classes()}

        def methods(node: ast.ClassDef) -> set[str]:
            own = {each.name for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)}
            bases = (by_name.get(base.id) for base in node.bases if isinstance(base, ast.Name))
            return own.union(*(methods(base) for base in bases if base is not None and base is not node))

        return max((len(methods(node)), node.name) for _, node in self.classes())

    def lengths(self) -> Mapping[Path, int]:
        """Lines of each module."""
        return {path: len(path.read_text().splitlines()) for path in self.trees}

    def figures(self) -> dict[str, object]:
        """What the structure is measured by."""
        lengths = self.lengths()
        longest = max(lengths, key=lambda path: lengths[path])
        methods, largest = self.most_methods()
        circle = self.circle()
        return {
            "modules at the root": sum(path.parent == self.root for path in self.trees),
            "folders without a sentence": sum(not self.sentence(folder) for folder in self.folders),
            "pairs of rooms of which one imports the other": sum(map(len, self.pairs().values())),
            "imports between files": len(set(self.imports())),
            "a circle": " > ".join(circle) if circle else "none",
            "imports past a room's face": len(self.past_the_face()),
            "longest module": f"{lengths[longest]} lines, {longest.relative_to(self.root)}",
            "most methods, inherited ones included": f"{methods}, {largest}",
            "public class names used twice": _listed(self.classes_named_twice()),
            "names used twice, with private ones and aliases": _listed(self.names_used_twice()),
            "lines": f"{sum(lengths.values()):,}",
        }

    def map(self) -> str:
        """The rooms in the order of the data, each with its sentence and what it imports, as a table."""
        pairs = self.pairs()
        lines = ["| room | what lives there | imports |", "|---|---|---|"]
        for room in DATA_ORDER:
            name = f"`{room}/`" if (self.root / room).is_dir() else f"`{room}.py`"
            lines.append(
                f"| {name} | {self.sentence(self.root / room)} | {', '.join(sorted(pairs[room])) or 'nothing'} |"
            )
        return "\n".join(lines)


def _circle(imports: Mapping[str, set[str]]) -> list[str] | None:
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as exc:
        return list(map(str, exc.args[1]))
    return None


def _aliases(tree: ast.Module) -> Iterator[str]:
    """The names of types that are not classes, and those under which imports are known here alone."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and _makes_a_type(node.value):
            yield node.targets[0].id
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            if isinstance(node.annotation, ast.Name) and node.annotation.id == "TypeAlias":
                yield node.target.id
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(NAME):
            yield from (alias.asname for alias in node.names if alias.asname not in {None, alias.name})


def _makes_a_type(value: ast.expr) -> bool:
    """Whether what is assigned is a type: a union, or a generic with its arguments."""
    if isinstance(value, ast.BinOp):
        return isinstance(value.op, ast.BitOr) and _names_a_class(value.left)
    return isinstance(value, ast.Subscript) and _names_a_class(value.value)


def _names_a_class(value: ast.expr) -> bool:
    return isinstance(value, ast.BinOp) or (
        isinstance(value, ast.Name)
        and (value.id[:1].isupper() or value.id in {"dict", "list", "set", "tuple", "frozenset"})
    )


def _more_than_once(names: Iterator[tuple[Path, str]]) -> list[str]:
    places: dict[str, list[Path]] = defaultdict(list)
    for path, name in names:
        places[name].append(path)
    return sorted(name for name, paths in places.items() if len(paths) > 1)


def _listed(names: list[str]) -> str:
    return f"{len(names)} ({', '.join(names)})" if names else "0"


def main(arguments: list[str]) -> None:
    """Print the figures, or the map."""
    if "--map" in arguments:
        print(Package().map())
        return
    figures = Package(*map(Path, arguments[:1])).figures()
    width = max(map(len, figures))
    for name, figure in figures.items():
        print(f"{name:{width}}  {figure}")


if __name__ == "__main__":
    main(sys.argv[1:])
