from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m2async.pacing import Pacer, TokenBucket

rates = st.floats(0.01, 10_000)
bursts = st.floats(1, 1_000)
gaps = st.lists(st.floats(0, 10) | st.floats(0, 0.01), min_size=1, max_size=200)


@given(rates, bursts, gaps)
def test_no_window_holds_more_than_the_burst_and_what_flows_in(rate: float, burst: float, gaps: list[float]) -> None:
    bucket = TokenBucket(rate, burst)
    now = 0.0
    grants: list[float] = []
    for gap in gaps:
        now += gap
        while len(grants) < 2_000 and bucket.try_take(now):
            grants.append(now)
    for first in range(len(grants)):
        for last in range(first, min(len(grants), first + 300)):
            allowed = burst + rate * (grants[last] - grants[first])
            assert last - first + 1 <= allowed * (1 + 1e-6) + 1e-6


@given(rates, bursts, gaps)
def test_a_token_is_there_when_announced_and_not_before(rate: float, burst: float, gaps: list[float]) -> None:
    bucket = TokenBucket(rate, burst)
    now = 0.0
    for gap in gaps:
        now += gap
        at = bucket.next_token_at(now)
        assert at >= now
        if at > now:
            assert not bucket.try_take(now)
            assert not bucket.try_take(now + 0.9 * (at - now))
            now = at
        assert bucket.try_take(now)


@given(rates, bursts)
def test_a_token_given_back_can_be_taken_again_but_the_burst_stays(rate: float, burst: float) -> None:
    bucket = TokenBucket(rate, burst)
    assert bucket.try_take(0)
    bucket.give_back()
    bucket.give_back()
    taken = 0
    while bucket.try_take(0):
        taken += 1
    assert taken == int(burst + 1e-9)


def test_time_that_goes_back_grants_nothing() -> None:
    bucket = TokenBucket(1, 1)
    assert bucket.try_take(100)
    assert not bucket.try_take(50)
    assert not bucket.try_take(100.5)
    assert bucket.try_take(101)


@pytest.mark.parametrize(("rate", "burst"), [(0, 1), (-1, 1), (float("nan"), 1), (float("inf"), 1), (1, 0.5), (1, 0)])
def test_a_bucket_that_never_grants_or_always_does_is_refused(rate: float, burst: float) -> None:
    with pytest.raises(ValueError, match="must be"):
        TokenBucket(rate, burst)


async def in_line(pacer: Pacer, count: int, served: list[int]) -> list[asyncio.Task[None]]:
    async def wait(number: int) -> None:
        await pacer.acquire()
        served.append(number)

    tasks = []
    for number in range(count):
        tasks.append(asyncio.create_task(wait(number)))
        await asyncio.sleep(0)
    return tasks


async def test_waiters_are_served_in_the_order_of_arrival_at_the_rate() -> None:
    pacer, served = Pacer(TokenBucket(500, 1)), list[int]()
    began = asyncio.get_running_loop().time()
    await asyncio.gather(*await in_line(pacer, 26, served))
    assert served == list(range(26))
    assert asyncio.get_running_loop().time() - began >= 25 / 500 - 1e-6


@given(st.data())
async def test_cancelled_waiters_leave_the_line_and_lose_nobody_a_token(data: st.DataObject) -> None:
    pacer, served = Pacer(TokenBucket(2_000, 1)), list[int]()
    tasks = await in_line(pacer, 12, served)
    cancelled = data.draw(st.sets(st.integers(0, 11)))
    for number in cancelled:
        tasks[number].cancel()
        for _ in range(data.draw(st.integers(0, 2))):
            await asyncio.sleep(0)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    waited_to_the_end = [number for number, result in enumerate(results) if result is None]
    assert served == waited_to_the_end
    assert set(range(12)) - set(waited_to_the_end) <= cancelled
    assert all(a < b for a, b in pairwise(served))


async def test_a_waiter_cancelled_with_its_token_in_hand_passes_it_on() -> None:
    bucket = TokenBucket(1e-3, 1)  # the next token comes in a quarter of an hour
    pacer, served = Pacer(bucket), list[int]()
    assert bucket.try_take(asyncio.get_running_loop().time())
    first, second = await in_line(pacer, 2, served)
    bucket.give_back()
    pacer._grant()  # the first waiter has its token, but has not run yet
    first.cancel()
    await asyncio.gather(first, second, return_exceptions=True)
    assert served == [1]
