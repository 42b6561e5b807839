"""What is given up never arrives later: a call whose bytes wait in the kernel, since the link to the service is cut.

Each test runs in network namespaces of its own, and looks there at what the kernel still wants to send.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from typing import Any, Literal, cast

import pytest
import uvloop

from m2async import AnswerTimeoutError, ConnectionLostError, M2Client, ScriptJob, StartBatchJob
from tests.network import ADDRESS, Network, inside, pending, why_not
from tests.scripted import ScriptedServer

REASON = why_not()
REQUEST = StartBatchJob("carddemolocalapplication23", ScriptJob("POSTTRAN"))
Transport = Literal["wire", "aiobotocore"]


@pytest.mark.skipif(REASON is not None, reason=f"no network namespaces can be made here: {REASON}")
@pytest.mark.parametrize(
    ("transport", "security", "loop"),
    [
        ("wire", "plain", "asyncio"),
        ("wire", "tls", "asyncio"),
        ("wire", "plain", "uvloop"),
        ("wire", "tls", "uvloop"),
        ("aiobotocore", "plain", "uvloop"),
        ("aiobotocore", "tls", "asyncio"),
    ],
)
def test_nothing_of_a_call_that_was_given_up_is_left_to_the_kernel(transport: str, security: str, loop: str) -> None:
    command = inside(sys.executable, "-m", __name__, loop, "try", transport, security)
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.split() == ["timeout", "cancelled", "closed", "exit", "kill", "stop"]


# What runs in the namespaces


def opened(transport: Transport, url: str, read_timeout: float) -> M2Client:
    settings = ScriptedServer(()).settings(
        endpoint_url=url, transport=transport, read_timeout=read_timeout, verify=False
    )
    return M2Client(**settings, plain_http_to=[ADDRESS])


async def until_pending(*, is_so: bool) -> None:
    while bool(pending()) is not is_so:
        await asyncio.sleep(0.01)


async def give_up_everywhere(transport: Transport, *, is_tls: bool) -> None:
    async with Network(is_tls=is_tls) as network:
        started = 0
        for way in (timeout, cancelled, closed):
            async with opened(transport, network.url, 0.5 if way is timeout else 60.0) as client:
                await client.start_batch_job(REQUEST)  # the connection is there
                network.cut()
                call = asyncio.ensure_future(client.start_batch_job(REQUEST))
                await until_pending(is_so=True)
                await way(client, call)
                assert not pending(), f"{way.__name__}: {pending()}"
            network.heal()
            started += 1
            assert len(await network.started()) == started, way.__name__
            print(way.__name__)
        for how in ("exit", "kill", "stop"):
            await die(network, how, transport)
            network.heal()
            started += 1
            assert len(await network.started()) == started, how
            print(how)


async def timeout(_: M2Client, call: asyncio.Future[Any]) -> None:
    with contextlib.suppress(AnswerTimeoutError):
        await call
        raise AssertionError("it was answered")


async def cancelled(_: M2Client, call: asyncio.Future[Any]) -> None:
    call.cancel()
    await asyncio.wait([call])
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def closed(client: M2Client, call: asyncio.Future[Any]) -> None:
    await client._transport.aclose()
    with contextlib.suppress(ConnectionLostError):
        await call
        raise AssertionError("it was answered")


async def die(network: Network, how: str, transport: Transport) -> None:
    """Let a process end, or stop, while its call is under way."""
    loop = "uvloop" if type(asyncio.get_running_loop()).__module__ == "uvloop" else "asyncio"
    command = (sys.executable, "-m", "tests.client.test_cut_link", loop, "call", transport, network.url, how)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert await process.stdout.readline() == b"ready\n"
        network.cut()
        process.stdin.write(b"\n")
        await until_pending(is_so=True)
        if how == "exit":
            process.stdin.write(b"\n")
            await process.wait()
        elif how == "kill":
            process.kill()
            await process.wait()
        else:
            process.send_signal(signal.SIGSTOP)
            await until_pending(is_so=False)
        assert not pending(), f"{how}: {pending()}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def call_and_end(transport: Transport, url: str, how: str) -> None:
    line = asyncio.get_running_loop().run_in_executor
    async with opened(transport, url, 1.0 if how == "stop" else 60.0) as client:
        await client.start_batch_job(REQUEST)
        print("ready", flush=True)
        await line(None, sys.stdin.readline)
        call = asyncio.ensure_future(client.start_batch_job(REQUEST))
        await line(None, sys.stdin.readline)
        os._exit(0 if not call.done() else 1)


if __name__ == "__main__":
    event_loop, what, given, *rest = sys.argv[1:]
    chosen = cast("Transport", given)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if event_loop == "uvloop" else None) as runner:
        runner.run(give_up_everywhere(chosen, is_tls=rest == ["tls"]) if what == "try" else call_and_end(chosen, *rest))
