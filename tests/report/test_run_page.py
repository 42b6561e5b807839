"""The report of a run, in a browser."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import expect

from m2async.cli.hints import command
from m2async.ledger import open_ledger
from m2async.report import run_page
from tests.browser import Watched, chromium, processor_time, tab
from tests.report.nights import Written, real_night

page_of = partial(run_page, command=partial(command, ledger=None))
ROWS = 20_000
HOSTILE = "<script>window.hit=1</script>\"'><img src=x onerror=window.hit=1></script>\u202egpj.exe\u200f"


def written_page(folder: Path, rows: int, written: Written | None = None, **options: Any) -> Path:
    """Write a run of so many rows to a ledger, and its report to a file."""

    async def write() -> str:
        night = written or Written()
        async with open_ledger(folder / "ledger.db", clock=night.clock) as ledger:
            async with await ledger.open_run("night") as run:
                await night.plan(run, rows)
                await night.go(run, 1, rows)
            return await page_of(await ledger.run("night"), **options)

    path = folder / "report.html"
    path.write_bytes(asyncio.run(write()).encode())
    return path


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written_page(tmp_path_factory.mktemp("large"), ROWS)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written_page(tmp_path_factory.mktemp("small"), 300)


async def shown(page: Watched, path: Path, fragment: str = "") -> None:
    """Open a report and wait for its table."""
    await page.goto(f"{path.as_uri()}{fragment}")
    await page.wait_for_selector("#table:not([hidden])")


async def cells(page: Watched, column: int) -> list[str]:
    texts: list[str] = await page.locator(f"#rows tbody tr > :nth-child({column})").all_inner_texts()
    return texts


# What a reader sees


@pytest.mark.parametrize("dark", [False, True])
async def test_a_real_night_is_summed_up_and_drawn_and_nothing_leaves_the_page(tmp_path: Path, dark: bool) -> None:
    async with open_ledger(tmp_path / "ledger.db") as ledger:
        view = await real_night(tmp_path, ledger)
        counts = await view.counts()
        path = tmp_path / "report.html"
        path.write_text(await page_of(view))
    unknown = next(count for state, count in counts.items() if state.label == "unknown")
    async with chromium() as browser, tab(browser, dark=dark) as page:
        await shown(page, path)
        assert f"it is not known whether {unknown} jobs started" in await page.inner_text(".verdict h2")
        drawn = await page.evaluate(
            """() => [...document.querySelectorAll(".drawing .wide svg")].map(svg =>
                [...svg.querySelectorAll("path")].map(path => path.getBBox())
                    .filter(box => box.width > 50 && box.height > 5).length)"""
        )
        assert len(drawn) == 2
        assert all(marks >= 2 for marks in drawn)
        [colour] = await page.evaluate(
            """() => [getComputedStyle(document.querySelector('.drawing path[stroke="var(--started)"]')).stroke]"""
        )
        assert colour == ("rgb(111, 177, 245)" if dark else "rgb(23, 102, 179)")
        alternatives = await page.locator(".drawing[role=img]").evaluate_all("all => all.map(one => one.ariaLabel)")
        assert all(re.search(r"\d", text) for text in alternatives)
        await page.click("summary >> nth=0")
        assert await page.locator("details[open] tbody tr").count() >= 1
        await page.click(f".verdict a:has-text('{unknown} jobs unknown')")
        await expect(page.locator("#rows tbody tr")).to_have_count(unknown)
        assert set(await cells(page, 4)) == {"? unknown"}
        await page.click("button.open")
        assert "not known whether it started the job; InternalServerException" in await page.inner_text("#details ol")
        page.was_quiet()


async def test_headings_landmarks_and_labels_are_in_order(small: Path) -> None:
    async with chromium() as browser, tab(browser) as page:
        await shown(page, small)
        found = await page.evaluate(
            """() => ({
                levels: [...document.querySelectorAll("h1, h2, h3")].map(one => Number(one.tagName[1])),
                main: document.querySelectorAll("main").length, lang: document.documentElement.lang,
                unlabelled: [...document.querySelectorAll("input, select")].filter(one => !one.labels.length).length,
                nameless: [...document.querySelectorAll("button, a")].filter(one => !one.innerText.trim()).length,
                uncaptioned: [...document.querySelectorAll("table")].filter(one => !one.caption).length,
                unscoped: [...document.querySelectorAll("th")].filter(one => !one.scope && one.innerText.trim()).length,
                ids: [...document.querySelectorAll("[id]")].map(one => one.id),
                dangling: [...document.querySelectorAll("[aria-labelledby]")]
                    .filter(one => !document.getElementById(one.getAttribute("aria-labelledby"))).length,
            })"""
        )
        assert found["levels"][0] == 1
        assert all(after - before <= 1 for before, after in zip(found["levels"], found["levels"][1:], strict=False))
        assert (found["main"], found["lang"]) == (1, "en")
        assert len(found["ids"]) == len(set(found["ids"]))
        assert [found[name] for name in ("unlabelled", "nameless", "uncaptioned", "unscoped", "dangling")] == [0] * 5
        page.was_quiet()


async def test_the_button_turns_the_theme(small: Path) -> None:
    async with chromium() as browser, tab(browser) as page:
        await shown(page, small)
        ground = "getComputedStyle(document.body).backgroundColor"
        light = await page.evaluate(ground)
        await page.click("#theme")
        assert await page.evaluate(ground) != light
        assert await page.inner_text("#theme") == "Light theme"


@pytest.mark.parametrize("dark", [False, True])
async def test_a_phone_has_no_sideways_scroll_and_text_that_can_be_read(tmp_path: Path, dark: bool) -> None:
    path = await asyncio.to_thread(
        written_page, tmp_path, 300, Written(keys=f"{'key' * 160}-{{}}".format, message=HOSTILE)
    )
    async with chromium() as browser, tab(browser, width=360, height=740, dark=dark) as page:
        await shown(page, path)
        assert await page.evaluate("document.documentElement.scrollWidth") == 360
        sizes = await page.evaluate(
            """() => [...document.querySelectorAll(".drawing text")].filter(one => one.getBoundingClientRect().width)
                .map(one => parseFloat(getComputedStyle(one).fontSize) * one.getScreenCTM().a)"""
        )
        assert len(sizes) > 5
        assert min(sizes) >= 11.5  # pixels on the screen
        await page.click("button.open >> nth=0")
        assert await page.evaluate("document.documentElement.scrollWidth") == 360
        page.was_quiet()


async def test_paper_gets_the_rows_that_are_found_and_no_controls(large: Path) -> None:
    async with chromium() as browser, tab(browser, dark=True) as page:
        await shown(page, large)
        await page.emulate_media(media="print")
        await page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert await page.locator("#rows tbody tr").count() == 500
        assert await page.inner_text("#printed") == "500 of 20,000 jobs are printed. The page itself has them all."
        assert await page.is_visible("#printed")
        assert await page.locator(".control:visible").count() == 0
        assert await page.evaluate("getComputedStyle(document.body).colorScheme") == "light"
        await page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert await page.locator("#rows tbody tr").count() == 50
        assert (await page.pdf())[:5] == b"%PDF-"
        page.was_quiet()


# The table


async def test_twenty_thousand_rows_are_filtered_sorted_and_turned_by_mouse(large: Path) -> None:
    async with chromium() as browser, tab(browser) as page:
        await shown(page, large)
        assert await processor_time(page) < 2
        assert await page.inner_text("#count") == "Jobs 1 to 50 of 20,000"
        await page.click("#next")
        assert (await cells(page, 1))[0] == "51"
        for _ in range(2):  # the second time from where it leads to
            await page.evaluate("scrollTo(0, 0)")
            await page.click(".verdict a:has-text('rejected')")
            await expect(page.locator("#jobs-title")).to_be_in_viewport()
            await expect(page.locator("#count")).to_have_text("Jobs 1 to 16 of 16 (of 20,000)")
        await page.select_option("#state", "")
        await page.select_option("#result", "failed")
        assert await page.inner_text("#count") == "Jobs 1 to 50 of 80 (of 20,000)"
        await page.select_option("#result", "")
        await page.fill("#text", "branch/01999")
        assert await page.inner_text("#count") == "Jobs 1 to 10 of 10 (of 20,000)"
        await page.click("#clear")
        await page.click("th[data-column=took] button")
        await page.click("th[data-column=took] button")
        longest = await page.evaluate("document.querySelector('[aria-sort=descending]').dataset.column")
        assert longest == "took"
        linked = await page.locator("section[aria-labelledby=longest] tbody th").all_inner_texts()
        assert [text.strip() for text in await cells(page, 2)][:20] == linked
        await page.select_option("#size", "250")
        assert await page.locator("#rows tbody tr").count() == 250
        page.was_quiet()


async def test_a_link_followed_right_after_the_page_was_turned_is_not_lost(small: Path) -> None:
    """What the page has put off comes when the link's address is there and the page was not told of it yet."""
    timers_are_held = """{ const held = new Map(); let last = 0;
        window.setTimeout = call => { held.set(++last, call); return last; };
        window.clearTimeout = timer => held.delete(timer);
        window.timeIsUp = () => { for (const call of held.values()) call(); held.clear(); }; }"""
    async with chromium() as browser, tab(browser) as page:
        await page.add_init_script(timers_are_held)
        await shown(page, small)
        await page.click("#next")
        await page.evaluate("document.querySelector('.verdict a').click(), timeIsUp()")
        await expect(page.locator("#rows tbody tr")).to_have_count(1)
        assert await page.evaluate("location.hash") == "#result=failed"


