"""`m2async report`: a file, or a clear word on why there is none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from m2async import LocalEndpoint
from m2async.cli.report import file_name
from m2async.ledger import open_ledger
from tests.browser import chromium, tab
from tests.cli.terminal import m2async, on_terminal, plain
from tests.cli.test_ledger import Book, manifest
from tests.ledger.samples import files_in
from tests.report.nights import Written

MAY_BE_READ = 0o644


@pytest.fixture
async def book(tmp_path: Path, endpoint: LocalEndpoint, monkeypatch: pytest.MonkeyPatch) -> Book:
    monkeypatch.chdir(tmp_path)
    book = Book(tmp_path, endpoint.url)
    assert (await book.submit(manifest(tmp_path, 30))).code == 0
    return book


async def test_the_report_of_a_run_is_a_file_of_its_name_that_a_browser_shows(book: Book, tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        told = await book("report", "night")
    finally:
        os.umask(old)
    assert (told.code, told.out) == (0, "")
    assert "night.html: the report of run night, 0.1 MB" in told.err
    path = tmp_path / "night.html"
    assert path.stat().st_mode & 0o777 == MAY_BE_READ
    assert not {name for name in files_in(tmp_path) if name.startswith(".")}
    async with chromium() as browser, tab(browser) as page:
        await page.goto(path.as_uri())
        assert await page.inner_text(".verdict h2") == "All 30 jobs were started"
        await page.fill("#text", "row-7")
        assert await page.locator("#rows tbody tr").count() == 1
        page.was_quiet()


async def test_it_goes_where_it_is_told(book: Book, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    assert (await book("report", "night", "-o", "there/page.html")).code == 0
    there = (tmp_path / "there" / "page.html").read_text()
    printed = await book("report", "night", "-o", "-")
    assert printed.code == 0
    assert printed.out.startswith("<!doctype html>")
    assert printed.out.rstrip().endswith("</html>")
    assert there.startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dawn"], "has no run 'dawn'"),
        (["night", "-o", "no/such/page.html"], "there is no folder no/such"),
        (["night", "-o", "."], "is a folder"),
        (["night", "-o", "/proc/page.html"], "/proc/page.html cannot be written: "),
    ],
)
async def test_where_no_report_can_be_written_it_says_why(book: Book, arguments: list[str], message: str) -> None:
    told = await book("report", *arguments)
    assert (told.code, told.out) == (2, "")
    assert message in told.err


async def test_a_report_that_cannot_be_written_leaves_the_one_that_was_there(book: Book, tmp_path: Path) -> None:
    (tmp_path / "night.html").write_text("yesterday")
    assert (await book("report", "dawn", "-o", "night.html")).code == 2
    assert (tmp_path / "night.html").read_text() == "yesterday"
    assert (await book("report", "night")).code == 0
    assert (tmp_path / "night.html").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("run", "name"),
    [
        ("nightly-1a2b", "nightly-1a2b.html"), ("../../etc/passwd", "_.._etc_passwd.html"), ("", "run.html"),
        ("-rf", "rf.html"), (".hidden", "hidden.html"), ("a b\x00c", "a_b_c.html"), ("ü" * 300, "ü" * 120 + ".html"),
    ],
)  # fmt: skip
def test_a_file_name_is_one_that_every_file_system_takes(run: str, name: str) -> None:
    assert file_name(run) == name
    assert len(name.encode()) <= 255


async def test_a_terminal_sees_how_far_it_is(tmp_path: Path) -> None:
    written = Written()
    async with (
        open_ledger(tmp_path / "ledger.db", clock=written.clock) as ledger,
        await ledger.open_run("night") as run,
    ):
        await written.plan(run, 200_000)
    report = tmp_path / "page.html"
    code, shown = await on_terminal("report", "night", "--ledger", tmp_path / "ledger.db", "-o", report)
    assert code == 0
    assert "jobs read" in plain(shown)
    assert report.stat().st_size > 100_000
    piped = await m2async("report", "night", "--ledger", tmp_path / "ledger.db", "-o", report)
    assert "jobs read" not in piped.err
