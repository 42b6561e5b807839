"""The profiles of a probe: which calls to make next, given the answers so far, and what they have shown."""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import NamedTuple

from m2async.probing.bucket_fit import (
    Arrival,
    Estimate,
    arrivals,
    drain,
    estimate_burst,
    estimate_rate,
    is_told_by_answers,
    mismatched,
    saturated,
)
from m2async.probing.findings import LoadProfile
from m2async.probing.record import Call, CallStretch, QuotaVerdict, Record, SentStretch, StretchKind

FIRST_RATE = 10.0
"""Calls a second with which a ramp begins; it doubles each second."""

_SETTLED = 30  # accepted calls that tell a rate roughly
_HOLD = (2.0, 12.0)  # seconds, at least and at most
_HOLD_CALLS = 200  # accepted calls that tell a rate to half a percent
_FLASHES = (3, 15)  # at least, and at most where the burst is a few calls
_FLASH_CALLS = 3_000  # in all, but for the first three
_FLASH_SECONDS = 8.0  # the same
_SMALL = 3  # calls: a burst that may overflow between two calls
_MISMATCHED = 0.6  # what a bucket may leave unexplained, as `mismatched` counts; random answers leave more
_EXACT = 0.2  # of a token: where arrivals are known as exactly as that, a bucket has to explain the answers
_TELLING = 100  # calls of a hold that can tell a burst from the next
_CLEARLY = 1.5  # times as many mismatches
_STALLED = 0.5  # seconds by which answers may fall behind before the service counts as overloaded


class Limits(NamedTuple):
    """What a probe may cost: `rate` in calls a second, `seconds` in all."""

    rate: float
    seconds: float


class Estimates(NamedTuple):
    """What a plan found: rate and burst, or why there are none."""

    rate: Estimate | None = None
    burst: Estimate | None = None
    unsteady: bool = False
    overloaded_at: float | None = None
    throttled_at_any_rate: bool = False


class Plan(ABC):
    """Says what to send next. `done` holds the stretches that were made; the last may have been cut short."""

    profile: LoadProfile

    def __init__(self) -> None:
        self.done: list[SentStretch] = []

    @abstractmethod
    def stretches(self) -> Iterator[CallStretch]:
        """Give stretch after stretch; each is made, answered and in `done` before the next is asked for."""

    @abstractmethod
    def estimates(self) -> Estimates:
        """Say what was found so far."""

    @property
    @abstractmethod
    def seconds(self) -> float:
        """How long it takes, at most."""

    def _arrivals(self, done: SentStretch) -> list[Arrival]:
        """The calls of a stretch, as they arrived at the quota."""
        return arrivals(done.record.calls, by_answer=is_told_by_answers(done.record.calls))


class Steps(Plan):
    """Offers one rate after the other, each for some seconds, whatever is answered."""

    def __init__(self, rates: Sequence[float], seconds: float) -> None:
        super().__init__()
        self.profile: LoadProfile = "constant" if len(rates) == 1 else "steps"
        self._rates = rates
        self._each = seconds

    @property
    def seconds(self) -> float:
        return self._each * len(self._rates)

    def stretches(self) -> Iterator[CallStretch]:
        for rate in self._rates:
            yield CallStretch("step", 0.0, _evenly(rate, self._each), _never, rate)

    def estimates(self) -> Estimates:
        """Estimate the rate from the calls between throttles, if there were any."""
        found = [estimate_rate(seen) for seen in map(saturated, map(self._arrivals, self.done)) if _count(seen) >= 10]
        known = [rate for rate in found if rate is not None]
        if not known:
            return Estimates()
        return Estimates(known[-1]) if _agree(known) and self._is_steady() else Estimates(unsteady=True)

    def _is_steady(self) -> bool:
        return all(_is_steady(saturated(self._arrivals(one))) for one in self.done)


