from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import permutations
from math import inf

from hypothesis import given
from hypothesis import strategies as st

from m2async import ScriptJob
from m2async.certainty import ListedExecution, Margins, not_explained
from m2async.certainty.adopt import Attempt
from m2async.certainty.calibration import Calibration
from m2async.certainty.explained import OutOfTime
from tests.work import assert_in_proportion

EXACT = Margins(resolution=0, uncertainty=0, late=0)


def attempt(sent_at: float, ended_at: float | None, job: str = "A", application: str = "app") -> Attempt[str]:
    return Attempt("row", application, ScriptJob(job), sent_at, ended_at, in_doubt=False)


def listed(*starts: float, job: str = "A", application: str = "app") -> list[ListedExecution]:
    return [ListedExecution(f"{job}-{at}-{n}", application, ScriptJob(job), at) for n, at in enumerate(starts)]


def left(executions: list[ListedExecution], *attempts: Attempt[str]) -> list[float]:
    return [each.start_time for each in not_explained(executions, attempts, EXACT)]


def test_an_attempt_explains_one_execution_of_its_job_within_its_window() -> None:
    assert left(listed(2), attempt(1, 3)) == []
    assert left(listed(2, 2), attempt(1, 3)) == [2]
    assert left(listed(0.5, 3.5), attempt(1, 3)) == [0.5, 3.5]
    assert left(listed(2), attempt(1, 3, "B"), attempt(1, 3, application="other")) == [2]
    assert left(listed(2)) == [2]


def test_an_attempt_in_flight_may_still_start_one() -> None:
    assert left(listed(1_000), attempt(1, None)) == []


@given(
    st.lists(st.integers(0, 6), max_size=5),
    st.lists(st.tuples(st.integers(0, 6), st.none() | st.integers(0, 3)), max_size=4),
)
def test_as_many_are_explained_as_can_be(starts: list[int], windows: list[tuple[int, int | None]]) -> None:
    attempts = [attempt(begin, None if length is None else begin + length) for begin, length in windows]
    executions = listed(*starts)
    spans = [(each.sent_at, inf if each.ended_at is None else each.ended_at) for each in attempts]
    most = max(
        (
            sum(first <= start <= last for start, (first, last) in zip(order, spans, strict=False))
            for order in permutations([*starts, *[-1] * len(spans)], len(spans))
        ),
        default=0,
    )
    assert len(left(executions, *attempts)) == len(starts) - most


def test_what_was_listed_before_an_attempt_was_sent_is_out_of_its_time_though_another_window_held_it_then() -> None:
    seen, out_of_time = [listed(30)[0]], OutOfTime()
    kinds = frozenset({ScriptJob})
    first, second = attempt(1, 3), replace(attempt(29, 31), id="another row")
    out_of_time.look(seen, [first], Calibration(Margins(uncertainty=45), 0.0, 1, 0, kinds), explained=set(), last={})
    assert out_of_time.by_job() == {}
    out_of_time.look(seen, [first, second], Calibration(EXACT, 0.0, 0, 0, kinds), explained=set(), last={})
    assert out_of_time.by_job() == {ScriptJob("A"): (seen[0].execution_id,)}


def test_what_was_listed_before_a_row_was_sent_again_is_not_of_its_new_attempt() -> None:
    seen, out_of_time = [listed(30)[0]], OutOfTime()
    calibration = Calibration(EXACT, 0.0, 0, 0, frozenset({ScriptJob}))
    out_of_time.look(seen, [attempt(1, 3), attempt(29, 31)], calibration, explained=set(), last={"row": 1})
    assert out_of_time.by_job() == {}
    out_of_time.look(seen, [attempt(29, 31)], calibration, explained=set(), last={"row": 2})
    assert out_of_time.by_job() == {ScriptJob("A"): (seen[0].execution_id,)}


def test_a_look_at_many_costs_as_much_each_as_one_at_few() -> None:
    def looks(count: int) -> Callable[[], None]:
        executions = [listed(number / 10)[0] for number in range(count)]
        executions = [replace(each, execution_id=f"e{number}") for number, each in enumerate(executions)]
        attempts = [replace(attempt(number / 10, number / 10), id=str(number)) for number in range(count)]
        calibration = Calibration(Margins(), 0.0, 0, 0, frozenset({ScriptJob}))

        def look() -> None:
            out_of_time = OutOfTime()
            for shown in (count // 3, count // 2, count):
                out_of_time.look(executions[:shown], attempts[:shown], calibration, explained=set(), last={})
            assert out_of_time.by_job() == {}

        return look

    assert_in_proportion(looks, 500, 10_000)
