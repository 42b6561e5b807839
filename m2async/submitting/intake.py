"""How requests come in and outcomes go back: one at a time for `submit`, as a stream for `submit_many`."""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable
from contextvars import Context, copy_context
from time import monotonic
from typing import Any, Protocol

import anyio
import anyio.lowlevel

from m2async.errors import CallError, SubmissionStoppedError
from m2async.ledger import LedgerRow
from m2async.loops import Home
from m2async.pacing import Grant, Pacer
from m2async.service import RowNumber, StartBatchJob
from m2async.submitting.outcomes import Outcome

_MOST_ASIDE = 20_000
"""Jobs that wait for long, while others are read in their place: a few tens of MB."""

Request = StartBatchJob | tuple[str, StartBatchJob] | LedgerRow
"""A request, with a key if it has one; or the row of a ledger that it stands in."""


class Results(Protocol):
    """Whoever waits for a job's outcome."""

    context: Context
    """The context variables of whoever submitted it, as they were then."""

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits any more, so that a job not yet sent need not be."""

    def set_aside(self) -> bool:
        """Take note that a job waits for long; tells whether another may be read in its place meanwhile."""

    def ended(self, outcome: Outcome, *, was_set_aside: bool) -> None:
        """Take the outcome."""

    def stopped(self, error: SubmissionStoppedError, *, was_set_aside: bool) -> None:
        """Take note that the job was not sent."""

    def failed(self, error: Exception, *, was_set_aside: bool) -> None:
        """Take note that the job cannot be sent as it is."""


class Submission:
    """A request on its way, and what its attempts have shown so far."""

    __slots__ = (
        "_began", "admitted_at", "attempts", "failed_at", "failures", "grant", "in_doubt", "is_aside",
        "is_entered", "key", "not_after", "pacer", "pauses", "place", "request", "results", "row", "sends_in_doubt",
        "written",
    )  # fmt: skip

    def __init__(self, key: str, request: StartBatchJob, results: Results, row: LedgerRow | None = None) -> None:
        if not isinstance(key, str) or not isinstance(request, StartBatchJob):
            raise TypeError(f"a job is a StartBatchJob with a text as its key, not {_kinds(key, request)}")
        self.key: str = key
        self.request: StartBatchJob = request
        self.results: Results = results
        self.row: LedgerRow | None = row
        self.is_entered: bool = False  # whether it is known what the ledger has of it
        self.place: int | None = None  # in its lane, once it had to wait there
        self.is_aside: bool = False
        self._began: float = 0.0
        self.attempts: int = 0
        self.not_after: float | None = None  # the latest date that the attempt is signed with
        self.pacer: Pacer | None = None  # what gave its token; None where nothing paced it
        self.grant: Grant | None = None
        self.pauses: int = 0  # how many had begun when its turn came
        self.admitted_at: float = 0.0  # when its application's circuit let it through
        self.failures: int = 0  # attempts after which it was to be sent again
        self.failed_at: float = 0.0  # when the first of them failed
        self.in_doubt: CallError | None = None
        self.sends_in_doubt: int = 0
        self.written: asyncio.Future[None] | None = None  # the answer's way into the ledger

    def begin(self) -> None:
        """Take note that a worker took it on."""
        self._began = monotonic()

    @property
    def context(self) -> Context:
        """The context variables of whoever submitted it."""
        return self.results.context

    def tell(self, log: Callable[..., None], *what: object, **more: object) -> None:
        """Log an event of it, in the context of whoever submitted it."""
        self.context.copy().run(log, *what, **more)

    @property
    def elapsed(self) -> float:
        """Seconds since a worker took it on."""
        return monotonic() - self._began

    @property
    def to_send(self) -> StartBatchJob:
        """The request as it is to be sent: as the ledger has it, where its row was told to restart an execution."""
        return self.request if self.row is None else self.row.request

    @property
    def may_have_been_sent(self) -> bool:
        """Whether an attempt was intended since it came."""
        return self.attempts > (0 if self.row is None else self.row.attempts)

    @property
    def sent_nothing(self) -> bool:
        """Whether all its attempts are those that the ledger's row had when it came."""
        return self.row is not None and self.attempts == self.row.attempts

    def is_wanted(self) -> bool:
        """Whether somebody still waits for it; otherwise it must not be sent."""
        return not self.results.abandoned

    def set_aside(self) -> None:
        """Take note that it waits for long, and let another be read in its place."""
        self.is_aside = self.is_aside or self.results.set_aside()

    def ended(self, outcome: Outcome) -> None:
        """Give its outcome."""
        self.results.ended(outcome, was_set_aside=self.is_aside)

    def stopped(self, error: SubmissionStoppedError) -> None:
        """Tell that it was not sent."""
        self.results.stopped(error, was_set_aside=self.is_aside)

    def failed(self, error: Exception) -> None:
        """Tell that it cannot be sent as it is."""
        self.results.failed(error, was_set_aside=self.is_aside)


def _kinds(key: object, request: object) -> str:
    return f"{type(request).__name__} with {type(key).__name__}"


class Caller:
    """Somebody in `submit`."""

    def __init__(self) -> None:
        self.context: Context = copy_context()
        self.outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    @property
    def abandoned(self) -> bool:
        return self.outcome.cancelled()

    def set_aside(self) -> bool:
        return False

    def ended(self, outcome: Outcome, *, was_set_aside: bool) -> None:
        if not self.outcome.done():
            self.outcome.set_result(outcome)

    def stopped(self, error: SubmissionStoppedError, *, was_set_aside: bool) -> None:
        self.failed(error, was_set_aside=was_set_aside)

    def failed(self, error: Exception, *, was_set_aside: bool) -> None:
        if not self.outcome.done():
            self.outcome.set_exception(error)
            self.outcome.exception()  # counts as seen also where the caller was cancelled before it could look


