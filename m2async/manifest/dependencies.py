"""The `after` of a manifest's rows: which keys they name, and whether the rows can be put in such an order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from graphlib import CycleError, TopologicalSorter

from m2async.errors import ManifestProblem
from m2async.manifest.rows import RowError, RowProblem, problem, quoted_hint, shown

_MAX_CYCLES = 20
_SHOWN_OF_CYCLE = 6


class Dependencies:
    """Takes what each row is to come after, and judges it once all rows are read.

    `after` holds the keys by the key of the row that names them; without one of the caller's, rows must not name any,
    because nobody would heed it.
    """

    def __init__(self, after: MutableMapping[str, Sequence[str]] | None) -> None:
        self.after: MutableMapping[str, Sequence[str]] = {} if after is None else after
        self._heeded = after is not None
        self._lines: dict[str, int] = {}

    def note(self, key: str, line: int, named: object) -> None:
        """Take a row's `after`: keys in a list, or in a text with a semicolon between them; raises RowError."""
        keys = _keys(named)
        if keys and not self._heeded:
            raise RowError(
                RowProblem("after", "is not heeded here: read the manifest with after={}, and start it in order")
            )
        if keys:
            self.after[key] = keys
            self._lines[key] = line

    def named(self) -> set[str]:
        """Give every key that takes part, naming or named."""
        return {*self.after, *(key for keys in self.after.values() for key in keys)}

    def problems(self, file: str, lines: Mapping[str, int], *, complete: bool) -> Iterator[ManifestProblem]:
        """Say which keys no row has, and which rows wait for each other in a circle, with the whole way around.

        `lines` tells where the keys stand that rows have; unless `complete`, there may be more.
        """
        if complete:
            for key, keys in self.after.items():
                for missing in (named for named in keys if named not in lines):
                    yield problem(file, self._lines[key], "after", f"{shown(missing)}: no row has this key")
        for cycle in _cycles(self.after):
            first = cycle.index(min(cycle, key=lambda key: self._lines[key]))
            way = [*cycle[first:], *cycle[: first + 1]]
            reason = f"{_way(way, self._lines)}: these rows wait for each other, so none could start"
            if len(cycle) == 1:
                reason = f"{shown(way[0])}: the row waits for itself"
            yield problem(file, self._lines[way[0]], "after", reason)


def split_keys(text: str) -> list[str]:
    """Give the keys of a text; what is blank between two semicolons is none."""
    return [key for part in text.split(";") if (key := part.strip())]


def _keys(named: object) -> tuple[str, ...]:
    if isinstance(named, str):
        named = split_keys(named)
    if not isinstance(named, list):
        reason = f"must be a text of keys with ; between them, or a list of keys{quoted_hint(named)}"
        raise RowError(RowProblem("after", f"{shown(named)}: {reason}"))
    for key in named:
        if not (isinstance(key, str) and key):
            raise RowError(RowProblem("after", f"{shown(key)}: must be the key of a row, a text{quoted_hint(key)}"))
    return tuple(dict.fromkeys(named))


def _cycles(after: Mapping[str, Sequence[str]]) -> Iterator[list[str]]:
    """Give circles, each in the order in which its rows would start: as many as stay when each is cut once."""
    graph = dict(after)
    for _ in range(_MAX_CYCLES):
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            *cycle, _ = error.args[1]
            yield cycle
            for first, then in zip(cycle, [*cycle[1:], cycle[0]], strict=True):
                graph[then] = [key for key in graph[then] if key != first]
        else:
            return


def _way(keys: Sequence[str], lines: Mapping[str, int]) -> str:
    told = [f"{_short(key)} (line {lines[key]})" for key in keys[:-1]]
    if len(told) > _SHOWN_OF_CYCLE:
        told[_SHOWN_OF_CYCLE - 1 : -1] = [f"… {len(told) - _SHOWN_OF_CYCLE:,} more …"]
    return " -> ".join([*told, _short(keys[-1])])


def _short(key: str) -> str:
    return key if len(key) <= 40 else f"{key[:39]}…"
