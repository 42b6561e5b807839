"""What is used in another event loop than its own, or in a forked process: an error, and nothing is sent or written."""

from __future__ import annotations

import asyncio
import os
import signal
import warnings
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest

from m2async import M2Client, ScriptJob, StartBatchJob, Started, SubmittedJobs, Submitter, TokenBucket, open_ledger
from m2async.errors import WrongEventLoopError
from m2async.ledger import Ledger, RowState
from m2async.ledger.sqlite.anchor import Anchor
from m2async.ledger.sqlite.run_lock import RunLock
from m2async.pacing import Pacer
from tests.scripted import ScriptedServer, scripted, started

REQUEST = StartBatchJob("application", ScriptJob("PAYROLL"))
BOTH = pytest.mark.parametrize("transport", ["wire", "aiobotocore"])


class Service:
    """A server with a client, a submitter and a ledger, open in a loop that runs only when it is asked."""

    def __init__(self, folder: Path, transport: Literal["wire", "aiobotocore"] = "wire") -> None:
        self.loop = asyncio.new_event_loop()
        self._path = folder / "ledger.db"
        self._transport = transport
        self._left = asyncio.Event()
        self.server: ScriptedServer
        self.client: M2Client
        self.ledger: Ledger
        self.submitter: Submitter
        self.outcomes: SubmittedJobs

    def __enter__(self) -> Service:
        opened = asyncio.Event()
        self._open = self.loop.create_task(self._serve(opened))
        self.run(opened.wait())
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self.run(self._open)
        self.loop.close()

    def run(self, what: Awaitable[Any]) -> Any:
        async def awaited() -> Any:
            return await what

        return self.loop.run_until_complete(asyncio.wait_for(awaited(), 60))

    def run_use(self, use: Callable[[], Awaitable[object]]) -> object:
        return self.run(_awaited(use))

    async def _serve(self, opened: asyncio.Event) -> None:
        async with AsyncExitStack() as stack:
            self.server = await stack.enter_async_context(scripted(started()))
            settings = self.server.settings(transport=self._transport)
            self.client = await stack.enter_async_context(M2Client(**settings))
            self.ledger = await stack.enter_async_context(open_ledger(self._path))
            self.submitter = await stack.enter_async_context(Submitter(self.client, ledger=self.ledger, run="run"))
            self.outcomes = self.submitter.submit_many([("a", REQUEST), ("b", REQUEST)])
            await self.client.start_batch_job(REQUEST)
            await anext(self.outcomes)
            opened.set()
            await self._left.wait()

    async def _iterated(self) -> None:
        async for _ in self.outcomes:
            pass

    def uses(self) -> list[Callable[[], Awaitable[object]]]:
        """All that can be done with them."""
        return [
            lambda: self.client.start_batch_job(REQUEST),
            lambda: self.client.get_application("application"),
            lambda: self.submitter.submit(REQUEST, key="c"),
            lambda: anext(self.submitter.submit_many([("d", REQUEST)])),
            self._iterated,
            self.ledger.runs,
            lambda: self.ledger.open_run("other"),
            lambda: self.ledger.run("run"),
        ]

    def check_nothing_came_of_it(self) -> None:
        """It goes on here as if nothing had been: on the same connection, and with the rows that there were."""
        sent, connections = len(self.server.requests), self.server.connections
        assert isinstance(self.run(self.submitter.submit(REQUEST, key="own")), Started)
        self.run(self.client.start_batch_job(REQUEST))
        assert len(self.server.requests) == sent + 2
        assert self.server.connections <= max(2, connections)
        [summary] = self.run(self.ledger.runs())
        assert (summary.info.name, summary.info.rows) == ("run", 3)


def said(use: Callable[[], Awaitable[object]]) -> str:
    """Give what a use in a new event loop ends in."""

    async def used() -> object:
        return await asyncio.wait_for(_awaited(use), 60)

    try:
        return repr(asyncio.run(used()))
    except Exception as exc:  # noqa: BLE001 - it is what is asked for
        return f"{type(exc).__name__}: {exc}"


async def _awaited(use: Callable[[], Awaitable[object]]) -> object:
    return await use()


