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
- `destinations.py`: where a run is sent.
- `sqlite/`: the ledger of one machine, in a file or in memory.
- `changes.py`, `requests.py`, `texts.py`: what a ledger needs wherever it keeps its rows.

A caller that is cancelled between `intend` and the call's first byte owes the ledger a `refused`: nothing was sent.
"""

from m2async.ledger.activity import Activity, AttemptCount, LatencyCount
from m2async.ledger.asking import Deed, RowDecisions, carry_out_what_is_asked, open_for_decisions
from m2async.ledger.changes import ChangeKind, Differences, RowChange, is_finished, may_amend
from m2async.ledger.destinations import Destination, destination_of
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
    LedgerIncompleteError,
    LedgerIOError,
    LedgerLockedError,
    LedgerNameError,
    LedgerNotFoundError,
    LedgerReadOnlyError,
    LedgerUpgradeError,
    LedgerVersionError,
    ManifestChangedError,
    NotALedgerError,
    RowNotFoundError,
    RunInUseError,
    RunNotAnsweringError,
    RunNotFoundError,
    RunNotPlannedError,
    RunStoppedError,
    SentElsewhereError,
)
from m2async.ledger.interface import PAGE, SPAN, Ledger, Run, RunView
from m2async.ledger.opening import open_ledger
from m2async.ledger.requests import canonical_identifier
from m2async.ledger.rows import (
    AnsweredAttempt,
    Counts,
    ExecutionCount,
    ExecutionEnd,
    ForeignExecution,
    HistoryEntry,
    LedgerRow,
    Observation,
    OpenAttempt,
    Orders,
    RunInfo,
    RunSummary,
    TrackedExecution,
    Uptimes,
    as_stored,
)
from m2async.ledger.states import RowEvent, RowState

__all__ = [
    "PAGE",
    "SPAN",
    "Activity",
    "AnsweredAttempt",
    "AttemptCount",
    "ChangeKind",
    "ClockSetBackError",
    "Counts",
    "Deed",
    "Destination",
    "Differences",
    "DuplicateKeyError",
    "ExecutionClaimedError",
    "ExecutionCount",
    "ExecutionEnd",
    "ForeignExecution",
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
    "LedgerIncompleteError",
    "LedgerLockedError",
    "LedgerNameError",
    "LedgerNotFoundError",
    "LedgerReadOnlyError",
    "LedgerRow",
    "LedgerUpgradeError",
    "LedgerVersionError",
    "ManifestChangedError",
    "NotALedgerError",
    "Observation",
    "OpenAttempt",
    "Orders",
    "RowChange",
    "RowDecisions",
    "RowEvent",
    "RowNotFoundError",
    "RowState",
    "Run",
    "RunInUseError",
    "RunInfo",
    "RunNotAnsweringError",
    "RunNotFoundError",
    "RunNotPlannedError",
    "RunStoppedError",
    "RunSummary",
    "RunView",
    "SentElsewhereError",
    "TrackedExecution",
    "Uptimes",
    "as_stored",
    "canonical_identifier",
    "carry_out_what_is_asked",
    "destination_of",
    "is_finished",
    "may_amend",
    "open_for_decisions",
    "open_ledger",
]