async def test_filtering_twenty_thousand_rows_takes_less_than_a_25th_of_a_second(large: Path) -> None:
    """In time of a processor, as the machine is shared; the first search also prepares the texts."""
    typed = """text => { const field = document.getElementById("text"); field.value = text;
        field.dispatchEvent(new Event("input")); }"""
    async with chromium() as browser, tab(browser) as page:
        await shown(page, large)
        times = []
        for text in ("b", "branch/01", "validation", "no such text", "branch"):
            await page.evaluate(typed, text)
            times.append(await processor_time(page))
        assert min(end - begin for begin, end in pairwise(times)) < 0.04


async def test_the_keyboard_sorts_filters_opens_and_turns(small: Path) -> None:
    async with chromium() as browser, tab(browser) as page:
        await shown(page, small)
        await page.focus("#text")
        await page.keyboard.type("/00029")
        assert await page.inner_text("#count") == "Jobs 1 to 10 of 10 (of 300)"
        await page.focus("th[data-column=key] button")
        for way in ("ascending", "descending"):
            await page.keyboard.press("Enter")
            assert await page.get_attribute("th[data-column=key]", "aria-sort") == way
            assert await page.evaluate("document.activeElement.closest('th').dataset.column") == "key"
        assert (await cells(page, 1))[0] == "299"
        await page.focus("button.open >> nth=1")
        await page.keyboard.press("Space")
        assert await page.evaluate("document.activeElement.getAttribute('aria-expanded')") == "true"
        assert "2026-11-23/BRANCH/000298" in await page.inner_text("#details")
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.textContent") == "Link to this job"
        await page.focus("#clear")
        await page.keyboard.press("Enter")
        await page.focus("#next")
        for _ in range(5):
            await page.keyboard.press("Enter")
        assert await page.inner_text("#place") == "Page 6 of 6"
        assert await page.evaluate("document.activeElement.id") == "previous"
        page.was_quiet()


