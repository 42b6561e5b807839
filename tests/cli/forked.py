"""Processes of the command without an interpreter's start, which takes longer than most commands do.

Each is forked from a process that has imported the command, and has its own arguments, environment, folder, streams
and signals: what it does, prints and ends with is what it would be if it had been started.

    python -m tests.cli.forked FD    # that process; it ends when the other end of the socket FD is closed
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import anyio
from anyio.abc import ByteReceiveStream, Process

import m2async
from m2async.cli import main
from m2async.cli.app import app

_ROOT = Path(__file__).parents[2]


class Forked(Process):
    """A process of the command on three streams."""

    stdin = None

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], streams: Sequence[int]) -> None:
        umask = os.umask(0)
        os.umask(umask)
        self._line, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        with theirs:
            socket.send_fds(_origin()[0], [b"."], [theirs.fileno(), *streams])
        self._line.sendall(json.dumps([command, dict(environment), str(Path.cwd()), umask]).encode())
        self._pid = _number(self._line)
        self._returncode: int | None = None
        self._stdout: ByteReceiveStream | None = None
        self._stderr: ByteReceiveStream | None = None

    @classmethod
    async def on_pipes(cls, command: Sequence[str], environment: Mapping[str, str], stdin: bytes = b"") -> Self:
        """Start it on three pipes, of which the first holds `stdin`."""
        assert len(stdin) <= 65_536, "a pipe takes no more at once"
        (in_, to_in), (from_out, out), (from_err, err) = os.pipe(), os.pipe(), os.pipe()
        os.write(to_in, stdin)
        os.close(to_in)
        process = cls(command, environment, [in_, out, err])
        for pipe in (in_, out, err):
            os.close(pipe)
        process._stdout, process._stderr = await _Pipe.open(from_out), await _Pipe.open(from_err)
        return process

    @property
    def pid(self) -> int:
        return self._pid

    @property
    def stdout(self) -> ByteReceiveStream | None:
        return self._stdout

    @property
    def stderr(self) -> ByteReceiveStream | None:
        return self._stderr

    @property
    def returncode(self) -> int | None:
        if self._returncode is None:
            with contextlib.suppress(BlockingIOError):
                self._returncode = _number(self._line, socket.MSG_DONTWAIT)
        return self._returncode

    async def wait(self) -> int:
        while (code := self.returncode) is None:
            await anyio.wait_readable(self._line)
        return code

    def send_signal(self, signal: signal.Signals) -> None:
        if self.returncode is None:
            os.kill(self._pid, signal)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    async def aclose(self) -> None:
        for stream in filter(None, (self._stdout, self._stderr)):
            await stream.aclose()
        try:
            await self.wait()
        except asyncio.CancelledError:
            self.kill()
            with anyio.CancelScope(shield=True):
                await self.wait()
            raise
        finally:
            self._line.close()


class _Pipe(ByteReceiveStream):
    def __init__(self, reader: asyncio.StreamReader, transport: asyncio.ReadTransport) -> None:
        self._reader = reader
        self._transport = transport

    @classmethod
    async def open(cls, pipe: int) -> Self:
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(pipe, "rb")
        )
        return cls(reader, transport)

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        if piece := await self._reader.read(max_bytes):
            return piece
        raise anyio.EndOfStream

    async def aclose(self) -> None:
        self._transport.close()


def can_be_forked(environment: Mapping[str, str]) -> bool:
    """Whether a forked process can have this environment: the interpreter has read its own part of it before."""
    return _of_interpreter(environment) == _origin()[1]


def _of_interpreter(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith("PYTHON")}


@functools.cache
def _origin() -> tuple[socket.socket, Mapping[str, str]]:
    """The way to the process that the others are forked from, and what its interpreter has read."""
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
    command = [sys.executable, "-m", "tests.cli.forked", str(theirs.fileno())]
    process = subprocess.Popen(command, cwd=_ROOT, env=environment, pass_fds=[theirs.fileno()])
    theirs.close()

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours, _of_interpreter(environment)


def _number(line: socket.socket, flags: int = 0) -> int:
    return int(line.recv(32, flags))


# The process that the others are forked from


def _serve(requests: socket.socket) -> None:
    """Fork a process for each request; returns in that process, which is then as if it had just been started."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    woken, wake = socket.socketpair()
    wake.setblocking(False)
    signal.set_wakeup_fd(wake.fileno())
    lines: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([requests, woken], [], [])
        if woken in ready:
            woken.recv(4_096)
            while lines and (ended := os.waitpid(-1, os.WNOHANG))[0]:
                with lines.pop(ended[0]) as line:
                    with contextlib.suppress(BlockingIOError):  # what is left unread resets the connection
                        line.recv(1_000_000, socket.MSG_DONTWAIT)
                    with contextlib.suppress(BrokenPipeError):
                        line.sendall(b"%d" % os.waitstatus_to_exitcode(ended[1]))
        if requests in ready:
            _, descriptors, _, _ = socket.recv_fds(requests, 1, 4)
            if not descriptors:
                os._exit(0)
            line, streams = socket.socket(fileno=descriptors[0]), descriptors[1:]
            pid = os.fork()
            if pid == 0:
                for each in (requests, woken, wake, *lines.values()):
                    each.close()
                return _become(line, streams)
            for stream in streams:
                os.close(stream)
            line.sendall(b"%d" % pid)
            lines[pid] = line


def _become(line: socket.socket, streams: Sequence[int]) -> None:
    """Take over what the process is asked to be."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with line:
        sys.argv, environment, folder, umask = json.loads(line.recv(1_000_000))
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    os.umask(umask)
    for target, stream in enumerate(streams):
        os.dup2(stream, target)
        os.close(stream)
    sys.stdin, sys.stdout, sys.stderr = (
        open(  # noqa: SIM115
            stream.fileno(),
            stream.mode,
            buffering=1 if stream is sys.stderr else -1,  # by line, whatever it is
            encoding=stream.encoding,
            errors=stream.errors,
            closefd=False,
        )
        for stream in (sys.stdin, sys.stdout, sys.stderr)
    )


if __name__ == "__main__":
    for module in pkgutil.walk_packages(m2async.__path__, "m2async."):
        importlib.import_module(module.name)
    with contextlib.suppress(Exception):  # what a command imports when it parses its first number
        app(["rate", "night", "fast"], standalone_mode=False)
    anyio.run(anyio.sleep, 0, backend_options={"use_uvloop": True})
    gc.freeze()
    _serve(socket.socket(fileno=int(sys.argv[1])))
    main()
