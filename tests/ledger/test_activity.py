"""How a run went: the counts, and that they are those of the plainest way to count."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from m2async import RestartJob
from m2async.ledger import AttemptCount, IllegalTransitionError, LatencyCount, Ledger, RowEvent, Run, open_ledger
from m2async.ledger.activity import stretch_width
from tests.ledger import counting
from tests.ledger.samples import Clock, planned

NOON = 1_700_000_000.0


class Hands:
    """A clock that tells the time it was set to."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


async def test_a_run_of_which_nothing_was_sent_has_no_activity(ledger: Ledger) -> None:
    async with planned(ledger) as run:
        activity = await run.activity()
        assert (activity.began, activity.ended, list(activity.attempts)) == (None, None, [])
        assert await run.latencies() == []


async def test_answers_are_counted_by_when_they_came_and_what_they_were() -> None:
    clock = Hands()
    async with open_ledger("memory:", clock=clock) as ledger, planned(ledger, 4) as run:
        for number in (1, 2, 3, 4):
            await run.intend(number, 1, NOON)
        clock.now = NOON + 0.25
        await run.started(1, 1, "e-1")
        await run.started(2, 1, "e-2")
        clock.now = NOON + 1.5
        await run.refused(3, 1, "ThrottlingException", "slow down")
        await run.intend(3, 2, NOON + 2)
        clock.now = NOON + 2.5
        await run.rejected(3, 2, "ValidationException", "no")
        await run.unknown(4, 1, "ReadTimeoutError", "lost")
        clock.now = NOON + 4.0
        await run.claim(4, 1, "e-4", "found")
        activity = await run.activity(stretches=4)
        latencies = await run.latencies()
    assert (activity.began, activity.ended, activity.width) == (NOON, NOON + 4, 1.0)
    assert list(activity.attempts) == [
        AttemptCount(NOON, RowEvent.STARTED, None, 2),
        AttemptCount(NOON + 1, RowEvent.REFUSED, "ThrottlingException", 1),
        AttemptCount(NOON + 2, RowEvent.REJECTED, "ValidationException", 1),
        AttemptCount(NOON + 2, RowEvent.UNKNOWN, "ReadTimeoutError", 1),
        AttemptCount(NOON + 4, RowEvent.CLAIMED, None, 1),
    ]
    assert latencies == [LatencyCount(0.25, 2), LatencyCount(0.5, 1), LatencyCount(1.5, 1), LatencyCount(2.5, 1)]


async def test_a_call_under_way_and_a_crash_are_told(ledger: Ledger, clock: Clock) -> None:
    async with planned(ledger, 2) as run:
        await run.intend(1, 1, clock.now)
        sent = clock.now
        assert (await run.activity()).began == sent
        assert not (await run.activity()).attempts
    async with planned(ledger, 2) as run:
        [crash] = (await run.activity()).attempts
        assert (crash.event, crash.code, crash.attempts) == (RowEvent.CRASH, "Crash", 1)
        assert await run.latencies() == []


STEPS: dict[str, Callable[[Run, int, int, float, str], object]] = {
    "intend": lambda run, number, attempt, at, _: run.intend(number, attempt + 1, at),
    "resend": lambda run, number, attempt, at, _: run.intend(number, attempt + 1, at, resend=True),
    "started": lambda run, number, attempt, _, execution_id: run.started(number, attempt, execution_id),
    "refused": lambda run, number, attempt, *_: run.refused(number, attempt, "ThrottlingException", "slow"),
    "rejected": lambda run, number, attempt, *_: run.rejected(number, attempt, "ValidationException", "no"),
    "unknown": lambda run, number, attempt, *_: run.unknown(number, attempt, "InternalServerException", "?"),
    "claim": lambda run, number, attempt, _, execution_id: run.claim(number, attempt, execution_id, "found"),
    "restart": lambda run, number, attempt, *_: run.restart(number, attempt, RestartJob("e", "S"), "again"),
    "retry": lambda run, number, attempt, *_: run.retry(number, attempt, "again"),
}


async def take(steps: list[tuple[str, int, float]], run: Run, clock: Hands) -> None:
    """Take those of the steps that are legal where they stand."""
    for place, (step, number, seconds) in enumerate(steps):
        clock.now += seconds
        attempt = (await run.row(f"key-{number}")).attempts
        with contextlib.suppress(IllegalTransitionError):
            await STEPS[step](run, number, attempt, clock.now, f"e-{place}")  # type: ignore[misc]


@example([("intend", 1, 0.3), ("unknown", 1, 0.3), ("claim", 1, 0.3), ("restart", 1, 0.3)], 10)
@example([("intend", 1, 0.3), ("started", 1, 0.3), ("restart", 1, 0.3)], 10)
@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(STEPS)), st.integers(1, 3), st.sampled_from([0.0, 0.00015, 0.3, 7.0, 900.0])),
        max_size=30,
    ),
    st.integers(1, 200),
)
def test_a_ledger_counts_what_its_rows_and_their_history_say(
    steps: list[tuple[str, int, float]], stretches: int
) -> None:
    async def both() -> None:
        clock = Hands()
        async with open_ledger("memory:", clock=clock) as ledger, planned(ledger, 3) as run:
            await take(steps, run, clock)
            rows = await run.page()
            history = {row.number: await run.history(row.number) for row in rows}
            assert await run.activity(stretches) == counting.activity(rows, history, stretches)
            assert await run.latencies() == counting.latencies(rows, history)

    asyncio.run(both())


@given(st.floats(0, 1e8), st.integers(1, 1_000))
def test_stretches_cover_the_time_and_are_the_shortest_usual_ones(seconds: float, stretches: int) -> None:
    width = stretch_width(seconds, stretches)
    assert width * stretches >= seconds * (1 - 1e-9)
    assert width == 0.1 or width <= 6 * seconds / stretches


@pytest.mark.parametrize(
    ("seconds", "width"), [(0, 0.1), (13, 0.2), (61, 1.0), (1_000, 10.0), (1_300, 15.0), (86_400, 900.0), (1e7, 86_400)]
)
def test_a_stretch_has_a_usual_length(seconds: float, width: float) -> None:
    assert stretch_width(seconds, 120) == pytest.approx(width)
