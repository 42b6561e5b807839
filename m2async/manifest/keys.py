"""The keys of a manifest's rows: each must be sound, and no two may be equal."""

from __future__ import annotations

from array import array
from collections.abc import Set as AbstractSet

from m2async.manifest.rows import MAX_KEY, Fault, RowError, quoted_hint, shown


class Keys:
    """Takes the key of each row; this one does not look whether it came before.

    `hits` are the hashes of keys that may have come before, and have to be looked at again.
    """

    hits: AbstractSet[int] = frozenset()

    def take(self, key: object, line: int) -> str:
        """Give back the key if it is sound and new; raise RowError otherwise."""
        if not isinstance(key, str):
            raise RowError(Fault("key", f"{shown(key)}: must be a text{quoted_hint(key)}"))
        if not (key.isprintable() and 0 < len(key) <= MAX_KEY):
            raise RowError(Fault("key", f"{shown(key)}: must have 1 to {MAX_KEY} printable characters"))
        return key


class KnownKeys(Keys):
    """Keeps the keys, each with the line of its row: all of them, or those whose hashes are in `only`."""

    def __init__(self, only: AbstractSet[int] | None = None) -> None:
        self._only = only
        self._lines: dict[str, int] = {}

    def take(self, key: object, line: int) -> str:
        key = super().take(key, line)
        if self._only is not None and hash(key) not in self._only:
            return key
        before = self._lines.get(key)
        if before is None:
            self._lines[key] = line
        elif before == line:
            raise RowError(Fault("key", f"{shown(key)}: this job makes it twice: put every swept name into the key"))
        else:
            raise RowError(Fault("key", f"{shown(key)}: is the key of line {before} already; keys must differ"))
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
