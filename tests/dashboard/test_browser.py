"""The dashboard in a real browser: a run that another process submits, and pages of other origins that want in."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import anyio
from aiohttp import web
from anyio.abc import Process

from m2async import LocalEndpoint
from m2async.ledger import open_ledger
from tests.browser import Watched, chromium, tab
from tests.cli.terminal import APPLICATION, running, written
from tests.dashboard.test_server import add_run, job

RUN = '<script>alert(1)</script> "x" \u202e/../?#'
KEY = "<img src=x onerror=alert(2)>{}"


@asynccontextmanager
async def dashboard(ledger: Path, url: str | None = None) -> AsyncIterator[tuple[Process, str]]:
    """`m2async dashboard`, and the URL that it prints."""
    async with running("dashboard", "--ledger", ledger, url=url) as process:
        assert process.stdout is not None
        address = (await process.stdout.receive()).decode().splitlines()[0]
        yield process, address
        if process.returncode is None:
            process.kill()


async def said(process: Process) -> str:
    """The rest of what a process writes on stderr."""
    return (await written(process.stderr)).decode()


async def started(endpoint: LocalEndpoint) -> list[dict[str, Any]]:
    async with aiohttp.ClientSession() as session, session.get(f"{endpoint.url}/_local/executions") as answer:
        listed: list[dict[str, Any]] = (await answer.json())["executions"]
        return listed


async def text_of(page: Watched, name: str) -> str:
    text: str = await page.locator(f'[data-live="{name}"]').inner_text()
    return text


async def shows(page: Watched, name: str, what: str) -> None:
    """Wait until a part of the page has this text in it."""
    await page.locator(f'[data-live="{name}"]', has_text=what).wait_for(state="attached")


async def until(condition: Callable[[int], bool], endpoint: LocalEndpoint) -> int:
    """Wait until the endpoint has started as many executions as that."""
    while not condition(count := len(await started(endpoint))):
        await anyio.sleep(0.02)
    return count


async def ticks(page: Watched) -> None:
    """Wait until the page has shown two further times of the run."""
    for _ in range(2):
        before = await text_of(page, "standing")
        await page.wait_for_function(
            "before => document.querySelector('[data-live=standing]').innerText !== before", arg=before
        )


def manifest(folder: Path, rows: int) -> Path:
    path = folder / "jobs.jsonl"
    jobs = [{"key": KEY.format(n), "application_id": APPLICATION, "script": "LONG"} for n in range(rows)]
    path.write_text("".join(f"{json.dumps(job)}\n" for job in jobs))
    return path


async def test_a_run_is_followed_paced_paused_continued_and_cancelled_from_the_page(
    tmp_path: Path, endpoint: LocalEndpoint
) -> None:
    ledger = tmp_path / "ledger.db"
    submit = (
        "submit",
        manifest(tmp_path, 300),
        "--run",
        RUN,
        "--ledger",
        ledger,
        "--rate",
        "0.01",
        "--output",
        "jsonl",
    )
    async with (
        running(*submit, url=endpoint.url) as submission,
        dashboard(ledger, endpoint.url) as (server, url),
        chromium() as browser,
        tab(browser) as page,
    ):
        await until(lambda count: count >= 1, endpoint)
        await page.goto(url)
        assert "token" not in page.url
        assert await page.title() == "Runs · m2async"
        await page.get_by_role("link", name="<script>").click()
        await shows(page, "headline", "In progress")
        await shows(page, "rate_finding", "Starts and throttles a second")
        await page.locator('[data-live="rate_drawing"] .wide svg').wait_for()

        # Another rate: at the old one each start would take minutes.
        await page.get_by_label("Calls a second").fill("6")
        await page.get_by_label("Burst").fill("2")
        await page.get_by_role("button", name="Set rate").click()
        await shows(page, "orders", "told 6 calls a second, bursts of 2")
        now = len(await started(endpoint))
        # in which the old rate would start 8
        await until(lambda count: count >= now + 10, endpoint)

        # Paused: the submission says so once it is, and starts nothing more.
        await page.get_by_role("button", name="Pause").click()
        await shows(page, "headline", "Paused")
        async with open_ledger(ledger) as opened:
            assert (await (await opened.run(RUN)).orders()).paused
        await ticks(page)
        paused = len(await started(endpoint))
        await ticks(page)
        assert len(await started(endpoint)) == paused
        assert f"{paused} started" in await text_of(page, "standing")
        await page.get_by_role("button", name="Go on").click()
        await shows(page, "headline", "In progress")
        await until(lambda count: count >= paused + 2, endpoint)

        # Cancelled, by keyboard; the dialog's first choice changes nothing.
        await page.get_by_role("button", name="Cancel executions…").focus()
        await page.keyboard.press("Enter")
        dialog = page.get_by_role("dialog")
        assert "nothing more is sent" in await dialog.inner_text()
        await page.keyboard.press("Enter")
        await dialog.wait_for(state="hidden")
        assert await page.evaluate("document.activeElement.textContent") == "Cancel executions…"
        await page.keyboard.press("Enter")
        await page.keyboard.press("Tab")
        await page.keyboard.press("Enter")
        await shows(page, "done", "Cancelling has ended")
        executions = await started(endpoint)
        assert {each["status"] for each in executions} == {"Cancelled"}
        assert len(executions) < 300
        await shows(page, "headline", "Stopped")
        await shows(page, "executions", "Cancelled")
        await shows(page, "troubles", KEY.format(""))
        await shows(page, "orders", "not in progress")
        assert await page.get_by_role("button", name="Go on").is_enabled()  # as it was stopped, which holds
        assert await page.get_by_role("button", name="Set rate").is_disabled()
        page.was_quiet()

        told = await said(submission)
        assert await submission.wait() != 0
        assert [line for line in told.splitlines() if line.startswith("m2async: ")][:3] == [
            "m2async: 6 calls a second, bursts of 2, from now on",
            "m2async: paused: nothing more is sent for now",
            "m2async: goes on",
        ]
        server.send_signal(signal.SIGINT)
        log = await said(server)
        assert await server.wait() == 130
        for what in ("rate set to 6 calls a second", "paused", "going on", "cancelling begins"):
            assert f": {what}" in log
        assert "Traceback" not in log
        assert "\u202e" not in log
        assert len({each["executionId"] for each in executions}) == len(await started(endpoint))


async def test_a_page_that_loses_its_server_says_so_and_finds_it_again_no_more(tmp_path: Path) -> None:
    async with open_ledger(tmp_path / "ledger.db") as ledger:
        await add_run(ledger, "night")
    async with dashboard(tmp_path / "ledger.db") as (server, url), chromium() as browser, tab(browser) as page:
        await page.goto(url)
        await page.locator("#connection", has_text="live").wait_for()
        server.send_signal(signal.SIGTERM)
        assert await server.wait() == 143
        await page.locator("#connection", has_text="connection lost").wait_for()


async def test_a_stream_that_breaks_is_taken_up_again(tmp_path: Path) -> None:
    """As after a laptop's sleep: the browser connects again by itself, and the page goes on."""
    async with open_ledger(tmp_path / "ledger.db") as ledger:
        await add_run(ledger, "night")
        async with dashboard(tmp_path / "ledger.db") as (_, url), chromium() as browser, tab(browser) as page:
            await page.goto(url)
            await shows(page, "runs", "night")
            await page.context.set_offline(True)
            await page.evaluate("dispatchEvent(new Event('pagehide'))")
            await page.evaluate("dispatchEvent(new Event('pageshow'))")
            await page.locator("#connection", has_text="connection lost; trying again").wait_for()
            await add_run(ledger, "day")
            await page.context.set_offline(False)
            await shows(page, "runs", "day")
            await page.locator("#connection", has_text="live").wait_for()


