from __future__ import annotations

import asyncio
import gc
import time
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m2async.pacing import AdaptiveRate, Flow, Grant, Pacer, TokenBucket
from tests.pacing.windows import most_above_inflow
from tests.virtual_time import now, run

Served = list[tuple[Any, float]]


async def line_up(
    pacer: Pacer, names: list[object], served: Served, *, flow: Flow | None = None, own: TokenBucket | None = None
) -> list[asyncio.Task[None]]:
    """Let one after the other wait; who is served is noted with the time."""

    async def wait(name: object) -> None:
        grant = await pacer.acquire(flow=flow, own=own)
        served.append((name, grant.at))

    tasks = []
    for name in names:
        tasks.append(asyncio.create_task(wait(name)))
        await asyncio.sleep(0)
    return tasks


def test_waiters_are_served_in_the_order_of_arrival_at_the_rate() -> None:
    async def main() -> None:
        pacer, served = Pacer(TokenBucket(500, 1)), Served()
        await asyncio.gather(*await line_up(pacer, list(range(26)), served))
        assert [name for name, _ in served] == list(range(26))
        assert [at for _, at in served] == pytest.approx([number / 500 for number in range(26)])

    run(main)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("acquire"), st.integers(1, 5)),
        st.tuples(st.just("cancel"), st.integers(0, 100)),
        st.tuples(st.just("cancel granted"), st.integers(0, 100)),
        st.tuples(st.just("set rate"), st.tuples(st.floats(1, 200), st.floats(1, 5))),
        st.tuples(st.just("sleep"), st.floats(0, 0.2)),
        st.tuples(st.just("yield"), st.integers(1, 3)),
    ),
    max_size=50,
)


@settings(max_examples=200)
@given(st.floats(1, 200), st.floats(1, 5), steps)
def test_any_sequence_of_acquire_cancel_and_rate_changes_keeps_the_promise(
    rate: float, burst: float, steps: list[tuple[str, object]]
) -> None:
    async def main() -> None:
        pacer, served = Pacer(TokenBucket(rate, burst)), Served()
        tasks: list[asyncio.Task[None]] = []
        rates, largest = [(now(), rate)], burst
        for step, value in steps:
            match step, value:
                case "acquire", int(count):
                    tasks += await line_up(pacer, list(range(len(tasks), len(tasks) + count)), served)
                case "cancel", int(index) if tasks:
                    tasks[index % len(tasks)].cancel()
                case "cancel granted", int(index) if tasks:
                    pacer.set_rate(rates[-1][1], pacer.bucket.burst)  # hands out what there is
                    tasks[index % len(tasks)].cancel()
                case "set rate", (float(new_rate), float(new_burst)):
                    pacer.set_rate(new_rate, new_burst)
                    rates.append((now(), new_rate))
                    largest = max(largest, new_burst)
                case "sleep", float(seconds):
                    await asyncio.sleep(seconds)
                case "yield", int(turns):
                    for _ in range(turns):
                        await asyncio.sleep(0)
        async with asyncio.timeout(len(tasks) + 5):  # nobody is forgotten, at a token a second or more
            results = await asyncio.gather(*tasks, return_exceptions=True)
        order = [name for name, _ in served]
        assert all(earlier < later for earlier, later in pairwise(order))
        assert set(order) == {number for number, result in enumerate(results) if result is None}
        times = [at for _, at in served]
        assert most_above_inflow(times, rates) <= largest + 1e-5

    run(main)


def test_a_waiter_cancelled_with_its_token_in_hand_passes_it_on() -> None:
    async def main() -> None:
        bucket = TokenBucket(1e-3, 1)
        pacer, served = Pacer(bucket), Served()
        assert pacer.try_acquire()
        first, second = await line_up(pacer, [1, 2], served)
        bucket.give_back(0, 0)
        pacer.set_rate(1e-3, 1)  # the first waiter has its token now, but has not run yet
        first.cancel()
        await asyncio.gather(first, second, return_exceptions=True)
        assert served == [(2, 0)]

    run(main)


@pytest.mark.parametrize("burst", [1, 2], ids=["in its turn", "at once"])
def test_a_token_that_is_wanted_no_more_when_its_turn_comes_is_the_next_one_s(burst: int) -> None:
    async def main() -> None:
        pacer = Pacer(TokenBucket(10, burst))
        await pacer.acquire()
        assert await pacer.acquire_if(lambda: False) is None
        assert (await pacer.acquire()).at == pytest.approx(0.1 * (2 - burst))

    run(main)


def test_nobody_overtakes_those_who_wait() -> None:
    async def main() -> None:
        pacer, served = Pacer(TokenBucket(10, 2)), Served()
        assert pacer.try_acquire()
        assert pacer.try_acquire()
        own = TokenBucket(1, 2)
        tasks = await line_up(pacer, [1], served) + await line_up(pacer, [2], served, own=own)
        pacer.bucket.add(1, now())  # there is a token now, but it is not their turn
        assert pacer.try_acquire() is None
        assert pacer.try_acquire(own=own) is None
        await asyncio.gather(*tasks)
        await asyncio.sleep(0.1)
        assert isinstance(pacer.try_acquire(own=own), Grant)

    run(main)


