"""What can go wrong with a ledger: the file, a run that is in use, or a write that the states do not allow."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from m2async.errors import M2AsyncError
from m2async.ledger.destinations import Destination


class LedgerError(M2AsyncError):
    """The ledger cannot do what was asked; `ledger` is its address."""

    def __init__(self, ledger: str, message: str) -> None:
        super().__init__(f"ledger {ledger}: {message}")
        self.ledger = ledger


class LedgerAddressError(LedgerError):
    """The address names no ledger that there is."""


class LedgerNotFoundError(LedgerError):
    """The ledger, or the directory that it would be made in, does not exist."""


class NotALedgerError(LedgerError):
    """The file is something else than a ledger."""


class LedgerVersionError(LedgerError):
    """The ledger was written by a later m2async than this one; versions are those of its schema."""

    def __init__(self, ledger: str, found: int, known: int) -> None:
        super().__init__(ledger, f"has schema version {found}, and this m2async knows up to {known}: upgrade m2async")
        self.found = found
        self.known = known


class LedgerReadOnlyError(LedgerError):
    """The ledger, or its directory, cannot be written, or not even be read."""


class LedgerFullError(LedgerError):
    """The disk is full: what was to be written was not."""


class LedgerLockedError(LedgerError):
    """Other programs kept the ledger locked for too long: what was to be written was not."""


class LedgerDamagedError(LedgerError):
    """The ledger is corrupt, or was deleted, replaced or truncated while in use; nothing more is written."""


class LedgerIncompleteError(LedgerDamagedError):
    """The write-ahead log beside the ledger is lost or cut, or of another ledger: what it held is not there."""


class LedgerNameError(LedgerError):
    """Others have the ledger open by another name, and each name has a write-ahead log of its own."""

    def __init__(self, ledger: str) -> None:
        super().__init__(
            ledger,
            "is open under another name (a link, another mount, or from another machine), whose log this one lacks: "
            "use the name that the other process uses, or wait until it has ended",
        )


class LedgerUpgradeError(LedgerError):
    """The ledger is of an older version, and cannot be upgraded while a run is open for writing elsewhere."""

    def __init__(self, ledger: str, found: int, known: int) -> None:
        super().__init__(
            ledger,
            f"has schema version {found}, and is not upgraded to {known} while another process has a run of it open: "
            "wait until that has ended, or go on with the version that began it",
        )
        self.found = found
        self.known = known


class LedgerIOError(LedgerError):
    """The operating system reports an error of input or output: what was to be written was not."""


class LedgerClosedError(LedgerError):
    """The ledger, or the run, was closed."""


class RunNotFoundError(LedgerError):
    """The ledger has no run of this name."""

    def __init__(self, ledger: str, run: str) -> None:
        super().__init__(ledger, f"has no run {run!r}")
        self.run = run


class RowNotFoundError(LedgerError):
    """The run has no row of this key or number."""

    def __init__(self, ledger: str, run: str, row: str | int) -> None:
        super().__init__(ledger, f"run {run!r} has no row {row!r}")
        self.run = run
        self.row = row


class RunNotPlannedError(LedgerError):
    """The run's rows are not all in the ledger yet, so none of them may be sent."""

    def __init__(self, ledger: str, run: str) -> None:
        super().__init__(ledger, f"run {run!r} is not planned yet")
        self.run = run


class RunInUseError(LedgerError):
    """The run is open for writing elsewhere: in process `pid` on `host`, `since` then (seconds of the epoch)."""

    def __init__(self, ledger: str, run: str, *, pid: int | None, host: str | None, since: float | None) -> None:
        holder = "another process" if pid is None else f"process {pid} on {host}"
        super().__init__(ledger, f"run {run!r} is in use by {holder}")
        self.run = run
        self.pid = pid
        self.host = host
        self.since = since


class RunNotAnsweringError(LedgerError):
    """The process that has the run open for writing does not do what it is asked; it may yet, if `may_be_written`."""

    def __init__(self, held: RunInUseError, *, may_be_written: bool) -> None:
        outcome = "whether it was written is not known: see m2async status" if may_be_written else "nothing was written"
        holder = "" if held.pid is None else f", process {held.pid} on {held.host},"
        super().__init__(held.ledger, f"the process that has run {held.run!r} open{holder} does not answer; {outcome}")
        self.run: str = held.run
        self.may_be_written = may_be_written


class RunStoppedError(LedgerError):
    """The run was told to stop, at `at` in seconds of the epoch, and nobody has taken that back."""

    def __init__(self, ledger: str, run: str, at: float) -> None:
        super().__init__(
            ledger, f"run {run!r} was stopped at {_utc(at)} (m2async stop); m2async unpause takes that back"
        )
        self.run = run
        self.at = at


