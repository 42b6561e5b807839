"""From local times to the service's: what the clocks showed that the times of attempts were read off.

A local clock may be wrong, be set, or stand still while nobody looks, and a time may be read in another process than it
was written in. So each time is kept with its clock, and what was known of that clock then. Clocks of one boot of a
machine go on together. Where it is not known which of two offsets held at a time, both are reckoned with.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from m2async.clock import CLOCK_TOLERANCE
from m2async.ledger.rows import Uptimes

SIGNATURE_VALIDITY = 900.0
"""Seconds that the clock of a request which the service took may be off (AWS General Reference, Signature V4)."""


class Clock(NamedTuple):
    """A clock of a run, and what was known of it from one time to another; all times in seconds.

    Arguments:
        id: its own.
        run: which was opened at `opened_at` by this clock.
        at: when it was written down.
        boot: what clocks share that can be compared: they differ by what they showed at one moment, the `base`.
        base: see `boot`.
        wall: how far the machine's own clock was ahead.
        least, most: how far the service's clock was ahead, None where that was not known.
        since: from which time on this offset may hold, where it is another than before; else None.
    """

    id: int
    run: int
    opened_at: float
    at: float
    boot: str
    base: float
    wall: float
    least: float | None
    most: float | None
    since: float | None


def boot_of_machine() -> str | None:
    """Name the boot that the machine's uptime counts from; None where the system does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{boot} {Path('/proc/self/ns/time').readlink()}"  # which a container may have of its own
    except (OSError, ValueError):
        return None


class Clocks:
    """All clocks of a ledger, which attempts name by their ids; they come in the order in which they were written."""

    def __init__(self, clocks: Iterable[Clock]) -> None:
        self._clocks: dict[int, Clock] = {}
        self._opening: dict[int, Clock] = {}  # the first clock of each run's last opening
        self._place: dict[int, int] = {}  # of each among all
        self._compared: dict[str, list[Clock]] = {}  # those of each boot of which something is known
        self._jumps: dict[tuple[str, float], list[Clock]] = {}  # those of each opening whose offset is another
        for place, clock in enumerate(clocks):
            self._clocks[clock.id] = clock
            self._place[clock.id] = place
            if clock.least is not None:
                self._compared.setdefault(clock.boot, []).append(clock)
                if clock.since is not None:
                    self._jumps.setdefault((clock.boot, clock.base), []).append(clock)
            last = self._opening.get(clock.run)
            if last is None or (last.id < clock.id and last.opened_at != clock.opened_at):
                self._opening[clock.run] = clock

    def span(self, clock_id: int | None, at: float) -> tuple[float, float]:
        """Give the earliest and the latest time of the service that a time by a clock can be.

        Where nobody ever read the service's clock beside it, it is right as far as a signature must be.
        """
        own = None if clock_id is None else self._clocks.get(clock_id)
        if own is None:  # written by a version that kept no clocks
            return at - SIGNATURE_VALIDITY, at + SIGNATURE_VALIDITY
        offsets = self._offsets(own, at)
        return at + min(least for least, _ in offsets), at + max(most for _, most in offsets)

    def uptimes(
        self, clock_id: int | None, sent_at: float, ended_clock: int | None, ended_at: float | None
    ) -> Uptimes | None:
        """Give the times of an attempt by its machine's uptime; None where they are not known to be of one boot."""
        sent = None if clock_id is None else self._clocks.get(clock_id)
        ended = sent if ended_at is None or ended_clock is None else self._clocks.get(ended_clock)
        if sent is None or ended is None or sent.boot != ended.boot:
            return None
        return Uptimes(sent.boot, sent_at - sent.base, None if ended_at is None else ended_at - ended.base)

    def ended_before(self, run: int, clock_id: int | None, at: float) -> float:
        """Give the latest time of the service at which an attempt can have ended that did so at this time.

        Whoever opened the run later did so when it had ended.
        """
        latest = self.span(clock_id, at)[1]
        opening = self._later_opening(run, clock_id)
        return latest if opening is None else min(latest, self.span(opening.id, opening.opened_at)[1])

    def ended_by(self, run: int, clock_id: int | None, at: float) -> float:
        """Give the latest time at which it can have ended, by the clock of the run's last opening."""
        opening = self._later_opening(run, clock_id)
        if opening is None:
            return at
        ago = self.span(opening.id, opening.opened_at)[0] - self.span(clock_id, at)[1]
        return opening.opened_at - max(0.0, ago)

    def is_former(self, run: int, clock_id: int | None) -> bool:
        """Tell whether a run was opened again since times of it were read off a clock."""
        return self._later_opening(run, clock_id) is not None

    def _later_opening(self, run: int, clock_id: int | None) -> Clock | None:
        opening, own = self._opening.get(run), None if clock_id is None else self._clocks.get(clock_id)
        if opening is None or (own is not None and own.opened_at == opening.opened_at):
            return None
        return opening

    def _offsets(self, own: Clock, at: float) -> list[tuple[float, float]]:
        """Give the offsets that may have held at a time by this clock."""
        compared, place = self._compared.get(own.boot, []), self._place[own.id]
        later = bisect_right(compared, place, key=self._place_of)
        held = compared[max(0, later - 1) : max(1, later)]
        for first in held[:1]:
            # Later ones of the same opening say themselves from when on they may hold; those of others are not known
            # to go on where it ended.
            held += [
                each
                for each in self._jumps.get((own.boot, first.base), ())
                if self._place[each.id] > place
                and first.since != each.since
                and each.since is not None
                and each.since - (each.base - own.base) < at
            ]
            others = (each for each in islice(compared, later, None) if _is_of_another_process(each, first))
            held += islice(others, 1)
        offsets = [_offset_by(own, each) for each in held]
        if not later:
            by_machine = (min(0.0, own.wall), max(0.0, own.wall))
            # If an offset was read that the machine's clock agrees with, then that was right before as well.
            agrees = any(
                least <= by_machine[1] + CLOCK_TOLERANCE and most >= by_machine[0] - CLOCK_TOLERANCE
                for least, most in offsets
            )
            off = CLOCK_TOLERANCE if agrees else SIGNATURE_VALIDITY
            offsets.append((by_machine[0] - off, by_machine[1] + off))
        return offsets

    def _place_of(self, clock: Clock) -> int:
        return self._place[clock.id]


def _is_of_another_process(clock: Clock, other: Clock) -> bool:
    """Whether two clocks of a boot are of two processes, perhaps; by chance these may have begun with the same time."""
    return clock.base != other.base or (clock.run == other.run and clock.opened_at != other.opened_at)


def _offset_by(own: Clock, other: Clock) -> tuple[float, float]:
    """Give what is known by another clock of the same boot, by the times of one's own."""
    assert other.least is not None and other.most is not None  # noqa: S101, PT018 - the caller chose it so
    ahead = other.base - own.base
    return other.least + ahead, other.most + ahead
