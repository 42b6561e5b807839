from __future__ import annotations

import math
import random
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise, product
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m2async.certainty.adopt import (
    Adopted,
    Ambiguous,
    Attempt,
    Decision,
    ListedExecution,
    ListingWindow,
    Margins,
    NotStarted,
    StartedTogether,
    decide,
    listing_windows,
)
from m2async.certainty.worlds import Worlds
from m2async.service.requests import FileJob, ScriptJob

EXACT = Margins(resolution=0, uncertainty=0, late=0, vicinity=0)
JOB = ScriptJob("POSTTRAN")


def doubt(id_: str, sent_at: float, ended_at: float, job: object = JOB, application_id: str = "app") -> Attempt[str]:
    return Attempt(id_, application_id, job, sent_at, ended_at, in_doubt=True)


def flight(id_: str, sent_at: float) -> Attempt[str]:
    return Attempt(id_, "app", JOB, sent_at, None, in_doubt=False)


def started(execution_id: str, at: float, job: object = JOB, application_id: str = "app") -> ListedExecution:
    return ListedExecution(execution_id, application_id, job, at)


# Examples, with exact times


def test_a_lone_execution_in_the_window_is_adopted() -> None:
    assert decide([doubt("a", 10, 20)], [started("x", 15)], margins=EXACT) == {"a": Adopted(("x",))}


def test_no_execution_in_the_window_means_not_started() -> None:
    assert decide([doubt("a", 10, 20)], [started("x", 9), started("y", 21)], margins=EXACT) == {"a": NotStarted()}


def test_both_ends_belong_to_the_window() -> None:
    attempts = [doubt("a", 10, 20), doubt("b", 30, 40)]
    assert decide(attempts, [started("x", 10), started("y", 40)], margins=EXACT) == {
        "a": Adopted(("x",)),
        "b": Adopted(("y",)),
    }


@pytest.mark.parametrize(
    "other",
    [
        started("x", 15, application_id="another"),
        started("x", 15, job=ScriptJob("INTCALC")),
        started("x", 15, job=FileJob("POSTTRAN")),
    ],
)
def test_only_the_same_job_in_the_same_application_counts(other: ListedExecution) -> None:
    assert decide([doubt("a", 10, 20)], [other], margins=EXACT) == {"a": NotStarted()}


def test_a_claimed_execution_is_nobody_elses() -> None:
    attempts = [doubt("a", 10, 20)]
    assert decide(attempts, [started("x", 15)], claimed={"x"}, margins=EXACT) == {"a": NotStarted()}
    assert decide(attempts, [started("x", 15), started("y", 16)], claimed={"x"}, margins=EXACT) == {
        "a": Adopted(("y",))
    }


def test_one_attempt_that_has_no_choice_decides_the_other() -> None:
    # Only x can be b's, so y is a's, although a's window holds both.
    attempts = [doubt("a", 10, 20), doubt("b", 10, 12)]
    assert decide(attempts, [started("x", 11), started("y", 18)], margins=EXACT) == {
        "a": Adopted(("y",)),
        "b": Adopted(("x",)),
    }


def test_one_execution_for_two_attempts_is_neither_s() -> None:
    attempts = [doubt("a", 10, 20), doubt("b", 12, 22)]
    assert decide(attempts, [started("x", 15)], margins=EXACT) == {
        "a": Ambiguous(("x",), surely_started=False),
        "b": Ambiguous(("x",), surely_started=False),
    }


def test_two_executions_for_two_attempts_were_both_started_but_not_known_as_which() -> None:
    # Their parameters may differ, and the service does not show them.
    attempts = [doubt("b", 12, 22), doubt("a", 10, 20)]
    both = StartedTogether(("a", "b"), ("x", "y"))
    assert decide(attempts, [started("y", 16), started("x", 15)], margins=EXACT) == {"a": both, "b": both}


