"""Where something lives: in one event loop and process, which it sees to; in a task, or in a context, of its own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Generator
from contextlib import AbstractAsyncContextManager
from contextvars import Context
from types import CoroutineType, TracebackType, coroutine
from typing import Any, Generic, TypeVar

import anyio

from m2async.errors import WrongEventLoopError

_T = TypeVar("_T")

_process = os.getpid()  # asked for once, as it is a system call


def _forked() -> None:
    global _process
    _process = os.getpid()


os.register_at_fork(after_in_child=_forked)


class Home:
    """The event loop and the process in which `what` is opened: those that run here."""

    def __init__(self, what: str) -> None:
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self._what = what
        self._process = _process

    @property
    def is_forked(self) -> bool:
        """Whether this process was forked from the one that it belongs to, with which it still shares files."""
        return _process != self._process

    @property
    def is_here(self) -> bool:
        """Whether its event loop is the one that runs here, and its process this one."""
        try:
            return asyncio.get_running_loop() is self.loop and not self.is_forked
        except RuntimeError:  # none runs, or that of the process from which this one was forked
            return False

    def check(self) -> None:
        """Raise WrongEventLoopError unless it is here."""
        if not self.is_here:
            other = (
                f"process {self._process}, from which this one was forked" if self.is_forked else "another event loop"
            )
            raise WrongEventLoopError(f"{self._what} belongs to {other}: open one of its own where it is used")


class OwnTask(Generic[_T]):
    """Enters and leaves a context in one task, its own, as a task group or a cancel scope in it has to be.

    A failure of it while it is open goes to the event loop's exception handler, and is raised when it is left.
    Whoever does nothing else meanwhile leaves it when it `fails`.
    """

    def __init__(self, context: AbstractAsyncContextManager[_T]) -> None:
        self._context = context
        self._to_leave = asyncio.Event()

    async def __aenter__(self) -> _T:
        loop = asyncio.get_running_loop()
        self._entered: asyncio.Future[_T] = loop.create_future()
        self._task = loop.create_task(self._live())
        try:
            return await self._entered
        except BaseException:
            self._task.cancel()
            await uninterrupted(asyncio.gather(self._task, return_exceptions=True))
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._to_leave.set()
        await uninterrupted(self._task)

    async def fails(self) -> None:
        """Wait, while it is open, until it fails."""
        await asyncio.wait([self._task])

    async def _live(self) -> None:
        try:
            async with self._context as value:
                if not self._entered.done():
                    self._entered.set_result(value)
                await self._to_leave.wait()
        except Exception as exc:
            if not self._entered.done():
                self._entered.set_exception(exc)
                return
            if not self._to_leave.is_set():
                told = {"message": "m2async failed in the background", "exception": exc}
                asyncio.get_running_loop().call_exception_handler(told)
            raise
        finally:
            self._entered.cancel()  # where it was cancelled itself


async def uninterrupted(future: asyncio.Future[_T]) -> _T:
    """Wait for a future whatever happens to the caller, and let a cancellation through only then."""
    cancelled: asyncio.CancelledError | None = None
    with anyio.CancelScope(shield=True):  # anyio would cancel again and again
        while not future.done():
            try:
                await asyncio.wait([future])
            except asyncio.CancelledError as exc:
                cancelled = exc
    if cancelled is not None:
        if not future.cancelled():
            future.exception()  # counts as seen
        raise cancelled
    return future.result()


def times_cancelled() -> int:
    """How often somebody asked the running task to end; a CancelledError without that is a failure like any other."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


@coroutine
def in_context(context: Context, call: Callable[[], Awaitable[_T]]) -> Generator[Any, Any, _T]:
    """Await what a call gives in another context, step by step: the task stays the same, and so does what limits it.

    `call` and all that it awaits run in the context; nothing else may run in it meanwhile.
    """
    run = context.run
    begun = run(call)
    steps = begun if isinstance(begun, CoroutineType) else _awaited(begun)
    value: Any = None
    error: BaseException | None = None
    try:
        while True:
            waits_for = run(steps.send, value) if error is None else run(steps.throw, error)
            value = error = None
            try:
                value = yield waits_for
            except GeneratorExit:
                run(steps.close)
                raise
            except BaseException as exc:  # noqa: BLE001 - thrown into it, as into what is awaited
                error = exc
    except StopIteration as end:
        result: _T = end.value
        return result


async def _awaited(awaitable: Awaitable[_T]) -> _T:
    return await awaitable
