"""How much work something does, so that it says the same on every machine, however busy or slow that is."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import pytest


@contextmanager
def calls_at_most(most: int) -> Iterator[None]:
    """Fail as soon as this thread has called more functions than that, those written in C among them."""
    calls = 0

    def profile(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")
        if calls > most:
            sys.setprofile(None)
            pytest.fail(f"more than {most:,} functions were called")

    sys.setprofile(profile)
    try:
        yield
    finally:
        sys.setprofile(None)


def assert_in_proportion(work: Callable[[int], Callable[[], object]], few: int, many: int) -> None:
    """Let many cost about as much each as few, in time of the processor; `work` prepares the work for so many.

    As many are done few by few, half of them before and half after: what slows the one down then slows the other, too.
    """
    half = range(many // few // 2)
    before = sum(_processor_time(work(few)) for _ in half)
    at_once = _processor_time(work(many))
    after = sum(_processor_time(work(few)) for _ in half)
    assert at_once < 5 * (before + after), f"{many:,} cost more each than {few:,}"


def _processor_time(work: Callable[[], object]) -> float:
    gc.collect()
    gc.disable()  # what it costs depends on what the tests before have left
    began = time.process_time()
    try:
        work()
        return time.process_time() - began
    finally:
        gc.enable()
