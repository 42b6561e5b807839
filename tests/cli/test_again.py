"""A manifest that is given again, as it was or corrected: what starts, what is said, and the exit code."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from m2async import FileJob, LocalEndpoint, StartBatchJob, open_ledger
from m2async.clock import steady_time
from m2async.ledger import RowState
from tests.campaigns.faults import really_started
from tests.cli.terminal import APPLICATION, Ended, m2async, running, written

Row = tuple[str, str, str]  # key, file, RUNDATE
A, B, C = ("a", "POSTTRAN.jcl", "1"), ("b", "POSTTRAN.jcl", "2"), ("c", "POSTTRAN.jcl", "3")
D, E = ("d", "POSTTRAN.jcl", "4"), ("e", "POSTTRAN.jcl", "5")
BAD = ("c", "MISSPELT.jcl", "3")
A9, C9 = ("a", "POSTTRAN.jcl", "9"), ("c", "POSTTRAN.jcl", "9")


class Night:
    """A folder with manifests and a ledger, and what the endpoint started."""

    def __init__(self, folder: Path, url: str, *, keys: bool) -> None:
        self.folder = folder
        self.ledger = folder / "ledger.db"
        self.url = url
        self.keys = keys

    def write(self, rows: Sequence[Row], name: str = "nightly.csv", end: str = "\n") -> Path:
        head = ("key," if self.keys else "") + "file,param.RUNDATE"
        lines = [head, *(",".join(row if self.keys else row[1:]) for row in rows), ""]
        (self.folder / name).write_bytes(end.join(lines).encode())
        return self.folder / name

    def arguments(self, path: Path, *options: str) -> list[str | Path]:
        return [
            "submit",
            path,
            "-a",
            APPLICATION,
            "--ledger",
            self.ledger,
            "--no-preflight",
            "--output",
            "jsonl",
            *options,
        ]

    async def submit(self, rows: Sequence[Row], *options: str, name: str = "nightly.csv", end: str = "\n") -> Ended:
        return await m2async(*self.arguments(self.write(rows, name, end), *options), url=self.url)

    async def left(self, rows: Sequence[Row], number: signal.Signals, *options: str, started: int = 2) -> None:
        """Submit rows, and end the command with a signal once so many have started; the others surely have not."""
        slow = ["--rate", "0.001", "--burst", str(started), *options]
        async with running(*self.arguments(self.write(rows), *slow), url=self.url) as process:
            assert process.stdout is not None
            out = b""
            while out.count(b"\n") < started:
                out += await process.stdout.receive()
            process.send_signal(number)
            await written(process.stdout)
            await written(process.stderr)
            await process.wait()

    async def started(self) -> Counter[tuple[str, str]]:
        return Counter(
            (e["batchJobIdentifier"]["fileBatchJobIdentifier"]["fileName"], e["jobParams"]["RUNDATE"])
            for e in await really_started(self.url)
        )


@pytest.fixture(params=[True, False], ids=["keys", "no keys"])
def night(request: pytest.FixtureRequest, tmp_path: Path, endpoint: LocalEndpoint) -> Night:
    return Night(tmp_path, endpoint.url, keys=request.param)


class Way(NamedTuple):
    """A way to give a manifest again: what it says of the run, the exit code, what starts, and what is said.

    `unkeyed` are the last three where no row has a key, if they differ.
    """

    rows: Sequence[Row]
    options: Sequence[str]
    code: int
    starts: Sequence[Row]
    said: str
    unkeyed: tuple[int, Sequence[Row], str] | None = None
    name: str = "nightly.csv"
    end: str = "\n"


NOTHING = "nothing was started: 3 jobs were started before, 0 are left, of run nightly-"
ALL = (A, B, C)
WAS = "but it was started before, or may have been"
APART = "without keys it cannot be told whether an added row is one that was started"
ONLY_AMEND = "--amend starts what is added, or changed and not started"

FINISHED = {
    "the same": Way(ALL, [], 0, [], NOTHING),
    "the same, quietly": Way(ALL, ["-q"], 0, [], NOTHING),
    "reordered": Way((C, A, B), [], 0, [], NOTHING),
    "CRLF": Way(ALL, [], 0, [], NOTHING, end="\r\n"),
    "another name": Way(ALL, [], 0, [], NOTHING, name="copy.csv"),
    "added": Way((*ALL, D), [], 2, [], "added, not started: d", (2, [], "added, not started: 4")),
    "on top": Way((D, *ALL), [], 2, [], "added, not started: d", (2, [], "added, not started: 1")),
    "removed": Way((A, B), [], 2, [], f"removed, {WAS}: c", (2, [], f"removed, {WAS}: 3")),
    "changed": Way((A, B, C9), [], 2, [], f"changed, {WAS}: c", (2, [], APART)),
    "ways": Way((*ALL, D), [], 2, [], ONLY_AMEND),
    "ways to start anew": Way((*ALL, D), [], 2, [], "; --again starts all rows anew"),
    "added, amended": Way((*ALL, D), ["--amend"], 0, [D], "added, not started: d", (0, [D], "added, not started: 4")),
    "on top, amended": Way((D, *ALL), ["--amend"], 0, [D], "takes over the rows of nightly.csv:"),
    "removed, amended": Way((A, B), ["--amend"], 0, [], f"removed, {WAS}: c", (0, [], f"removed, {WAS}: 3")),
    "changed, amended": Way((A, B, C9), ["--amend"], 0, [], f"changed, {WAS}: c", (2, [], APART)),
    "the same, amended": Way(ALL, ["--amend"], 0, [], NOTHING),
    "the same, anew": Way(ALL, ["--again"], 0, ALL, "3 of 3 jobs started"),
    "added, anew": Way((*ALL, D), ["--again"], 0, (*ALL, D), "4 of 4 jobs started"),
    "changed, anew": Way((A, B, C9), ["--again"], 0, (A, B, C9), "3 of 3 jobs started"),
    "another run": Way(ALL, ["--run", "other"], 0, ALL, "run other is new, and starts 3 rows of run nightly-"),
    "another run and anew": Way(ALL, ["--run", "x", "--again"], 2, [], "give --run or --again, not both"),
    "a run that is not": Way(ALL, ["--run", "other", "--amend"], 2, [], "--amend: the ledger has no run other"),
}  # fmt: skip


@pytest.mark.parametrize("way", FINISHED.values(), ids=FINISHED)
async def test_after_its_run_has_finished(night: Night, way: Way) -> None:
    assert (await night.submit(ALL)).code == 0
    await given_again(night, way)


UNFINISHED = {
    "the same": Way(ALL, [], 0, [C], "2 jobs were started before, 1 is left"),
    "reordered": Way((C, A, B), [], 0, [C], "are those of run nightly-"),
    "CRLF": Way(ALL, [], 0, [C], "are those of run nightly-", end="\r\n"),
    "another name": Way(ALL, [], 0, [C], "2 jobs were started before, 1 is left", name="copy.csv"),
    "added": Way((*ALL, D), [], 0, [C, D], "added, not started: d", (0, [C, D], "added, not started: 4")),
    "on top": Way((D, *ALL), [], 0, [C, D], "added, not started: d", (0, [C, D], "added, not started: 1")),
    "mended": Way((A, B, C9), [], 0, [C9], "changed, not started: c", (0, [C9], "removed, not started: 3")),
    "removed": Way((A, B), [], 0, [], "removed, not started: c", (0, [], "removed, not started: 3")),
    "started one changed": Way((A9, B, C), [], 2, [], f"changed, {WAS}: a", (2, [], APART)),
    "ways to start anew": Way((B, C), [], 2, [], "; once the run has finished, --again starts all rows anew"),
    "started one removed": Way((B, C), [], 2, [], f"removed, {WAS}: a", (2, [], f"removed, {WAS}: 1")),
    "started one changed, amended": Way((A9, B, C), ["--amend"], 0, [C], f"changed, {WAS}: a", (2, [], APART)),
    "started one removed, amended": Way((B, C), ["--amend"], 0, [C], "takes over the rows"),
    "mended, amended": Way((A, B, C9), ["--amend"], 0, [C9], "takes over the rows"),
    "the same, anew": Way(
        ALL, ["--again"], 0, [C], "has not finished: it is gone on with, and nothing is started anew"
    ),
    "mended, anew": Way((A, B, C9), ["--again"], 0, [C9], "has not finished: it is gone on with"),
    "started one changed, anew": Way((A9, B, C), ["--again"], 2, [], "has not finished: it is gone on with"),
}


@pytest.mark.parametrize("way", UNFINISHED.values(), ids=UNFINISHED)
async def test_after_its_command_was_killed(night: Night, way: Way) -> None:
    await night.left(ALL, signal.SIGKILL)
    await given_again(night, way)


REJECTED = {
    "the same": Way((A, B, BAD), [], 1, [], "2 jobs were started before, 1 is left"),
    "mended": Way(ALL, [], 2, [], "changed, not started: c", (2, [], "removed, not started: 3")),
    "mended, amended": Way(ALL, ["--amend"], 0, [C], "changed, not started: c", (0, [C], "removed, not started: 3")),
    "removed, amended": Way((A, B), ["--amend"], 0, [], "nothing was started: 2 jobs were started before"),
    "mended, anew": Way(ALL, ["--again"], 0, ALL, "3 of 3 jobs started"),
}


@pytest.mark.parametrize("way", REJECTED.values(), ids=REJECTED)
async def test_after_a_row_was_rejected(night: Night, way: Way) -> None:
    assert (await night.submit((A, B, BAD))).code == 1
    await given_again(night, way)


NAMED = {
    "the same": Way(ALL, [], 0, [], "3 jobs were started before, 0 are left, of run night, begun "),
    "reordered": Way((C, A, B), [], 0, [], "3 jobs were started before, 0 are left, of run night, begun "),
    "added": Way((*ALL, D), [], 2, [], ONLY_AMEND),
    "added, amended": Way((*ALL, D), ["--amend"], 0, [D], "run night takes over the rows of nightly.csv:"),
    "changed, amended": Way((A, B, C9), ["--amend"], 0, [], f"changed, {WAS}: c", (2, [], APART)),
}


@pytest.mark.parametrize("way", NAMED.values(), ids=NAMED)
async def test_under_the_name_of_its_run(night: Night, way: Way) -> None:
    assert (await night.submit(ALL, "--run", "night")).code == 0
    await given_again(night, way._replace(options=[*way.options, "--run", "night"]))


async def test_a_named_run_that_was_killed_takes_over_no_rows_by_itself(night: Night) -> None:
    await night.left(ALL, signal.SIGKILL, "--run", "night")
    await given_again(night, Way((*ALL, D), ["--run", "night"], 2, [], ONLY_AMEND))
    await given_again(
        night, Way((*ALL, D), ["--run", "night", "--amend"], 0, [C, D], "run night takes over the rows of nightly.csv:")
    )


async def test_a_crash_behind_again_and_the_same_command_once_more_start_nothing_twice(night: Night) -> None:
    assert (await night.submit(ALL)).code == 0
    for _ in range(2):
        await night.left(ALL, signal.SIGKILL, "--again", started=1)
    once_more = await night.submit(ALL, "--again")
    assert (once_more.code, "has not finished: it is gone on with" in once_more.err) == (0, True)
    assert await night.started() == Counter({row[1:]: 2 for row in ALL})
    assert (await night.submit(ALL)).code == 0
    assert await night.started() == Counter({row[1:]: 2 for row in ALL})


async def test_every_night_anew(night: Night) -> None:
    for nights in range(1, 4):
        assert (await night.submit(ALL, "--again", "-q")).code == 0
        assert await night.started() == Counter({row[1:]: nights for row in ALL})
    listed = await m2async("runs", "--ledger", night.ledger, "--output", "jsonl")
    assert len({line["run"] for line in listed.lines}) == len(listed.lines) == 3


@pytest.mark.parametrize("options", [[], ["--amend"], ["--again"], ["--run", "night"], ["--run", "night", "--amend"]])
async def test_while_its_run_is_in_progress_nobody_else_sends_it(night: Night, options: list[str]) -> None:
    named = ["--run", "night"] if "--run" in options else []
    slow = ["--rate", "0.001", "--burst", "2", *named]
    async with running(*night.arguments(night.write(ALL, "first.csv"), *slow), url=night.url) as process:
        assert process.stdout is not None
        out = b""
        while out.count(b"\n") < 2:
            out += await process.stdout.receive()
        for rows in (ALL, (*ALL, D), (A9, B, C)):
            ended = await night.submit(rows, *options)
            assert (ended.code, ended.out) == (3, "")
            assert f"is in use by process {process.pid} on " in ended.err
        process.send_signal(signal.SIGINT)
        await written(process.stdout)
        await written(process.stderr)
        await process.wait()
    assert await night.started() == Counter([A[1:], B[1:]])
    listed = await m2async("runs", "--ledger", night.ledger, "--output", "jsonl")
    assert [(line["started"], line["pending"]) for line in listed.lines] == [(2, 1)]


async def in_doubt(night: Night, number: int) -> None:
    """Let a row of the only run have an attempt of which nothing is known."""
    async with open_ledger(night.ledger) as ledger:
        [summary] = await ledger.runs()
        async with await ledger.open_run(summary.info.name) as run:
            await run.intend(number, 1, steady_time())
            await run.unknown(number, 1, "ConnectionLostError", "the connection was lost")


@pytest.mark.parametrize("following", [[], ["--max-running", "9"]], ids=["", "following"])
@pytest.mark.parametrize("options", [["--settle", "0.1"], ["--on-unknown", "hold"], ["--on-unknown", "resend"]])
@pytest.mark.parametrize("rows", [(A, B, C9, D), (A, B, D)], ids=["changed", "removed"])
async def test_what_may_have_started_is_not_sent_again_once_it_is_changed_or_removed(
    tmp_path: Path, endpoint: LocalEndpoint, rows: Sequence[Row], options: list[str], following: list[str]
) -> None:
    night = Night(tmp_path, endpoint.url, keys=True)
    await night.left(ALL, signal.SIGKILL)
    await in_doubt(night, 3)
    refused = await night.submit(rows, *options)
    assert (refused.code, refused.out, f"{WAS}: c" in refused.err) == (2, "", True)
    ended = await night.submit(rows, "--amend", *options, *following)
    assert await night.started() == Counter([A[1:], B[1:], D[1:]])
    found_out = options[0] == "--settle"
    told = {line["key"]: line["state"] for line in ended.lines}
    assert (ended.code, told["c"]) == (1, "rejected" if found_out else "unknown")
    once_more = await night.submit(rows, *options, *following)
    assert ("c" in {line["key"] for line in once_more.lines}, once_more.code) == (not found_out, int(not found_out))
    assert await night.started() == Counter([A[1:], B[1:], D[1:]])
    await night.submit(rows, "--amend", *options, *following)  # now it is known that c did not start as it was
    may_start = [C9[1:]] if found_out and C9 in rows else []
    assert await night.started() == Counter([A[1:], B[1:], D[1:], *may_start])


async def test_rows_of_a_run_without_a_manifest_are_found_too(night: Night) -> None:
    async with open_ledger(night.ledger) as ledger, await ledger.open_run("default") as run:
        await run.add("a", StartBatchJob(APPLICATION, FileJob("POSTTRAN.jcl"), {"RUNDATE": "1"}))
    ended = await night.submit(ALL)
    assert (ended.code, ended.out) == (2, "")
    assert "run default, which has no manifest, has 1 row of nightly.csv; nothing was sent" in ended.err
    assert (await night.submit(ALL, "--again")).code == 0


async def test_an_amendment_of_nothing_is_refused(night: Night) -> None:
    ended = await night.submit(ALL, "--amend")
    assert (ended.code, ended.out) == (2, "")
    assert "--amend: no run in the ledger has rows of nightly.csv; nothing was sent" in ended.err


async def test_a_manifest_of_which_every_row_was_mended_amends_the_run_of_its_file(
    tmp_path: Path, endpoint: LocalEndpoint
) -> None:
    night = Night(tmp_path, endpoint.url, keys=True)
    assert (await night.submit([A, BAD])).code == 1
    ended = await night.submit([A9, C], "--amend")
    assert (ended.code, f"changed, {WAS}: a" in ended.err) == (0, True)
    assert await night.started() == Counter([A[1:], C[1:]])
    assert len((await m2async("runs", "--ledger", night.ledger, "--output", "jsonl")).lines) == 1


async def test_an_amended_run_is_shown_and_resumed_as_what_it_is(night: Night) -> None:
    await night.left(ALL, signal.SIGKILL, "--run", "night")
    await night.left((A, B, D, E), signal.SIGKILL, "--run", "night", "--amend", started=1)
    book = ["--ledger", str(night.ledger)]
    [status] = (await m2async("status", "night", *book, "--output", "jsonl")).lines
    assert (status["started"], status["pending"]) == (3, 1)
    exported = (await m2async("export", "night", *book, "--format", "jsonl")).lines
    assert [line["key"] for line in exported] == (["a", "b", "d", "e"] if night.keys else ["1", "2", "4", "5"])
    resumed = await m2async("resume", "night", *book, url=night.url)
    assert (resumed.code, "1 of 1 jobs started" in resumed.err) == (0, True)
    assert await night.started() == Counter([A[1:], B[1:], D[1:], E[1:]])


async def test_a_row_that_another_run_has_not_started_yet_is_left_to_it(night: Night) -> None:
    assert (await night.submit((A, B))).code == 0
    others = Night(night.folder, night.url, keys=night.keys)
    await others.left((D, C, E), signal.SIGKILL, started=1)
    ended = await night.submit(ALL, "--amend")
    assert (ended.code, "added, but another run has it, and it is left to that one: " in ended.err) == (0, True)
    assert (await others.submit((D, C, E))).code == 0
    assert await night.started() == Counter(row[1:] for row in (A, B, C, D, E))


async def test_a_run_of_the_same_rows_in_another_order_is_gone_on_with_before_all_is_started_anew(night: Night) -> None:
    assert (await night.submit(ALL)).code == 0
    await night.left((C, B, A), signal.SIGKILL, "--again")
    ended = await night.submit(ALL, "--again")
    assert (ended.code, "has not finished: it is gone on with" in ended.err) == (0, True)
    assert await night.started() == Counter({row[1:]: 2 for row in ALL})


async def test_keys_that_are_given_or_left_out_later_start_no_row_that_was_changed(night: Night) -> None:
    assert (await night.submit(ALL)).code == 0
    night.keys = not night.keys
    refused = await night.submit((A, B, C9), "--amend")
    assert (refused.code, APART in refused.err) == (2, True)
    assert (await night.submit((A, B, C, D), "--amend")).code == 0
    assert sum((await night.started()).values()) == 4


async def test_a_number_that_is_another_rows_key_is_refused(tmp_path: Path, endpoint: LocalEndpoint) -> None:
    night = Night(tmp_path, endpoint.url, keys=True)
    assert (await night.submit([("4", *A[1:]), B, C])).code == 0
    night.keys = False
    ended = await night.submit((A, B, C, D), "--amend")
    assert (ended.code, ended.out) == (2, "")
    assert "4 would be two rows; nothing was sent: give the added rows keys of their own, or give --again" in ended.err


@pytest.mark.parametrize("before", [(A,), (A, BAD)], ids=["added", "changed"])
async def test_what_comes_after_a_row_that_is_left_to_another_run_is_held(
    tmp_path: Path, endpoint: LocalEndpoint, before: Sequence[Row]
) -> None:
    night = Night(tmp_path, endpoint.url, keys=True)
    assert (await night.submit([C], name="other.csv")).code == 0
    await night.submit(before)
    jobs = [{"key": key, "file": file, "params": {"RUNDATE": date}} for key, file, date in (A, C, D)]
    jobs[-1]["after"] = ["c"]
    chain = tmp_path / "chain.yaml"
    chain.write_text(json.dumps({"jobs": jobs}))
    for _ in range(2):
        ended = await m2async(*night.arguments(chain, "--amend"), url=night.url)
        [held] = [line for line in ended.lines if line["key"] == "d"]
        assert (ended.code, held["state"]) == (1, "skipped")
        assert "c (is sent no more by this run) -> d" in str(held)
    assert await night.started() == Counter([A[1:], C[1:]])


async def test_a_rehearsal_of_the_same_manifest_does_not_count_for_a_real_run(night: Night) -> None:
    for options, starts in (([], ALL), (["--amend"], (D,))):
        rows = (*ALL, *starts) if starts == (D,) else ALL
        before = await night.started()
        rehearsed = await night.submit(rows, "--local", *options)
        assert (rehearsed.code, await night.started()) == (0, before)
        assert (await night.submit(rows, *options)).code == 0
        assert await night.started() - before == Counter(row[1:] for row in starts)
        for other in (["--local"], []):
            assert "nothing was started: " in (await night.submit(rows, *other)).err
        assert await night.started() - before == Counter(row[1:] for row in starts)


Z = ("z", "POSTTRAN.jcl", "26")
OWN = "once the run has finished, --again starts all rows anew; --run ANOTHER starts them in a run of their own"
OTHER_FILE = {
    "half": Way((A, B, D), [], 2, [], OWN),
    "few": Way((A, D, E), [], 2, [], "not started: "),
    "few, anew": Way((A, D, E), ["--again"], 2, [], "has not finished: it is gone on with"),
    "few, amended": Way((A, D, E), ["--amend"], 0, (D, E), "takes over the rows of other.csv:"),
    "few, in another run": Way((A, D, E), ["--run", "x"], 0, (A, D, E), "starts 1 row of run nightly-"),
    "most": Way((A, B, C, D), [], 0, (B, C, D), "takes over the rows of other.csv:"),
}


@pytest.mark.parametrize("way", OTHER_FILE.values(), ids=OTHER_FILE)
async def test_another_file_takes_over_by_itself_only_a_run_of_which_it_has_most_rows(night: Night, way: Way) -> None:
    await night.left((A, B, C, Z), signal.SIGKILL, started=1)
    await given_again(night, way._replace(name="other.csv"))
    if way.code == 2:
        await given_again(night, Way((A, D, E), [], 0, (D, E), "takes over the rows of nightly.csv:"))


@pytest.mark.parametrize("rows", [(A,), (A, B)], ids=["the same", "others"])
@pytest.mark.parametrize("options", [[], ["--amend"]])
async def test_a_run_without_a_manifest_takes_none_over(night: Night, rows: Sequence[Row], options: list[str]) -> None:
    async with open_ledger(night.ledger) as ledger, await ledger.open_run("default") as run:
        await run.add("a", StartBatchJob(APPLICATION, FileJob("POSTTRAN.jcl"), {"RUNDATE": "1"}))
    ended = await night.submit(rows, "--run", "default", *options)
    assert (ended.code, ended.out) == (2, "")
    assert "run default has no manifest, and takes over none" in ended.err
    assert "nothing was sent: give --run ANOTHER" in ended.err
    assert not await night.started()
    async with open_ledger(night.ledger) as ledger:
        assert [(summary.info.name, summary.info.planned) for summary in await ledger.runs()] == [("default", False)]


async def test_standard_input_amends_no_run_that_it_has_no_row_of(night: Night) -> None:
    def given(*rows: Row) -> bytes:
        return night.write(rows).read_bytes()

    arguments = [each if isinstance(each, str) else "-" for each in night.arguments(Path("-"))]
    arguments[arguments.index("--ledger") + 1] = str(night.ledger)
    assert (await m2async(*arguments, url=night.url, stdin=given(A, B))).code == 0
    ended = await m2async(*arguments, "--amend", url=night.url, stdin=given(D, E))
    assert (ended.code, ended.out) == (2, "")
    assert "--amend: no run in the ledger has rows of stdin; nothing was sent" in ended.err
    assert await night.started() == Counter([A[1:], B[1:]])
    assert (await m2async(*arguments, "--amend", url=night.url, stdin=given(A, B, D))).code == 0
    assert await night.started() == Counter([A[1:], B[1:], D[1:]])


async def test_a_later_run_of_the_same_rows_in_another_order_is_gone_on_with(night: Night) -> None:
    assert (await night.submit(ALL)).code == 0
    await night.left((C, B, A), signal.SIGKILL, "--again")
    ended = await night.submit(ALL)
    assert (ended.code, "1 of 1 jobs started" in ended.err) == (0, True)
    for _ in range(2):
        assert "nothing was started" in (await night.submit(ALL)).err
        assert await night.started() == Counter({row[1:]: 2 for row in ALL})


async def test_a_later_run_of_some_of_its_rows_does_not_stand_for_the_run_of_the_same_manifest(night: Night) -> None:
    assert (await night.submit(ALL)).code == 0
    others = Night(night.folder, night.url, keys=night.keys)
    await others.left((A, B, D), signal.SIGKILL, "--run", "other", started=1)
    before = await night.started()
    ended = await night.submit(ALL)
    assert (ended.code, NOTHING in ended.err, await night.started()) == (0, True, before)


@pytest.mark.parametrize("rule", ["e=4", "9=4"])
async def test_a_rule_of_a_row_that_is_not_there_amends_nothing(night: Night, rule: str) -> None:
    await night.left(ALL, signal.SIGKILL)
    for rows, options in (((*ALL, D), ["--amend"]), ((*ALL, D), []), (ALL, [])):
        ended = await night.submit(rows, *options, "--max-rc", "0", "--max-rc", rule)
        assert (ended.code, ended.out) == (2, "")
        assert f"--max-rc {rule[0]}=…: the manifest has no row with this key" in ended.err
    async with open_ledger(night.ledger) as ledger:
        [summary] = await ledger.runs()
        assert (summary.info.rows, summary.counts[RowState.PENDING]) == (3, 1)
        view = await ledger.run(summary.info.name)
        assert [each.max_rc for each in await view.executions(1, 3)] == [None, None]


async def rules(night: Night) -> dict[str, int | None]:
    """The rules of the only run's rows, by what they start."""
    async with open_ledger(night.ledger) as ledger:
        view = await ledger.run((await ledger.runs())[0].info.name)
        return {row.request.params["RUNDATE"]: None if each is None else each.max_rc async for row, each in view.jobs()}


