from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m2async.submitting.schedule import Schedule
from tests.work import assert_in_proportion

KEYS = [f"k{number}" for number in range(12)]


@st.composite
def orders(draw: st.DrawFn) -> dict[str, list[str]]:
    """Rows that come after some of those before them, in any order of the manifest."""
    rows = draw(st.permutations(KEYS))
    return {
        key: draw(st.lists(st.sampled_from(rows[:place]), min_size=1, max_size=3))
        for place, key in enumerate(rows)
        if place and draw(st.booleans())
    }


class Run:
    """What is so, kept in the plainest way, to compare decisions with."""

    def __init__(self, after: Mapping[str, Sequence[str]], application: Mapping[str, str], limit: int | None) -> None:
        self.after, self.application, self.limit = after, application, limit
        self.state = dict.fromkeys(KEYS, "pending")

    def running(self, application: str) -> int:
        return sum(
            state in {"running", "doubted"} and self.application[key] == application
            for key, state in self.state.items()
        )

    def may_start(self, key: str) -> bool:
        application = self.application[key]
        return (
            self.state[key] == "pending"
            and all(self.state[other] == "succeeded" for other in self.after.get(key, ()))
            and (self.limit is None or self.running(application) < self.limit)
        )

    def is_held(self, key: str) -> bool:
        """Whether one that it comes after failed, may not have started, or is held itself."""
        return self.state[key] == "pending" and any(
            self.state[other] in {"failed", "doubted"} or self.is_held(other) for other in self.after.get(key, ())
        )


def check_way(run: Run, key: str, way: str) -> None:
    """A way goes from what failed, and why, over what comes after it to the row that is held."""
    first, *steps = way.split(" -> ")
    failed, _, why = first.partition(" ")
    assert run.state[failed] in {"failed", "doubted"}
    assert why == f"({run.state[failed]})"
    assert steps[-1] == key
    if not any("more" in step for step in steps):
        for earlier, later in zip([failed, *steps], steps, strict=False):
            assert earlier in run.after[later]
            assert run.is_held(later)


@given(
    orders(),
    st.dictionaries(st.sampled_from(KEYS), st.sampled_from("ab")),
    st.none() | st.integers(1, 4),
    st.randoms(use_true_random=False),
)
def test_every_decision_is_what_a_look_at_everything_gives(
    after: dict[str, list[str]], application: dict[str, str], limit: int | None, draw: random.Random
) -> None:
    application = {key: application.get(key, "c") for key in KEYS}
    run, schedule = Run(after, application, limit), Schedule(after, max_running=limit)
    before = [key for key in KEYS if draw.random() < 0.3]  # started by an earlier process
    for key in before:
        run.state[key] = draw.choice(["succeeded", "running", "failed"])
        schedule.started(key, application[key])
    for key in before:
        if run.state[key] == "succeeded":
            schedule.succeeded(key)
        elif run.state[key] == "failed":
            schedule.failed(key, "failed")
    to_add = [key for key in KEYS if run.state[key] == "pending"]
    draw.shuffle(to_add)
    added: set[str] = set()
    while True:
        while to_add and draw.random() < 0.7:
            added.add(to_add[-1])
            schedule.add(to_add[-1], application[to_add.pop()])
        most = draw.randint(1, 3)
        taken = schedule.take(most)
        for key in taken:
            assert key in added
            assert run.may_start(key)
            run.state[key] = "running"
        if len(taken) < most:
            assert not any(run.may_start(key) for key in added)
        running = [key for key in KEYS if run.state[key] == "running"]
        assert schedule.may_go_on == bool(running)
        assert schedule.waits == any(run.state[key] == "pending" and not run.is_held(key) for key in added)
        if running:
            ended = draw.choice(running)
            run.state[ended] = draw.choice(["succeeded"] * 4 + ["failed", "doubted"])
            if run.state[ended] == "succeeded":
                schedule.succeeded(ended)
            else:
                (schedule.failed if run.state[ended] == "failed" else schedule.doubted)(ended, run.state[ended])
        elif not to_add and not taken:
            break
    for key in KEYS:
        if run.state[key] == "pending":
            way = schedule.held(key)
            assert (way is not None) == run.is_held(key)
            if way is not None:
                check_way(run, key, way)
            else:  # its application has no room, and never will
                assert limit is not None
                assert run.running(application[key]) >= limit or after.get(key)