class ClockSetBackError(LedgerError):
    """The run has attempts in doubt, and times that the clock has not reached: their executions cannot be looked for.

    `latest` is the latest time in the run and `now` what the clock says, both in seconds of the epoch.
    """

    def __init__(self, ledger: str, run: str, *, latest: float, now: float) -> None:
        super().__init__(
            ledger,
            f"run {run!r} was last written at {_utc(latest)}, but this machine's clock says {_utc(now)}: jobs in doubt "
            "cannot be looked for by their times; set the clock right, or, if it was wrong then and is right now, say "
            "yourself what became of each (m2async status, m2async resolve)",
        )
        self.run = run
        self.latest = latest
        self.now = now


class SentElsewhereError(LedgerError):
    """The run was sent to another endpoint, region or account than calls would go to now; nothing was asked or sent.

    `sent_to` is where it belongs, None where the ledger does not say it; `goes_to` is the other. `in_doubt` is how many
    of its jobs may have been started there where it cannot be moved because of them, else 0.
    `RunView.belong_to(error.goes_to, moved=True)` moves the run.
    """

    def __init__(
        self, ledger: str, run: str, sent_to: Destination | None, goes_to: Destination, *, in_doubt: int = 0
    ) -> None:
        self.run = run
        self.sent_to = sent_to
        self.goes_to = goes_to
        self.in_doubt = in_doubt
        if sent_to is None:
            super().__init__(
                ledger,
                f"it is not known where run {run!r} was sent before, and {in_doubt:,} of its jobs may have been "
                f"started there, so nothing was asked or sent; if that was {goes_to}, give --moved",
            )
            return
        differ = " and ".join(sent_to.differences(goes_to))
        super().__init__(
            ledger,
            f"run {run!r} was sent to {sent_to}; this goes to {goes_to}: another {differ}, so nothing was asked or "
            f"sent; {self._way_out(sent_to, differ)}",
        )

    def _way_out(self, sent_to: Destination, differ: str) -> str:
        if sent_to.is_rehearsal or self.goes_to.is_rehearsal:
            return "a rehearsal is never continued as a real run, nor the reverse: use another run name (--run)"
        if self.in_doubt:
            return (
                f"{self.in_doubt:,} of its jobs may have been started there, and cannot be looked for here: first say "
                "what became of them (m2async reconcile with the run's own place, or m2async resolve)"
            )
        return f"give the run's own {differ}, or, if it has moved on purpose, --moved"


class DuplicateKeyError(LedgerError):
    """Two rows have the same key; `first` and `second` are their numbers."""

    def __init__(self, ledger: str, key: str, first: int, second: int) -> None:
        super().__init__(ledger, f"rows {first} and {second} have the same key {key!r}")
        self.key = key
        self.first = first
        self.second = second


class ManifestChangedError(LedgerError):
    """The rows differ from those that the run was planned with.

    `added`, `removed` and `changed` hold the first keys of each kind, the `…_count` how many there are.
    """

    def __init__(
        self,
        ledger: str,
        run: str,
        *,
        added: Sequence[str] = (),
        removed: Sequence[str] = (),
        changed: Sequence[str] = (),
        counts: tuple[int, int, int] | None = None,
    ) -> None:
        self.run = run
        self.added: tuple[str, ...] = tuple(added)
        self.removed: tuple[str, ...] = tuple(removed)
        self.changed: tuple[str, ...] = tuple(changed)
        counts = counts or (len(added), len(removed), len(changed))
        self.added_count: int = counts[0]
        self.removed_count: int = counts[1]
        self.changed_count: int = counts[2]
        parts = [
            f"{count:,} {what} ({', '.join(keys)}{', …' if count > len(keys) else ''})"
            for what, count, keys in zip(
                ("added", "removed", "changed"), counts, (self.added, self.removed, self.changed), strict=True
            )
            if count
        ]
        super().__init__(ledger, f"run {run!r} was planned with other rows: {'; '.join(parts)}")


class ExecutionClaimedError(LedgerError):
    """The execution belongs to another row already."""

    def __init__(self, ledger: str, execution_id: str, run: str, key: str) -> None:
        super().__init__(ledger, f"execution {execution_id} belongs to row {key!r} of run {run!r} already")
        self.execution_id = execution_id
        self.run = run
        self.key = key


class IllegalTransitionError(LedgerError):
    """A row is not in a state that allows this; nothing was written."""

    def __init__(self, ledger: str, run: str, number: int, reason: str) -> None:
        super().__init__(ledger, f"run {run!r}, row {number}: {reason}")
        self.run = run
        self.number = number
        self.reason = reason


def _utc(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"