def test_those_whose_windows_hang_together_are_a_group_and_others_of_the_name_are_another() -> None:
    attempts = [doubt("a", 10, 20), doubt("b", 12, 22), doubt("c", 40, 50), doubt("d", 41, 51), doubt("e", 60, 61)]
    listed = [started(id_, at) for id_, at in (("v", 15), ("w", 16), ("x", 45), ("y", 46))]
    one, another = StartedTogether(("a", "b"), ("v", "w")), StartedTogether(("c", "d"), ("x", "y"))
    assert decide(attempts, listed, margins=EXACT) == {
        "a": one, "b": one, "c": another, "d": another, "e": NotStarted(),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("other", "executions"),
    [
        (doubt("c", 14, 24), ("x", "y")),  # one of three has started nothing
        (flight("c", 14), ("x", "y", "z")),  # whose answer tells which is its own
        (replace(doubt("c", 14, 24), in_doubt=False), ("x", "y", "z")),  # too young, or of another run
        (doubt("a", 14, 24), ("x", "y", "z")),  # resent: one job was started twice
        (doubt("c", 500, 501), ("x", "y", "z")),  # somebody else starts this job
    ],
)
def test_who_else_may_have_started_one_of_them_leaves_all_open(other: Attempt[str], executions: Sequence[str]) -> None:
    attempts = [doubt("a", 10, 20), doubt("b", 12, 22), other]
    listed = [started(execution_id, 15 + at) for at, execution_id in enumerate(executions)]
    decisions = decide(attempts, listed, margins=EXACT)
    assert {type(decisions[id_]) for id_ in "ab" if id_ in decisions} == {Ambiguous}
    assert set(decide(attempts[:2], listed[:2], margins=EXACT)) == set("ab")


def test_more_executions_than_attempts_leave_all_open() -> None:
    assert decide([doubt("a", 10, 20)], [started("x", 15), started("y", 16)], margins=EXACT) == {
        "a": Ambiguous(("x", "y"), surely_started=False)
    }


def test_a_foreign_execution_nearby_makes_a_lone_match_unclear() -> None:
    near = replace(EXACT, vicinity=60)
    attempts = [doubt("a", 100, 110)]
    for at in (40, 170):
        assert decide(attempts, [started("x", 105), started("foreign", at)], margins=near) == {
            "a": Ambiguous(("x",), surely_started=False)
        }
    for at in (39, 171):
        assert decide(attempts, [started("x", 105), started("foreign", at)], margins=near) == {"a": Adopted(("x",))}
    assert decide(attempts, [started("x", 105), started("foreign", 120)], claimed={"foreign"}, margins=near) == {
        "a": Adopted(("x",))
    }


def test_a_foreign_execution_nearby_makes_a_job_unclear_that_seems_not_started() -> None:
    near = replace(EXACT, vicinity=60)
    for at in (40, 99, 111, 170):
        assert decide([doubt("a", 100, 110)], [started("foreign", at)], margins=near) == {
            "a": Ambiguous(("foreign",), surely_started=False)
        }
    for at in (39, 171):
        assert decide([doubt("a", 100, 110)], [started("foreign", at)], margins=near) == {"a": NotStarted()}


def test_an_execution_nearby_that_is_another_row_s_in_doubt_blocks_nothing() -> None:
    near = replace(EXACT, vicinity=60)
    attempts = [doubt("a", 100, 110), doubt("b", 120, 130)]
    assert decide(attempts, [started("x", 125)], margins=near) == {"a": NotStarted(), "b": Adopted(("x",))}
    # One of the two is foreign, whichever it is.
    assert decide(attempts, [started("x", 125), started("y", 126)], margins=near)["a"] == Ambiguous(
        ("x", "y"), surely_started=False
    )


def test_an_attempt_in_flight_competes_and_is_not_decided() -> None:
    attempts = [doubt("a", 10, 20), flight("b", 12)]
    assert decide(attempts, [started("x", 11)], margins=EXACT) == {"a": Adopted(("x",))}
    assert decide(attempts, [started("x", 15)], margins=EXACT) == {"a": Ambiguous(("x",), surely_started=False)}
    assert decide(attempts, [started("x", 15), started("y", 500)], margins=EXACT) == {"a": Adopted(("x",))}


def test_an_attempt_that_still_settles_competes_and_is_not_decided() -> None:
    settling = replace(doubt("b", 12, 22), in_doubt=False)
    assert decide([doubt("a", 10, 20), settling], [started("x", 15)], margins=EXACT) == {
        "a": Ambiguous(("x",), surely_started=False)
    }