class Ramp(Plan):
    """Finds a token bucket's rate and burst, in four parts.

    Ramp: starting with a full bucket, the offered rate doubles each second until calls are throttled. Settle: a little
    more is offered, which keeps the bucket empty, until the rate is known roughly. Hold: the bucket is kept empty at
    little cost; what is accepted is what flows in. Flash: the bucket fills up and is emptied, several times; what is
    accepted beyond the inflow is the burst. If it fills too slowly for that, the burst is read off the ramp.
    """

    profile: LoadProfile = "ramp"

    def __init__(self, limits: Limits) -> None:
        super().__init__()
        self._limits = limits

    @property
    def seconds(self) -> float:
        return self._limits.seconds

    def stretches(self) -> Iterator[CallStretch]:
        rate = FIRST_RATE
        while rate < self._limits.rate:
            ramp = CallStretch(
                "ramp", 0.0, _doubling(rate, self._limits.rate), _throttled_or_stalled, self._limits.rate
            )
            yield ramp
            if not _is_throttled(self._record("ramp")):
                return
            rate = self._within(1.3 * _offered(self._record("ramp")))
            seconds = min(max(1.0, 2 * _SETTLED / rate), 4.0)
            yield CallStretch("settle", 0.0, _evenly(rate, seconds), _once_accepted(_SETTLED), rate)
            if _is_above_the_quota(self._record("settle")):
                break
        else:
            return
        if self._is_small():  # it overflows between calls: its rate can be told only once the burst is known
            yield from self._flashes()
            yield from self._holds()
        else:
            yield from self._holds()
            yield from self._flashes()

    def estimates(self) -> Estimates:
        if not self._of("ramp"):
            return Estimates()
        ramp = self._record("ramp")
        if not (self._of("settle") and _is_above_the_quota(self._record("settle"))):
            throttles = sum(
                call.verdict is QuotaVerdict.THROTTLED for done in self.done for call in done.record.answers
            )
            overloaded = _offered(ramp) if ramp.calls and _has_stalled(ramp) else None
            return Estimates(overloaded_at=overloaded, throttled_at_any_rate=throttles > 0)
        rate, burst = self._estimated()
        if rate is None or not self._is_steady(rate, burst):
            return Estimates(unsteady=bool(self._of("settle")))
        return Estimates(rate, burst)

    # The parts

    def _holds(self) -> Iterator[CallStretch]:
        """Keep the bucket empty; offer more if that was not enough, or if the rate was not steady."""
        least = 0.0
        for _ in range(3):
            rate = self._estimated()[0] or Estimate(FIRST_RATE / 10, 0.0, FIRST_RATE / 10)  # it is slow
            offered = self._within(max(least, (2.0 if rate.most < 300 else 1.4) * min(rate.most, 2 * rate.value)))
            left = self._limits.seconds - self._elapsed()
            seconds = min(max(_HOLD[0], _HOLD_CALLS / rate.value), _HOLD[1], max(0.1, left - 1))
            yield CallStretch("hold", 0.0, _unevenly(offered, seconds), _is_stalled, offered)
            is_saturated = len(saturated(self._arrivals(self.done[-1]))) > 0.8 * len(self.done[-1].record.calls)
            if is_saturated and not self.estimates().unsteady:  # a stall on the way passes
                return
            least = 1.5 * offered

    def _flashes(self) -> Iterator[CallStretch]:
        """Let the bucket fill up and empty it, as often as the burst's size and the time allow."""
        calls, began = 0, self._elapsed()
        for number in range(_FLASHES[1]):
            rate, burst = self._estimated()
            if rate is None or burst is None:
                return
            size = burst.most + 1
            offered = self._within(self._limits.rate if burst.value <= _SMALL else rate.value + 5 * size)
            offered = self._within(max(1.5 * rate.value, offered))
            seconds = size / max(offered - rate.value, 0.1 * rate.value)
            rest = 0.02 + 1.25 * size / rate.value
            held = 0.0 if self._of("hold") else _HOLD[1]
            if self._elapsed() + rest + 2 * seconds + held > self._limits.seconds:
                return
            most = 3 * seconds + (5 / offered if burst.value <= _SMALL else 2.0)  # it may be larger than was thought
            yield CallStretch("flash", rest, _evenly(offered, most), _once_throttled(3), offered)
            calls += len(self.done[-1].record.calls)
            dear = calls > _FLASH_CALLS or size > 50 or self._elapsed() - began > _FLASH_SECONDS
            if number + 1 >= (_FLASHES[0] if dear else _FLASHES[1] if size <= 20 else 2 * _FLASHES[0]):
                return

    # What they show

    def _rate(self) -> Estimate | None:
        for kind in ("hold", "settle"):
            found = [estimate_rate(saturated(self._arrivals(done))) for done in self._of(kind)]
            known = [rate for rate in found if rate is not None]
            if known:
                return known[-1]
        return None

    def _is_small(self) -> bool:
        burst = self._estimated()[1]
        return burst is not None and burst.value <= _SMALL

    def _estimated(self) -> tuple[Estimate | None, Estimate | None]:
        """Give rate and burst, each corrected by the other."""
        rate = self._rate()
        burst = None if rate is None else self._burst(rate)
        if rate is None or burst is None or burst.value > max(_SMALL, rate.value / 10):
            return rate, burst
        held = saturated(self._arrivals(self._of("hold", "settle")[-1]))
        fits = []
        for value in _near(round(burst.value)) if len(held) >= _TELLING else [round(burst.value)]:
            fitted = estimate_rate(held, value) or rate
            # The flashes say what the burst is, unless another one explains the rest much better.
            missed = mismatched(held, fitted.value, value) * (1.0 if value == burst.value else _CLEARLY)
            fits.append((missed, value, fitted))
        _, value, rate = min(fits)
        again = self._burst(rate) or burst
        return rate, again if again.value == value else Estimate(value, value, value)

    def _burst(self, rate: Estimate) -> Estimate | None:
        """Estimate it from the flashes; before there are any, or if the bucket fills too slowly, from the ramp."""
        for emptied in (self._of("flash"), self._of("ramp")[-1:]):
            found = [one for done in emptied if (one := drain(self._arrivals(done), rate.value)) is not None]
            if found:
                return estimate_burst(found, rate)
        return None

    def _is_steady(self, rate: Estimate, burst: Estimate | None) -> bool:
        """Whether the rate is the same throughout and at every offered rate, or the bucket explains the answers."""
        seen = [saturated(self._arrivals(done)) for done in self._of("settle", "hold")[-2:]]
        if not _is_above_the_quota(self._of("settle", "hold")[-1].record):
            return False
        if burst is not None:
            explained = mismatched(seen[-1], rate.value, burst.value, allowed=_EXACT) < _MISMATCHED
            if explained and burst.value <= _SMALL:
                return True
            if not explained and rate.value * self._scatter() < _EXACT:
                return False
        rates = [known for one in seen if _count(one) >= 10 and (known := estimate_rate(one)) is not None]
        return _agree(rates) and all(map(_is_steady, seen))

    def _scatter(self) -> float:
        """By how much latencies differ, in seconds: arrivals are known no better than that."""
        calls = self._of("settle", "hold")[-1].record.calls
        latencies = sorted(call.answered - call.sent for call in calls if call.answered is not None)
        return latencies[len(latencies) * 9 // 10] - latencies[len(latencies) // 10] if latencies else math.inf

    def _of(self, *kinds: StretchKind) -> list[SentStretch]:
        return [done for done in self.done if done.stretch.kind in kinds]

    def _record(self, kind: StretchKind) -> Record:
        return self._of(kind)[-1].record

    def _within(self, rate: float) -> float:
        return min(rate, self._limits.rate)

    def _elapsed(self) -> float:
        answers = self.done[-1].record.answers
        return (answers[-1].answered or 0.0) if answers else 0.0


def _near(burst: int) -> Sequence[int]:
    """Give the bursts to compare: one call more or less matters only if they are few."""
    return [value for value in (burst - 1, burst, burst + 1) if value >= 1] if burst <= _SMALL else [burst]


# When calls are due


def _evenly(rate: float, seconds: float) -> Iterator[float]:
    return (number / rate for number in range(max(1, round(rate * seconds))))


def _unevenly(rate: float, seconds: float) -> Iterator[float]:
    """The same at random intervals, so that they do not fall into step with the quota's own."""
    draw = random.Random(0).random
    return ((number + draw()) / rate for number in range(max(1, round(rate * seconds))))


def _doubling(first: float, most: float) -> Iterator[float]:
    """A rate that doubles each second up to the most, which is offered for three seconds more."""
    growth = math.log(2)
    number = 0
    while first + growth * number < most:
        yield math.log1p(growth * number / first) / growth
        number += 1
    begin = math.log(most / first) / growth
    yield from (begin + offset for offset in _evenly(most, 3.0))


# When enough was seen


def _never(record: Record, now: float) -> bool:
    return False


def _throttled_or_stalled(record: Record, now: float) -> bool:
    return _are_throttled(record.answers[-20:]) or _is_stalled(record, now)


def _is_throttled(record: Record) -> bool:
    """Whether throttles were ever more than stray ones."""
    answers = record.answers
    return any(_are_throttled(answers[max(0, end - 20) : end]) for end in range(1, len(answers) + 1))


def _are_throttled(answers: Sequence[Call]) -> bool:
    return sum(call.verdict is QuotaVerdict.THROTTLED for call in answers) >= 3


def _is_stalled(record: Record, now: float) -> bool:
    """Whether answers fall behind: by more calls than are sent in their usual time and half a second."""
    return len(record.answers) >= 10 and record.under_way > _usually_under_way(record)


def _has_stalled(record: Record) -> bool:
    """The same, at the time when the last call was sent."""
    last = record.calls[-1].sent
    under_way = sum((call.answered or math.inf) > last for call in record.calls)
    return len(record.answers) >= 10 and under_way > _usually_under_way(record)


def _usually_under_way(record: Record) -> float:
    usual = median((call.answered or 0.0) - call.sent for call in record.answers[:10])
    return max(10.0, (3 * usual + _STALLED) * _offered(record))


def _offered(record: Record) -> float:
    """The rate of the latest calls."""
    latest = record.calls[-20:]
    return (len(latest) - 1) / (latest[-1].due - latest[0].due) if len(latest) > 1 else FIRST_RATE


def _is_above_the_quota(record: Record) -> bool:
    """Whether so many calls were throttled that it was not by chance."""
    return sum(call.verdict is QuotaVerdict.THROTTLED for call in record.answers) > 0.1 * len(record.answers)


def _once_accepted(wanted: int) -> Callable[[Record, float], bool]:
    """End once so many calls were accepted behind the first throttle."""
    accepted = looked = 0
    throttled = False

    def over(record: Record, now: float) -> bool:
        nonlocal accepted, looked, throttled
        for call in record.answers[looked:]:
            throttled = throttled or call.verdict is QuotaVerdict.THROTTLED
            accepted += throttled and call.verdict is QuotaVerdict.ACCEPTED
        looked = len(record.answers)
        return accepted >= wanted

    return over


def _once_throttled(times: int) -> Callable[[Record, float], bool]:
    throttles = looked = 0

    def over(record: Record, now: float) -> bool:
        nonlocal throttles, looked
        throttles += sum(call.verdict is QuotaVerdict.THROTTLED for call in record.answers[looked:])
        looked = len(record.answers)
        return throttles >= times

    return over


# Whether it is a token bucket


def _agree(rates: Sequence[Estimate]) -> bool:
    """Whether rates are the same, within their own bounds and a quarter."""
    return not rates or max(rate.least for rate in rates) <= 1.25 * min(rate.most for rate in rates)


def _is_steady(seen: Sequence[Arrival]) -> bool:
    """Whether accepted calls come evenly: about 20 in each part of the time in which 20 are expected."""
    count = _count(seen)
    parts = count // 20
    if parts < 2:
        return True
    begin, length = seen[0].at, (seen[-1].at - seen[0].at) / parts
    counts = [0] * parts
    for at, accepted in seen:
        counts[min(parts - 1, int((at - begin) / length))] += accepted
    typical = count / parts
    uneven = sum(abs(one - typical) > 0.4 * typical + 2 for one in counts)
    return uneven <= 0.1 * parts


def _count(seen: Sequence[Arrival]) -> int:
    return sum(arrival.accepted for arrival in seen)
