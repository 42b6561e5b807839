from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

import anyio
import pytest
from anyio.abc import ByteReceiveStream

from m2async import LocalEndpoint, M2Client, Submitter, open_ledger
from m2async.ledger import RunStoppedError
from tests.cli.terminal import m2async, running, written
from tests.cli.test_submit import executions, manifest
from tests.scripted import error, scripted, started

PAUSED = b"m2async: paused: nothing more is sent for now\n"


async def test_the_rate_of_a_run_in_progress_is_set_from_another_terminal(tmp_path: Path) -> None:
    ledger, jobs = tmp_path / "ledger.db", manifest(tmp_path, 300)
    async with LocalEndpoint() as endpoint:
        submit = ("submit", jobs, "--run", "night", "--rate", "2", "--ledger", ledger, "--output", "jsonl")
        async with running(*submit, url=endpoint.url) as process:
            assert process.stdout is not None
            await process.stdout.receive()  # at 2 calls a second the rest would take two minutes
            told = await m2async("rate", "night", "5000", "--burst", "20", "--ledger", ledger)
            assert (told.code, told.out) == (0, "")
            assert told.err == "run night: 5000 calls a second, bursts of 20, from now on\n"
            err = (await written(process.stderr)).decode()
            assert await process.wait() == 0
        assert len(await executions(endpoint)) == 300
    assert err.startswith(f"ledger {ledger} is new: it knows of no earlier run\n")
    assert err.partition("\n")[2].startswith(
        "m2async: 5000 calls a second, bursts of 20, from now on\n300 of 300 jobs started"
    )


async def test_a_run_in_progress_is_paused_goes_on_and_is_stopped_from_another_terminal(tmp_path: Path) -> None:
    ledger, jobs = tmp_path / "ledger.db", manifest(tmp_path, 2_000)
    async with LocalEndpoint() as endpoint:
        submit = ("submit", jobs, "--run", "night", "--rate", "10", "--ledger", ledger, "--output", "jsonl")
        async with running(*submit, url=endpoint.url) as process:
            printed = asyncio.ensure_future(written(process.stdout))
            while not await executions(endpoint):
                await anyio.sleep(0.02)
            told = await m2async("pause", "night", "--ledger", ledger)
            assert (told.code, told.out) == (0, "")
            said = await says(process.stderr, PAUSED)
            while await under_way(ledger):
                await anyio.sleep(0.02)
            paused = len(await executions(endpoint))
            assert (await m2async("status", "night", "--ledger", ledger)).code == 0  # a second's calls, meanwhile
            assert len(await executions(endpoint)) == paused < 2_000
            assert (await m2async("unpause", "night", "--ledger", ledger)).code == 0
            while len(await executions(endpoint)) == paused:
                await anyio.sleep(0.02)
            assert (await m2async("stop", "night", "--ledger", ledger)).code == 0
            said += await written(process.stderr)
            assert await process.wait() == 3
            await printed
            started = len(await executions(endpoint))
    assert "stopped: told to stop from another terminal" in said.decode()
    assert paused < started < 2_000
    assert started == (await counts(ledger))["started"]


async def says(stream: ByteReceiveStream | None, text: bytes) -> bytes:
    """Wait until a process has written this; gives all that it wrote until then."""
    assert stream is not None
    said = b""
    while text not in said:
        said += await stream.receive()
    return said


async def under_way(ledger: Path) -> int:
    return (await counts(ledger))["intent"]


async def counts(ledger: Path) -> dict[str, int]:
    async with open_ledger(ledger) as opened:
        return {state.label: count for state, count in (await (await opened.run("night")).counts()).items()}


async def test_a_run_that_was_told_nothing_and_is_not_in_progress_cannot_be_let_go_on(tmp_path: Path) -> None:
    async with LocalEndpoint() as endpoint:
        told = ("submit", manifest(tmp_path), "--run", "night", "--ledger", tmp_path / "ledger.db")
        assert (await m2async(*told, url=endpoint.url)).code == 0
    late = await m2async("unpause", "night", "--ledger", tmp_path / "ledger.db")
    assert (late.code, late.out) == (2, "")
    assert late.err.startswith("m2async: run night is not in progress; to go on with it: m2async resume night ")


