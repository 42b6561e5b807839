from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence

import pytest

from m2async.ledger.sqlite.group_commit import Writer, _Errand


class Disk:
    """Takes batches; can be made to wait, and fails where a write says so."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.free = threading.Event()
        self.free.set()
        self.busy = threading.Event()

    def commit(self, writes: Sequence[str]) -> list[object] | None:
        self.busy.set()  # until the next `hold`
        assert self.free.wait(10)
        self.batches.append(list(writes))
        if "broken" in writes:
            raise OSError("broken")
        if "bad" in writes:
            return [ValueError(write) if write == "bad" else write.upper() for write in writes]
        return None


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
async def writer(disk: Disk) -> AsyncIterator[Writer[str]]:
    writer: Writer[str] = Writer("ledger test", disk.commit)
    yield writer
    disk.free.set()
    await writer.aclose()


async def hold(disk: Disk, writer: Writer[str]) -> asyncio.Future[None]:
    """Let the disk be busy with a first write."""
    disk.free.clear()
    disk.busy.clear()
    first = writer.write("first")
    await asyncio.to_thread(disk.busy.wait, 10)
    return first


async def test_what_comes_during_a_commit_goes_together_into_the_next(disk: Disk, writer: Writer[str]) -> None:
    first = await hold(disk, writer)
    rest = [writer.write(str(number)) for number in range(100)]
    await asyncio.sleep(0)
    assert not first.done()
    disk.free.set()
    await asyncio.gather(first, *rest)
    assert disk.batches == [["first"], [str(number) for number in range(100)]]


async def test_a_write_ends_only_when_its_batch_was_committed(disk: Disk, writer: Writer[str]) -> None:
    first = await hold(disk, writer)
    second = writer.write("second")
    disk.free.set()
    await second
    assert first.done()
    assert disk.batches == [["first"], ["second"]]


async def test_functions_keep_their_place_among_the_writes(disk: Disk, writer: Writer[str]) -> None:
    first = await hold(disk, writer)
    one = writer.write("one")
    between = asyncio.create_task(writer.call(lambda: len(disk.batches)))
    await asyncio.sleep(0)
    two = writer.write("two")
    disk.free.set()
    assert await between == 2
    await asyncio.gather(first, one, two)
    assert disk.batches == [["first"], ["one"], ["two"]]


async def test_each_write_has_its_own_result(disk: Disk, writer: Writer[str]) -> None:
    await hold(disk, writer)
    futures = [writer.write(text) for text in ("good", "bad", "fine")]
    disk.free.set()
    results = await asyncio.gather(*futures, return_exceptions=True)
    assert results[::2] == ["GOOD", "FINE"]
    assert isinstance(results[1], ValueError)


async def test_a_batch_that_fails_fails_for_all_and_the_next_goes_on(disk: Disk, writer: Writer[str]) -> None:
    await hold(disk, writer)
    futures = [writer.write("one"), writer.write("broken")]
    disk.free.set()
    results = await asyncio.gather(*futures, return_exceptions=True)
    assert [type(result) for result in results] == [OSError, OSError]
    await writer.write("next")


async def test_cancelling_a_caller_does_not_take_its_write_back(disk: Disk, writer: Writer[str]) -> None:
    await hold(disk, writer)
    future = writer.write("kept")
    future.cancel()
    disk.free.set()
    await writer.write("next")
    await hold(disk, writer)
    cancelled, bad, good = (writer.write(text) for text in ("kept", "bad", "good"))
    cancelled.cancel()
    disk.free.set()
    assert await good == "GOOD"
    assert isinstance(bad.exception(), ValueError)
    assert ["kept"] in [batch[:1] for batch in disk.batches]


async def test_a_cancelled_call_ends_when_its_function_did(disk: Disk, writer: Writer[str]) -> None:
    await hold(disk, writer)
    ran = threading.Event()
    call = asyncio.create_task(writer.call(ran.set))
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.sleep(0)
    assert not call.done()
    disk.free.set()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert ran.is_set()


async def test_what_a_function_raises_is_its_callers(writer: Writer[str]) -> None:
    with pytest.raises(ZeroDivisionError):
        await writer.call(lambda: 1 // 0)


async def test_closing_waits_for_what_is_queued(disk: Disk) -> None:
    writer: Writer[str] = Writer("ledger test", disk.commit)
    futures = [writer.write(str(number)) for number in range(10)]
    await writer.aclose()
    assert all(future.done() for future in futures)
    assert sum(map(len, disk.batches)) == 10


def test_a_loop_that_is_gone_does_not_hurt_the_thread(disk: Disk) -> None:
    async def leave() -> tuple[Writer[str], asyncio.Future[None]]:
        writer: Writer[str] = Writer("ledger test", disk.commit)
        disk.free.clear()
        return writer, writer.write("written")

    writer, future = asyncio.run(leave())
    disk.free.set()
    writer._queue.put((future, _Errand(writer._end)))
    writer._thread.join(10)
    assert not writer._thread.is_alive()
    assert disk.batches == [["written"]]