def test_attempts_of_one_job_are_decided_together() -> None:
    resent = [doubt("a", 10, 20), doubt("a", 15, 25)]
    assert decide(resent, [], margins=EXACT) == {"a": NotStarted()}
    # It does not matter which of the two started it.
    assert decide(resent, [started("x", 17)], margins=EXACT) == {"a": Adopted(("x",))}
    # Sending again started the job a second time.
    assert decide(resent, [started("y", 24), started("x", 17)], margins=EXACT) == {"a": Adopted(("x", "y"))}
    assert decide([*resent, doubt("b", 16, 18)], [started("x", 17)], margins=EXACT)["a"] == Ambiguous(
        ("x",), surely_started=False
    )


def test_a_job_with_an_attempt_in_flight_is_not_decided() -> None:
    assert decide([doubt("a", 10, 20), flight("a", 30)], [started("x", 15)], margins=EXACT) == {}


def test_an_execution_of_unsaid_job_may_be_anybodys() -> None:
    unsaid = started("u", 15, job=None)
    assert decide([doubt("a", 10, 20)], [unsaid], margins=EXACT) == {"a": Ambiguous(("u",), surely_started=False)}
    # Nobody but a can have started x, so u is somebody else's.
    assert decide([doubt("a", 10, 20)], [unsaid, started("x", 18)], margins=EXACT) == {"a": Adopted(("x",))}
    both = [doubt("a", 10, 20), doubt("b", 11, 21)]
    assert decide(both, [unsaid, started("x", 18)], margins=EXACT)["a"] == Ambiguous(("x", "u"), surely_started=False)
    # It is no sign that others start this job.
    assert decide([doubt("a", 10, 20)], [unsaid, started("x", 18)], margins=replace(EXACT, vicinity=60)) == {
        "a": Adopted(("x",))
    }


def test_an_execution_that_two_pages_show_counts_once() -> None:
    assert decide([doubt("a", 10, 20)], [started("x", 15), started("x", 15)], margins=EXACT) == {"a": Adopted(("x",))}


def test_candidates_behave_like_a_tuple() -> None:
    decision = decide([doubt("a", 0, 9)], [started(str(at), at) for at in range(20)], margins=EXACT)["a"]
    assert isinstance(decision, Ambiguous)
    assert list(decision.candidates) == list("0123456789")
    assert len(decision.candidates) == 10
    assert decision.candidates[0] == "0"
    assert decision.candidates[-3:] == ("7", "8", "9")
    assert "9" in decision.candidates
    assert "10" not in decision.candidates
    assert repr(decision) == f"Ambiguous(candidates={tuple('0123456789')}, surely_started=False)"
    assert hash(decision) == hash(Ambiguous(tuple("0123456789"), surely_started=False))


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="in flight"):
        Attempt("a", "app", JOB, 0, None, in_doubt=True)
    with pytest.raises(ValueError, match="no job"):
        Attempt("a", "app", None, 0, 1, in_doubt=True)
    for wrong in (-1.0, math.inf, math.nan):
        for name in ("resolution", "uncertainty", "late", "vicinity"):
            with pytest.raises(ValueError, match=name):
                Margins(**{name: wrong})


# Windows


def test_a_window_takes_in_resolution_skew_and_a_late_start() -> None:
    margins = Margins(resolution=1, uncertainty=2, late=5)
    assert margins.window(doubt("a", 100, 110)) == (97, 118)
    assert margins.window(flight("a", 100)) == (97, math.inf)


def test_a_clock_that_was_set_back_during_the_call_widens_the_window() -> None:
    assert Margins(resolution=0, uncertainty=0, late=5).window(doubt("a", 100, 40)) == (40, 105)