async def test_a_rule_by_number_is_of_the_manifests_row_whatever_its_number_in_the_run(
    tmp_path: Path, endpoint: LocalEndpoint
) -> None:
    night = Night(tmp_path, endpoint.url, keys=False)
    assert (await night.submit(ALL, "--max-rc", "1=1")).code == 0
    assert (await night.submit((D, *ALL), "--amend", "--max-rc", "1=4", "--max-rc", "4=3")).code == 0
    assert await rules(night) == {"1": 1, "2": None, "3": 3, "4": 4}
    for options in ([], ["--amend"]):  # the very same manifest, and one in another order
        given = await night.submit((D, *ALL), *options, "--max-rc", "1=5")
        assert (given.code, "nothing was started" in given.err) == (0, True)
    assert (await night.submit((C, D, A, B), "--max-rc", "3=2", "--max-rc", "1=6")).code == 0
    assert await rules(night) == {"1": 2, "2": None, "3": 6, "4": 5}


async def test_a_row_that_is_left_to_another_run_has_no_rule(night: Night) -> None:
    assert (await night.submit([C], name="other.csv")).code == 0
    assert (await night.submit((A, B))).code == 0
    rule = "c=4" if night.keys else "3=4"
    ended = await night.submit(ALL, "--amend", "--max-rc", rule, "--max-rc", "a=2" if night.keys else "1=2")
    assert f"--max-rc {rule}: the row is left to another run, and so is its result" in ended.err
    assert await night.started() == Counter(row[1:] for row in ALL)


async def test_of_amend_and_again_one_is_given(night: Night) -> None:
    ended = await night.submit(ALL, "--amend", "--again")
    assert (ended.code, "give --amend or --again, not both" in ended.err) == (2, True)
    assert not night.ledger.exists()


async def given_again(night: Night, way: Way) -> None:
    """Give a manifest again in some way, and then, where it was taken, once more: that starts nothing."""
    code, starts, said = way.unkeyed if way.unkeyed is not None and not night.keys else way[2:5]
    before = await night.started()
    ended = await night.submit(way.rows, *way.options, name=way.name, end=way.end)
    assert (ended.code, said in ended.err) == (code, True), ended
    started = await night.started() - before
    assert started == Counter(row[1:] for row in starts)
    if code == 2:
        assert ended.out == ""
        assert "nothing was sent" in ended.err or "not both" in ended.err
        return
    assert len(ended.lines) >= len(way.rows)
    named = way.options[way.options.index("--run") :][:2] if "--run" in way.options else []
    for end in ("\n", "\r\n"):
        once_more = await night.submit(way.rows, *named, name=way.name, end=end)
        assert (once_more.code, await night.started()) == (code, before + started), once_more
