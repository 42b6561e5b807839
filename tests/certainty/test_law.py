from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m2async.certainty.law import Certainty, Law

ANSWERS = st.lists(st.booleans(), max_size=300)  # whether each is lost


def after(lost: list[bool], target: float = 0.001) -> Law:
    law = Law(target)
    for is_lost in lost:
        if is_lost:
            law.lost()
        else:
            law.answered(0.1)
    return law


@given(ANSWERS)
def test_nothing_waits_before_the_first_loss_and_one_may_always_be_under_way(lost: list[bool]) -> None:
    law = after(lost)
    assert (law.share_lost == 0) == (not any(lost))
    assert (law.most_under_way == math.inf) == (not any(lost))
    assert law.most_under_way >= 1
    assert 0 <= law.share_lost <= 1


@given(ANSWERS, st.integers(1, 200))
def test_answers_that_come_let_more_go_and_a_loss_fewer(lost: list[bool], answers: int) -> None:
    law = after([*lost, True])
    before = law.share_lost
    law.answered(0.1)
    assert law.share_lost <= before
    for _ in range(answers):
        law.answered(0.1)
    assert law.share_lost <= 3 / (answers + 1)
    least = law.share_lost
    law.lost()
    assert law.share_lost > least


@given(ANSWERS, st.floats(1e-6, 0.5), st.floats(1e-6, 0.5))
def test_a_greater_target_lets_no_fewer_go(lost: list[bool], one: float, other: float) -> None:
    small, great = sorted((one, other))
    assert after(lost, small).most_under_way <= after(lost, great).most_under_way


@pytest.mark.parametrize(("share", "most"), [(0.01, 9.0), (0.05, 1.3), (0.2, 1.0)])
def test_of_a_steady_share_so_many_may_be_under_way(share: float, most: float) -> None:
    draw = random.Random(1)
    law = after([draw.random() < share for _ in range(20_000)])
    assert most / 4 <= law.most_under_way <= most * 4


def test_what_takes_three_times_as_long_as_the_slowest_of_late_is_taken_to_hang() -> None:
    law = Law(0.001)
    assert law.patience == 1.0
    law.answered(2.0)
    assert law.patience == 6.0
    for _ in range(50):
        law.answered(0.1)
    assert law.patience == 1.0


@pytest.mark.parametrize(
    ("given", "target"),
    [("exact", 0.0), ("careful", 0.001), ("fast", 1.0), ("0.01", 0.01), ("0.1%", 0.001), ("50 %", 0.5), (0.2, 0.2)],
)
def test_a_certainty_is_a_word_or_a_share(given: str | float, target: float) -> None:
    certainty = Certainty.of(given)
    assert certainty.target == pytest.approx(target)
    assert (certainty.is_exact, certainty.is_fast) == (given == "exact", given == "fast")


@pytest.mark.parametrize("given", ["", "0", "1", "100%", "-1%", "nan", "inf", "sure", "1e400", 0, 1, 0.0, True, None])
def test_anything_else_is_refused_with_what_would_do(given: object) -> None:
    with pytest.raises(ValueError, match="'exact', 'careful', 'fast', or a share above 0 and below 1"):
        Certainty.of(given)  # type: ignore[arg-type]