async def test_a_stop_holds_for_whoever_repeats_the_command_until_it_is_taken_back(tmp_path: Path) -> None:
    ledger, jobs = tmp_path / "ledger.db", manifest(tmp_path, 500)
    async with LocalEndpoint() as endpoint:
        submit = ("submit", jobs, "--run", "night", "--ledger", ledger, "--output", "jsonl")
        async with running(*submit, "--rate", "4", url=endpoint.url) as process:
            assert process.stdout is not None
            await process.stdout.receive()
            assert (await m2async("stop", "night", "--ledger", ledger)).code == 0
            printed = asyncio.ensure_future(written(process.stdout))
            assert await process.wait() == 3
            await printed
        started = len(await executions(endpoint))
        for again in (("submit", jobs, "--run", "night"), ("resume", "night"), ("restart", "night", "--failed")):
            refused = await m2async(*again, "--ledger", ledger, url=endpoint.url)
            assert (refused.code, refused.out) == (3, "")
            assert re.search(
                r"run 'night' was stopped at 20\S+Z \(m2async stop\); [^;]*: m2async unpause night", refused.err
            )
        async with M2Client(**endpoint.client_settings()) as client:
            with pytest.raises(RunStoppedError):
                await Submitter(client, ledger=ledger, run="night").__aenter__()
        assert (await m2async("reconcile", "night", "--ledger", ledger, url=endpoint.url)).code == 0
        assert "stopped until m2async unpause" in (await m2async("watch", "night", "--ledger", ledger)).out
        assert len(await executions(endpoint)) == started < 500
        assert (await m2async("unpause", "night", "--ledger", ledger)).code == 0
        assert (await m2async("resume", "night", "--ledger", ledger, url=endpoint.url)).code == 0
        assert len(await executions(endpoint)) == 500


@pytest.mark.parametrize("command", ["submit", "resume"])
async def test_a_run_that_was_paused_stays_paused_when_it_is_started_again(tmp_path: Path, command: str) -> None:
    ledger, jobs = tmp_path / "ledger.db", manifest(tmp_path, 500)
    async with LocalEndpoint() as endpoint:
        submit = ("submit", jobs, "--run", "night", "--ledger", ledger, "--output", "jsonl")
        async with running(*submit, "--rate", "4", url=endpoint.url) as process:
            assert process.stdout is not None
            await process.stdout.receive()
            assert (await m2async("pause", "night", "--ledger", ledger)).code == 0
            await says(process.stderr, PAUSED)
            while await under_way(ledger):
                await anyio.sleep(0.02)
            process.kill()
        before = len(await executions(endpoint))
        again = submit if command == "submit" else ("resume", "night", "--ledger", ledger, "--output", "jsonl")
        async with running(*again, url=endpoint.url) as process:
            printed = asyncio.ensure_future(written(process.stdout))
            await says(process.stderr, PAUSED)
            assert (await m2async("status", "night", "--ledger", ledger)).code == 0  # a while, in which it could send
            assert len(await executions(endpoint)) == before
            assert (await m2async("unpause", "night", "--ledger", ledger)).code == 0
            assert await process.wait() == 0
            await printed
        assert len(await executions(endpoint)) == 500