def test_who_waits_for_an_own_bucket_is_not_overtaken_in_it() -> None:
    async def main() -> None:
        pacer, served = Pacer(TokenBucket(100, 10)), Served()
        own = TokenBucket(1, 2)
        assert own.try_take(now())
        assert own.try_take(now())
        tasks = await line_up(pacer, [1], served, own=own)
        own.add(1, now())
        assert pacer.try_acquire(own=own) is None
        assert pacer.try_acquire() is not None
        await asyncio.gather(*tasks)

    run(main)


def test_a_flow_that_comes_late_has_no_claim_to_what_it_missed() -> None:
    async def main() -> None:
        pacer, served = Pacer(TokenBucket(100, 1)), Served()
        tasks = await line_up(pacer, ["early"] * 200, served, flow=Flow())
        await asyncio.sleep(1)
        tasks += await line_up(pacer, ["late"] * 100, served, flow=Flow())
        await asyncio.sleep(0.5)
        late = [name for name, at in served if at > 1].count("late")
        assert 23 <= late <= 27
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    run(main)


@given(st.lists(st.integers(1, 5), min_size=2, max_size=5))
@settings(max_examples=30)
def test_flows_share_by_weight(weights: list[int]) -> None:
    async def main() -> None:
        pacer, served = Pacer(TokenBucket(100, 1)), Served()
        tasks = []
        for number, weight in enumerate(weights):
            tasks += await line_up(pacer, [number] * 200, served, flow=Flow(weight))
        turns = 20 * sum(weights)
        await asyncio.sleep(turns / 100 * 0.9999)
        counts = Counter(name for name, _ in served[: min(turns, len(served))])
        for number, weight in enumerate(weights):
            if 20 * weight <= 150:
                assert abs(counts[number] - len(served) * weight / sum(weights)) <= 3
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    run(main)


def test_a_slow_application_holds_up_nobody_else() -> None:
    async def main() -> None:
        pacer, served = Pacer(TokenBucket(100, 1)), Served()
        slow, fast = TokenBucket(2, 1), TokenBucket(1000, 10)
        tasks = await line_up(pacer, ["slow"] * 20, served, own=slow)
        tasks += await line_up(pacer, ["fast"] * 100, served, own=fast)
        tasks += await line_up(pacer, ["free"] * 10, served)
        await asyncio.gather(*tasks)
        ends = dict(served)
        assert ends["fast"] < 1.3
        assert ends["free"] < 1.3
        slow_times = [at for name, at in served if name == "slow"]
        assert all(later - earlier >= 0.5 - 1e-6 for earlier, later in pairwise(slow_times))
        assert ends["slow"] == pytest.approx(19 * 0.5, abs=0.02)

    run(main)


def test_retry_after_holds_for_all_callers() -> None:
    async def main() -> None:
        pacer, served = Pacer(TokenBucket(100, 1)), Served()
        grant = await pacer.acquire()
        tasks = await line_up(pacer, [1, 2], served)
        pacer.throttled(grant, 3.0)
        await asyncio.gather(*tasks)
        assert [at for _, at in served] == pytest.approx([3.0, 3.01])

    run(main)


def test_the_controller_is_followed() -> None:
    async def main() -> None:
        controller = AdaptiveRate(100, 10)
        pacer = Pacer(TokenBucket(100, 10), controller)
        for number in range(200):  # the service accepts every second call only
            grant = await pacer.acquire()
            await asyncio.sleep(0.001)
            if number % 2:
                pacer.throttled(grant)
            else:
                pacer.answered(grant)
        assert pacer.bucket.rate < 80
        assert controller.found_rate is not None
        pacer.set_rate(30, 3)
        assert (pacer.bucket.rate, pacer.bucket.burst) == (30, 3)

    run(main)


async def test_a_grant_costs_the_same_whatever_the_number_of_waiters() -> None:
    async def seconds_a_grant(waiting: int) -> float:
        pacer = Pacer(TokenBucket(1e-3, 2_000))
        while pacer.try_acquire():
            pass
        tasks = [asyncio.ensure_future(pacer.acquire()) for _ in range(waiting)]
        await asyncio.sleep(0)
        gc.collect()
        gc.disable()  # what it costs to look through that many waiting tasks is not the pacer's
        began = time.process_time()
        pacer.bucket.add(2_000, asyncio.get_running_loop().time())
        pacer.set_rate(1e-3, 2_000)
        taken = time.process_time() - began
        gc.enable()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return taken / min(waiting, 2_000)

    few = min([await seconds_a_grant(10) for _ in range(20)])
    many = min([await seconds_a_grant(4_000) for _ in range(3)])
    assert many < 3 * few
