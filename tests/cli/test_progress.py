from __future__ import annotations

import sys

import pytest

from tests.cli.terminal import on_terminal, plain

WORK = """
import time
from m2async.cli.progress import Waiting
with Waiting("rows written", {total}) as waiting:
    until = time.monotonic() + {seconds}
    while time.monotonic() < until:
        time.sleep({seconds} / 10)
        waiting.advance(100)
print("done")
"""


@pytest.mark.parametrize("columns", [80, 40])
async def test_what_takes_its_time_shows_how_far_it_is_and_clears_the_line_at_its_end(columns: int) -> None:
    work = WORK.format(total=1_000, seconds=1.5)
    code, written = await on_terminal("-c", work, columns=columns, program=sys.executable)
    assert code == 0
    shown = [line for line in plain(written).splitlines()[0].split("rows written") if line]
    assert any(line.rstrip().endswith(("0/1,000 0:00:00", "0/1,000 0:00:01", "0/1,000 -:--:--")) for line in shown), (
        shown
    )
    assert written.endswith("\x1b[2Kdone\r\n")
    assert all(len(line) <= columns for line in shown)


async def test_where_the_number_is_not_known_it_is_counted() -> None:
    code, written = await on_terminal("-c", WORK.format(total=None, seconds=1.5), program=sys.executable)
    assert code == 0
    assert "rows written" in written
    assert "/None" not in written


async def test_what_is_quick_shows_nothing() -> None:
    assert await on_terminal("-c", WORK.format(total=1_000, seconds=0.01), program=sys.executable) == (0, "done\r\n")