class SubmittedJobs(AsyncIterator[Outcome], ABC):
    """The outcomes of `submit_many` in the order in which the jobs end: an async iterator in constant memory.

    Once nobody holds it any more, as after a `break`, or after `aclose`, no request is read and nothing that is in line
    is sent. Calls under way are answered, and written down.
    """

    @abstractmethod
    async def aclose(self) -> None:
        """Read no more requests, and send none that is still in line; calls under way end as they will."""


class HeldJobs(SubmittedJobs):
    """What the caller of `submit_many` holds: letting go of it abandons the stream."""

    def __init__(self, stream: JobStream) -> None:
        self._stream = stream

    async def __anext__(self) -> Outcome:
        try:
            return await self._stream.next()
        except BaseException:
            del self  # whoever keeps the traceback holds no jobs by it
            raise

    async def aclose(self) -> None:
        self._stream.abandon()
        await anyio.lowlevel.checkpoint()

    def __del__(self) -> None:
        self._stream.abandon()


class JobStream:
    """The jobs of one `submit_many`: read as there is room for them, and their outcomes in line."""

    def __init__(
        self,
        requests: Iterable[Request] | AsyncIterable[Request],
        *,
        ahead: int,
        put: Callable[[Submission], None],
        spawn: Callable[[Callable[[], Coroutine[Any, Any, None]]], None],
        stop_error: Callable[[], SubmissionStoppedError],
    ) -> None:
        self.context: Context = copy_context()
        self._home: Home | None = None
        self._requests = requests
        self._room = asyncio.Semaphore(ahead)  # taken for each job that is read, given back with its outcome
        self._put = put
        self._spawn = spawn
        self._stop_error = stop_error
        self._aside = 0  # jobs that have given back their room beforehand
        self._outcomes: deque[tuple[Outcome, bool]] = deque()  # with whether its job has its room still
        self._news = asyncio.Event()  # what the iteration waits for
        self._feeder: anyio.CancelScope | None = None
        self._open = 0  # what an outcome may still come from: jobs, and the feeder
        self._failure: Exception | None = None
        self.abandoned: bool = False

    async def next(self) -> Outcome:
        """Wait for the next outcome; raises StopAsyncIteration once there is none to come."""
        if self._feeder is None:
            self._home = Home("the iterator")
            self.context.copy().run(self._spawn, self._feed)
            self._feeder = anyio.CancelScope()
            self._open = 1
        assert self._home is not None  # noqa: S101 - set with the feeder
        self._home.check()
        while not self._outcomes:
            if not self._open or self.abandoned:
                failure, self._failure = self._failure, None
                raise failure or StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        outcome, has_room = self._outcomes.popleft()
        if has_room:
            self._room.release()
        return outcome

    def abandon(self) -> None:
        """Read and send nothing more; called from anywhere, as by whoever collects garbage when the loop is gone."""
        self.abandoned = True  # at once: nothing is sent from here on
        if self._feeder is not None and self._home is not None and not self._home.is_forked:
            with contextlib.suppress(RuntimeError):  # the loop was closed
                self._home.loop.call_soon_threadsafe(self._feeder.cancel)

    def set_aside(self) -> bool:
        """Read another job in the place of one that waits for long, up to a bound."""
        if self._aside >= _MOST_ASIDE:
            return False
        self._aside += 1
        self._room.release()
        return True

    def ended(self, outcome: Outcome, *, was_set_aside: bool) -> None:
        """Take a job's outcome."""
        self._outcomes.append((outcome, not was_set_aside))
        self._one_less(was_set_aside=was_set_aside)

    def stopped(self, error: SubmissionStoppedError, *, was_set_aside: bool) -> None:
        """Take note that a job was not sent."""
        self.failed(error, was_set_aside=was_set_aside)

    def failed(self, error: Exception, *, was_set_aside: bool) -> None:
        """Take note that a job cannot be sent; the iteration ends in it, after all outcomes."""
        self._failure = self._failure or error
        self._one_less(was_set_aside=was_set_aside)

    async def _feed(self) -> None:
        assert self._feeder is not None  # noqa: S101 - set before it runs
        try:
            with self._feeder:
                async with contextlib.aclosing(_numbered(self._requests)) as requests:
                    await self._room.acquire()
                    async for key, request, row in requests:
                        self._put(Submission(key, request, self, row))
                        self._open += 1
                        await self._room.acquire()
                        if self.abandoned:
                            break
        except asyncio.CancelledError:
            self._failure = self._failure or self._stop_error()
            raise
        except Exception as exc:  # noqa: BLE001 - whatever reading the requests raised is the caller's to handle
            self._failure = exc
        finally:
            self._one_less()

    def _one_less(self, *, was_set_aside: bool = False) -> None:
        self._open -= 1
        self._aside -= was_set_aside
        self._news.set()


async def _numbered(
    requests: Iterable[Request] | AsyncIterable[Request],
) -> AsyncGenerator[tuple[str, StartBatchJob, LedgerRow | None], None]:
    """Give each request with its key, or else its number; close a generator that is left early."""
    number = 0
    if isinstance(requests, AsyncIterable):
        iterator = aiter(requests)
        try:
            async for request in iterator:
                number += 1
                yield _named(request, number)
        finally:
            if isinstance(iterator, AsyncGenerator):
                await iterator.aclose()
    else:
        for request in requests:
            number += 1
            yield _named(request, number)


def _named(request: Request, number: int) -> tuple[str, StartBatchJob, LedgerRow | None]:
    if isinstance(request, LedgerRow):
        return request.key, request.request, request
    if isinstance(request, tuple):
        return *request, None
    return RowNumber(number), request, None
