from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import anyio

from m2async.dashboard.feed import Feed, Parts


class Page:
    """Parts as a test sets them, and how often they were read."""

    def __init__(self, **parts: object) -> None:
        self.parts = parts
        self.reads = 0

    async def read(self) -> Parts:
        self.reads += 1
        return dict(self.parts)


async def next_parts(events: AsyncGenerator[bytes, None]) -> dict[str, Any]:
    event = await anext(events)
    assert event.endswith(b"\n\n")
    fields = dict(line.split(": ", 1) for line in event.decode().splitlines() if line)
    assert int(fields["id"]) > 0
    parts: dict[str, Any] = json.loads(fields["data"])
    return parts


async def test_all_parts_come_first_and_then_those_that_changed() -> None:
    page = Page(one="1", two="2\n\ndata: forged")
    async with anyio.create_task_group() as tasks:
        feed = Feed(page.read, tasks)
        async with aclosing(feed.events()) as events:
            assert await anext(events) == b"retry: 1000\n\n"
            assert await next_parts(events) == {"one": "1", "two": "2\n\ndata: forged"}
            page.parts["one"] = "changed"
            feed.hurry()
            assert await next_parts(events) == {"one": "changed"}


async def test_the_ledger_is_read_once_for_all_who_watch_and_not_for_nobody() -> None:
    page = Page(one="1")
    async with anyio.create_task_group() as tasks:
        feed = Feed(page.read, tasks)
        streams = [feed.events() for _ in range(20)]
        for events in streams:
            await anext(events)
            assert await next_parts(events) == {"one": "1"}
        assert (page.reads, feed.watchers) == (1, 20)
        for events in streams:
            await events.aclose()
        assert feed.watchers == 0
        # The task group ends here: so nothing reads any more.


async def test_who_comes_back_gets_what_is_there_now() -> None:
    page = Page(one="1")
    async with anyio.create_task_group() as tasks:
        feed = Feed(page.read, tasks)
        for value in ("1", "2", "3"):
            page.parts["one"] = value
            async with aclosing(feed.events()) as events:
                await anext(events)
                assert await next_parts(events) == {"one": value}


async def test_a_stream_without_news_is_kept_alive() -> None:
    async with anyio.create_task_group() as tasks:
        async with aclosing(Feed(Page(one="1").read, tasks, keep_alive=0.01).events()) as events:
            await anext(events)
            await next_parts(events)
            assert await anext(events) == b": nothing new\n\n"
