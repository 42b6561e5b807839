"""Times of a ledger by the service's clock: whatever the local clocks did, the truth is between what is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from m2async.clock import ClockOffset
from m2async.ledger import Ledger, OpenAttempt, Run, open_ledger
from m2async.ledger.clocks import SIGNATURE_VALIDITY, Clocks, boot_of_machine
from m2async.ledger.sqlite import clocks
from tests.ledger.samples import APPLICATION, planned


class Machine:
    """A machine with its clocks; the service's clock is right, and true times are seconds since the first boot."""

    def __init__(self) -> None:
        self.now = 1_790_000_000.0
        self.stood_still = 0.0  # what its uptime does not count
        self.set_by = 0.0
        self.booted_at = self.now - 5_000
        self.boot = "one"
        self.new_process()

    def uptime(self) -> float:
        return self.now - self.booted_at - self.stood_still

    def wall(self) -> float:
        return self.now + self.set_by

    def steady(self) -> float:
        return self.began + self.uptime()

    def new_process(self) -> None:
        self.began = self.wall() - self.uptime()

    def reboot(self) -> None:
        self.booted_at, self.stood_still, self.boot = self.now, 0.0, "two"

    @property
    def offset(self) -> ClockOffset:
        """How far the service's clock is ahead now, known to half a second."""
        ahead = self.now - self.steady()
        return ClockOffset(ahead - 0.5, ahead + 0.5)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    steady = machine.steady  # one object, as the clock of the machine is known by that
    machine.clock = steady  # type: ignore[attr-defined]
    monkeypatch.setattr(clocks, "steady_time", steady)
    monkeypatch.setattr(clocks, "uptime", machine.uptime)
    monkeypatch.setattr(clocks, "time", machine.wall)
    monkeypatch.setattr(clocks, "boot_of_machine", lambda: machine.boot)
    return machine


@pytest.fixture
async def ledger(machine: Machine) -> AsyncIterator[Ledger]:
    async with open_ledger("memory:", clock=machine.clock) as ledger:  # type: ignore[attr-defined]
        yield ledger


async def lose(run: Run, machine: Machine, number: int = 1, seconds: float = 1.0) -> tuple[float, float]:
    """Send an attempt and lose its answer; gives its true times."""
    began = machine.now
    await run.intend(number, 1, machine.steady())
    machine.now += seconds
    await run.unknown(number, 1, "ConnectionLostError", "lost")
    return began, machine.now


async def open_attempt(ledger: Ledger, number: int = 1) -> OpenAttempt:
    return next(each for each in await ledger.open_attempts(APPLICATION) if each.number == number)


def assert_told(attempt: OpenAttempt, true: tuple[float, float], width: float) -> None:
    """The true times are within what is told, which is no wider than it need be."""
    assert attempt.ended_before is not None
    assert attempt.sent_after - 1e-4 <= true[0]
    assert true[1] <= attempt.ended_before + 1e-4
    assert attempt.ended_before - attempt.sent_after <= true[1] - true[0] + width


async def test_the_offset_of_then_counts_not_that_of_now(machine: Machine, ledger: Ledger) -> None:
    machine.set_by = -30.0
    machine.new_process()
    async with planned(ledger) as run:
        await run.note_clock(machine.offset)
        true = await lose(run, machine)
    machine.now += 60
    machine.set_by = 0.0
    machine.reboot()
    machine.new_process()
    async with await ledger.open_run("run") as run:
        await run.note_clock(machine.offset)
        assert_told(await open_attempt(ledger), true, 1.0)


async def test_what_another_process_of_the_same_boot_reads_counts_for_one_that_read_nothing(
    machine: Machine, ledger: Ledger
) -> None:
    machine.set_by = -200.0
    machine.new_process()
    async with planned(ledger) as run:
        true = await lose(run, machine)
        assert_told(await open_attempt(ledger), true, 200.0 + 2 * SIGNATURE_VALIDITY)
    machine.now += 600
    machine.set_by = 0.0
    machine.new_process()
    async with await ledger.open_run("run") as run:
        assert_told(await open_attempt(ledger), true, 200.0 + 2 * SIGNATURE_VALIDITY)
        await run.note_clock(machine.offset)
        assert_told(await open_attempt(ledger), true, 200.0 + 2 * SIGNATURE_VALIDITY)


@pytest.mark.parametrize("set_by", [0.0, -0.001])
async def test_what_a_process_reads_counts_for_it_also_where_its_clock_began_as_that_of_the_one_before(
    machine: Machine, ledger: Ledger, set_by: float
) -> None:
    async with planned(ledger) as run:
        await run.note_clock(machine.offset)
    machine.now += 60
    machine.set_by = set_by
    machine.new_process()
    async with await ledger.open_run("run") as run:
        machine.now, machine.stood_still = machine.now + 20, machine.stood_still + 20
        true = await lose(run, machine)
        await run.note_clock(machine.offset)
        assert_told(await open_attempt(ledger), true, 21.5)


