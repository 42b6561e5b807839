"""Whether rows are those that a run was planned with, told row by row with little memory."""

from __future__ import annotations

from array import array

from m2async.ledger.errors import ManifestChangedError

MAX_KEYS = 20
"""How many keys of each kind of difference are named."""


class Changes:
    """What differs between the `planned` rows of a run and those that are given again, in whatever order."""

    def __init__(self, planned: int) -> None:
        self._given_as = array("L", bytes(planned * array("L").itemsize))  # planned number - 1 -> given number
        self._added, self._removed, self._changed = _Keys(), _Keys(), _Keys()

    def found(self, key: str, given: int, planned: int, *, same: bool) -> tuple[int, int] | None:
        """Take note of a given row whose key is planned; gives both rows' numbers if it was given before."""
        before = self._given_as[planned - 1]
        if before:
            return before, given
        self._given_as[planned - 1] = given
        if not same:
            self._changed.add(key)
        return None

    def added(self, key: str) -> None:
        """Take note of a given row whose key is not planned."""
        self._added.add(key)

    def missing(self) -> list[int]:
        """Give the numbers of the first planned rows that were not given."""
        numbers: list[int] = []
        self._removed.count = self._given_as.count(0)
        at = -1
        while len(numbers) < min(MAX_KEYS, self._removed.count):
            at = self._given_as.index(0, at + 1)
            numbers.append(at + 1)
        return numbers

    def error(self, ledger: str, run: str, missing_keys: list[str]) -> ManifestChangedError | None:
        """Give the error that tells all differences, if there are any; `missing_keys` are those of `missing`."""
        counts = (self._added.count, self._removed.count, self._changed.count)
        if not any(counts):
            return None
        return ManifestChangedError(
            ledger, run, added=self._added.first, removed=missing_keys, changed=self._changed.first, counts=counts
        )


class _Keys:
    """The first keys of a kind, and how many there are."""

    def __init__(self) -> None:
        self.first: list[str] = []
        self.count = 0

    def add(self, key: str) -> None:
        self.count += 1
        if len(self.first) < MAX_KEYS:
            self.first.append(key)
