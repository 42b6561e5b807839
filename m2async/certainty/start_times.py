"""How far start times are off, as a run's own answered executions show it: what makes windows of attempts narrow.

Two attempts of one name in doubt can be told apart where the windows do not touch in which their executions can show
to have started. By the clocks alone such a window is some ten seconds wide. What the service listed of executions whose
ids were answered tells more: by how much its start times are ahead of the machine's uptime, which nobody can set.

It is relied on only where it surely holds: with at least twenty such witnesses of one boot of the machine, some sent
before the attempt and some after its end, all of them near in time. An allowance is made for clocks that drift, for
what so few cannot show, and for start times that jitter. Where that leaves a window that is hardly narrower, there is
none.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeVar

from m2async.certainty.adopt import Attempt, ListedExecution, Margins
from m2async.certainty.calibration import Calibration
from m2async.ledger import AnsweredAttempt, OpenAttempt, Uptimes

Id = TypeVar("Id", bound=Hashable)

ENOUGH = 20
"""Witnesses from which on start times are relied on."""

_AROUND = 60
"""Witnesses on either side of an attempt that are asked."""

_NEAR = 120.0
"""Seconds that the last witness before an attempt, and the first behind it, may be away."""

_DRIFT = 0.001
"""Seconds that two clocks may come to differ in a second: twice as much as NTP lets a clock be off (RFC 5905, PHI
is 15 ppm, and adjtime slews by 500 ppm)."""

_LEAST = 0.05
"""Seconds that start times are taken to be off at least."""

_FURTHER = 1.5
"""By which factor others' start times may be further apart than those of the witnesses."""

_WIDEST = 2.0
"""Seconds: what is off by more bounds nothing that the clocks do not bound themselves."""

_UNITS = (1.0, 0.5, 0.25, 0.1, 0.05, 0.01, 0.001)


class Witness(NamedTuple):
    """An answered attempt by the uptime of its machine, and the start time that the service shows, in seconds."""

    sent: float
    ended: float
    start: float


class StartBounds(NamedTuple):
    """How far start times are ahead of the uptime: from `least` to `most`, and `around` besides; in seconds.

    `slowest` is how long an exchange of a witness took at most.
    """

    least: float
    most: float
    around: float
    slowest: float

    @property
    def apart(self) -> float:
        """Seconds between the end of an attempt and the beginning of the next with which their windows do not touch."""
        return self.most - self.least + 2 * self.around

    def window(self, uptimes: Uptimes) -> tuple[float, float]:
        """Give the earliest and the latest start time that the service can show of an attempt that it ended itself."""
        assert uptimes.ended is not None  # noqa: S101 - bounds are given of such an attempt only
        first, last = sorted((uptimes.sent, uptimes.ended))
        return first + self.least - self.around, last + self.most + self.around

    def prompt_window(self, uptimes: Uptimes) -> tuple[float, float]:
        """Give the same of an attempt that the client gave up, if its job was started as soon as others are."""
        return self.window(uptimes._replace(ended=uptimes.sent + self.slowest))


class Apart(NamedTuple):
    """How many seconds after the end of an attempt another one begins whose window does not touch its own.

    Arguments:
        closely: where start times bound both; None where these bound nothing.
        by_clocks: by the clocks alone; infinite where the list is not known to show when something was started.
    """

    closely: float | None = None
    by_clocks: float = math.inf


class Precision:
    """What is known, while a run goes on, of how far the start times of one application are off.

    Attributes:
        bounds: as they were found last; None where nothing is known, or nothing is relied on.
        is_refuted: whether an execution was seen outside of its window: nothing is relied on any more.
    """

    def __init__(self) -> None:
        self.bounds: StartBounds | None = None
        self.is_refuted: bool = False
        self._by_clocks = math.inf
        self._boot, self._at = "", 0.0
        self._of_attempts: dict[Hashable, StartBounds] = {}

    @property
    def apart(self) -> Apart:
        """How far attempts must be apart, as far as is known by the last look."""
        return Apart(None if self.bounds is None else self.bounds.apart, self._by_clocks)

    def calibrated(self, calibration: Calibration, expected: Margins) -> None:
        """Take note of how the list behaves, beside what was expected of it."""
        self._by_clocks = calibration.apart(expected)

    def of_attempt(self, opened: OpenAttempt, start_times: StartTimes) -> StartBounds | None:
        """Say how far the start time of an attempt can be off; what was once known of an attempt stays.

        Of one that the client gave up, that is as of the time when it was sent.
        """
        attempt = opened.run_id, opened.number, opened.attempt
        bounds, times = self._of_attempts.get(attempt), _known_times(opened)
        if bounds is None and times is not None:
            bounds = start_times.bounds(times)
            if bounds is not None:
                self._of_attempts[attempt] = bounds
        return bounds

    def likely_of(self, opened: OpenAttempt, start_times: StartTimes) -> StartBounds | None:
        """Say how far the start time of an attempt is off, if it is as off as others' on one side of it."""
        times = _known_times(opened)
        return None if times is None else self.of_attempt(opened, start_times) or start_times.likely(times)

    def keep(self, opened: Iterable[OpenAttempt]) -> None:
        """Forget what was known of other attempts than these."""
        attempts = {(each.run_id, each.number, each.attempt) for each in opened}
        self._of_attempts = {attempt: bounds for attempt, bounds in self._of_attempts.items() if attempt in attempts}

    def learn(self, start_times: StartTimes) -> None:
        """Take note of what witnesses show, and whether that contradicts what others showed before."""
        if self.bounds is not None and start_times.contradict(self.bounds, self._boot, self._at):
            self.refute()
        bounds, boot, at = start_times.latest()
        if not self.is_refuted and (bounds is not None or self.bounds is None or at > self._at):
            self.bounds, self._boot, self._at = bounds, boot, at

    def refute(self) -> None:
        """Rely on nothing any more."""
        self.bounds, self.is_refuted = None, True


