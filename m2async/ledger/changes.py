"""Whether all is as it was when a run was left: its rows and their order, and the clock that its times are of."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence

from m2async.clock import CLOCK_TOLERANCE
from m2async.ledger.errors import ClockSetBackError, ManifestChangedError

MAX_KEYS = 20
"""How many keys of each kind of difference are named."""

After = Mapping[str, Sequence[str]]
"""The keys of the rows that a row comes after, by its own key; rows that come after none are not there."""


class Changes:
    """What differs between the `planned` rows of a run and those that are given again, in whatever order.

    They are told row by row, with little memory.
    """

    def __init__(self, planned: int) -> None:
        self._given_as = array("L", bytes(planned * array("L").itemsize))  # planned number - 1 -> given number
        self._added, self._removed, self._changed = _KeysOfKind(), _KeysOfKind(), _KeysOfKind()

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


def check_same_order(ledger: str, run: str, planned: After, given: After) -> None:
    """Raise ManifestChangedError if a row comes after others than it was planned to."""
    changed = [key for key in dict.fromkeys((*planned, *given)) if set(planned.get(key, ())) != set(given.get(key, ()))]
    if changed:
        raise ManifestChangedError(ledger, run, changed=changed[:MAX_KEYS], counts=(0, 0, len(changed)))


def check_clock(ledger: str, run: str, latest: float, now: float) -> None:
    """Raise ClockSetBackError if the clock is so far behind a run's `latest` time that matching would go wrong.

    The time that went by since is not known, so a clock that was set back by less than that is not noticed.
    """
    if latest > now + CLOCK_TOLERANCE:
        raise ClockSetBackError(ledger, run, latest=latest, now=now)


class _KeysOfKind:
    """The first keys of a kind, and how many there are."""

    def __init__(self) -> None:
        self.first: list[str] = []
        self.count = 0

    def add(self, key: str) -> None:
        self.count += 1
        if len(self.first) < MAX_KEYS:
            self.first.append(key)
