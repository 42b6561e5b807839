"""The command as a user runs it: a process of its own, on pipes or on a terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any, NamedTuple

import anyio

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


async def m2async(*arguments: str | Path, url: str | None = None, stdin: bytes = b"", **others: str) -> Ended:
    """Run the command on pipes; no run may end in a traceback."""
    done = await anyio.run_process(
        [COMMAND, *map(str, arguments)], input=stdin, env={**settings(url), **others}, check=False
    )
    ended = Ended(done.returncode, done.stdout.decode(), done.stderr.decode())
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
    environment = settings(url)
    del environment["COLUMNS"]
    process = subprocess.Popen(
        [program, *map(str, arguments)], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    )
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

    try:
        written = await anyio.to_thread.run_sync(read)
    finally:
        os.close(ours)
    return await anyio.to_thread.run_sync(process.wait), written.decode()


def plain(written: str) -> str:
    """What was written, without what moves the cursor or changes the colour."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written).replace("\r", "")
