"""What became of every job, written down before and after each call.

    async with open_ledger("nightly.db") as ledger:
        async with await ledger.open_run("2026-11-23", manifest="nightly.csv", digest=digest) as run:
            await run.plan(read_manifest("nightly.csv"))            # at once if the digest is known
            async for row in run.rows(RowState.PENDING):
                await run.intend(row.number, row.attempts + 1, at=time.time())     # durable, then send
                await run.started(row.number, row.attempts + 1, execution_id)      # or refused, rejected, unknown

Where to read on:

- `interface.py`: what a ledger does; `opening.py`: which there are, and how they are named.
- `states.py`: the states of a row, and what may follow on what.
- `rows.py`, `activity.py`, `errors.py`: what a ledger tells.
- `sqlite/`: the ledger of one machine, in a file or in memory.
- `changes.py`, `requests.py`, `texts.py`: what a ledger needs wherever it keeps its rows.

A caller that is cancelled between `intend` and the call's first byte owes the ledger a `refused`: nothing was sent.
"""

from m2async.ledger.activity import Activity, AttemptCount, LatencyCount
from m2async.ledger.errors import (
    ClockSetBackError,
    DuplicateKeyError,
    ExecutionClaimedError,
    IllegalTransitionError,
    LedgerAddressError,
    LedgerClosedError,
    LedgerDamagedError,
    LedgerError,
    LedgerFullError,
    LedgerIOError,
    LedgerLockedError,
    LedgerNotFoundError,
    LedgerReadOnlyError,
    LedgerVersionError,
    ManifestChangedError,
    NotALedgerError,
    RowNotFoundError,
    RunInUseError,
    RunNotFoundError,
    RunNotPlannedError,
)
from m2async.ledger.interface import PAGE, SPAN, Ledger, Run, RunView
from m2async.ledger.opening import open_ledger
from m2async.ledger.requests import canonical_identifier
from m2async.ledger.rows import (
    Counts,
    ExecutionCount,
    HistoryEntry,
    LedgerRow,
    Observation,
    OpenAttempt,
    Orders,
    RunInfo,
    RunSummary,
    TrackedExecution,
    as_stored,
)
from m2async.ledger.states import RowEvent, RowState

__all__ = [
    "PAGE",
    "SPAN",
    "Activity",
    "AttemptCount",
    "ClockSetBackError",
    "Counts",
    "DuplicateKeyError",
    "ExecutionClaimedError",
    "ExecutionCount",
    "HistoryEntry",
    "IllegalTransitionError",
    "LatencyCount",
    "Ledger",
    "LedgerAddressError",
    "LedgerClosedError",
    "LedgerDamagedError",
    "LedgerError",
    "LedgerFullError",
    "LedgerIOError",
    "LedgerLockedError",
    "LedgerNotFoundError",
    "LedgerReadOnlyError",
    "LedgerRow",
    "LedgerVersionError",
    "ManifestChangedError",
    "NotALedgerError",
    "Observation",
    "OpenAttempt",
    "Orders",
    "RowEvent",
    "RowNotFoundError",
    "RowState",
    "Run",
    "RunInUseError",
    "RunInfo",
    "RunNotFoundError",
    "RunNotPlannedError",
    "RunSummary",
    "RunView",
    "TrackedExecution",
    "as_stored",
    "canonical_identifier",
    "open_ledger",
]