# Pages of other origins

EVIL = """<!doctype html><title>evil</title><iframe id="frame" name="target"></iframe><script>
const frame = document.getElementById("frame");
async function attack(folder, run) {
  const read = [], own = folder + "run?name=" + run, act = (what) => folder + "run/" + what + "?name=" + run;
  const json = {"Content-Type": "application/json"}, body = '{"rate": 1, "burst": 1}';
  const noted = async (promise) => { try { read.push(await promise); } catch {} };
  for (const what of ["pace", "pause", "stop", "cancel"]) {
    for (const mode of ["cors", "no-cors"])
      for (const headers of [json, {"Content-Type": "text/plain"}, {}])
        await noted(
          fetch(act(what), {method: "POST", mode, credentials: "include", headers, body}).then((r) => r.text()));
    navigator.sendBeacon(act(what), new Blob([body], {type: "text/plain"}));
    for (const enctype of ["text/plain", "application/x-www-form-urlencoded"]) {
      const form = document.createElement("form");
      Object.assign(form, {method: "POST", action: act(what), target: "target", enctype});
      form.append(Object.assign(document.createElement("input"), {name: body, value: "1"}));
      document.body.append(form);
      const loaded = new Promise((done) => { frame.onload = done; });
      form.submit();
      await loaded;
    }
  }
  for (const mode of ["cors", "no-cors"]) await noted(fetch(own, {mode, credentials: "include"}).then((r) => r.text()));
  await new Promise((done) => {
    const events = new EventSource(folder + "events", {withCredentials: true});
    events.onmessage = (message) => { read.push(message.data); done(); };
    events.onerror = done;
  });
  for (const url of [own, folder]) {
    const loaded = new Promise((done) => { frame.onload = done; });
    frame.src = url;
    await loaded;
    await noted((async () => frame.contentDocument?.body.innerText)());
    await noted((async () => frame.contentWindow.document.body.innerText)());
  }
  for (const tag of ["script", "img"]) {
    const element = document.createElement(tag);
    const ended = new Promise((done) => {
      element.onload = () => { read.push(tag); done(); };
      element.onerror = done;
    });
    element.src = own;
    document.body.append(element);
    await ended;
  }
  return read.filter((text) => text);
}
</script>"""


