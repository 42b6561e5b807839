"""The forked processes that stand for started ones."""

from __future__ import annotations

import os
import signal

from tests.cli.forked import Forked


async def test_one_that_is_killed_before_it_has_read_what_to_be_ends_as_killed() -> None:
    for _ in range(20):
        process = await Forked.on_pipes(["m2async", "--version"], os.environ)
        process.kill()
        assert await process.wait() == -signal.SIGKILL
        await process.aclose()
