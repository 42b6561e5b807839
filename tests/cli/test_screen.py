"""What a person sees on a terminal: messages folded at words, tables that fit, and nothing cut."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from rich.cells import cell_len

from m2async import LocalEndpoint, M2Client, ScriptJob, StartBatchJob, open_ledger
from m2async.cli.screen import folded
from m2async.clock import steady_time
from m2async.ledger import destination_of
from tests.campaigns.faults import really_started
from tests.cli.terminal import APPLICATION, m2async, on_terminal, plain
from tests.scripted import answer, scripted, started

KEYS = ["row-1", "2026-11-23/POSTTRAN/ACCOUNT-000001/from-the-first-to-the-last", "konto-残高-12345678901234567890"]
LONG = "k" * 100


def jobs(folder: Path, keys: list[str] = KEYS) -> Path:
    path = folder / "jobs.csv"
    lines = [f"{key},{APPLICATION},POSTTRAN" for key in keys]
    path.write_text("\n".join(["key,application_id,script", *lines, ""]))
    return path


def too_wide(written: str, columns: int) -> list[str]:
    """The lines that the terminal has to break itself, but for those of one word, and of commands to be copied."""
    last_drawn = [line.rsplit("\r", 1)[-1] for line in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written).split("\r\n")]
    return [line for line in last_drawn if cell_len(line) > columns and " " in line.strip() and "m2async " not in line]


@pytest.mark.parametrize("columns", [80, 60, 40])
async def test_every_list_and_message_fits_the_terminal_and_nothing_is_cut(tmp_path: Path, columns: int) -> None:
    ledger = ("--ledger", tmp_path / "ledger.db")
    async with LocalEndpoint(faults={"accept-then-500": 0.7, "drop-before-accept": 0.3}, seed=1) as endpoint:
        options = ("--no-preflight", "--on-unknown", "hold", "--run", "night", *ledger)
        code, submitted = await on_terminal(
            "submit", jobs(tmp_path, [*KEYS, LONG]), *options, columns=columns, url=endpoint.url
        )
        assert code == 1
        again = ("reconcile", "night", "--settle", "0.1", *ledger)
        code, looked_for = await on_terminal(*again, columns=columns, url=endpoint.url)
        assert code == 1
        ids = [execution["executionId"] for execution in await really_started(endpoint.url)]
    listed = {
        verb: (await on_terminal(verb, *run, *ledger, columns=columns))[1]
        for verb, run in {"status": ["night"], "runs": [], "pause": ["night"]}.items()
    }
    for written in (submitted, looked_for, *listed.values()):
        assert too_wide(written, columns) == []
        assert "…" not in written
    for written in (submitted, looked_for, listed["status"]):
        assert all(key in plain(written) for key in (*KEYS, LONG))
    assert any(execution_id in plain(looked_for) for execution_id in ids)
    assert any(execution_id in plain(listed["status"]) for execution_id in ids)


async def test_a_pipe_gets_a_message_as_one_line(tmp_path: Path, endpoint: LocalEndpoint) -> None:
    name = "a run with a name of many words that does not fit into a line of a terminal"
    told = await m2async("pause", name, "--ledger", tmp_path / "none.db", url=endpoint.url)
    assert told.err.count("\n") == 1
    _, written = await on_terminal("pause", name, "--ledger", tmp_path / "none.db", columns=60)
    assert plain(written).count("\n") > 1
    assert plain(written).replace("\n", " ").split() == told.err.split()


async def test_lines_of_json_on_a_terminal_are_whole_also_above_a_bar(tmp_path: Path, endpoint: LocalEndpoint) -> None:
    options = ("--output", "jsonl", "--ledger", tmp_path / "ledger.db")
    _, written = await on_terminal("submit", jobs(tmp_path, [LONG]), *options, url=endpoint.url)
    [line] = [line for line in plain(written).split("\n") if '"key"' in line]
    assert f'"key": "{LONG}"' in line
    assert line.rstrip().endswith("}")


async def test_characters_that_a_terminal_obeys_are_written_out_in_every_table(tmp_path: Path) -> None:
    message = {"message": "\x1b]0;owned\x07 \x9b31m"}
    refused = answer(400, message, {"x-amzn-errortype": "ValidationException"})
    async with scripted(started(), refused) as server:
        options = ("--no-preflight", "--concurrency", "1", "--ledger", tmp_path / "ledger.db")
        _, written = await on_terminal("submit", jobs(tmp_path), *options, url=server.url)
    assert "\x1b]" not in written
    assert "\x9b" not in written
    assert "\\x1b]0;owned" in plain(written)


def test_words_are_folded_and_never_broken() -> None:
    assert folded("one two three", 7) == ["one two", "three"]
    assert folded("a aaaaaaaaaaaa b", 5) == ["a", "aaaaaaaaaaaa", "b"]
    assert folded("  two 残高 高高", 10) == ["  two 残高", "高高"]
    assert folded("", 5) == [""]


async def test_what_waits_for_a_job_that_was_left_in_doubt_is_said_and_shown(
    tmp_path: Path, endpoint: LocalEndpoint
) -> None:
    ledger, request = tmp_path / "ledger.db", StartBatchJob(APPLICATION, ScriptJob("POSTTRAN"))
    async with (
        M2Client(**endpoint.client_settings()) as client,
        open_ledger(ledger) as opened,
        await opened.open_run("night") as run,
    ):
        destination = destination_of(client)
        assert destination is not None
        await run.plan((f"row-{number}", request) for number in range(3))
        await run.belong_to(destination)
        await run.intend(1, 1, steady_time())  # and there the process is killed
    resume = ("resume", "night", "--settle", "60", "--ledger", ledger)
    code, written = await on_terminal(*resume, url=endpoint.url, once="waiting for one in doubt")
    assert code == 130
    assert too_wide(written, 80) == []
    said = "m2async: jobs named POSTTRAN wait for an earlier one in doubt"
    assert len(re.findall(rf"{said}(, \d+ s at most)?\n", plain(written))) == 1
    [drawn, *_] = [line for line in re.split(r"[\r\n]|\x1b\[2K", written) if "waiting for one in doubt" in line]
    assert re.search(r"━ 0/3 .*[12] waiting for one in doubt", plain(drawn)), drawn
