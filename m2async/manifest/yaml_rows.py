"""YAML manifests: jobs with shared defaults, each swept over the axes of its matrix."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from m2async.errors import ManifestError, ManifestProblem
from m2async.manifest.dependencies import Dependencies, split_keys
from m2async.manifest.keys import Keys
from m2async.manifest.rows import (
    COLUMNS,
    MAX_FAULTS,
    NAMING_COLUMNS,
    PARAM,
    ManifestRow,
    RequestMaker,
    RowError,
    RowProblem,
    nearest,
    param_faults,
    problem,
    shown,
    split_fields,
)
from m2async.manifest.source import Source
from m2async.manifest.sweep import Axis, AxisError, parse_axis, product
from m2async.manifest.yaml_nodes import List, Map, Node, Scalar, compose
from m2async.service import MAX_PARAMS, RowNumber

TOP_LEVEL = ("defaults", "jobs", "matrix")
_MAX_AXES = MAX_PARAMS + len(COLUMNS)
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_Template = Sequence[str | int]
"""Texts and, between them, the positions of the axes whose values go there."""


def yaml_rows(
    source: Source, maker: RequestMaker, keys: Keys, dependencies: Dependencies
) -> Iterator[ManifestRow | ManifestError]:
    """Give every job's sweep row by row, or the errors that it has; a plain null counts as not given.

    Where defaults or the shared matrix are wrong, jobs are only read and not swept. Raises ManifestError where
    the file as a whole cannot be read, ConfigurationError without PyYAML.
    """
    document = compose(source)
    if document is None or _given(document) is None:
        return
    reader = _NodeReader(source.name)
    defaults, jobs = reader.document(document)
    shared_are_sound = not reader.problems
    for number, node in enumerate(jobs, 1):
        job = reader.job(node)
        if reader.problems:
            yield ManifestError(reader.problems)
            reader.problems = []
        if job is not None and shared_are_sound:
            yield from _Sweep(source.name, number, defaults.overlaid_by(job), maker).rows(keys, dependencies)
    if reader.problems:
        yield ManifestError(reader.problems)


class _AfterKeys(NamedTuple):
    """The keys that a job names, each a template."""

    keys: Sequence[str]
    line: int


class _JobEntry(NamedTuple):
    """What a job of the file says: its fields, params under `param.NAME`, and its axes, under the same names."""

    fields: Mapping[str, Scalar]
    after: _AfterKeys | None
    axes: Mapping[str, Axis]
    line: int

    def overlaid_by(self, job: _JobEntry) -> _JobEntry:
        after = self.after if job.after is None else job.after
        return _JobEntry({**self.fields, **job.fields}, after, {**self.axes, **job.axes}, job.line)


class _NodeReader:
    """Takes the nodes apart; every node once, however many aliases stand for it."""

    def __init__(self, file: str) -> None:
        self.problems: list[ManifestProblem] = []
        self._file = file
        self._jobs: dict[int, _JobEntry | None] = {}
        self._matrices: dict[int, dict[str, Axis] | None] = {}
        self._axes: dict[int, Axis | None] = {}

    def document(self, node: Node) -> tuple[_JobEntry, Sequence[Node]]:
        if not isinstance(node, Map):
            self._problem(node.line, None, f"a manifest is a mapping of {', '.join(TOP_LEVEL)}")
            return _JobEntry({}, None, {}, node.line), ()
        for name, value in node.entries.items():
            if name not in TOP_LEVEL and len(self.problems) < MAX_FAULTS:
                shared = name in COLUMNS or name == "params" or name.startswith(PARAM)
                hint = "put it under defaults" if shared else nearest(name, TOP_LEVEL)
                self._problem(value.line, name, f"is no top-level field; {hint}")
        fields, after = self._fields(node.entries.get("defaults"), "defaults")
        axes = self._matrix(node.entries.get("matrix")) or {}
        jobs = node.entries.get("jobs", List((Map({}, node.line),), node.line))  # without any, defaults are the one job
        if _given(jobs) is not None and not isinstance(jobs, List):
            self._problem(jobs.line, "jobs", "must be a list of jobs")
        return _JobEntry(fields, after, axes, node.line), jobs.items if isinstance(jobs, List) else ()

    def job(self, node: Node) -> _JobEntry | None:
        if id(node) not in self._jobs:
            before = len(self.problems)
            fields, after = self._fields(node, "a job")
            axes = self._matrix(node.entries.get("matrix") if isinstance(node, Map) else None)
            sound = axes is not None and len(self.problems) == before
            self._jobs[id(node)] = _JobEntry(fields, after, axes or {}, node.line) if sound else None
        return self._jobs[id(node)]

    def _fields(self, node: Node | None, what: str) -> tuple[dict[str, Scalar], _AfterKeys | None]:
        if node is None or (what == "defaults" and _given(node) is None):
            return {}, None
        if not isinstance(node, Map):
            self._problem(node.line, None, f"{what} must be a mapping of columns to values")
            return {}, None
        members: dict[str, object] = {}
        for name, value in node.entries.items():
            if name == "params" and isinstance(value, Map):
                members[name] = {param: _given(text) for param, text in value.entries.items()}
            elif name != "matrix" or what == "defaults":
                members[name] = _given(value)
        fields, params, faults = split_fields(members)
        after = _after(fields.pop("after", None), faults)
        if len(params) > MAX_PARAMS:
            faults.append(RowProblem("params", f"{len(params)} parameters: a job takes at most {MAX_PARAMS}"))
            params = {}
        flat = {**fields, **{f"{PARAM}{name}": value for name, value in params.items()}}
        faults += [
            RowProblem(name, f"{shown(value)}: must be a text")
            for name, value in flat.items()
            if not isinstance(value, Scalar)
        ]
        for fault in faults[:MAX_FAULTS]:
            self._problem(_line_of(node, fault.column), fault.column, fault.reason)
        return {name: value for name, value in flat.items() if isinstance(value, Scalar)}, after

    def _matrix(self, node: Node | None) -> dict[str, Axis] | None:
        """Give the axes by column, or None if any is wrong."""
        if node is None or _given(node) is None:
            return {}
        if id(node) not in self._matrices:
            self._matrices[id(node)] = self._new_matrix(node)
        return self._matrices[id(node)]

    def _new_matrix(self, node: Node) -> dict[str, Axis] | None:
        if not isinstance(node, Map):
            self._problem(node.line, "matrix", "must be a mapping of names to lists or ranges")
            return None
        if len(node.entries) > _MAX_AXES:
            self._problem(node.line, "matrix", f"{len(node.entries)} axes: at most {_MAX_AXES} are allowed")
            return None
        axes: dict[str, Axis | None] = {}
        for written, value in node.entries.items():
            name = written if written in COLUMNS or written.startswith(PARAM) else f"{PARAM}{written}"
            faults = [] if name in COLUMNS else list(param_faults({name.removeprefix(PARAM): ""}, "matrix."))
            if name in ("key", "after"):
                reason = f"cannot be swept: give {name} as a template such as '{{RUNDATE}}'"
                faults = [RowProblem(f"matrix.{name}", reason)]
            if name in axes:
                faults = [RowProblem(f"matrix.{written}", "is given twice, by itself and as param.NAME: keep one")]
            for fault in faults:
                self._problem(value.line, fault.column, fault.reason)
            axes[name] = None if faults else self._axis(written, value)
        sound = {name: axis for name, axis in axes.items() if axis is not None}
        return sound if len(sound) == len(axes) else None

    def _axis(self, written: str, node: Node) -> Axis | None:
        if id(node) not in self._axes:
            self._axes[id(node)] = None
            try:
                self._axes[id(node)] = parse_axis(node)
            except AxisError as error:
                path = f"matrix.{written}.{error.fault.column}".rstrip(".")
                self._problem(error.line, path, error.fault.reason)
        return self._axes[id(node)]

    def _problem(self, line: int, column: str | None, reason: str) -> None:
        self.problems.append(problem(self._file, line, column, reason))


class _Sweep:
    """One job over every combination of its axes."""

    def __init__(self, file: str, number: int, job: _JobEntry, maker: RequestMaker) -> None:
        self._file = file
        self._number = number
        self._job = job
        self._maker = maker
        self._names = list(job.axes)
        self._axes = list(job.axes.values())
        self._told: set[ManifestProblem] = set()

    def rows(self, keys: Keys, dependencies: Dependencies) -> Iterator[ManifestRow | ManifestError]:
        """Give a row a combination; a fault that lies in no axis is told once and ends the sweep."""
        fields = {name: node.text for name, node in self._job.fields.items() if not name.startswith(PARAM)}
        params = {name[len(PARAM) :]: node.text for name, node in self._job.fields.items() if name.startswith(PARAM)}
        try:
            self._refuse_axes_that_are_set()
            key = fields.pop("key", None)
            template = None if key is None else self._template("key", key)
            after, line_of_after = self._job.after or ((), 0)
            templates_of_after = [self._template("after", key) for key in after]
        except RowError as error:
            yield self._located(error, ())
            return
        for values in product(self._axes):
            row_fields, row_params = fields.copy(), params.copy()
            for name, value in zip(self._names, values, strict=True):
                if name.startswith(PARAM):
                    row_params[name[len(PARAM) :]] = value
                else:
                    row_fields[name] = value
            try:
                request = self._maker.request(row_fields, row_params)
                key = keys.take(self._key(template, request.job.name, values), self._job.line)
                if after:
                    dependencies.note(key, line_of_after, [_filled(named, values) for named in templates_of_after])
                yield ManifestRow(key, request)
            except RowError as error:
                located = self._located(error, values)
                fresh = [found for found in located.problems if found not in self._told]
                if len(self._told) < 10 * MAX_FAULTS:
                    self._told.update(fresh)
                if fresh:
                    yield ManifestError(fresh)
                if any(fault.column not in ("key", *self._names) for fault in error.faults):
                    return

    def _refuse_axes_that_are_set(self) -> None:
        faults = [
            RowProblem(name, "is swept here but also set for all rows: every value would start the same job")
            for name in self._names
            if name.startswith(PARAM) and name[len(PARAM) :] in self._maker.params
        ]
        if faults:
            raise RowError(*faults)

    def _template(self, column: str, text: str) -> _Template:
        if not self._names:
            return [text]
        positions = {name.removeprefix(PARAM): position for position, name in enumerate(self._names)}
        positions |= {name: position for position, name in enumerate(self._names)}
        parts: list[str | int] = list(_PLACEHOLDER.split(text))
        for index in range(1, len(parts), 2):
            name = str(parts[index])
            if name not in positions:
                known = ", ".join(f"{{{axis.removeprefix(PARAM)}}}" for axis in self._names[:MAX_FAULTS])
                raise RowError(RowProblem(column, f"{shown(f'{{{name}}}')}: is not swept; known are {known}"))
            parts[index] = positions[name]
        return parts

    def _key(self, template: _Template | None, job: str, values: Sequence[str]) -> str:
        if template is not None:
            return _filled(template, values)
        if not values:
            return RowNumber(self._number)
        named = zip(self._names, values, strict=True)
        return "/".join((job, *(value for name, value in named if name not in NAMING_COLUMNS)))

    def _located(self, error: RowError, values: Sequence[str]) -> ManifestError:
        swept = dict(zip(self._names, values, strict=False))
        problems = []
        for column, reason in error.faults:
            place: Scalar | Axis | _AfterKeys | _JobEntry = self._job
            if column == "after":
                place = self._job.after or self._job
            elif column is not None:
                place = self._job.axes.get(column) or self._job.fields.get(column) or self._job
            line = place.line_of(swept[column]) if isinstance(place, Axis) and column in swept else place.line
            problems.append(problem(self._file, line, column, reason))
        return ManifestError(problems)


def _after(node: Node | None, faults: list[RowProblem]) -> _AfterKeys | None:
    """Take an `after` apart; a list that is empty says that there is none."""
    if isinstance(node, Scalar):
        return _AfterKeys(split_keys(node.text or ""), node.line)
    if isinstance(node, List):
        texts = [item.text for item in node.items if isinstance(item, Scalar) and item.text]
        if len(texts) == len(node.items):
            return _AfterKeys(texts, node.line)
    if node is not None:
        faults.append(RowProblem("after", "must be a text of keys with ; between them, or a list of keys"))
    return None


def _filled(template: _Template, values: Sequence[str]) -> str:
    return "".join(part if isinstance(part, str) else values[part] for part in template)


def _given(node: Node) -> Node | None:
    return None if isinstance(node, Scalar) and node.text is None else node


def _line_of(node: Map, column: str | None) -> int:
    """Give the line of a column's value, wherever in the mapping it is given."""
    params = node.entries.get("params")
    if column is None:
        return node.line
    if column not in node.entries and isinstance(params, Map):
        found = params.entries.get(column.removeprefix(PARAM))
        return found.line if found else node.line
    return node.entries[column].line if column in node.entries else node.line