def test_listing_windows_are_merged_by_application_and_end_on_whole_seconds() -> None:
    margins = Margins(resolution=0.001, uncertainty=0.5, late=5, vicinity=10)
    attempts = [
        doubt("d", 1_000.25, 1_001.0),
        doubt("a", 100.25, 110.5),
        doubt("b", 120.0, 130.0, job=ScriptJob("X")),
        doubt("c", 500.0, 501.0, application_id="other"),
        doubt("f", 1_030.0, 1_031.0),
        flight("e", 300.0),
    ]

    def window(after: int, before: int) -> ListingWindow:
        return ListingWindow(datetime.fromtimestamp(after, UTC), datetime.fromtimestamp(before, UTC))

    assert listing_windows(attempts, margins) == {
        "app": [window(88, 147), window(988, 1_048)],
        "other": [window(488, 518)],
    }


times = st.floats(1_700_000_000, 1_700_000_600).map(lambda seconds: round(seconds, 6))


@given(
    st.lists(st.tuples(times, st.floats(0, 30)), min_size=1, max_size=5),
    st.sampled_from([0.001, 1.0, 10.0]),
    st.floats(0, 20),
    st.sampled_from([math.floor, math.ceil, round]),
)
def test_listing_windows_show_all_that_counts_however_the_service_cuts_its_filters(
    calls: list[tuple[float, float]], resolution: float, vicinity: float, cut: Callable[[float], int]
) -> None:
    margins = Margins(resolution, vicinity=vicinity)
    attempts = [doubt(str(number), sent, sent + took) for number, (sent, took) in enumerate(calls)]
    windows = listing_windows(attempts, margins)["app"]
    for attempt in attempts:
        earliest, latest = margins.window(attempt)
        for start in (earliest - vicinity, earliest, latest, latest + vicinity):
            assert any(
                cut(window.started_after.timestamp() / resolution) * resolution < start
                and start < cut(window.started_before.timestamp() / resolution) * resolution
                for window in windows
            )
    for one, next_one in pairwise(windows):
        assert one.started_before < next_one.started_after


# The definition, by enumeration


def oracle(
    attempts: Sequence[Attempt[str]], executions: Sequence[ListedExecution], claimed: set[str], margins: Margins
) -> dict[str, Decision]:
    """Decide by the definition: make every assignment, keep those with the fewest foreign executions, compare."""
    unclaimed = [execution for execution in executions if execution.execution_id not in claimed]
    around = margins.resolution + margins.uncertainty

    def earliest(attempt: Attempt[str]) -> float:
        return attempt.sent_at - around

    def latest(attempt: Attempt[str]) -> float:
        return math.inf if attempt.ended_at is None else attempt.ended_at + margins.late + around

    def may_have_started(attempt: Attempt[str], execution: ListedExecution) -> bool:
        return (
            execution.application_id == attempt.application_id
            and execution.job in {attempt.job, None}
            and earliest(attempt) <= execution.start_time <= latest(attempt)
        )

    def assignments(left: Sequence[Attempt[str]]) -> Iterator[dict[int, ListedExecution]]:
        if not left:
            yield {}
            return
        for assignment in assignments(left[1:]):
            yield assignment
            for execution in unclaimed:
                if execution not in assignment.values() and may_have_started(left[0], execution):
                    yield {**assignment, len(attempts) - len(left): execution}

    def foreign(world: Mapping[int, ListedExecution]) -> list[ListedExecution]:
        return [execution for execution in unclaimed if execution.job is not None and execution not in world.values()]

    everything = list(assignments(attempts))
    fewest = min(len(foreign(world)) for world in everything)
    worlds = [world for world in everything if len(foreign(world)) == fewest]

    def unclear_near(own: Sequence[int]) -> list[ListedExecution]:
        return [
            execution
            for execution in unclaimed
            if any(
                execution.application_id == attempts[number].application_id
                and execution.job == attempts[number].job
                and earliest(attempts[number]) - margins.vicinity <= execution.start_time
                and execution.start_time <= latest(attempts[number]) + margins.vicinity
                for number in own
            )
            and any(execution in foreign(world) for world in worlds)
        ]

    def together(number: int) -> StartedTogether | None:
        """All that exchange executions with an attempt, in whatever worlds, if each has one in every world."""
        group, size = {number}, 0
        while len(group) > size:
            size = len(group)
            theirs = {world[one] for world in worlds for one in group if one in world and world[one].job is not None}
            group |= {one for world in worlds for one, execution in world.items() if execution in theirs}
        of_ids = [attempts[one].id for one in group]
        if (
            size > 1
            and all(one in world and world[one].job is not None for world in worlds for one in group)
            and all(attempts[one].in_doubt and not unclear_near([one]) for one in group)
            and all([attempt.id for attempt in attempts].count(id_) == 1 for id_ in of_ids)
        ):
            in_order = sorted(theirs, key=lambda execution: (execution.start_time, execution.execution_id))
            first = sorted(
                group, key=lambda n: (attempts[n].sent_at, attempts[n].ended_at or 0.0, repr(attempts[n].id))
            )
            return StartedTogether(
                tuple(attempts[one].id for one in first), tuple(execution.execution_id for execution in in_order)
            )
        return None

    decisions: dict[str, Decision] = {}
    for id_ in dict.fromkeys(attempt.id for attempt in attempts):
        own = [number for number, attempt in enumerate(attempts) if attempt.id == id_]
        if not all(attempts[number].in_doubt for number in own):
            continue
        has = {frozenset(world[number] for number in own if number in world) for world in worlds}
        unclear = unclear_near(own)
        if len(has) == 1 and not unclear:
            [its] = has
            in_order = sorted(its, key=lambda execution: (execution.start_time, execution.execution_id))
            ids = tuple(execution.execution_id for execution in in_order)
            decisions[id_] = Adopted(ids) if ids else NotStarted()
        elif (group := together(own[0])) is not None:
            decisions[id_] = group
        else:
            candidates = [
                execution
                for execution in unclaimed
                if any(may_have_started(attempts[number], execution) for number in own)
            ]
            candidates = candidates or unclear
            candidates.sort(key=lambda execution: (execution.job is None, execution.start_time, execution.execution_id))
            sure = not unclear and any(all(number in world for world in worlds) for number in own)
            decisions[id_] = Ambiguous(tuple(execution.execution_id for execution in candidates), surely_started=sure)
    return decisions