class StartTimes:
    """The witnesses of one application, by the boots that their times are of."""

    def __init__(self, answered: Iterable[AnsweredAttempt], started: Mapping[str, float]) -> None:
        """Take answered attempts, and the start times that the service shows of executions, by their ids."""
        self._witnesses: dict[str, list[Witness]] = {}
        for each in answered:
            times, start = each.uptimes, started.get(each.execution_id)
            if times is not None and times.ended is not None and start is not None:
                self._witnesses.setdefault(times.boot, []).append(Witness(times.sent, times.ended, start))
        for witnesses in self._witnesses.values():
            witnesses.sort()
        self._unit = _unit([each.start for witnesses in self._witnesses.values() for each in witnesses])

    def bounds(self, uptimes: Uptimes) -> StartBounds | None:
        """Say how far the start time of an attempt can be off; None where that is not known well enough."""
        return self._around(uptimes, on_both_sides=True)

    def likely(self, uptimes: Uptimes) -> StartBounds | None:
        """Say the same as far as witnesses on one side of the attempt tell: those on the other may be missing yet."""
        return self._around(uptimes, on_both_sides=False)

    def _around(self, uptimes: Uptimes, *, on_both_sides: bool) -> StartBounds | None:
        witnesses = self._witnesses.get(uptimes.boot, [])
        if uptimes.ended is None or len(witnesses) < ENOUGH:
            return None
        first, last = sorted((uptimes.sent, uptimes.ended))
        place = bisect_left(witnesses, (last,))
        before = [each for each in witnesses[max(0, place - 2 * _AROUND) : place] if each.ended <= first]
        behind = witnesses[place : place + _AROUND]
        has_before = bool(before) and before[-1].sent >= first - _NEAR
        has_behind = bool(behind) and behind[0].sent <= last + _NEAR
        if not (has_before and has_behind if on_both_sides else has_before or has_behind):
            return None
        near = [
            each for each in witnesses[max(0, place - 2 * _AROUND) : place + _AROUND] if last - each.sent < 5 * _NEAR
        ]
        return None if len(near) < ENOUGH else self._bounds(near, first, last)

    def latest(self) -> tuple[StartBounds | None, str, float]:
        """Say how far start times are off of late; with the boot, and the uptime of the last witness."""
        boot, witnesses = max(self._witnesses.items(), key=lambda each: each[1][-1].start, default=("", []))
        last = witnesses[-2 * _AROUND :]
        if len(last) < ENOUGH:
            return None, boot, 0.0
        return self._bounds(last, last[-1].sent, last[-1].ended), boot, last[-1].sent

    def contradict(self, bounds: StartBounds, boot: str, at: float) -> bool:
        """Whether a witness is outside of what bounds that were found at an uptime of a boot allow."""
        for sent, ended, start in self._witnesses.get(boot, ()):
            off = bounds.around + _DRIFT * max(abs(sent - at), abs(ended - at))
            if not sent + bounds.least - off <= start <= ended + bounds.most + off:
                return True
        return False

    def _bounds(self, witnesses: Sequence[Witness], first: float, last: float) -> StartBounds | None:
        """Say what witnesses show for a stretch of time.

        If all start times are ahead by the same, that is between the greatest of what they are ahead of the ends, and
        the least of what they are ahead of the sendings. Where these contradict each other, start times jitter by as
        much. What jitters by less than the shortest exchange may not show at all.
        """
        ahead_of_end, ahead_of_sending, shortest, slowest = float("-inf"), float("inf"), float("inf"), 0.0
        for each in witnesses:
            drift = _DRIFT * max(abs(each.sent - first), abs(each.ended - last))
            ahead_of_end = max(ahead_of_end, each.start - each.ended - drift)
            ahead_of_sending = min(ahead_of_sending, each.start - each.sent + drift)
            shortest = min(shortest, each.ended - each.sent)
            slowest = max(slowest, each.ended - each.sent)
        jitter = max(0.0, ahead_of_end - ahead_of_sending)
        least, most = sorted((ahead_of_end, ahead_of_sending))
        around = _LEAST + max(0.0, shortest) + _FURTHER * jitter + self._unit
        bounds = StartBounds(least, most, around, slowest)
        return bounds if bounds.apart <= 2 * _WIDEST else None


