"""A client against servers that fail at random: nothing is delivered twice, and no error or answer is untrue.

Each request bears a number of its own in its body; the server counts which numbers arrived whole and
gives the number back as the execution id.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import socket
import ssl
import struct
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from m2async import CallError, M2Client, ScriptJob, StartBatchJob, StartBatchJobResponse
from tests.scripted import ScriptedServer
from tests.tls import server_context, write_authority

CALLS = 1_000
WORKERS = 32
APPLICATION = "carddemolocalapplication23"
PADDING = {f"P{number:03}": "x" * 1_000 for number in range(480)}  # more than the buffers hold


class ChaoticServer:
    """Counts what arrived whole on all its connections, and knows how they are to fail."""

    def __init__(self, trouble: frozenset[str], seed: int) -> None:
        self.trouble = trouble
        self.random = random.Random(seed)
        self.arrived: Counter[int] = Counter()
        self.met: Counter[str] = Counter()
        self.connections: set[ChaoticConnection] = set()
        self.all_gone = asyncio.Event()
        self.is_over = False

    def meets(self, trouble: str, probability: float) -> bool:
        """Decide whether this kind of trouble comes now."""
        if trouble not in self.trouble or self.random.random() >= probability:
            return False
        self.met[trouble] += 1
        return True


class ChaoticConnection(asyncio.Protocol):
    """Reads requests, and answers each as it came or fails as the server decides."""

    transport: asyncio.Transport

    def __init__(self, server: ChaoticServer) -> None:
        self.server = server
        self.loop = asyncio.get_running_loop()
        self.buffer = bytearray()
        self.left = server.random.randrange(1, 30)  # requests before it closes, where it does
        self.timers: set[asyncio.TimerHandle] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.server.connections.add(self)
        self.server.all_gone.clear()
        if self.server.is_over:  # it was accepted just before the end
            self.transport.abort()
        elif self.server.meets("close after accept", 0.1):
            self.transport.close()
        elif self.server.meets("reset after accept", 0.1):
            self.reset()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in self.timers:
            timer.cancel()
        self.server.connections.discard(self)
        if not self.server.connections:
            self.server.all_gone.set()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self.buffer += data
        if self.server.meets("reset in the request", 0.02):
            self.reset()
        while not self.transport.is_closing() and (request := self.next_request()) is not None:
            number = int(cast("str", json.loads(request)["jobParams"]["NUMBER"]))
            self.server.arrived[number] += 1
            self.react(number)

    def next_request(self) -> bytes | None:
        head, found, rest = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return None
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        assert length is not None
        if len(rest) < int(length[1]):
            return None
        body = bytes(rest[: int(length[1])])
        self.buffer = rest[int(length[1]) :]
        return body

    def react(self, number: int) -> None:
        server = self.server
        self.left -= 1
        body = b'{"executionId":"%d"}' % number
        is_last = self.left <= 0 and server.meets("close with a word", 0.5)
        head = b"connection: close\r\n" if is_last else b""
        answer = b"HTTP/1.1 200 OK\r\n%scontent-length: %d\r\n\r\n%s" % (head, len(body), body)
        if server.meets("reset after the request", 0.03):
            self.reset()
        elif server.meets("close after the request", 0.03):
            self.transport.close()
        elif server.meets("throttle", 0.05):
            self.transport.write(
                b"HTTP/1.1 429 X\r\nx-amzn-errortype: ThrottlingException\r\ncontent-length: 0\r\n\r\n"
            )
        elif server.meets("error", 0.05):
            self.transport.write(b"HTTP/1.1 500 X\r\ncontent-length: 2\r\n\r\n{}")
        elif server.meets("cut", 0.03):
            self.transport.write(answer[: server.random.randrange(1, len(answer))])
            server.random.choice([self.transport.close, self.reset])()
        elif server.meets("twice", 0.05):
            self.transport.write(answer + answer)
        elif server.meets("late", 0.02):  # after the client's timeout, or just about then
            self.later(server.random.uniform(0.2, 0.3), answer)
        elif server.meets("garbage", 0.02):
            self.transport.write(server.random.randbytes(40))
        elif server.meets("dribble", 0.5):
            self.dribble(answer)
        else:
            self.transport.write(answer)
            if is_last or (self.left <= 0 and server.meets("close without a word", 1)):
                self.transport.close()
            elif server.meets("close when idle", 0.2):
                self.later(server.random.choice([0.0, 0.0, 0.001]), None)
            elif server.meets("speak unasked", 0.05):
                self.transport.write(b"HTTP/1.1 408 X\r\ncontent-length: 0\r\n\r\n")

    def dribble(self, data: bytes) -> None:
        """Send one piece a turn of the loop."""
        if self.transport.is_closing():
            return
        length = self.server.random.randrange(1, 30)
        self.transport.write(data[:length])
        if data[length:]:
            self.loop.call_soon(self.dribble, data[length:])

    def later(self, seconds: float, data: bytes | None) -> None:
        """Send, or close the connection."""

        def act() -> None:
            self.timers.discard(timer)
            if not self.transport.is_closing():
                self.transport.close() if data is None else self.transport.write(data)

        timer = self.loop.call_later(seconds, act)
        self.timers.add(timer)

    def reset(self) -> None:
        end = self.transport.get_extra_info("socket")
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


@contextlib.asynccontextmanager
async def serving(server: ChaoticServer, tls: ssl.SSLContext | None) -> AsyncIterator[str]:
    loop = asyncio.get_running_loop()
    listening = socket.socket(proto=socket.IPPROTO_TCP)  # said, so that asyncio sends without delay
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    listening.bind(("127.0.0.1", 0))
    listener = await loop.create_server(lambda: ChaoticConnection(server), sock=listening, ssl=tls)
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.is_over = True
        listener.close()
        for connection in list(server.connections):
            connection.transport.abort()
        if server.connections:
            await server.all_gone.wait()
        await listener.wait_closed()


SCENARIOS = {
    "idle connections closed": ["close when idle", "close without a word"],
    "connections closed after some requests": ["close with a word"],
    "resets": ["reset after accept", "reset in the request", "reset after the request", "cut"],
    "closes": ["close after accept", "close after the request", "cut", "close with a word"],
    "answers that come late, in pieces, or twice": ["late", "dribble", "twice", "speak unasked"],
    "everything": [
        *("close when idle", "close without a word", "close with a word", "close after accept", "reset after accept"),
        *("reset in the request", "reset after the request", "close after the request", "throttle", "error", "cut"),
        *("twice", "late", "garbage", "dribble", "speak unasked"),
    ],
}


@pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("trouble", SCENARIOS.values(), ids=SCENARIOS)
async def test_nothing_is_delivered_twice_and_no_outcome_is_untrue(
    trouble: list[str], is_tls: bool, tmp_path: Path
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    server = ChaoticServer(frozenset(trouble), seed)
    choice = random.Random(seed)
    outcomes: dict[int, StartBatchJobResponse | CallError | asyncio.CancelledError] = {}
    numbers = iter(range(CALLS))

    async def work(client: M2Client) -> None:
        for number in numbers:
            padding = PADDING if choice.random() < 0.05 else {}
            request = StartBatchJob(APPLICATION, ScriptJob("POSTTRAN"), {"NUMBER": str(number), **padding})
            try:
                async with asyncio.timeout(choice.choice([0.0, 0.001, 0.003]) if choice.random() < 0.03 else None):
                    outcomes[number] = await client.start_batch_job(request)
            except CallError as exc:
                outcomes[number] = exc
            except TimeoutError:
                outcomes[number] = asyncio.CancelledError()

    async with serving(server, server_context() if is_tls else None) as url:
        settings = ScriptedServer(()).settings(
            endpoint_url=url,
            max_connections=WORKERS // 2,
            read_timeout=0.25,
            verify=write_authority(tmp_path) if is_tls else None,
        )
        async with M2Client(**settings) as client:
            await asyncio.gather(*(work(client) for _ in range(WORKERS)))

    assert len(outcomes) == CALLS
    kinds: Counter[str] = Counter()
    twice = sorted(number for number, times in server.arrived.items() if times > 1)
    assert not twice, f"delivered twice: {twice}"
    for number, outcome in outcomes.items():
        kinds[outcome.code if isinstance(outcome, CallError) else type(outcome).__name__] += 1
        if isinstance(outcome, StartBatchJobResponse):
            assert outcome.execution_id == str(number), "the answer to another request"
            assert number in server.arrived
        elif isinstance(outcome, CallError) and not outcome.may_have_started and outcome.code != "ThrottlingException":
            assert number not in server.arrived, f"{outcome!r}, but the request arrived whole"
    print(kinds)
    assert all(server.met[kind] for kind in trouble), f"not all trouble was met: {server.met}"
    assert kinds["StartBatchJobResponse"] > CALLS / 3