def test_rows_that_are_held_name_what_failed_and_those_next_to_them() -> None:
    chain = ["a", "b", "c", "d", "e", "f"]
    schedule = Schedule({later: [earlier] for earlier, later in pairwise(chain)})
    schedule.failed("a", "return code 8")
    assert schedule.held("a") is None
    assert schedule.held("b") == "a (return code 8) -> b"
    assert schedule.held("d") == "a (return code 8) -> b -> c -> d"
    assert schedule.held("f") == "a (return code 8) -> … 2 more … -> d -> e -> f"


def test_a_row_that_was_started_before_goes_on_whatever_becomes_of_those_before_it() -> None:
    schedule = Schedule({"b": ["a"], "c": ["b"]})
    schedule.started("b", "app")
    schedule.started("a", "app")  # it was restarted
    schedule.succeeded("b")
    schedule.add("c", "app")
    assert schedule.take(9) == ["c"]
    schedule.failed("a", "ended as Failed")
    assert schedule.held("b") is None
    assert schedule.held("c") is None


def test_applications_take_turns() -> None:
    schedule = Schedule({})
    for key in ("a1", "a2", "a3", "b1"):
        schedule.add(key, key[0])
    assert schedule.take(3) == ["a1", "b1", "a2"]
    assert schedule.backlog == 1


def test_a_start_that_is_in_doubt_keeps_its_place_in_the_application() -> None:
    schedule = Schedule({"later": ["first"]}, max_running=1)
    for key in ("first", "later", "other"):
        schedule.add(key, "app")
    assert schedule.take(9) == ["first"]
    schedule.doubted("first", "may have been started")
    assert schedule.take(9) == []
    assert not schedule.may_go_on
    assert schedule.held("later") == "first (may have been started) -> later"
    assert (schedule.held("other"), schedule.backlog) == (None, 1)


@pytest.mark.parametrize("shape", ["chain", "fan", "layers", "random"])
def test_a_hundred_thousand_rows_cost_as_much_each_as_some(shape: str) -> None:
    def shaped(count: int) -> Callable[[], None]:
        draw = random.Random(7)
        numbers = range(1, count)
        shapes: dict[str, Mapping[int, Sequence[int]]] = {
            "chain": {number: [number - 1] for number in numbers},
            "fan": {number: [0] if number < count - 1 else range(count - 1) for number in numbers},
            "layers": {number: [number - 100 - number % 7] for number in numbers if number > 200},
            "random": {number: [draw.randrange(number) for _ in range(3)] for number in numbers},
        }
        after = {str(number): [str(other) for other in others] for number, others in shapes[shape].items()}

        def go_through() -> None:
            schedule = Schedule(after, max_running=500)
            for number in range(count):
                schedule.add(str(number), f"app{number % 3}")
            started: Counter[str] = Counter()
            while taken := schedule.take(1_000):
                started.update(taken)
                for key in taken:
                    schedule.succeeded(key)
            assert len(started) == count == started.total()

        return go_through

    assert_in_proportion(shaped, 5_000, 100_000)


def test_a_failure_before_a_hundred_thousand_rows_is_told_for_each_at_once() -> None:
    def chain(count: int) -> Callable[[], None]:
        schedule = Schedule({str(number): [str(number - 1)] for number in range(1, count)})
        for number in range(count):
            schedule.add(str(number), "app")
        [first] = schedule.take(1)

        def fail() -> None:
            schedule.failed(first, "ended as Failed")
            assert all(schedule.held(str(number)) for number in range(1, count))

        return fail

    assert_in_proportion(chain, 5_000, 100_000)
