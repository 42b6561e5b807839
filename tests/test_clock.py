"""What answers tell of the service's clock, against the truth."""

from __future__ import annotations

import math
import random
import time
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from m2async.clock import CLOCK_TOLERANCE, ClockOffset, ServiceClock, steady_time, uptime


class Local:
    """A local clock, and the true time."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.behind = 0.0  # what the local clock is behind the true time

    def __call__(self) -> float:
        return self.now - self.behind


def answered(clock: ServiceClock, local: Local, before: float, after: float) -> None:
    """An answer that is stamped so long after its request was sent, and arrives so long after that."""
    sent_at = local()
    local.now += before
    date = float(math.floor(local.now))
    local.now += after
    clock.read(date, sent_at, local())


waits = st.lists(st.tuples(st.floats(0, 20), st.floats(0, 20), st.floats(0, 100)), min_size=1, max_size=20)


@given(behind=st.floats(-1e6, 1e6), waits=waits)
def test_the_offset_is_always_between_what_is_known(behind: float, waits: list[tuple[float, float, float]]) -> None:
    local = Local()
    local.behind = behind
    clock = ServiceClock(local)
    for before, after, pause in waits:
        answered(clock, local, before, after)
        assert clock.offset is not None
        assert clock.offset.least - 1e-6 <= behind <= clock.offset.most + 1e-6
        assert clock.offset.before is None
        local.now += pause


def test_many_answers_tell_more_than_one() -> None:
    local, draw = Local(), random.Random(1)
    clock = ServiceClock(local)
    answered(clock, local, 0.05, 12.0)  # whose body came late
    assert clock.offset is not None
    assert clock.offset.most - clock.offset.least > 12
    for _ in range(100):
        answered(clock, local, draw.uniform(0.01, 0.05), draw.uniform(0.01, 0.05))
        local.now += draw.random()
    assert clock.offset.most - clock.offset.least < 0.6


@given(waits=waits, jumps=st.lists(st.sampled_from([-4e4, -90.0, -5.0, 5.0, 60.0, 3_600.0]), min_size=1, max_size=5))
def test_a_jump_is_noticed_and_what_held_before_is_kept(
    waits: list[tuple[float, float, float]], jumps: list[float]
) -> None:
    """Whichever of two offsets held at a time: one of those that are said to may have held then is true."""
    local, draw = Local(), random.Random(str(jumps))
    clock = ServiceClock(local)
    times: list[tuple[float, float]] = []  # local times, and what the local clock was behind then
    regimes: list[float] = []
    for jump in (0.0, *jumps):
        local.behind += jump  # the local clock stood still for so long, or the service's was set back
        local.now += max(jump, 0.0) + 1e-3
        times.append((local(), local.behind))
        regimes.append(local.behind)
        for before, after, pause in draw.choices(waits, k=3):
            answered(clock, local, before / 40, after / 40)
            local.now += pause
            times.append((local(), local.behind))
    known: list[ClockOffset] = []
    offset = clock.offset
    while offset is not None:
        known.append(offset)
        offset = offset.before
    assert len(known) == 1 + sum(abs(after - before) > 2.1 for before, after in pairwise(regimes))
    known.reverse()
    for (at, behind), regime in zip(times, (r for r in range(len(regimes)) for _ in range(4)), strict=True):
        offset = known[regime]
        assert offset.least - 1e-6 <= behind <= offset.most + 1e-6
        assert offset.since is None or offset.since < at or regime == 0


def test_servers_whose_clocks_differ_a_little_are_no_jump() -> None:
    local = Local()
    clock = ServiceClock(local)
    for number in range(200):
        local.behind = 0.4 * (number % 3)
        answered(clock, local, 0.02, 0.02)
        local.now += 0.37
    assert clock.offset is not None
    assert clock.offset.before is None
    assert -CLOCK_TOLERANCE < clock.offset.least - 0.8 < clock.offset.most < CLOCK_TOLERANCE


def test_the_offset_stays_the_same_object_while_nothing_more_is_known() -> None:
    local = Local()
    clock = ServiceClock(local)
    seen = set()
    for _ in range(1_000):
        answered(clock, local, 0.02, 0.02)
        local.now += 0.731
        seen.add(clock.offset)
    assert len(seen) <= 4


def test_a_plain_number_is_known_as_exactly_as_a_date_tells_it() -> None:
    offset = ClockOffset.of(5.0)
    assert (offset, offset.least, offset.most, offset.before) == (5.0, 4.5, 5.5, None)
    assert ClockOffset.of(offset) is offset


def test_steady_time_is_the_time_since_boot_with_all_sleeps() -> None:
    assert abs(steady_time() - time.time()) < 60
    before = steady_time() - uptime()
    assert abs(steady_time() - uptime() - before) < 1e-3
    if hasattr(time, "CLOCK_BOOTTIME"):
        assert abs(uptime() - time.clock_gettime(time.CLOCK_BOOTTIME)) < 1
