"""Where an error came by, with the lines of public code alone: of the user's own, only modules and line numbers."""

from __future__ import annotations

import linecache
import re
import sys
import sysconfig
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions, requires
from pathlib import Path
from traceback import FrameSummary, StackSummary, walk_tb
from types import FrameType, TracebackType

import m2async

_NAME = re.compile(r"[\w.-]+")


def frames_of(traceback: TracebackType | None) -> str:
    """Tell them in the manner of Python; paths begin at the folder of a package."""
    public = _public_folders()
    return "".join(StackSummary.from_list([_told(*each, public) for each in walk_tb(traceback)]).format()).rstrip()


def _told(frame: FrameType, line: int, public: Mapping[Path, Collection[str]]) -> FrameSummary:
    path = _public_path(Path(frame.f_code.co_filename), public)
    if path is None:
        return FrameSummary(f"module {frame.f_globals.get('__name__')}", line, "?", line="")
    code = linecache.getline(frame.f_code.co_filename, line, frame.f_globals)
    return FrameSummary(path, line, frame.f_code.co_name, line=code)


def _public_path(file: Path, public: Mapping[Path, Collection[str]]) -> str | None:
    """The path of a file from the folder of its package; None for one of the user's own."""
    for folder, modules in public.items():
        if file.is_relative_to(folder):
            path = file.relative_to(folder)
            if path.parts[0].partition(".")[0] in modules:
                return path.as_posix()
    return None


def _public_folders() -> Mapping[Path, Collection[str]]:
    """The folders that hold public code, and the modules there that are public."""
    own = Path(m2async.__file__).parent
    folders = {Path(sysconfig.get_path("stdlib")): sys.stdlib_module_names, own.parent: {own.name}}
    try:
        dependencies = set(_dependencies())
        for module, names in packages_distributions().items():
            for name in dependencies.intersection(map(_normal, filter(None, names))):
                folder = Path(str(distribution(name).locate_file("")))
                folders[folder] = {*folders.get(folder, ()), module}
    except Exception:  # noqa: BLE001 - what is not known to be public is the user's
        return folders
    return folders


def _dependencies() -> Iterator[str]:
    """Name the packages that m2async needs, with those that they need."""
    waiting, seen = ["m2async"], set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        yield name
        with suppress(PackageNotFoundError):
            waiting += [_normal(each[0]) for each in map(_NAME.match, requires(name) or ()) if each]


def _normal(name: str) -> str:
    """Write a package's name as all its spellings come to."""
    return re.sub(r"[-_.]+", "-", name).lower()
