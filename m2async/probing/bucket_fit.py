"""The token bucket that explains answers best.

The bucket is replayed call by call; `used` is what is missing in it. An accepted call says that a token was there, a
throttled one that there was none. Where that contradicts the assumed rate and burst, `used` is corrected. A wrong
assumption needs corrections in one direction; errors of timing need them in both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from statistics import linear_regression, median
from typing import NamedTuple

from m2async.probing.record import Call, QuotaVerdict

_ROUNDING = 1e-6  # of a token


class Arrival(NamedTuple):
    """When a call reached the bucket, less a delay that all calls share, and whether it got a token."""

    at: float
    accepted: bool


class Estimate(NamedTuple):
    """A value and its bounds."""

    value: float
    least: float
    most: float


def arrivals(calls: Iterable[Call], *, by_answer: bool) -> list[Arrival]:
    """Give the calls of which it is known whether they got a token, in the order of arrival.

    The time of the answer tells more than the time of sending: an idle service is slow to begin, and a busy one lets
    calls queue. But where accepted calls take longer than throttled ones, their time behind the bucket is in it.
    """
    return sorted(
        Arrival(call.answered if by_answer else call.sent, call.verdict is QuotaVerdict.ACCEPTED)
        for call in calls
        if call.answered is not None and call.verdict in {QuotaVerdict.ACCEPTED, QuotaVerdict.THROTTLED}
    )


def is_told_by_answers(calls: Iterable[Call]) -> bool:
    """Whether accepted calls are answered as fast as throttled ones, within a millisecond or half as long again."""
    latencies: dict[QuotaVerdict | None, list[float]] = {QuotaVerdict.ACCEPTED: [], QuotaVerdict.THROTTLED: []}
    for call in calls:
        if call.answered is not None and call.verdict in latencies:
            latencies[call.verdict].append(call.answered - call.sent)
    accepted, throttled = latencies.values()
    if not accepted or not throttled:
        return True
    return median(accepted) <= max(median(throttled) + 0.001, 1.5 * median(throttled))


def saturated(seen: Sequence[Arrival]) -> Sequence[Arrival]:
    """Give the part from the first throttle to the last, both included."""
    throttles = [number for number, arrival in enumerate(seen) if not arrival.accepted]
    return seen[throttles[0] : throttles[-1] + 1] if throttles else []


def estimate_rate(seen: Sequence[Arrival], burst: float = math.inf) -> Estimate | None:
    """Estimate the rate of a bucket that was kept empty from the first call to the last, both of them throttled.

    `burst` matters if the bucket can overflow between two calls: it holds few, and they come less evenly than its
    tokens. None if nothing was accepted.
    """
    count = sum(arrival.accepted for arrival in seen)
    seconds = seen[-1].at - seen[0].at if seen else 0.0
    if not count or not seconds:
        return None
    rate = _slope(seen) or count / seconds
    if burst < math.inf:
        rate = _balanced(seen, burst, rate)
    deviation = max(1.0, _spread(seen, burst, rate) * count) / count
    return Estimate(rate, min(rate, max((count - 1) / seconds, rate * (1 - deviation))), rate * (1 + deviation))


def _slope(seen: Sequence[Arrival]) -> float | None:
    """Accepted calls a second, by least squares; None where they are too few."""
    times = [arrival.at for arrival in seen if arrival.accepted]
    if len(times) < 3:
        return None
    return 1 / linear_regression(range(len(times)), times).slope


def _spread(seen: Sequence[Arrival], burst: float, rate: float) -> float:
    """Twice the relative standard error of the rate, from five parts of the calls; 0 if these are too short."""
    size = len(seen) // 5
    if size < 50:
        return 0.0
    fifths = [seen[start : start + size] for start in range(0, 5 * size, size)]
    rates = [_slope(one) or rate if burst == math.inf else _balanced(one, burst, rate) for one in fifths]
    mean = sum(rates) / 5
    return 2 * math.sqrt(sum((one - mean) ** 2 for one in rates) / 4 / 5) / rate


def _balanced(seen: Sequence[Arrival], burst: float, rate: float) -> float:
    """Find the rate whose corrections cancel each other, within a factor of three of a guess.

    If a range of rates needs none, it is the middle of that range.
    """
    return math.sqrt(
        _root(lambda rate: _correction(seen, burst, rate) >= 0, rate / 3, rate * 3)
        * _root(lambda rate: _correction(seen, burst, rate) > 0, rate / 3, rate * 3)
    )


def _root(above: Callable[[float], bool], low: float, high: float) -> float:
    while high / low > 1.001:
        middle = math.sqrt(low * high)
        if above(middle):
            high = middle
        else:
            low = middle
    return math.sqrt(low * high)


def _correction(seen: Sequence[Arrival], burst: float, rate: float) -> float:
    """Sum up the tokens that have to be taken out of the bucket on the way; below 0 if they have to be put in.

    With a burst of one nothing is carried from one accepted call to the next, so a late answer counts for no more than
    another.
    """
    most = 0.1 if burst == 1 else math.inf
    return sum(max(-most, min(most, correction)) for correction in _corrections(seen, burst, rate))


def mismatched(seen: Sequence[Arrival], rate: float, burst: float, *, allowed: float = _ROUNDING) -> float:
    """How many answers the bucket would not have given, for each answer of the rarer kind.

    `allowed` is by how much of a token the bucket may be wrong about what is in it.
    """
    accepted = sum(arrival.accepted for arrival in seen)
    wrong = sum(abs(correction) > allowed for correction in _corrections(seen, burst, rate))
    return wrong / max(1, min(accepted, len(seen) - accepted))


def _corrections(seen: Sequence[Arrival], burst: float, rate: float) -> Iterator[float]:
    """For each call, give what has to be taken out of the bucket so that it gives the call's answer."""
    first = next((number for number, arrival in enumerate(seen) if arrival.accepted), None)
    if first is None:
        return
    used, before = burst, seen[first].at  # it had just been empty
    for at, accepted in seen[first + 1 :]:
        used -= rate * (at - before)
        before = at
        if accepted:
            used = max(0.0, used) + 1
            correction = min(0.0, burst - used)
        else:
            correction = max(0.0, burst - 1 - used)
        used += correction
        yield correction


