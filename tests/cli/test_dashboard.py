"""`m2async dashboard` as a command: what it prints, and how it ends."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from pathlib import Path

import aiohttp
import anyio
import pytest
from yarl import URL

from m2async import LocalEndpoint, ScriptJob, StartBatchJob, open_ledger
from tests.cli.terminal import COMMAND, m2async, settings


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_it_serves_its_url_until_a_signal_and_leaves_nothing_behind(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    command = [COMMAND, "dashboard", "--ledger", str(tmp_path / "ledger.db")]
    async with await anyio.open_process(command, env=settings(), stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        url = (await process.stdout.receive()).decode().splitlines()[0]
        port = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/\?token=[\w-]{43}", url)
        assert port is not None
        jar = aiohttp.CookieJar(unsafe=True)
        async with aiohttp.ClientSession(cookie_jar=jar) as session, session.get(url) as answer:
            assert answer.status == 200
            assert "token" not in str(answer.url)
        process.send_signal(number)
        err = b"".join([piece async for piece in process.stderr]).decode()
        assert await process.wait() == code
    assert err.splitlines() == [
        f"ledger {tmp_path / 'ledger.db'} is new: it knows of no earlier run",
        "Anyone with this URL can act on your runs. Ctrl-C ends the dashboard.",
    ]
    with pytest.raises(OSError, match="All connection attempts failed"):
        await anyio.connect_tcp("127.0.0.1", int(port[1]))


async def test_it_ends_where_nothing_is_served_any_more(tmp_path: Path, endpoint: LocalEndpoint) -> None:
    async with open_ledger(tmp_path / "ledger.db") as ledger, await ledger.open_run("night") as run:
        await run.add("row", StartBatchJob("app1", ScriptJob("JOB")))
    read, write = os.pipe()
    command = [COMMAND, "dashboard", "--ledger", str(tmp_path / "ledger.db")]
    environment = settings(endpoint.url)
    async with await anyio.open_process(command, env=environment, stdin=subprocess.DEVNULL, stderr=write) as process:
        os.close(write)
        assert process.stdout is not None
        url = URL((await process.stdout.receive()).decode().splitlines()[0])
        said = b""
        while b"Ctrl-C" not in said:
            said += await anyio.to_thread.run_sync(os.read, read, 1000)
        os.close(read)  # what cancelling comes to cannot be told on stderr any more: it fails in the background
        token = {"Authorization": f"Bearer {url.query['token']}"}
        async with aiohttp.ClientSession(headers=token) as session:
            await session.post(url.with_path("/run/cancel").with_query(name="night"), json={})
        assert await process.wait() == 1


async def test_only_loopback_is_listened_at(tmp_path: Path) -> None:
    command = [COMMAND, "dashboard", "--ledger", str(tmp_path / "ledger.db")]
    async with await anyio.open_process(command, env=settings(), stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        await process.stdout.receive()
        listening = await anyio.Path(f"/proc/{process.pid}/net/tcp").read_text()
        sockets = {
            (await anyio.Path(fd).readlink()).name async for fd in anyio.Path(f"/proc/{process.pid}/fd").iterdir()
        }
        own = [
            line.split()[1]
            for line in listening.splitlines()[1:]
            if line.split()[3] == "0A" and f"socket:[{line.split()[9]}]" in sockets
        ]
        assert [address.split(":")[0] for address in own] == ["0100007F"]
        process.terminate()
        await process.wait()


async def test_a_port_that_is_taken_is_bad_input(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = await m2async("dashboard", "--port", str(port), "--ledger", tmp_path / "ledger.db")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == f"m2async: port {port} of 127.0.0.1 cannot be opened: Address already in use\n"


async def test_a_ledger_that_is_none_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_text("not a ledger" * 1000)
    ended = await m2async("dashboard", "--ledger", tmp_path / "ledger.db")
    assert (ended.code, ended.out) == (3, "")
    assert ended.err.startswith("m2async: ledger ")
    assert (await m2async("dashboard", "--ledger", "mysql://x")).code == 2
