"""The keys of a manifest's rows: each must be sound, and no two may be equal."""

from __future__ import annotations

from array import array
from collections.abc import Set as AbstractSet

from m2async.keys import KEY_RULE, is_key
from m2async.manifest.rows import RowError, RowProblem, quoted_hint, shown


class Keys:
    """Takes the key of each row; this one does not look whether it came before.

    `hits` are the hashes of keys that may have come before, and have to be looked at again. `numbers` says that it
    wants the key of every row, also where that is the row's number and cannot come twice.
    """

    hits: AbstractSet[int] = frozenset()
    numbers = False

    def take(self, key: object, line: int) -> str:
        """Give back the key if it is sound and new; raise RowError otherwise."""
        if not isinstance(key, str):
            raise RowError(RowProblem("key", f"{shown(key)}: must be a text{quoted_hint(key)}"))
        if not is_key(key):
            raise RowError(RowProblem("key", f"{shown(key)}: {KEY_RULE}"))
        return key


class KnownKeys(Keys):
    """Keeps the keys, each with the line of its row: all of them, or those whose hashes are in `only`."""

    def __init__(self, only: AbstractSet[int] | None = None) -> None:
        self.only = only
        self.lines: dict[str, int] = {}

    def take(self, key: object, line: int) -> str:
        key = super().take(key, line)
        if self.only is not None and hash(key) not in self.only:
            return key
        before = self.lines.get(key)
        if before is None:
            self.lines[key] = line
        elif before == line:
            raise RowError(
                RowProblem("key", f"{shown(key)}: this job makes it twice: put every swept name into the key")
            )
        else:
            raise RowError(RowProblem("key", f"{shown(key)}: is the key of line {before} already; keys must differ"))
        return key


class LinesOfKeys(Keys):
    """Tells on which lines some keys stand; `taken` counts the rows whose keys were seen."""

    numbers = True

    def __init__(self, wanted: AbstractSet[str]) -> None:
        self.lines: dict[str, int] = {}
        self.taken: int = 0
        self._wanted = wanted

    def take(self, key: object, line: int) -> str:
        key = super().take(key, line)
        self.taken += 1
        if key in self._wanted:
            self.lines.setdefault(key, line)
        return key


class HashedKeys(Keys):
    """Keeps 64 bits of each key: a key whose hash came before is a hit, not yet an error.

    The hashes stand in a table with linear probing, at most two thirds full, 0 where it is empty: 12 to 24 bytes
    a key, and half as many again while the table grows.
    """

    def __init__(self) -> None:
        self.hits: set[int] = set()
        self._resize(1 << 10)

    def take(self, key: object, line: int) -> str:
        key = super().take(key, line)
        hashed = hash(key)
        table, mask = self._table, self._mask
        at = hashed & mask
        while other := table[at]:
            if other == hashed:
                self.hits.add(hashed)
                return key
            at = (at + 1) & mask
        if not hashed:  # no entry of the table: taken for a hit, which is looked at again
            self.hits.add(hashed)
            return key
        table[at] = hashed
        self._room -= 1
        if not self._room:
            self._grow()
        return key

    def _resize(self, size: int) -> None:
        self._table = array("q", [0]) * size
        self._mask = size - 1
        self._room = size * 2 // 3

    def _grow(self) -> None:
        before = self._table
        self._resize(2 * len(before))
        table, mask = self._table, self._mask
        for hashed in before:
            if hashed:
                at = hashed & mask
                while table[at]:
                    at = (at + 1) & mask
                table[at] = hashed
                self._room -= 1