def in_a_fork(act: Callable[[], str]) -> str:
    """Give what `act` gives in a forked process, which ends at once then."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that forks and threads do not go together
        process = os.fork()
    if process == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(60)
        try:
            answer = act()
        except BaseException as exc:  # noqa: BLE001 - it is what is asked for
            answer = repr(exc)
        os.write(writing, answer.encode())
        os._exit(0)
    os.close(writing)
    ended = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        assert ended == 0, f"the forked process ended with {ended}"
        return (pipe.read(65_536) or b"").decode()


@BOTH
def test_in_another_event_loop_each_says_so_and_does_nothing(
    tmp_path: Path, transport: Literal["wire", "aiobotocore"]
) -> None:
    """As in a process that opens all once, and serves each invocation in a loop of its own."""
    with Service(tmp_path, transport) as service:
        sent = len(service.server.requests)
        answers = [said(use) for use in service.uses() for _ in range(2)]
        assert all(answer.startswith("WrongEventLoopError: the ") for answer in answers), answers
        assert {answer.partition(" belongs to ")[2].partition(":")[0] for answer in answers} == {"another event loop"}
        assert len(service.server.requests) == sent
        service.check_nothing_came_of_it()


@BOTH
def test_another_event_loop_cannot_close_them(tmp_path: Path, transport: Literal["wire", "aiobotocore"]) -> None:
    with Service(tmp_path, transport) as service:
        for close in (
            lambda: service.client.__aexit__(None, None, None),
            lambda: service.submitter.__aexit__(None, None, None),
            service.ledger.aclose,
        ):
            assert said(close).startswith("WrongEventLoopError: the ")
        service.check_nothing_came_of_it()


@BOTH
def test_in_a_forked_process_each_says_so_and_does_nothing(
    tmp_path: Path, transport: Literal["wire", "aiobotocore"]
) -> None:
    with Service(tmp_path, transport) as service:
        sent = len(service.server.requests)

        def in_a_new_loop() -> str:
            return "\n".join(map(said, service.uses()))

        def in_the_same_loop() -> str:
            return "\n".join(_told(partial(service.run_use, use)) for use in service.uses())

        for act in (in_a_new_loop, in_the_same_loop):
            answers = in_a_fork(act).splitlines()
            assert len(answers) == len(service.uses())
            for answer in answers:
                assert answer.startswith("WrongEventLoopError: the "), answers
                assert f"belongs to process {os.getpid()}, from which this one was forked" in answer
        assert len(service.server.requests) == sent
        service.check_nothing_came_of_it()


@BOTH
def test_a_forked_process_closes_nothing(tmp_path: Path, transport: Literal["wire", "aiobotocore"]) -> None:
    """Leaving what it inherited, as an exception does that ends it, is left to the process that opened it."""
    with Service(tmp_path, transport) as service:

        def left() -> str:
            service.loop.run_until_complete(service.submitter.__aexit__(SystemExit, None, None))
            service.loop.run_until_complete(service.client.__aexit__(SystemExit, None, None))
            service.loop.run_until_complete(service.ledger.aclose())
            del service.outcomes
            return "left"

        assert in_a_fork(left) == "left"
        assert list(tmp_path.glob("*.lock"))
        service.check_nothing_came_of_it()


def test_a_forked_process_reads_no_answer_of_the_connections_that_it_inherited(tmp_path: Path) -> None:
    """Also where it goes on in the event loop that it was forked in."""
    with Service(tmp_path) as service:
        may_answer = asyncio.Event()

        async def when_allowed(writer: asyncio.StreamWriter) -> None:
            await may_answer.wait()
            await started("e-2")(writer)

        service.server.steps[:] = [when_allowed]
        service.server.arrived.clear()
        call = service.loop.create_task(service.client.start_batch_job(REQUEST))
        service.run(service.server.arrived.wait())

        def answered_there() -> str:
            may_answer.set()
            return _told(lambda: service.run(call))

        assert in_a_fork(answered_there).startswith("ConnectionLostError")
        assert service.run(call).execution_id == "e-2"


def _told(act: Callable[[], object]) -> str:
    try:
        return repr(act())
    except Exception as exc:  # noqa: BLE001 - it is what is asked for
        return f"{type(exc).__name__}: {exc}"


def test_a_run_is_free_once_its_process_is_gone_whatever_that_forked(tmp_path: Path) -> None:
    path, note = tmp_path / "ledger.db", tmp_path / "run.lock"
    path.write_bytes(b"content")
    going_on, stop = os.pipe()
    runs, is_running = os.pipe()

    def owner() -> str:
        RunLock.take(Anchor(path), 1, set(), note, 0.0)
        if os.fork() == 0:  # a worker, which lives on
            os.close(stop)
            os.write(is_running, b".")
            os.read(going_on, 1)
            os._exit(0)
        os.read(runs, 1)
        return "taken"

    assert in_a_fork(owner) == "taken"
    anchor = Anchor(path)
    RunLock.take(anchor, 1, set(), note, 0.0).release()
    anchor.close()
    for end in (stop, going_on, runs, is_running):
        os.close(end)


def test_a_forked_process_cannot_open_a_ledger_that_was_open(tmp_path: Path) -> None:
    """SQLite would write without locks there, and what it wrote would be lost when the other process closes it."""
    another = tmp_path / "another.db"

    async def opened(path: Path) -> str:
        async with open_ledger(path) as ledger:
            return repr(await ledger.runs())

    with Service(tmp_path) as service:
        path = Path(service.ledger.address)
        assert "was open when this process was forked" in in_a_fork(lambda: _told(lambda: asyncio.run(opened(path))))
        assert in_a_fork(lambda: asyncio.run(opened(another))) == "[]"
    assert "RunSummary" in in_a_fork(lambda: asyncio.run(opened(path)))


async def test_a_client_of_another_event_loop_ends_the_submission_with_nothing_in_doubt(tmp_path: Path) -> None:
    def opened() -> M2Client:
        loop = asyncio.new_event_loop()
        client = M2Client("us-east-1", endpoint_url="http://127.0.0.1:9", session=session())
        loop.run_until_complete(client.__aenter__())
        closing.append((loop, client))
        return client

    closing: list[tuple[asyncio.AbstractEventLoop, M2Client]] = []
    client = await asyncio.to_thread(opened)
    async with open_ledger(tmp_path / "ledger.db") as ledger, Submitter(client, ledger=ledger, run="run") as submitter:
        outcome = await submitter.submit(REQUEST, key="k")
        assert (outcome.state, outcome.error.code) == ("rejected", "WrongEventLoopError")  # type: ignore[union-attr]
        assert isinstance(submitter.stopped_by, WrongEventLoopError)
        assert (await (await ledger.run("run")).row("k")).state is RowState.PENDING
    [(loop, client)] = closing
    await asyncio.to_thread(lambda: loop.run_until_complete(client.__aexit__(None, None, None)))
    loop.close()


def session() -> Any:
    return ScriptedServer(()).settings()["session"]


def test_one_event_loop_after_another_uses_a_pacer_whoever_waited_in_those_before() -> None:
    pacer = Pacer(TokenBucket(20, 1))
    application = TokenBucket(10, 1)

    async def invocation(waiters: int, seconds: float) -> int:
        got = 0
        try:
            async with asyncio.timeout(seconds):
                for wait in [asyncio.ensure_future(pacer.acquire(own=own)) for own in (None, application) * waiters]:
                    await wait
                    got += 1
        except TimeoutError:
            pass
        return got

    assert asyncio.run(invocation(1_000, 0.2)) < 10
    assert [asyncio.run(invocation(2, 60)) for _ in range(2)] == [4, 4]


def test_those_whom_a_closed_event_loop_left_waiting_get_no_token_of_a_pacer() -> None:
    pacer = Pacer(TokenBucket(20, 1))
    loop = asyncio.new_event_loop()
    left = [loop.create_task(pacer.acquire(own=own)) for own in (None, None, TokenBucket(0.001, 1))]
    left.append(loop.create_task(pacer.acquire()))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    for _ in range(2):
        assert "Grant" in said(pacer.acquire)
    for task in left:
        task._log_destroy_pending = False  # type: ignore[attr-defined]


async def test_a_pacer_is_not_used_by_two_event_loops_at_once() -> None:
    pacer = Pacer(TokenBucket(1, 1))
    await pacer.acquire()

    def elsewhere() -> None:
        with pytest.raises(WrongEventLoopError, match="the pacer belongs to another event loop"):
            asyncio.run(pacer.acquire())

    await asyncio.to_thread(elsewhere)
    assert "the pacer belongs to process" in in_a_fork(lambda: said(pacer.acquire))