async def test_what_is_asked_stands_in_the_address_and_comes_back_from_it(small: Path) -> None:
    async with chromium() as browser, tab(browser) as page:
        await shown(page, small)
        await page.fill("#text", "a+b & c=d")
        await page.select_option("#state", "started")
        await page.click("th[data-column=sent] button")
        await page.wait_for_url(re.compile("sort=sent"))
        address = await page.evaluate("location.href")
        await page.goto("about:blank")
        await page.goto(address)
        await page.wait_for_selector("#table:not([hidden])")
        assert await page.input_value("#text") == "a+b & c=d"
        assert await page.input_value("#state") == "started"
        assert await page.get_attribute("th[data-column=sent]", "aria-sort") == "ascending"


async def test_each_job_has_a_link_that_leads_to_it(tmp_path: Path) -> None:
    names = ["a&b=c+d #{}%2F/é?", "מפתח {}", "<b>{}</b>", "{}\N{HORIZONTAL ELLIPSIS}", "__proto__{}"]
    night = Written(keys=lambda number: names[number % 5].replace("{}", str(number)))
    path = await asyncio.to_thread(written_page, tmp_path, 120, night)
    async with chromium() as browser, tab(browser) as page:
        await shown(page, path)
        links = []
        for number in range(75, 80):
            await page.fill("#text", night.keys(number))
            await page.click("button.open")
            links.append(await page.get_attribute("#details a", "href"))
        await page.goto("about:blank")
        await shown(page, path, links[0])
        for number, link in zip(range(75, 80), links, strict=True):
            await page.evaluate("link => { location.hash = link; }", link)
            await page.wait_for_selector(f"#details bdi:text-is({json.dumps(str(number))})")
            assert await page.inner_text("#details dd >> nth=0") == night.keys(number)
            assert await page.inner_text("#place") == "Page 2 of 3"
            assert await page.inner_text("button.open[aria-expanded=true]") == night.keys(number)
            assert await page.evaluate("document.activeElement.getAttribute('aria-expanded')") == "true"
        await page.evaluate("() => { location.hash = '#state=rejected&row=5'; }")  # which is not: so all are shown
        await page.wait_for_selector('#details bdi:text-is("5")')
        assert await page.inner_text("#count") == "Jobs 1 to 50 of 120"
        page.was_quiet()