@dataclass(frozen=True)
class Instance:
    attempts: list[Attempt[str]]
    executions: list[ListedExecution]
    claimed: set[str]
    margins: Margins

    def decide(self) -> dict[str, Decision]:
        return decide(self.attempts, self.executions, claimed=self.claimed, margins=self.margins)

    def oracle(self) -> dict[str, Decision]:
        return oracle(self.attempts, self.executions, self.claimed, self.margins)


def instance(draw: random.Random) -> Instance:
    """A small world with whole times, so that windows overlap and starts fall on their edges."""
    span = draw.choice([4, 8, 16])
    jobs = draw.choice([["X"], ["X"], ["X", "Y"]])
    applications = draw.choice([["app"], ["app"], ["app", "other"]])
    count = draw.randint(1, 5)
    ids = draw.choice(["abcde", "abcde", "aabbc", "aaabb", "aaaab"])
    request_of = {id_: (draw.choice(applications), draw.choice(jobs)) for id_ in sorted(set(ids))}
    attempts = []
    for id_ in ids[:count]:
        sent_at = draw.randint(0, span)
        in_doubt = draw.random() < 0.8
        ended_at = None if not in_doubt and draw.random() < 0.7 else sent_at + draw.choice([0, 1, 2, 3, 6])
        attempts.append(Attempt(id_, *request_of[id_], sent_at, ended_at, in_doubt))
    draw.shuffle(attempts)
    executions = []
    for execution_id in draw.sample("mnopqr", draw.choice([max(0, count - 1), count, count, count + 1])):
        model = draw.choice(attempts)  # mostly of a job that was attempted, at about that time
        application_id, job = (model.application_id, model.job) if draw.random() < 0.9 else ("app", "X")
        start_time = model.sent_at + draw.randint(-1, 4) if draw.random() < 0.9 else draw.randint(-2, span + 4)
        said = job if draw.random() < 0.9 else None
        executions.append(ListedExecution(execution_id, application_id, said, start_time))
    claimed = {execution.execution_id for execution in executions if draw.random() < 0.05}
    margins = Margins(
        resolution=draw.choice([0, 0, 1]),
        uncertainty=draw.choice([0, 0, 1]),
        late=draw.choice([0, 0, 2]),
        vicinity=draw.choice([0, 0, 2, 5, 100]),
    )
    return Instance(attempts, executions, claimed, margins)


