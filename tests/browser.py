"""Pages in a real browser: Debian's chromium, without a window, driven by playwright; nothing is downloaded.

    async with chromium() as browser, tab(browser, dark=True) as page:
        await page.goto(path.as_uri())
        ...
        page.was_quiet()

A tab lets only those requests through that its first page's own origin serves, and notes all others; a page from a
file may load nothing but that file. A test that needs a browser skips where there is none.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

import pytest
from playwright.async_api import Browser, Page, Request, Route, async_playwright, expect

expect.set_options(timeout=180_000)  # milliseconds: as long as a test may take; what hangs is ended as everywhere
_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
_OPTIONS = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")  # as in containers


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Start the browser; it ends with the block."""
    program = next(filter(None, map(shutil.which, _PROGRAMS)), None)
    if program is None:
        pytest.skip(f"no browser here: none of {', '.join(_PROGRAMS)} is installed")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=_OPTIONS)
        try:
            yield browser
        finally:
            await browser.close()


class Watched:
    """A page, and what it did besides showing: it passes for the page itself."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.console: list[str] = []
        self.dialogs: list[str] = []
        self.left: list[str] = []
        self._first: str | None = None
        page.on("console", lambda message: self.console.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.console.append(f"error: {error}"))
        page.on("dialog", self._dismiss)

    async def watch(self) -> Self:
        """Look at every request from now on, and at the time that it takes."""
        await self.page.route("**/*", self._route)
        self.devtools = await self.page.context.new_cdp_session(self.page)
        await self.devtools.send("Performance.enable", {"timeDomain": "threadTicks"})  # it counts from now on
        return self

    async def _dismiss(self, dialog: Any) -> None:
        self.dialogs.append(dialog.message)
        await dialog.dismiss()

    async def _route(self, route: Route, request: Request) -> None:
        url = request.url.partition("#")[0]
        if self._first is None:
            self._first = url
        same_origin = self._first.startswith("http") and url.split("/")[:3] == self._first.split("/")[:3]
        if url == self._first or same_origin:
            await route.continue_()
        else:
            self.left.append(url)
            await route.abort()

    def was_quiet(self) -> None:
        """Assert that there was no message, no dialog, and no request to anywhere else."""
        assert (self.console, self.dialogs, self.left) == ([], [], [])

    def __getattr__(self, name: str) -> Any:
        return getattr(self.page, name)


async def processor_time(page: Watched) -> float:
    """Give the seconds of a processor that the page has used so far, however long it had to wait for one."""
    metrics = (await page.devtools.send("Performance.getMetrics"))["metrics"]
    return {metric["name"]: float(metric["value"]) for metric in metrics}["ThreadTime"]


@asynccontextmanager
async def tab(
    browser: Browser, *, width: int = 1280, height: int = 900, dark: bool = False, **options: Any
) -> AsyncIterator[Watched]:
    """Open a tab of its own profile; `options` are those of playwright's `new_context`."""
    options |= {"viewport": {"width": width, "height": height}, "color_scheme": "dark" if dark else "light"}
    context = await browser.new_context(**options)
    context.set_default_timeout(0)  # none
    try:
        yield await Watched(await context.new_page()).watch()
    finally:
        await context.close()
