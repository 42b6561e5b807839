"""`m2async watch`: on a terminal, on a pipe, and what it takes for the end."""

from __future__ import annotations

import re
import signal
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from m2async import LocalEndpoint
from m2async.cli.watch import drawn, history, is_over
from m2async.figures.figures import AnswerStretch, CodeCount, RunFigures
from m2async.figures.looks import Look, Trouble
from m2async.figures.percentiles import Percentiles
from m2async.ledger import ExecutionCount, Orders, RowState, RunInfo
from tests.cli.terminal import m2async, on_terminal, plain, running, written
from tests.cli.test_submit import executions, manifest

HOSTILE = "[red]\x1b[31m<b>\u202e\x07\n日本語" + "k" * 300


def a_run(**changes: Any) -> RunFigures:
    counts = {
        RowState.PENDING: 700,
        RowState.INTENT: 3,
        RowState.STARTED: 290,
        RowState.REJECTED: 4,
        RowState.UNKNOWN: 3,
    }
    fields: dict[str, Any] = {
        "info": RunInfo(1, "night", None, None, True, 1_000, 0.0),
        "read_at": 130.0,
        "in_use": True,
        "orders": Orders(20.0, 40.0, paused=False),
        "counts": counts,
        "executions": [ExecutionCount("Running", None, False, False, None, 290)],
        "began": 100.0,
        "ended": 129.0,
        "width": 1.0,
        "stretches": [AnswerStretch(100.0 + n, started=10, throttled=n % 3) for n in range(29)],
        "codes": [CodeCount("ThrottlingException", 28, True), CodeCount("InternalServerException", 3, False)],
        "latency": Percentiles(290, 0.012, 0.02, 0.05, 0.08, 0.1),
        "curve": [],
    }
    return RunFigures(**{**fields, **changes})


def screen(look: Look, width: int, height: int) -> list[str]:
    console = Console(width=width, height=height, force_terminal=True, color_system=None)
    with console.capture() as captured:
        console.print(drawn(look, width, height))
    return captured.get().splitlines()


def test_a_screen_of_80_by_24_shows_it_all() -> None:
    troubles = [Trouble(f"row-{n}", "POSTTRAN", "unknown", "AnswerTimeoutError: no answer", 1.0) for n in range(50)]
    lines = screen(Look(a_run(), troubles, 50), 80, 24)
    assert len(lines) == 23
    shown = "\n".join(line.rstrip() for line in lines)
    for part in (
        "night\n",
        "in progress: 297 of 1,000 jobs (29.7 %), for 30 s",
        "290 started, 700 pending, 3 intent, 4 rejected, 3 unknown",
        "/s now, 10/s mean, 10/s peak",
        "told 20 calls a second, bursts of 40",
        "28 of 318 calls",
        "3 InternalServerException",
        "p50 12 ms, p99 50 ms, max 100 ms",
        "290 Running",
        "Latest of 50 in trouble\nrow-0  unknown  AnswerTimeoutError: no answer",
    ):
        assert part in shown


@given(st.integers(40, 200), st.integers(24, 60), st.integers(0, 50), st.text(max_size=60), st.text(max_size=40))
def test_nothing_is_wider_or_higher_than_the_terminal_or_obeyed_by_it(
    width: int, height: int, troubled: int, key: str, status: str
) -> None:
    troubles = [Trouble(f"{HOSTILE}{key}", "X", "failed", f"{key}{HOSTILE}", 1.0)] * troubled
    figures = a_run(
        info=RunInfo(1, f"{HOSTILE}{key}", None, None, True, 1_000, 0.0),
        executions=[ExecutionCount(status or None, None, False, False, None, 290)],
    )
    lines = screen(Look(figures, troubles, troubled), width, height)
    assert len(lines) < height
    for line in lines:
        assert cell_len(line) <= width
        assert line.isprintable(), line


@given(st.lists(st.integers(0, 1_000), max_size=300), st.integers(1, 200))
def test_the_history_has_the_shape_of_the_starts(starts: list[int], width: int) -> None:
    drawn_ = history(a_run(stretches=[AnswerStretch(float(n), started=s) for n, s in enumerate(starts)]), width)
    assert len(drawn_) <= width
    if drawn_ and len(starts) <= width:
        assert len(drawn_) == len(starts)
        heights = list(map(ord, drawn_))
        assert all(
            (heights[one] <= heights[other]) for one in range(len(starts)) for other in range(len(starts))
            if starts[one] <= starts[other]
        )  # fmt: skip
        assert max(drawn_) == "█"


