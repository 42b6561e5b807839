from __future__ import annotations

import sys

import pytest

from tests.cli.terminal import on_terminal, plain

WORK = """
import time
from m2async.cli import progress
{patience}
with progress.Waiting("rows written", {total}) as waiting:
    waiting.advance(100)
    while {until_shown} and not waiting._bar.live.is_started:
        time.sleep(0.01)
print("done")
"""


def work(total: int | None, *, until_shown: bool = True, patience: str = "") -> str:
    return WORK.format(total=total, until_shown=until_shown, patience=patience)


@pytest.mark.parametrize("columns", [80, 40])
async def test_what_takes_its_time_shows_how_far_it_is_and_clears_the_line_at_its_end(columns: int) -> None:
    code, written = await on_terminal("-c", work(1_000), columns=columns, program=sys.executable)
    assert code == 0
    shown = [line for line in plain(written).splitlines()[0].split("rows written") if line]
    assert any(line.rstrip().endswith(" 100/1,000 -:--:--") for line in shown), shown
    assert written.endswith("\x1b[2Kdone\r\n")
    assert all(len(line) <= columns for line in shown)


async def test_where_the_number_is_not_known_it_is_counted() -> None:
    code, written = await on_terminal("-c", work(None), program=sys.executable)
    assert code == 0
    assert "rows written" in written
    assert "/None" not in written


async def test_what_is_quick_shows_nothing() -> None:
    quick = work(1_000, until_shown=False, patience="progress._PATIENCE = 3600.0")
    assert await on_terminal("-c", quick, program=sys.executable) == (0, "done\r\n")
