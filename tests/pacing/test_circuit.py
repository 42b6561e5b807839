from __future__ import annotations

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from m2async.pacing import Circuit
from m2async.pacing.circuit import FIRST_PAUSE, LONGEST_PAUSE


def test_a_closed_circuit_admits_every_call() -> None:
    circuit = Circuit()
    assert all(circuit.try_admit(now) for now in range(10))
    assert circuit.reason is None


def test_a_refusal_opens_it_and_one_probe_finds_out_whether_it_runs_again() -> None:
    circuit = Circuit()
    circuit.refused("Stopped", 0, 1)
    assert circuit.reason == "Stopped"
    assert circuit.retry_at == 1 + FIRST_PAUSE
    assert not circuit.try_admit(0.9 + FIRST_PAUSE)
    assert [circuit.try_admit(1 + FIRST_PAUSE) for _ in range(3)] == [True, False, False]
    circuit.answered(1 + FIRST_PAUSE)
    assert all(circuit.try_admit(7) for _ in range(3))


def test_pauses_grow_and_have_an_end() -> None:
    circuit, now = Circuit(), 0.0
    circuit.refused("Stopped", 0, 0)
    pauses = []
    for _ in range(9):
        pauses.append(circuit.retry_at - now)
        now = circuit.retry_at
        assert circuit.try_admit(now)
        circuit.refused("Stopped", now, now)
    assert pauses == [5, 10, 20, 40, 80, 160, LONGEST_PAUSE, LONGEST_PAUSE, LONGEST_PAUSE]
    now = circuit.retry_at
    assert circuit.try_admit(now)
    circuit.answered(now)
    circuit.refused("Stopped", now, now)
    assert circuit.retry_at == now + FIRST_PAUSE


def test_answers_to_calls_sent_before_it_opened_change_nothing() -> None:
    circuit = Circuit()
    circuit.refused("Stopped", 0, 1)
    circuit.refused("Stopped", 0.5, 1.2)
    circuit.answered(0.9)
    circuit.unanswered(0.9)
    assert circuit.retry_at == 1 + FIRST_PAUSE
    assert circuit.try_admit(6)
    circuit.refused("Stopped", 0.7, 6.1)
    circuit.answered(0.8)
    assert circuit.retry_at == inf  # the probe is still under way


def test_a_probe_that_was_not_sent_makes_room_for_another() -> None:
    circuit = Circuit()
    circuit.refused("Stopped", 0, 0)
    assert circuit.try_admit(5)
    circuit.unanswered(5)
    assert circuit.try_admit(5)


@given(st.lists(st.tuples(st.floats(0, 100), st.sampled_from(["refused", "answered", "unanswered"])), max_size=60))
def test_an_application_that_refuses_gets_one_call_a_pause_and_is_never_given_up(
    turns: list[tuple[float, str]],
) -> None:
    circuit, now = Circuit(), 0.0
    for gap, fate in turns:
        now += gap
        if not circuit.try_admit(now):
            assert circuit.reason is not None
            assert now < circuit.retry_at <= now + LONGEST_PAUSE
            continue
        if circuit.reason is not None:
            assert not circuit.try_admit(now)
        if fate == "refused":
            circuit.refused("Stopped", now, now)
            assert not circuit.try_admit(now)
        elif fate == "answered":
            circuit.answered(now)
            assert circuit.reason is None
        else:
            circuit.unanswered(now)
            assert circuit.try_admit(now)
            circuit.unanswered(now)