async def test_the_next_command_keeps_its_own_pace(tmp_path: Path) -> None:
    async with LocalEndpoint() as endpoint:
        told = ("submit", manifest(tmp_path), "--run", "night", "--ledger", tmp_path / "ledger.db")
        assert (await m2async(*told, url=endpoint.url)).code == 0
        late = await m2async("rate", "night", "80", "--ledger", tmp_path / "ledger.db")
    assert late.code == 2
    go_on = f"m2async resume night --rate 80 --ledger {tmp_path / 'ledger.db'}"
    assert late.err == f"m2async: run night is not in progress; to go on with it at this rate: {go_on}\n"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["rate", "nosuch", "80"], "has no run 'nosuch'"),
        (["rate", "night", "0"], "rate must be above 0 and finite, not 0"),
        (["rate", "night", "5", "--burst", "0.5"], "burst must be at least 1 and finite, not 0.5"),
        (["rate", "night", "fast"], "Invalid value for 'R'"),
        (["submit", "jobs.csv", "--adaptive", "--rate", "5"], "give --adaptive or --rate, not both"),
        (["submit", "jobs.csv", "--application-rate", "app"], "--application-rate app: must be APP=RATE or"),
        (["submit", "jobs.csv", "--application-rate", "app=0"], "rate must be above 0"),
        (["submit", "jobs.csv", "--application-rate", "a b=1"], "white space"),
    ],
)
async def test_a_pace_that_makes_no_sense_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], complaint: str
) -> None:
    manifest(tmp_path)
    (tmp_path / "ledger.db").touch()
    monkeypatch.chdir(tmp_path)
    ended = await m2async(*arguments, "--ledger", "ledger.db", url="http://127.0.0.1:9")
    assert (ended.code, ended.out) == (2, "")
    assert complaint in " ".join(ended.err.split())


async def test_a_quota_that_nobody_knows_is_found_and_told(tmp_path: Path) -> None:
    async with LocalEndpoint(rate=40, burst=10) as endpoint:
        ended = await m2async(
            "submit", manifest(tmp_path, 200), "--ledger", "memory:", "--output", "jsonl", url=endpoint.url
        )
        assert len(await executions(endpoint)) == 200
    assert ended.code == 0
    [found] = [line for line in ended.err.splitlines() if line.startswith("The service throttled calls")]
    # Calls do not come evenly from a busy machine; how exact it is, tests/pacing/test_goals.py shows in simulated time
    assert 10 <= float(found.split()[-3]) <= 160


async def test_one_application_is_paced_besides_and_others_do_not_wait_for_it(tmp_path: Path) -> None:
    slow, fast = "slowapplicationaaaaaaaaaaaa", "fastapplicationaaaaaaaaaaaa"
    jobs = tmp_path / "jobs.csv"
    rows = [f"{application},POSTTRAN" for _ in range(12) for application in (slow, fast)]
    jobs.write_text("\n".join(["application_id,script", *rows, ""]))
    began = time.monotonic()
    pace = ("--rate", "1000", "--burst", "100", "--application-rate", f"{slow}=10")
    ended = await m2async("submit", jobs, "--local", *pace, "--output", "jsonl")
    assert time.monotonic() - began >= 11 / 10
    assert ended.code == 0
    order = [line["application_id"] for line in ended.lines]
    assert order[-6:] == [slow] * 6


async def test_a_retry_after_without_bounds_is_cut_and_told_once(tmp_path: Path) -> None:
    throttled = error(429, "ThrottlingException", {"Retry-After": "1000000000"})
    async with scripted(started("e-1"), throttled, throttled, *(started(f"e-{n}") for n in range(2, 21))) as server:
        options = ("--no-preflight", "--max-retry-after", "0.01", "--concurrency", "1", "--ledger", "memory:")
        ended = await m2async("submit", manifest(tmp_path, 20), *options, "--output", "jsonl", url=server.url)
    assert [line["state"] for line in ended.lines] == ["started"] * 20
    assert ended.code == 0
    said = "m2async: the service asks to wait 11574 d 2 h (Retry-After); it is waited 10 ms (--max-retry-after)\n"
    assert ended.err.count("Retry-After") == ended.err.count(said) == 1


async def test_a_ceiling_of_retry_after_that_is_none_is_bad_input(tmp_path: Path) -> None:
    for wrong in ("-1", "nan"):
        ended = await m2async("submit", manifest(tmp_path), "--local", "--max-retry-after", wrong)
        assert (ended.code, ended.out) == (2, "")
        assert f"--max-retry-after must not be negative, not {wrong}" in ended.err