instances = st.integers(0, 2**63).map(random.Random).map(instance)


@pytest.mark.parametrize("seed", range(10))
def test_decisions_are_those_of_the_definition(seed: int) -> None:
    draw = random.Random(seed)
    seen: dict[str, int] = defaultdict(int)
    for _ in range(1_000):
        world = instance(draw)
        decisions = world.decide()
        assert decisions == world.oracle(), world
        for decision in decisions.values():
            seen[type(decision).__name__] += 1
            seen["surely started"] += isinstance(decision, Ambiguous) and decision.surely_started
            seen["several"] += isinstance(decision, Adopted) and len(decision.execution_ids) > 1
    assert min(seen.values()) > 30, seen  # every kind of decision was put to the test


@pytest.mark.parametrize(
    ("ids", "count"),
    [("aabbb", 1), ("aaab", 2), ("aabb", 2), ("aabc", 2), ("abcd", 2), ("aab", 3), ("abc", 3), ("abcd", 3), ("ab", 4)],
)
@pytest.mark.parametrize("vicinity", [0, 12])
def test_decisions_are_those_of_the_definition_for_every_graph(ids: str, count: int, vicinity: int) -> None:
    """Every way in which the windows of so many attempts can hold so many executions, none of them included."""
    executions = [started(f"x{position}", 10 * position) for position in range(count)]
    ranges = [(first, end) for first in range(count + 1) for end in range(first, count + 1)]
    for graph in product(ranges, repeat=len(ids)):
        attempts = [doubt(id_, 10 * first - 5, 10 * end - 5) for id_, (first, end) in zip(ids, graph, strict=True)]
        world = Instance(attempts, executions, set(), replace(EXACT, vicinity=vicinity))
        assert world.decide() == world.oracle(), world


# What does not matter


@given(instances, st.randoms(use_true_random=False))
def test_the_order_of_attempts_and_executions_does_not_matter(world: Instance, draw: random.Random) -> None:
    attempts, executions = world.attempts.copy(), world.executions.copy()
    draw.shuffle(attempts)
    draw.shuffle(executions)
    assert replace(world, attempts=attempts, executions=executions).decide() == world.decide()


@given(instances, st.integers(-(10**9), 10**9))
def test_the_time_itself_does_not_matter(world: Instance, by: int) -> None:
    attempts = [
        replace(
            attempt,
            sent_at=attempt.sent_at + by,
            ended_at=None if attempt.ended_at is None else attempt.ended_at + by,
        )
        for attempt in world.attempts
    ]
    executions = [replace(execution, start_time=execution.start_time + by) for execution in world.executions]
    assert replace(world, attempts=attempts, executions=executions).decide() == world.decide()


@given(instances)
def test_no_execution_is_adopted_twice(world: Instance) -> None:
    adopted = [
        execution_id
        for decision in world.decide().values()
        if isinstance(decision, Adopted)
        for execution_id in decision.execution_ids
    ]
    assert len(adopted) == len(set(adopted))


# Against what really happened


@dataclass(frozen=True)
class Truth:
    """A run in which calls were lost: what is open, what the service lists, and what each attempt really started."""

    attempts: list[Attempt[int]]
    executions: list[ListedExecution]
    execution_of: dict[int, str]
    margins: Margins

    def decide(self) -> dict[int, Decision]:
        return decide(self.attempts, self.executions, margins=self.margins)


