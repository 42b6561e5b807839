from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m2async.certainty import Apart
from m2async.certainty.law import Certainty
from m2async.submitting.lane import WIDE, Lane

APART = Apart(0.2, 30.0)
LATE = 5.0


def lane(target: float = 0.001) -> Lane:
    return Lane(Certainty(target), LATE)


def careful_after_a_loss() -> Lane:
    """One that has lost an answer, which is decided."""
    one = lane()
    one.send("lost", 0.0)
    one.lost("lost", 0.1, is_narrow=True)
    one.leave("lost")
    one.decided("lost")
    return one


def test_while_none_is_lost_nothing_waits() -> None:
    one = lane()
    for number in range(1_000):
        assert one.opens_at(0.0, APART, reserved=number) <= 0.0
        one.send(number, 0.0)


def test_after_a_loss_a_name_waits_until_the_window_is_over_and_not_until_it_is_decided() -> None:
    one = lane()
    one.send("a", 1.0)
    one.lost("a", 2.0, is_narrow=True)
    one.leave("a")
    assert one.opens_at(2.1, APART) == pytest.approx(2.2)
    assert one.opens_at(2.3, APART) <= 2.3


@pytest.mark.parametrize("is_narrow", [True, False])
def test_where_start_times_do_not_bound_it_the_window_by_the_clocks_is_waited_for(*, is_narrow: bool) -> None:
    one = lane()
    one.send("a", 3.0)
    one.lost("a", 6.0, is_narrow=is_narrow)  # else the client gave up, or little was known then
    one.leave("a")
    apart = Apart(None if is_narrow else 0.2, 30.0)
    assert [one.opens_at(now, apart) for now in (6.0, 36.0)] == [36.0, 36.0]


def test_where_not_even_the_clocks_bound_it_it_is_waited_for_until_it_is_decided() -> None:
    one = lane()
    one.send("a", 1.0)
    one.lost("a", 2.0, is_narrow=True)
    one.leave("a")
    assert one.opens_at(100.0, Apart()) == math.inf
    one.decided("a")
    assert one.opens_at(7.0, Apart()) <= 7.0


def test_what_will_never_be_known_is_waited_for_until_its_window_is_over() -> None:
    one = lane()
    one.send("a", 1.0)
    one.lost("a", 2.0, is_narrow=False)
    one.leave("a")
    one.decided("a", is_known=False)
    assert one.opens_at(7.0, APART) == 2.0 + APART.by_clocks
    until = 2.0 + LATE + WIDE
    assert [one.opens_at(now, Apart()) for now in (7.0, until)] == [until, until]
    one.look_for("of an earlier process")
    assert one.opens_at(20.0, APART) == math.inf
    one.decided("of an earlier process", is_known=False)
    assert one.opens_at(20.0, APART) <= 20.0


def test_so_many_may_be_under_way_as_the_law_says_counted_from_the_oldest_on() -> None:
    one = careful_after_a_loss()
    for number in range(150):  # of which none is lost
        one.send(number, 1.0)
        one.answered(number, 1.1)
        one.leave(number)
    one.send("oldest", 2.0)
    sent = 0
    while one.opens_at(2.0, APART) <= 2.0:
        one.send(sent, 2.0)
        one.answered(sent, 2.0)  # what is answered meanwhile counts as well: it might have been lost
        one.leave(sent)
        sent += 1
        assert sent < 200
    assert sent > 2
    one.leave("oldest")
    assert one.opens_at(2.0, APART) <= 2.0


def test_what_hangs_holds_its_name() -> None:
    one = lane()
    one.send("fast", 0.0)
    one.answered("fast", 0.5)
    one.leave("fast")
    one.send("hangs", 1.0)
    assert one.opens_at(2.4, APART) <= 2.4
    assert one.opens_at(2.6, APART) == math.inf  # three times the slowest
    one.leave("hangs")
    assert one.opens_at(2.6, APART) <= 2.6


def test_exact_is_one_at_a_time_until_it_is_decided() -> None:
    one = lane(0.0)
    assert one.opens_at(0.0, APART) <= 0.0
    assert one.opens_at(0.0, APART, reserved=1) == math.inf
    one.send("a", 0.0)
    one.lost("a", 0.1, is_narrow=True)
    one.leave("a")
    assert one.opens_at(100.0, APART) == math.inf
    one.decided("a", is_known=False)
    assert one.opens_at(100.0, APART) <= 100.0


def test_what_an_earlier_process_left_holds_its_name_for_so_long() -> None:
    one = lane()
    one.hold("a", 5.0)
    one.hold("b", 3.0)
    one.decided("a", is_known=False)  # its window is as open as before
    assert one.opens_at(1.0, APART) == 5.0
    one.decided("a")
    assert one.opens_at(1.0, APART) == 3.0
    one.look_for("row")
    assert one.opens_at(6.0, APART) == math.inf


WHAT = st.sampled_from(["send", "send", "send", "send again", "answered", "lost", "decided"])
STEPS = st.lists(st.tuples(WHAT, st.floats(0, 0.5)))


def test_what_is_sent_later_than_its_turn_came_counts_from_then_on() -> None:
    one = careful_after_a_loss()
    one.send("a", 1.0)
    one.send("a", 5.0)  # as after a pause
    assert one.opens_at(5.1, APART) == math.inf  # as one may be under way
    one.leave("a")
    assert one.opens_at(5.1, APART) <= 5.1


@given(STEPS, st.sampled_from([0.0, 0.001, 0.05]), st.sampled_from([0.05, 0.5]))
def test_no_job_that_is_sent_in_its_turn_touches_the_window_of_one_whose_answer_was_lost_before(
    steps: list[tuple[str, float]], target: float, closely: float
) -> None:
    one, now, apart = lane(target), 0.0, Apart(closely)
    under_way: list[int] = []
    doubts: dict[int, float] = {}
    for number, (what, seconds) in enumerate(steps):
        now += seconds
        if what == "send" and one.opens_at(now, apart) <= now:
            assert all(now >= ended + closely - 1e-9 for ended in doubts.values())
            assert target or not (under_way or doubts)
            one.send(number, now)
            under_way.append(number)
        elif what == "send again" and under_way:
            one.send(under_way[0], now)
            under_way.append(under_way.pop(0))
        elif what in {"answered", "lost"} and under_way:
            job = under_way.pop(0)
            if what == "lost":
                one.lost(job, now, is_narrow=True)
                doubts[job] = now
            else:
                one.answered(job, now)
            one.leave(job)
        elif what == "decided" and doubts:
            job = next(iter(doubts))
            one.decided(job)
            del doubts[job]
    # In the end everything goes on: nothing waits for what is not there.
    for job in under_way:
        one.leave(job)
    for job in doubts:
        one.decided(job)
    assert one.opens_at(now, apart) <= now


def test_it_is_known_until_when_a_name_waits_only_where_time_alone_ends_it() -> None:
    one = lane()
    assert one.left_until(0.0) == 0.0
    one.hold("held", 12.0)
    assert [one.left_until(now) for now in (0.0, 20.0)] == [12.0, 20.0]
    one.look_for("in doubt")
    assert one.left_until(0.0) == math.inf
    one.decided("in doubt")
    assert one.left_until(0.0) == 12.0