@asynccontextmanager
async def evil_server() -> AsyncIterator[tuple[str, list[str]]]:
    """A server on another port of loopback, and the cookies that browsers bring it."""
    cookies: list[str] = []

    async def handle(request: web.BaseRequest) -> web.Response:
        cookies.append(request.headers.get("Cookie", ""))
        return web.Response(text=EVIL, content_type="text/html")

    runner = web.ServerRunner(web.Server(handle, access_log=None))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/", cookies
    finally:
        await runner.cleanup()


async def test_a_page_of_another_origin_can_neither_act_nor_read(tmp_path: Path, endpoint: LocalEndpoint) -> None:
    """Even one that knows the secret folder, in the browser that has the cookie, and of the same site."""
    path = tmp_path / "ledger.db"
    async with (
        open_ledger(path) as ledger,
        await ledger.open_run("night run") as run,
        dashboard(path, endpoint.url) as (server, url),
        evil_server() as (evil, cookies),
        chromium() as browser,
    ):
        await run.plan([("row", job())])
        context = await browser.new_context()
        try:
            own = await context.new_page()
            await own.goto(url)
            await own.locator('[data-live="runs"]', has_text="night run").wait_for()
            folder = own.url
            statuses: Counter[tuple[str, int]] = Counter()
            page = await context.new_page()
            page.on("response", lambda answer: statuses.update([(answer.request.method, answer.status)]))
            for address in (evil, evil.replace("127.0.0.1", "localhost")):
                await page.goto(address)
                read = await page.evaluate("([folder, run]) => attack(folder, run)", [folder, quote("night run")])
                assert read == []
            orders = await run.orders()
            assert (orders.rate, orders.paused, orders.stopped) == (None, False, False)
            assert [status for (method, status) in statuses if method == "POST"] == [403]
            assert not any(cookies)
            server.send_signal(signal.SIGINT)
            assert "run night run" not in await said(server)
        finally:
            await context.close()


async def test_both_themes_and_a_phone_show_everything(tmp_path: Path) -> None:
    async with open_ledger(tmp_path / "ledger.db") as ledger:
        await add_run(ledger, "x" * 500, KEY.format(1))
    async with dashboard(tmp_path / "ledger.db") as (_, url), chromium() as browser:
        for dark, width in ((False, 390), (True, 1280)):
            async with tab(browser, dark=dark, width=width) as page:
                await page.goto(url)
                await page.get_by_role("link", name="xxx").click()
                await shows(page, "headline", "Stopped")
                assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
                page.was_quiet()