class Drain(NamedTuple):
    """What emptying a full bucket says: its burst is at least `least` and less than `most`; it took `seconds`."""

    least: float
    most: float
    seconds: float


def drain(seen: Sequence[Arrival], rate: float) -> Drain | None:
    """Read the burst off calls that began with a full bucket, up to the first throttles; None if there are none."""
    used, least, most = 0.0, 0.0, math.inf
    before = full_at = seen[0].at if seen else 0.0
    throttled_at: float | None = None
    for at, accepted in seen:
        if throttled_at is not None and at > throttled_at + max(0.1 * (throttled_at - full_at), 3 / rate):
            break
        used -= rate * (at - before)
        before = at
        if accepted:
            if used <= 0:
                used, full_at = 0.0, at if throttled_at is None else full_at
            used += 1
            least = max(least, used)
        else:
            most = min(most, used + 1)
            throttled_at = at if throttled_at is None else throttled_at
    return None if throttled_at is None else Drain(least, most, throttled_at - full_at)


def estimate_burst(drains: Sequence[Drain], rate: Estimate) -> Estimate:
    """Find the whole number of calls that agrees best with all drains."""
    middles = [(drain.least + drain.most) / 2 for drain in drains]
    candidates = range(max(1, math.floor(min(middles)) - 1), math.ceil(max(middles)) + 2)
    burst = min(candidates, key=lambda burst: sum(_distance(burst, drain) for drain in drains))
    typical = median(middles)
    apart = median(abs(middle - typical) for middle in middles)
    slope = (rate.most - rate.least) / 2 * median(drain.seconds for drain in drains)
    error = math.floor(apart + slope)
    return Estimate(burst, max(1, burst - error), burst + error)


def _distance(burst: int, drain: Drain) -> float:
    """By how much a drain contradicts a burst."""
    low, high = min(drain.least, drain.most), max(drain.least, drain.most)
    return max(0.0, low - burst) + max(0.0, burst - high)
