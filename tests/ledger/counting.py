"""How a run went, counted in the plainest way from its rows and their history: what a ledger must count as well."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

from m2async.ledger.activity import NO_ACTIVITY, Activity, AttemptCount, LatencyCount, stretch_width
from m2async.ledger.rows import HistoryEntry, LedgerRow, to_micros, to_seconds
from m2async.ledger.states import RowEvent, RowState

Rows = Sequence[LedgerRow]
History = Mapping[int, Sequence[HistoryEntry]]
"""The entries of each row, by its number."""

_ANSWERS = frozenset({RowEvent.REFUSED, RowEvent.REJECTED, RowEvent.UNKNOWN, RowEvent.CRASH})


def activity(rows: Rows, history: History, stretches: int) -> Activity:
    """Count the answers of a run by when they came and what they were."""
    times = [(sent_at, max(sent_at, ended_at or 0.0)) for sent_at, ended_at in _sendings(rows, history)]
    if not times:
        return NO_ACTIVITY
    began, ended = min(sent for sent, _ in times), max(known for _, known in times)
    width = to_micros(stretch_width(to_seconds(to_micros(ended) - to_micros(began)), stretches))
    answers = Counter((to_micros(at) // width, event, code) for _, at, event, code in _answers(rows, history))
    counted = sorted(answers.items(), key=lambda answer: (*answer[0][:2], answer[0][2] or ""))
    return Activity(
        began,
        ended,
        to_seconds(width),
        [
            AttemptCount(to_seconds(stretch * width), event, code, attempts)
            for (stretch, event, code), attempts in counted
        ],
    )


def latencies(rows: Rows, history: History) -> list[LatencyCount]:
    """Count the attempts of a run that took equally long."""
    taken = Counter(
        (to_micros(at) - to_micros(sent_at) + 50) // 100
        for sent_at, at, event, _ in _answers(rows, history)
        if event not in {RowEvent.CRASH, RowEvent.CLAIMED} and sent_at is not None
    )
    return [LatencyCount(tenths / 10_000, attempts) for tenths, attempts in sorted(taken.items())]


def _sendings(rows: Rows, history: History) -> Iterator[tuple[float, float | None]]:
    """When each attempt was sent, and when the latest is known of it."""
    for row in rows:
        if row.sent_at is not None:
            yield row.sent_at, row.ended_at
    for entry in chain.from_iterable(history.values()):
        if entry.sent_at is not None:
            yield entry.sent_at, entry.ended_at


def _answers(rows: Rows, history: History) -> Iterator[tuple[float | None, float, RowEvent, str | None]]:
    """When attempts were sent and answered, and what the answers were.

    That a job was started is said by its row, as long as it is: whoever restarts it, or says otherwise, takes it back.
    """
    claimed = {
        (number, entry.execution_id)
        for number, entries in history.items()
        for entry in entries
        if entry.event is RowEvent.CLAIMED
    }
    for row in rows:
        if row.state is RowState.STARTED and row.ended_at is not None:
            was_found = (row.number, row.execution_id) in claimed
            yield row.sent_at, row.ended_at, RowEvent.CLAIMED if was_found else RowEvent.STARTED, None
    for entry in chain.from_iterable(history.values()):
        if entry.event in _ANSWERS:
            yield entry.sent_at, entry.ended_at, entry.event, entry.error_code