@pytest.mark.parametrize(
    ("changes", "quiet", "over"),
    [
        ({}, 9e9, False),
        ({"in_use": False}, 0.0, True),  # jobs are left, and nobody sends them
        ({"in_use": False, "counts": dict.fromkeys(RowState, 0) | {RowState.STARTED: 1_000}}, 0.0, False),
        ({"in_use": False, "counts": dict.fromkeys(RowState, 0) | {RowState.STARTED: 1_000}}, 60.0, True),
    ],
)
def test_it_is_over_when_nobody_submits_and_nothing_can_change(
    changes: dict[str, Any], quiet: float, over: bool
) -> None:
    assert is_over(a_run(**changes), quiet) is over


def test_executions_that_nobody_ever_followed_are_not_waited_for() -> None:
    sent = dict.fromkeys(RowState, 0) | {RowState.STARTED: 1_000}
    unseen = [ExecutionCount(None, None, False, False, None, 1_000)]
    assert is_over(a_run(in_use=False, counts=sent, executions=unseen), 0.0)


async def test_on_a_pipe_it_prints_plain_lines_until_the_run_has_ended(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.db"
    async with LocalEndpoint() as endpoint:
        submit = ("submit", manifest(tmp_path, 40), "--run", "night", "--rate", "0.001", "--ledger", ledger)
        async with running(*submit, url=endpoint.url) as process:
            assert process.stdout is not None
            await process.stdout.receive()
            async with running("watch", "night", "--ledger", ledger) as watching:
                assert watching.stdout is not None
                out = await watching.stdout.receive()
                assert (await m2async("rate", "night", "20", "--ledger", ledger)).code == 0
                assert await process.wait() == 0
                out += await written(watching.stdout)
                assert (await watching.wait(), await written(watching.stderr)) == (0, b"")
    lines = out.decode().splitlines()
    assert re.match(r"\d\d:\d\d:\d\d  in progress: \d+ of 40 jobs", lines[0])
    assert "all sent: 40 of 40 jobs (100 %)" in lines[-2]
    assert lines[-1] == "0 of 40 jobs succeeded; 40 have not ended"
    times = [datetime.strptime(text[:8], "%H:%M:%S") for text in lines[:-2]]
    assert all((end - begin).seconds >= 4 for begin, end in pairwise(times))  # one every five seconds, and the last
    assert b"\x1b" not in out


@pytest.mark.parametrize("columns", [80, 40])
async def test_on_a_terminal_it_draws_the_run_and_leaves_its_last_state(tmp_path: Path, columns: int) -> None:
    ledger = tmp_path / "ledger.db"
    async with LocalEndpoint() as endpoint:
        await m2async("submit", manifest(tmp_path, 5), "--run", "night", "--ledger", ledger, url=endpoint.url)
    code, written = await on_terminal("watch", "night", "--ledger", ledger, columns=columns)
    assert code == 0
    shown = " ".join(plain(written).split())
    assert "5 of 5 jobs (100 %)" in shown
    assert shown.endswith("0 of 5 jobs succeeded; 5 have not ended")
    assert written.count("\x1b[?25l") == written.count("\x1b[?25h") == 1  # the cursor is shown again


async def test_ctrl_c_leaves_the_run_alone(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.db"
    async with LocalEndpoint() as endpoint:
        submit = ("submit", manifest(tmp_path, 600), "--run", "night", "--rate", "5", "--ledger", ledger)
        async with running(*submit, url=endpoint.url) as process:
            assert process.stdout is not None
            await process.stdout.receive()
            code, written = await on_terminal("watch", "night", "--ledger", ledger, once="in progress")
            assert code == 130
            assert "Traceback" not in written
            before = len(await executions(endpoint))
            while len(await executions(endpoint)) < before + 3:
                await anyio.sleep(0.02)
            process.send_signal(signal.SIGTERM)
            await process.wait()


async def test_a_run_that_is_not_there_is_bad_input_and_the_nearest_are_named(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.db"
    ledger.touch()
    nothing = await m2async("watch", "night", "--ledger", ledger)
    assert (nothing.code, nothing.err.endswith("has no run 'night'; it has no runs at all\n")) == (2, True)
    async with LocalEndpoint() as endpoint:
        for name in ("night-1", "weekly"):
            await m2async("submit", manifest(tmp_path, 1), "--run", name, "--ledger", ledger, url=endpoint.url)
    missing = await m2async("watch", "nihgt-1", "--ledger", ledger)
    assert (missing.code, missing.out) == (2, "")
    assert missing.err.endswith("has no run 'nihgt-1'; nearest: night-1\n")