def run(
    draw: random.Random,
    *,
    jobs: int,
    attempts: int = 200,
    rate: float = 5.0,
    foreign: float = 0.0,
    started_share: float = 0.6,
    in_flight_share: float = 0.1,
    exact: bool = False,
) -> Truth:
    """Send attempts of unknown effect at a rate, by a local clock that the service's wanders around.

    `foreign` is the share of executions that somebody else starts besides. With `exact`, an attempt is sent
    only when nothing that an earlier one may have started can be mistaken for its own.
    """
    resolution = draw.choice([0.001, 1.0])
    margins = Margins(resolution, uncertainty=draw.choice([0.05, 0.5]), late=draw.choice([0.0, 2.0]), vicinity=10_000)
    cuts: list[Callable[[float], int]] = [math.floor, round, math.ceil]
    cut = draw.choice(cuts)

    def shown(local_time: float) -> float:
        server_time = local_time + draw.uniform(-margins.uncertainty, margins.uncertainty)
        return cut(server_time / resolution) * resolution

    now = 1_700_000_000.0
    opened: list[Attempt[int]] = []
    executions: list[ListedExecution] = []
    execution_of: dict[int, str] = {}
    for number in range(attempts):
        sent_at, ended_at = now, now + draw.expovariate(5)
        job = draw.randrange(jobs)
        if draw.random() < started_share:
            at = draw.choice([sent_at, ended_at + margins.late, draw.uniform(sent_at, ended_at + margins.late)])
            execution_of[number] = f"ours-{number}"
            executions.append(ListedExecution(f"ours-{number}", "app", job, shown(at)))
        if draw.random() < foreign:
            executions.append(ListedExecution(f"foreign-{number}", "app", job, shown(now)))
        in_flight = draw.random() < in_flight_share
        opened.append(Attempt(number, "app", job, sent_at, None if in_flight else ended_at, not in_flight))
        now += draw.expovariate(rate)
        if exact:
            now = max(now, ended_at + margins.late + 4 * (margins.uncertainty + resolution))
    return Truth(opened, executions, execution_of, margins)


def correct(truth: Truth, decisions: Mapping[int, Decision]) -> int:
    """Hold all decisions against the truth and count those that are made."""
    decided = 0
    for number, decision in decisions.items():
        actual = truth.execution_of.get(number)
        if isinstance(decision, Adopted):
            assert decision.execution_ids == (actual,)
        elif isinstance(decision, NotStarted):
            assert actual is None
        elif isinstance(decision, StartedTogether):
            assert {truth.execution_of[one] for one in decision.ids if isinstance(one, int)} == {
                *decision.execution_ids
            }
        else:
            assert actual is None or actual in decision.candidates
            assert actual is not None or not decision.surely_started
        decided += not isinstance(decision, Ambiguous)
    return decided


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("jobs", [1, 10, 1_000])
def test_without_foreign_executions_every_decision_is_true(seed: int, jobs: int) -> None:
    draw = random.Random(f"{seed}/{jobs}")
    for rate in (0.05, 0.5, 5.0, 50.0):
        truth = run(draw, jobs=jobs, rate=rate, started_share=draw.choice([0.05, 0.5, 0.95, 1.0]))
        correct(truth, truth.decide())


def test_one_open_start_of_a_job_at_a_time_leaves_nothing_open() -> None:
    for seed in range(20):
        truth = run(random.Random(seed), jobs=1, exact=True, in_flight_share=0)
        assert correct(truth, truth.decide()) == len(truth.attempts)


def test_most_is_decided_where_identical_starts_are_rarely_in_doubt_together() -> None:
    decided = asked = 0
    for seed in range(40):
        truth = run(random.Random(seed), jobs=20, rate=1.0, in_flight_share=0)
        decisions = truth.decide()
        decided += correct(truth, decisions)
        asked += len(decisions)
    assert decided / asked > 0.75


def test_executions_may_be_missing_from_a_list_and_what_is_adopted_is_still_true() -> None:
    for seed in range(100):
        draw = random.Random(seed)
        truth = run(draw, jobs=5)
        listed = [execution for execution in truth.executions if draw.random() < 0.8]
        for number, decision in decide(truth.attempts, listed, margins=truth.margins).items():
            if isinstance(decision, Adopted):
                assert decision.execution_ids == (truth.execution_of[number],)