def closer_window(
    attempt: Attempt[Id], opened: OpenAttempt, bounds: StartBounds | None, calibration: Calibration
) -> Attempt[Id] | None:
    """Give an attempt whose times are those of its window by the bounds; None where that is no narrower.

    Only of an attempt that the service ended itself: any other may start its job later. Start times are taken as
    corrected by the calibration.
    """
    return likely_window(attempt, opened, bounds, calibration) if opened.ended_by_service else None


def likely_window(
    attempt: Attempt[Id], opened: OpenAttempt, bounds: StartBounds | None, calibration: Calibration
) -> Attempt[Id] | None:
    """Give an attempt as one that started its job as soon as others are, as closer_window does.

    One that the client gave up need not have, and likely bounds need not hold: such a window says which executions it
    explains as well as a closer one does.
    """
    times = opened.uptimes
    if bounds is None or times is None or times.ended is None:
        return None
    window = bounds.window(times) if opened.ended_by_service else bounds.prompt_window(times)
    return _narrower(attempt, window, calibration)


def _narrower(attempt: Attempt[Id], window: tuple[float, float], calibration: Calibration) -> Attempt[Id] | None:
    """Give an attempt with these times, unless they say more than is known of the list or of the clocks."""
    first, last = (at - calibration.ahead for at in window)
    earliest, latest = calibration.margins.window(attempt)
    is_narrower = calibration.is_sound and earliest <= first and last <= latest
    return replace(attempt, sent_at=first, ended_at=last) if is_narrower else None


def _known_times(opened: OpenAttempt) -> Uptimes | None:
    """Give when an attempt was sent and ended, for all that it is known to have started until then."""
    times = opened.uptimes
    if times is None or times.ended is None:
        return None
    return times if opened.ended_by_service else times._replace(ended=times.sent)


def as_window(attempt: Attempt[Id], margins: Margins) -> Attempt[Id]:
    """Give an attempt whose times are those of its window: with no margins beyond."""
    earliest, latest = margins.window(attempt)
    return replace(attempt, sent_at=earliest, ended_at=None if attempt.ended_at is None else latest)


def seen_outside(
    pairs: Iterable[tuple[Attempt[Id], Attempt[Id] | None]], executions: Iterable[ListedExecution]
) -> set[str]:
    """Give the executions that attempts may have started by the clocks, and none by its narrower window.

    `pairs` are attempts as `as_window` gives them, with the narrower ones where these are known. An execution of unsaid
    job may be any attempt's.
    """
    wide: dict[Hashable, list[tuple[float, float]]] = defaultdict(list)
    narrow: dict[Hashable, list[tuple[float, float]]] = defaultdict(list)
    for attempt, closer in pairs:
        for spans, each in ((wide, attempt), (narrow, closer or attempt)):
            span = each.sent_at, math.inf if each.ended_at is None else each.ended_at
            spans[each.job].append(span)
            spans[None].append(span)
    within = {job: (_Stretches(wide[job]), _Stretches(narrow[job])) for job in wide}
    return {
        each.execution_id
        for each in executions
        if each.job in within and each.start_time in within[each.job][0] and each.start_time not in within[each.job][1]
    }


class _Stretches:
    """Stretches of time, as one."""

    def __init__(self, spans: Iterable[tuple[float, float]]) -> None:
        self._first: list[float] = []
        self._last: list[float] = []
        for first, last in sorted(spans):
            if self._last and first <= self._last[-1]:
                self._last[-1] = max(self._last[-1], last)
            else:
                self._first.append(first)
                self._last.append(last)

    def __contains__(self, at: float) -> bool:
        place = bisect_right(self._first, at) - 1
        return place >= 0 and at <= self._last[place]


def _unit(times: Sequence[float]) -> float:
    """Give the greatest unit in which all start times are whole, in seconds; 0 for one that does not matter."""
    return next(
        (unit for unit in _UNITS if times and all(abs(time / unit - round(time / unit)) < 1e-3 for time in times)), 0.0
    )