async def test_hostile_texts_are_shown_and_do_nothing(tmp_path: Path) -> None:
    keys: list[str] = ["<script>window.hit=1</script>", "\"'><img src=x onerror=window.hit=1>", "</script><b>", "=1+1"]
    scripts: Callable[[int], str] = lambda number: "<script>window.hit=1</script>" if number % 2 else "x" * 10_000  # noqa: E731
    night = Written(keys=lambda number: f"{keys[number % 4]}{number}", message=HOSTILE + "y" * 9_000)

    async def write() -> str:
        async with open_ledger(tmp_path / "ledger.db", clock=night.clock) as ledger:
            async with await ledger.open_run("<script>window.hit=1</script>\u202e'; rm") as run:
                await night.plan(run, 1_000, scripts)
                await night.go(run, 1, 1_000, status="<img src=x onerror=window.hit=1>")
            return await page_of(await ledger.run("<script>window.hit=1</script>\u202e'; rm"))

    path = tmp_path / "report.html"
    path.write_text(await write())
    async with chromium() as browser, tab(browser) as page:
        await shown(page, path, "#state=rejected")
        assert "\\u202e" in await page.inner_text("h1")
        await page.click("button.open")
        facts = await page.inner_text("#details")
        assert HOSTILE[:60] in facts
        assert "\\u202egpj.exe\\u200f" in facts
        assert "y" * 9_000 in facts
        await page.click("#clear")
        assert len(max(await cells(page, 3), key=len)) == 41  # 40 characters and an ellipsis
        assert await page.evaluate("[window.hit, document.images.length]") == [None, 0]
        assert await page.locator("#rows th bdi").count() == 50
        page.was_quiet()


