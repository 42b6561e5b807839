"""A client, a server and a router between them, each in a network namespace of its own; the router can forward nothing.

Whatever uses `Network` runs inside `inside(...)`, and needs no rights for that where the system lets anybody make
namespaces. The server is the local endpoint, behind a relay that is reached through the router.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import ssl
import subprocess
import sys
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from m2async import LocalEndpoint
from tests.tls import server_context

ADDRESS, PORT = "10.77.1.2", 8080


def inside(*command: str) -> list[str]:
    """The command that runs another in namespaces of its own."""
    return ["unshare", "--user", "--map-root-user", "--net", *command]


def why_not() -> str | None:
    """Why there can be no such network on this machine; None if there can."""
    if not all(map(shutil.which, ("unshare", "nsenter", "ip", "sysctl"))):
        return "there is no unshare, nsenter, ip or sysctl"
    attempt = "ip link add name veth0 type veth peer name veth1"
    done = subprocess.run(inside("sh", "-c", attempt), capture_output=True, text=True, check=False)
    return done.stderr.strip() or "namespaces cannot be made" if done.returncode else None


class Network:
    """The network; use it as an async context manager."""

    def __init__(self, *, is_tls: bool) -> None:
        self.url = f"{'https' if is_tls else 'http'}://{ADDRESS}:{PORT}"
        self._is_tls = is_tls
        self._stack = contextlib.ExitStack()

    async def __aenter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self._router = self._in_a_namespace(stack, "sleep", "infinity")
            serve = (sys.executable, "-m", "tests.network", *(["tls"] if self._is_tls else []))
            self._server = self._in_a_namespace(stack, *serve)
            await self._connect()
            assert self._server.stdin is not None
            assert self._server.stdout is not None
            self._server.stdin.write(b"\n")
            self._server.stdin.flush()
            if not await asyncio.to_thread(self._server.stdout.readline):
                raise RuntimeError("the server does not serve")
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def cut(self) -> None:
        """Let the router forward nothing."""
        self._forward(0)

    def heal(self) -> None:
        """Let the router forward again."""
        self._forward(1)

    async def started(self) -> list[dict[str, Any]]:
        """What the endpoint really started."""

        def read() -> list[dict[str, Any]]:
            trust = ssl._create_unverified_context()
            with urllib.request.urlopen(f"{self.url}/_local/executions", context=trust) as answer:
                executions: list[dict[str, Any]] = json.load(answer)["executions"]
                return executions

        return await asyncio.to_thread(read)

    def _forward(self, value: int) -> None:
        _run("nsenter", "-t", str(self._router.pid), "-n", "sysctl", "-qw", f"net.ipv4.ip_forward={value}")

    async def _connect(self) -> None:
        router, server = self._router.pid, self._server.pid
        while {_namespace(str(router)), _namespace(str(server))} & {_namespace("self")}:
            await asyncio.sleep(0.01)
        _run("ip", "link", "set", "lo", "up")
        _run("nsenter", "-t", str(server), "-n", "ip", "link", "set", "lo", "up")
        for number, ends in enumerate(((None, router), (server, router))):
            names = [f"end{number}{side}" for side in "ab"]
            _run("ip", "link", "add", "name", names[0], "type", "veth", "peer", "name", names[1])
            for pid, name, host in zip(ends, names, (2, 1), strict=True):
                within: tuple[str, ...] = ()
                if pid is not None:
                    _run("ip", "link", "set", name, "netns", str(pid))
                    within = ("nsenter", "-t", str(pid), "-n")
                _run(*within, "ip", "address", "add", f"10.77.{number}.{host}/24", "dev", name)
                _run(*within, "ip", "link", "set", name, "up")
                if pid is not router:
                    _run(*within, "ip", "route", "add", "default", "via", f"10.77.{number}.1")
        self.heal()

    def _in_a_namespace(self, stack: contextlib.ExitStack, *command: str) -> subprocess.Popen[bytes]:
        pipe = subprocess.PIPE
        process = subprocess.Popen(["unshare", "--net", *command], stdin=pipe, stdout=pipe)
        stack.callback(process.wait)
        stack.callback(process.kill)
        return process


def pending() -> list[str]:
    """The connections of this namespace that the kernel still wants to send something on."""
    lines = [line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
    return [f"{line[1]}-{line[2]} state {line[3]}" for line in lines if int(line[4].partition(":")[0], 16)]


def _namespace(process: str) -> str:
    return str(Path(f"/proc/{process}/ns/net").readlink())


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


async def _serve(*, is_tls: bool) -> None:
    sys.stdin.readline()  # until the network is there
    async with LocalEndpoint(seed=1, credentials={}) as endpoint:
        target = int(endpoint.url.rpartition(":")[2])

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there, back = await asyncio.open_connection("127.0.0.1", target)
            pumps = [asyncio.create_task(_pump(reader, back)), asyncio.create_task(_pump(there, writer))]
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for end in (writer, back):
                end.close()

        listener = await asyncio.start_server(relay, ADDRESS, PORT, ssl=server_context() if is_tls else None)
        print("serving", flush=True)
        await listener.serve_forever()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()


if __name__ == "__main__":
    asyncio.run(_serve(is_tls="tls" in sys.argv))