async def test_where_the_machine_s_clock_was_right_the_times_are_known_well(machine: Machine, ledger: Ledger) -> None:
    async with planned(ledger) as run:
        true = await lose(run, machine)
    machine.now += 60
    machine.new_process()
    async with await ledger.open_run("run") as run:
        await run.note_clock(machine.offset)
        assert_told(await open_attempt(ledger), true, 4.0)


async def test_nothing_is_known_of_a_clock_of_before_a_reboot_that_nobody_compared(
    machine: Machine, ledger: Ledger
) -> None:
    machine.set_by = 100.0
    machine.new_process()
    async with planned(ledger) as run:
        true = await lose(run, machine)
    machine.reboot()
    machine.now += 60
    machine.set_by = 0.0
    machine.new_process()
    async with await ledger.open_run("run", by_hand=True) as run:
        await run.note_clock(machine.offset)
        attempt = await open_attempt(ledger)
        assert_told(attempt, true, 2 * SIGNATURE_VALIDITY + 100)


async def test_a_machine_that_stood_still_meanwhile_widens_the_times_to_both_sides(
    machine: Machine, ledger: Ledger
) -> None:
    """As a virtual machine that is paused: none of its clocks notices."""
    async with planned(ledger) as run:
        before = machine.offset
        await run.note_clock(before)
        began = machine.now
        await run.intend(1, 1, machine.steady())
        machine.now += 3_600
        machine.stood_still += 3_600
        await run.unknown(1, 1, "ConnectionLostError", "lost")
        ahead = machine.offset
        await run.note_clock(ClockOffset(ahead.least, ahead.most, before, machine.steady() - 5))
        assert_told(await open_attempt(ledger), (began, machine.now), 3_601.0 + 3_600)
        # What is sent from then on is known well again.
        true = await lose(run, machine, 2)
        assert_told(await open_attempt(ledger, 2), true, 1.0)


async def test_jumps_between_which_nothing_was_written_are_all_noted(machine: Machine, ledger: Ledger) -> None:
    async with planned(ledger) as run:
        first = machine.offset
        await run.note_clock(first)
        machine.now += 10
        machine.now, machine.stood_still = machine.now + 500, machine.stood_still + 500
        second = ClockOffset(machine.offset.least, machine.offset.most, first, machine.steady() - 10)
        true = await lose(run, machine)  # while the second held, of which the ledger does not know yet
        confirmed = machine.steady()
        machine.now, machine.stood_still = machine.now + 9_000, machine.stood_still + 9_000
        await run.note_clock(ClockOffset(machine.offset.least, machine.offset.most, second, confirmed))
        attempt = await open_attempt(ledger)
        assert_told(attempt, true, 501.0)


async def test_the_clock_that_a_process_was_given_is_compared_with_none_but_itself(path: Path) -> None:
    now = [1_000.0]
    async with open_ledger(path, clock=lambda: now[0]) as ledger, planned(ledger) as run:
        await run.intend(1, 1, now[0])
        await run.unknown(1, 1, "c", "m")
    async with open_ledger(path, clock=lambda: now[0] + 400) as ledger, await ledger.open_run("run") as run:
        await run.note_clock(50.0)
        attempt = await open_attempt(ledger)
    assert attempt.sent_after == 1_000 - SIGNATURE_VALIDITY


async def test_an_attempt_of_an_earlier_process_had_ended_when_the_run_was_opened(
    machine: Machine, ledger: Ledger
) -> None:
    """Also where that process's clock was an hour ahead."""
    machine.set_by = 3_600.0
    machine.new_process()
    async with planned(ledger) as run:
        await run.note_clock(machine.offset)
        await lose(run, machine)
        ended_at = machine.now
    machine.set_by = 0.0
    machine.now += 100
    machine.new_process()
    async with await ledger.open_run("run") as run:
        attempt = await open_attempt(ledger)
        assert attempt.ended_by is not None
        assert attempt.ended_by <= machine.steady()
        await run.note_clock(machine.offset)
        attempt = await open_attempt(ledger)
        assert attempt.ended_by is not None
        assert ended_at - 1 <= attempt.ended_by <= ended_at + 1.5


async def test_what_was_noted_is_not_written_again(machine: Machine, ledger: Ledger) -> None:
    async with planned(ledger) as run:
        offset = machine.offset
        for _ in range(3):
            assert run.note_clock(offset) is run.note_clock(offset)
        await run.note_clock(offset)
        assert run.note_clock(5.0) is run.note_clock(2.5 + 2.5)


def test_rows_of_a_version_that_kept_no_clocks_are_known_as_far_as_a_signature_must_be() -> None:
    assert Clocks([]).span(None, 5_000.0) == (5_000 - SIGNATURE_VALIDITY, 5_000 + SIGNATURE_VALIDITY)


def test_the_boot_of_this_machine_has_a_name() -> None:
    assert boot_of_machine() == boot_of_machine()
    if Path("/proc/sys/kernel/random/boot_id").exists():
        assert boot_of_machine()
