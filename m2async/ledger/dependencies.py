"""Whether the order that is asked for is the one that a run was planned with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from m2async.ledger.changes import MAX_KEYS
from m2async.ledger.errors import ManifestChangedError

After = Mapping[str, Sequence[str]]
"""The keys of the rows that a row comes after, by its own key; rows that come after none are not there."""


def check_same(ledger: str, run: str, planned: After, given: After) -> None:
    """Raise ManifestChangedError if a row comes after others than it was planned to."""
    changed = [key for key in dict.fromkeys((*planned, *given)) if set(planned.get(key, ())) != set(given.get(key, ()))]
    if changed:
        raise ManifestChangedError(ledger, run, changed=changed[:MAX_KEYS], counts=(0, 0, len(changed)))