@pytest.mark.parametrize("seed", range(30))
def test_what_becomes_known_later_never_overturns_a_decision(seed: int) -> None:
    draw = random.Random(seed)
    truth = run(draw, jobs=4, rate=2.0, in_flight_share=0.4)
    decisions = truth.decide()
    unanswered = [attempt for attempt in truth.attempts if not attempt.in_doubt]
    draw.shuffle(unanswered)
    attempts, claimed = truth.attempts.copy(), set[str]()
    before = correct(truth, decisions)
    for answered in unanswered:
        attempts.remove(answered)  # with an id, which is claimed, or a refusal
        if answered.id in truth.execution_of:
            claimed.add(truth.execution_of[answered.id])
        later = decide(attempts, truth.executions, claimed=claimed, margins=truth.margins)
        for number, decision in decisions.items():
            assert isinstance(decision, Ambiguous) or later[number] == decision
        decisions = later
    assert correct(truth, decisions) >= before


@pytest.mark.parametrize("seed", range(30))
def test_where_foreign_executions_show_nothing_is_adopted(seed: int) -> None:
    # More executions of a job than attempts: some are foreign, and the vicinity is the whole run.
    truth = run(random.Random(seed), jobs=8, rate=0.2, foreign=0.9)
    attempts_of: dict[object, int] = defaultdict(int)
    for attempt in truth.attempts:
        attempts_of[attempt.job] += 1
    for execution in truth.executions:
        attempts_of[execution.job] -= 1
    decisions = truth.decide()
    outnumbered = [attempt for attempt in truth.attempts if attempts_of[attempt.job] < 0 and attempt.id in decisions]
    assert outnumbered
    for attempt in outnumbered:
        assert not isinstance(decisions[attempt.id], Adopted | StartedTogether)
    for number, decision in decisions.items():
        if isinstance(decision, NotStarted):
            assert number not in truth.execution_of


# Large instances


def lines_run(attempts: list[Attempt[int]], executions: list[ListedExecution]) -> int:
    """Count the lines of the module that a decision runs: its work, whatever the machine."""
    lines = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal lines
        if frame.f_code.co_filename not in {decide.__code__.co_filename, Worlds.__init__.__code__.co_filename}:
            return None
        lines += event == "line"
        return trace

    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        decide(attempts, executions)
    finally:
        sys.settrace(previous)
    return lines


def all_at_once(size: int) -> tuple[list[Attempt[int]], list[ListedExecution]]:
    draw = random.Random(size)
    attempts = [Attempt(number, "app", JOB, draw.random(), draw.uniform(1, 2), True) for number in range(size)]
    return attempts, [ListedExecution(f"x{number}", "app", JOB, draw.random()) for number in range(size)]


def chain(size: int) -> tuple[list[Attempt[int]], list[ListedExecution]]:
    """Each window holds two executions, and one foreign execution at the end undoes all: the longest path there is."""
    attempts = [Attempt(number, "app", JOB, 10.0 * number, 10.0 * number + 5, True) for number in range(size)]
    return attempts, [ListedExecution(f"x{number}", "app", JOB, 10.0 * number - 1) for number in range(size + 1)]


def crowd(size: int) -> tuple[list[Attempt[int]], list[ListedExecution]]:
    """Ten foreign executions to each attempt."""
    attempts, _ = all_at_once(size)
    return attempts, [ListedExecution(f"x{number}", "app", JOB, number / size) for number in range(10 * size)]


@pytest.mark.parametrize("shape", [all_at_once, chain, crowd])
def test_the_work_grows_hardly_faster_than_the_instance(
    shape: Callable[[int], tuple[list[Attempt[int]], list[ListedExecution]]],
) -> None:
    assert lines_run(*shape(1_600)) < 2.7 * lines_run(*shape(800))


@pytest.mark.parametrize("shape", [all_at_once, chain, crowd])
def test_thousands_of_attempts_for_one_job(
    shape: Callable[[int], tuple[list[Attempt[int]], list[ListedExecution]]],
) -> None:
    attempts, executions = shape(5_000)
    decisions = decide(attempts, executions)
    assert len(decisions) == 5_000
    assert all(isinstance(decision, Ambiguous | StartedTogether) for decision in decisions.values())


def test_a_long_chain_is_decided_from_its_end() -> None:
    attempts, executions = chain(5_000)
    decisions = decide(attempts, executions, claimed={"x0"})
    assert decisions == {number: Adopted((f"x{number + 1}",)) for number in range(5_000)}
