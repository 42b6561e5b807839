"""How far start times are off, by the run's own executions; and that no true start is outside of its window."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m2async.certainty.start_times import ENOUGH, Precision, StartTimes
from m2async.ledger import AnsweredAttempt, Uptimes
from m2async.service import ScriptJob

EPOCH = 1_790_000_000.0
JOB = ScriptJob("POSTTRAN")


def seen(
    sent: list[float], start_of: Callable[[float], float], seconds: float = 0.1, boot: str = "boot"
) -> tuple[list[AnsweredAttempt], dict[str, float]]:
    """Attempts that were answered, and when their executions are said to have started."""
    answered = [AnsweredAttempt(f"e-{at}", "app", JOB, 0.0, 0.0, Uptimes(boot, at, at + seconds)) for at in sent]
    return answered, {f"e-{at}": start_of(at) for at in sent}


def shown(off: float, sent: float) -> float:
    return EPOCH + sent + off


def every(seconds: float, count: int, first: float = 0.0) -> list[float]:
    return [first + seconds * number for number in range(count)]


def test_a_window_is_as_narrow_as_the_witnesses_show() -> None:
    times = StartTimes(*seen(every(0.1, 60), lambda at: EPOCH + at + 0.05))
    bounds = times.bounds(Uptimes("boot", 3.02, 3.04))
    assert bounds is not None
    assert bounds.apart < 0.6
    first, last = bounds.window(Uptimes("boot", 3.02, 3.04))
    assert first < EPOCH + 3.02
    assert last > EPOCH + 3.04


@pytest.mark.parametrize(
    "why",
    [
        "few",
        "none before",
        "none behind",
        "none near",
        "another boot",
        "under way",
        "coarse",
        "jitter",
        "a jump",
    ],
)
def test_where_the_evidence_is_thin_there_is_no_narrow_window(why: str) -> None:
    sent, asked = every(0.5, 60), Uptimes("boot", 15.2, 15.3)
    start_of: Callable[[float], float] = lambda at: EPOCH + at + 0.05  # noqa: E731
    draw = random.Random(1)
    match why:
        case "few":
            sent = every(0.5, ENOUGH - 1, 10.0)
        case "none before":
            asked = Uptimes("boot", 0.0, 0.0)
        case "none behind":
            asked = Uptimes("boot", 40.0, 40.1)
        case "none near":
            sent = [*every(0.5, 30), *every(0.5, 30, 1_000.0)]
            asked = Uptimes("boot", 500.0, 500.1)
        case "another boot":
            asked = Uptimes("another", 15.2, 15.3)
        case "under way":
            asked = Uptimes("boot", 15.2, None)
        case "coarse":
            start_of = lambda at: EPOCH + at // 10 * 10  # noqa: E731
        case "jitter":
            start_of = lambda at: EPOCH + at + draw.uniform(0, 3)  # noqa: E731
        case _:
            start_of = lambda at: EPOCH + at + 20 * (at > 15)  # noqa: E731
    assert StartTimes(*seen(sent, start_of)).bounds(asked) is None


@settings(max_examples=60)
@given(
    st.randoms(use_true_random=False),
    st.sampled_from([0.0, 1e-4, -1e-4, 5e-4]),
    st.sampled_from([0.0, 0.02, 0.3]),
    st.sampled_from([0.001, 0.1, 1.0]),
    st.sampled_from([0.01, 0.2]),
)
def test_no_execution_is_outside_of_its_window_whatever_drifts_jitters_and_is_cut(
    draw: random.Random, drift: float, jitter: float, unit: float, longest: float
) -> None:
    def start(sent: float, ended: float) -> float:
        at = EPOCH + draw.uniform(sent, ended) * (1 + drift) + draw.uniform(-jitter, jitter)
        return at // unit * unit

    sent = sorted(draw.uniform(0, 120) for _ in range(80))
    took = {at: draw.uniform(longest / 10, longest) for at in sent}
    answered = [AnsweredAttempt(f"e-{at}", "app", JOB, 0.0, 0.0, Uptimes("boot", at, at + took[at])) for at in sent]
    times = StartTimes(answered, {f"e-{at}": start(at, at + took[at]) for at in sent})
    for at in (draw.uniform(10, 110) for _ in range(10)):
        asked = Uptimes("boot", at, at + draw.uniform(0, longest))
        assert asked.ended is not None
        bounds = times.bounds(asked)
        if bounds is not None:
            first, last = bounds.window(asked)
            assert first <= start(at, asked.ended) <= last


def test_once_a_start_is_seen_outside_of_what_was_known_nothing_is_relied_on_any_more() -> None:
    precision = Precision()
    precision.learn(StartTimes(*seen(every(0.1, 30), lambda at: EPOCH + at + 0.05)))
    known = precision.bounds
    assert known is not None
    refuted = []
    for first, off in ((10.0, 0.06), (20.0, 2 * known.apart), (30.0, 0.05)):
        sent = every(0.1, 30, first)
        precision.learn(StartTimes(*seen(sent, partial(shown, off))))
        refuted.append((precision.is_refuted, precision.bounds is None))
    assert refuted == [(False, False), (True, True), (True, True)]
