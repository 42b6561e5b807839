"""What the run's own executions tell of a list's start times."""

from __future__ import annotations

import math
import random

import pytest

from m2async.certainty.adopt import Attempt, ListedExecution, Margins
from m2async.certainty.calibration import ANY_TIME, Calibration, calibrate
from m2async.ledger import AnsweredAttempt
from m2async.service import FileJob, ScriptJob

NOW = 1_790_000_000.0
MARGINS = Margins()
EVERYTHING = [(0.0, NOW * 2)]


def witness(number: int, sent: float, ended: float) -> AnsweredAttempt:
    return AnsweredAttempt(f"e-{number}", "app", ScriptJob("JOB"), sent, ended)


def listed(number: int, start: float) -> ListedExecution:
    return ListedExecution(f"e-{number}", "app", ScriptJob("JOB"), start)


def seen(*ahead: float, unit: float = 0.0, seconds: float = 0.1) -> Calibration:
    """Witnesses a second apart, whose start times are off by so much."""
    witnesses = [witness(n, NOW + n, NOW + n + seconds) for n in range(len(ahead))]
    starts = [NOW + n + seconds / 2 + off for n, off in enumerate(ahead)]
    if unit:
        starts = [math.floor(start / unit) * unit for start in starts]
    return calibrate(
        [listed(n, start) for n, start in enumerate(starts)], witnesses, MARGINS, EVERYTHING, settled_before=NOW * 2
    )


def test_start_times_that_are_right_leave_the_margins_as_they_are() -> None:
    found = seen(*[0.0] * 5)
    assert found == Calibration(MARGINS, 0.0, 5, 0, frozenset({ScriptJob}), NOW + 4)
    assert found.is_sound


def test_a_few_witnesses_are_not_enough() -> None:
    assert not seen(*[0.0] * 4).is_sound
    assert not calibrate([], [], MARGINS, EVERYTHING, settled_before=NOW).is_sound


@pytest.mark.parametrize("ahead", [30.0, -30.0, 3_600.0, -39_600.0])
def test_a_clock_that_is_ahead_of_the_answers_is_found(ahead: float) -> None:
    found = seen(*[ahead] * 5)
    assert abs(found.ahead - ahead) < 0.2
    assert found.margins == MARGINS
    assert found.is_sound


@pytest.mark.parametrize("unit", [2.0, 10.0, 60.0, 900.0])
def test_the_unit_of_start_times_is_seen(unit: float) -> None:
    found = seen(*[0.0] * 5, unit=unit)
    assert found.margins.resolution >= unit
    assert found.ahead == 0.0


def is_within(found: Calibration, sent: float, start: float) -> bool:
    """Whether an attempt of 0.1 s may have started what is listed with that start time."""
    earliest, latest = found.margins.window(Attempt("row", "app", ScriptJob("JOB"), sent, sent + 0.1, in_doubt=True))
    return earliest <= found.corrected(listed(9, start)).start_time <= latest


@pytest.mark.parametrize("ahead", [-60.0, -35.0, -10.0, 0.0, 10.0, 35.0, 60.0])
@pytest.mark.parametrize("unit", [10.0, 60.0])
def test_a_coarse_unit_may_hide_that_start_times_are_of_another_clock(unit: float, ahead: float) -> None:
    found = seen(*[ahead] * 5, unit=unit)
    for second in range(120):
        sent = NOW + second
        assert is_within(found, sent, math.floor((sent + 0.05 + ahead) / unit) * unit), second


@pytest.mark.parametrize("unit", [0.0, 1.0])
def test_a_queue_that_all_witnesses_waited_in_is_not_taken_for_a_clock_that_is_ahead_by_just_that(unit: float) -> None:
    found = seen(4.0, 5.9, 4.3, 6.2, 6.8, unit=unit)
    assert found.ahead > 4
    assert is_within(found, NOW, NOW + 0.5)
    assert is_within(found, NOW, NOW + 10)


def test_start_times_that_scatter_widen_the_margins_by_more_than_they_show() -> None:
    draw = random.Random(1)
    found = seen(*[draw.uniform(-20, 0) for _ in range(20)])
    assert found.margins.uncertainty > 25
    assert found.margins.late == MARGINS.late


def test_start_times_that_are_stamped_when_a_job_leaves_its_queue_bound_nothing_above() -> None:
    found = seen(0.0, 0.1, 45.0, 3.0, 12.0)
    assert found.margins.late == ANY_TIME


def test_one_witness_alone_does_not_tell_a_clock_that_is_ahead_from_a_queue() -> None:
    assert seen(45.0).margins.late == ANY_TIME
    assert seen(-45.0).margins.uncertainty > 45
    assert seen(45.0).ahead == 0.0


def test_a_witness_that_should_be_listed_and_is_not_makes_the_list_unsound() -> None:
    witnesses = [witness(n, NOW + n, NOW + n + 0.1) for n in range(6)]
    shown = [listed(n, NOW + n) for n in range(5)]
    assert calibrate(shown, witnesses, MARGINS, EVERYTHING, settled_before=NOW + 60).missing == 1
    # It is too young, or is not covered by what was listed.
    assert calibrate(shown, witnesses, MARGINS, EVERYTHING, settled_before=NOW + 5).missing == 0
    assert calibrate(shown, witnesses, MARGINS, [(NOW - 60, NOW + 6)], settled_before=NOW + 60).missing == 0


def test_terms_count_by_the_kind_of_job() -> None:
    witnesses = [
        witness(1, NOW, NOW + 1),
        AnsweredAttempt("e-2", "app", FileJob("A.jcl"), NOW, NOW + 1),
    ]
    shown = [listed(1, NOW), ListedExecution("e-2", "app", FileJob("A"), NOW)]
    assert calibrate(shown, witnesses, MARGINS, EVERYTHING, settled_before=NOW + 60).kinds == {ScriptJob}


def test_a_witness_of_which_it_is_hardly_known_when_it_was_sent_tells_nothing_of_times() -> None:
    witnesses = [witness(n, NOW - 900, NOW + 900) for n in range(6)]
    found = calibrate(
        [listed(n, NOW + 300) for n in range(6)], witnesses, MARGINS, EVERYTHING, settled_before=NOW + 999
    )
    assert found.seen == 0
    assert found.margins.uncertainty == MARGINS.uncertainty


def test_how_far_attempts_must_be_apart_is_known_only_where_start_times_are_as_good_as_expected() -> None:
    known = MARGINS.late + 2 * (MARGINS.uncertainty + MARGINS.resolution)
    assert seen(*[0.0] * 5).apart(MARGINS) == known
    few, coarse, ahead, scattered = (
        seen(*[0.0] * 4),
        seen(*[0.0] * 5, unit=60.0),
        seen(*[30.0] * 5),
        seen(-9, 9, 0, 0, 0),
    )
    assert {found.apart(MARGINS) for found in (few, coarse, ahead, scattered)} == {math.inf}
