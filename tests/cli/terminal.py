"""The command as a user runs it: a process of its own, on pipes or on a terminal."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import re
import signal
import struct
import sys
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import anyio
from anyio.abc import ByteReceiveStream, Process

from tests.cli.forked import Forked, can_be_forked

COMMAND = str(Path(sys.executable).parent / "m2async")
EXAMPLES = Path(__file__).parents[2] / "examples"
APPLICATION = "carddemolocalapplication23"


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Its lines of JSON."""
        return [json.loads(line) for line in self.out.splitlines()]


def settings(url: str | None = None) -> dict[str, str]:
    """The environment of a user whose credentials the local endpoint accepts."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment |= {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.devnull, "PYTHONWARNINGS": "error"}
    environment |= {"AWS_SHARED_CREDENTIALS_FILE": os.devnull, "TERM": "xterm-256color", "COLUMNS": "80"}
    if url is not None:
        environment |= {"AWS_ENDPOINT_URL_M2": url, "AWS_REGION": "us-east-1"}
        environment |= {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}
    return environment


@asynccontextmanager
async def running(
    *arguments: str | Path, url: str | None = None, stdin: bytes = b"", **others: str
) -> AsyncIterator[Process]:
    """The command on pipes, while it runs; where the block fails, it is killed."""
    command, environment = [COMMAND, *map(str, arguments)], {**settings(url), **others}
    if can_be_forked(environment):
        process: Process = await Forked.on_pipes(command, environment, stdin)
    else:
        process = await anyio.open_process(command, env=environment)
        assert process.stdin is not None
        await process.stdin.send(stdin)
        await process.stdin.aclose()
    async with process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise


async def written(stream: ByteReceiveStream | None) -> bytes:
    """All that is still to come from a stream of a process."""
    assert stream is not None
    return b"".join([piece async for piece in stream])


async def m2async(*arguments: str | Path, url: str | None = None, stdin: bytes = b"", **others: str) -> Ended:
    """Run the command on pipes; no run may end in a traceback."""
    async with running(*arguments, url=url, stdin=stdin, **others) as process:
        out, err = await asyncio.gather(written(process.stdout), written(process.stderr))
        ended = Ended(await process.wait(), out.decode(), err.decode())
    assert "Traceback" not in ended.err, ended.err
    return ended


async def on_terminal(
    *arguments: str | Path,
    columns: int = 80,
    url: str | None = None,
    once: str | None = None,
    send: signal.Signals = signal.SIGINT,
    program: str = COMMAND,
) -> tuple[int, str]:
    """Run the command on a terminal, and give its exit code and all that it wrote there.

    Sends it a signal once it has written this.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    command, environment = [program, *map(str, arguments)], settings(url)
    del environment["COLUMNS"]
    if program == COMMAND and can_be_forked(environment):
        process: Process = Forked(command, environment, [theirs] * 3)
    else:
        process = await anyio.open_process(command, env=environment, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)

    def read() -> bytes:
        written, waiting = b"", once is not None
        while True:
            try:
                piece = os.read(ours, 65_536)
            except OSError:  # the other side is closed
                return written
            if not piece:
                return written
            written += piece
            if waiting and str(once) in plain(written.decode(errors="replace")):
                waiting = False
                process.send_signal(send)

    async with process:
        try:
            written = await anyio.to_thread.run_sync(read)
        finally:
            os.close(ours)
        return await process.wait(), written.decode()


def plain(written: str) -> str:
    """What was written, without what moves the cursor or changes the colour."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written).replace("\r", "")