def saved_rows(path: str) -> list[dict[str, str]]:
    """A saved file, as a spreadsheet reads it."""
    return list(csv.DictReader(io.StringIO(Path(path).read_text(encoding="utf-8-sig"), newline="")))


async def test_the_rows_that_are_found_can_be_saved_and_hold_no_formulas(tmp_path: Path) -> None:
    path = await asyncio.to_thread(
        written_page,
        tmp_path,
        300,
        Written(keys=lambda number: f'=HYPERLINK("x")&{number}' if number % 2 else f"-{number}"),
    )
    async with chromium() as browser, tab(browser, accept_downloads=True) as page:
        await shown(page, path)
        await page.select_option("#result", "failed")
        async with page.expect_download() as download:
            await page.click("#csv")
        saved = await download.value
        assert saved.suggested_filename == "night.csv"
        [row] = saved_rows(await saved.path())
        assert (row["key"], row["status"], row["return_code"], row["state"]) == ("'-200", "Failed", "12", "started")
        await page.click("#clear")
        async with page.expect_download() as download:
            await page.click("#csv")
        saved = await download.value
        rows = saved_rows(await saved.path())
        assert len(rows) == 300
        assert rows[0]["key"] == '\'=HYPERLINK("x")&1'
        page.was_quiet()


# Other runs


async def test_a_run_that_is_not_finished_says_so(tmp_path: Path) -> None:
    night = Written()
    pages = {}
    async with open_ledger(tmp_path / "ledger.db", clock=night.clock) as ledger:
        async with await ledger.open_run("empty") as run:
            await run.plan([])
        async with await ledger.open_run("night") as run:
            pages["checking"] = await page_of(await ledger.run("night"))
            await night.plan(run, 100)
            await night.go(run, 1, 40)
            await run.set_paused(True)
            pages["progress"] = await page_of(await ledger.run("night"))
            await run.stop()
            pages["stopping"] = await page_of(await ledger.run("night"))
        pages["stopped"] = await page_of(await ledger.run("night"))
        pages["empty"] = await page_of(await ledger.run("empty"))
    says = {
        "checking": "In progress: its manifest is being checked",
        "stopping": "In progress: 40 of 100 jobs started",
        "progress": "In progress: 40 of 100 jobs started",
        "stopped": "Not finished: 60 of 100 jobs not started",
        "empty": "This run has no jobs",
    }
    async with chromium() as browser:
        for name, content in pages.items():
            path = tmp_path / f"{name}.html"
            path.write_text(content)
            async with tab(browser) as page:
                await page.goto(path.as_uri())
                assert await page.inner_text(".verdict h2") == says[name]
                assert ("It was told to stop" in await page.inner_text(".verdict")) == (name == "stopping")
                assert ("It is paused." in await page.inner_text(".verdict")) == (name == "progress")
                assert ("m2async resume night" in await page.inner_text(".verdict")) == (name == "stopped")
                page.was_quiet()


async def test_of_a_run_that_is_too_large_for_a_page_it_says_what_is_left_out(tmp_path: Path) -> None:
    path = await asyncio.to_thread(written_page, tmp_path, 3_000, most_rows=1_000)
    async with chromium() as browser, tab(browser) as page:
        await shown(page, path, "#state=unknown")
        lead = await page.inner_text("#jobs > .lead")
        assert "The run has 3,000 jobs, and this page carries 912 of them" in lead
        assert "m2async export night" in lead
        assert [text.strip() for text in await cells(page, 2)] == ["2026-11-23/BRANCH/002500"]
        assert await page.inner_text(".tile >> nth=0") == "Jobs\n3,000"
        page.was_quiet()


def test_the_file_of_ten_thousand_jobs_is_less_than_two_megabytes(tmp_path: Path) -> None:
    path = written_page(tmp_path, 10_000, Written(keys=f"{'region=eu-central-1/branch=1/' * 17}{{}}".format))
    assert path.stat().st_size < 2_000_000
