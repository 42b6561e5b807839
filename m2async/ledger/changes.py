"""Whether all is as it was when a run was left: its rows and their order, and the clock that its times are of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import NamedTuple

import msgspec

from m2async.clock import CLOCK_TOLERANCE
from m2async.ledger.errors import ClockSetBackError, ManifestChangedError
from m2async.ledger.rows import Counts
from m2async.ledger.states import RowState

MAX_KEYS = 20
"""How many keys of each kind of difference are named."""

After = Mapping[str, Sequence[str]]
"""The keys of the rows that a row comes after, by its own key; rows that come after none are not there."""


class ChangeKind(Enum):
    """How a row of a manifest differs from those of a run; the values are what a ledger counts by."""

    ADDED = 0
    REMOVED = 1
    CHANGED = 2


class RowChange(NamedTuple):
    """A kind of difference, and what follows from it.

    `may_have_started` says that the run may have started the row as it was, `elsewhere` that another run has the row as
    it is now, and started it or may; `numbered` that it has no key of its own.
    """

    change: ChangeKind
    may_have_started: bool
    elsewhere: bool
    numbered: bool

    @property
    def surely_not_started(self) -> bool:
        """Whether the row as it was did not start, and no other run has it as it is now."""
        return not (self.may_have_started or self.elsewhere)


class Differences(msgspec.Struct, frozen=True):
    """What differs between the rows of a run and those of a manifest: how many of each kind, and the first keys.

    Rows with keys are the same if key and request are equal. Those without are counted by request.
    """

    counts: Mapping[RowChange, int]
    keys: Mapping[RowChange, Sequence[str]]

    def __bool__(self) -> bool:
        return bool(self.counts)

    @property
    def surely_not_started(self) -> bool:
        """Whether every row that differs surely did not start."""
        return all(row.surely_not_started for row in self.counts)

    @property
    def cannot_be_told_apart(self) -> bool:
        """Whether an added row may be one that was started with another request, as one of the two has no key."""
        added = [row for row in self.counts if row.change is ChangeKind.ADDED and not row.elsewhere]
        gone = [row for row in self.counts if row.change is ChangeKind.REMOVED and row.may_have_started]
        return any(row.numbered or other.numbered for row in added for other in gone)

    def of(self, change: ChangeKind) -> tuple[int, Sequence[str]]:
        """Give how many rows differ so, and the keys of the first."""
        rows = [row for row in self.counts if row.change is change]
        return sum(self.counts[row] for row in rows), [key for row in rows for key in self.keys[row]][:MAX_KEYS]

    def keeps_most_of(self, rows: int) -> bool:
        """Whether more than half of a run's rows are given again as they were; it has so many."""
        return 2 * (rows - self.of(ChangeKind.REMOVED)[0] - self.of(ChangeKind.CHANGED)[0]) > rows

    def error(self, ledger: str, run: str) -> ManifestChangedError | None:
        """Give the error that tells all differences, if there are any."""
        if not self:
            return None
        (added, added_keys), (removed, removed_keys), (changed, changed_keys) = map(self.of, ChangeKind)
        return ManifestChangedError(
            ledger,
            run,
            added=added_keys,
            removed=removed_keys,
            changed=changed_keys,
            counts=(added, removed, changed),
        )


def may_amend(differences: Differences, *, asked: bool, by_itself: bool) -> bool:
    """Tell whether a run may take over the rows of a manifest that is given again.

    `by_itself`, without being asked, only if nothing that differs was started, or may have been.
    """
    if differences.cannot_be_told_apart:
        return False
    return asked or (by_itself and differences.surely_not_started)


def is_finished(counts: Counts) -> bool:
    """Tell whether a run has no row that is pending, in flight or unknown."""
    return not (counts[RowState.PENDING] or counts[RowState.INTENT] or counts[RowState.UNKNOWN])


def check_clock(ledger: str, run: str, latest: float, now: float) -> None:
    """Raise ClockSetBackError if the clock is so far behind a run's `latest` time that matching would go wrong.

    The time that went by since is not known, so a clock that was set back by less than that is not noticed.
    """
    if latest > now + CLOCK_TOLERANCE:
        raise ClockSetBackError(ledger, run, latest=latest, now=now)
