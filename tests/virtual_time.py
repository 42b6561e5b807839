"""An event loop whose time goes on by itself, as soon as nothing is left to do: no machine is too slow for it."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


class _NoWaiting(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self.slept = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "everything waits for nothing"
        self.slept += timeout
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """Runs timers in their order without waiting for them; what a thread or another process does, it does not await."""

    def __init__(self) -> None:
        self._no_waiting = _NoWaiting()
        super().__init__(self._no_waiting)

    def time(self) -> float:
        return self._no_waiting.slept

    def stand_still(self, seconds: float) -> None:
        """Let time go on as if the process got no processor for so long."""
        self._no_waiting.slept += seconds


def now() -> float:
    """Give the time of the loop that runs."""
    return asyncio.get_running_loop().time()


def run(main: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
    """Run a coroutine in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main())


def in_virtual_time(test: Callable[_P, Coroutine[Any, Any, None]]) -> Callable[_P, None]:
    """Let a test run in virtual time; it must leave no task behind."""

    async def whole(*args: _P.args, **kwargs: _P.kwargs) -> None:
        await test(*args, **kwargs)
        await assert_no_task_is_left()

    @wraps(test)
    def in_its_loop(*args: _P.args, **kwargs: _P.kwargs) -> None:
        run(partial(whole, *args, **kwargs))

    return in_its_loop


async def assert_no_task_is_left() -> None:
    for _ in range(5):  # a connection that was closed takes some turns of the loop to be gone
        await asyncio.sleep(0)
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, f"the test left tasks behind: {left}"
