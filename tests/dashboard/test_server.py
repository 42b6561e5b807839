"""The dashboard over HTTP, without a browser: what is answered, to whom, and what the ledger and the service see."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp
import pytest

from m2async import Destination, LocalEndpoint, M2Client, ScriptJob, StartBatchJob, Submitter
from m2async.dashboard.server import serve
from m2async.ledger import Ledger, open_ledger

HOSTILE = [
    "..",
    ".",
    "a/b",
    "<script>alert(1)</script>",
    "x\"' onload=alert(1)",
    "a?b#c&d=e%2F",
    "\u202eevil",
    " ",
    "x" * 500,
]


class Dashboard:
    """A dashboard that is served, and a client that has its token or not."""

    def __init__(
        self, url: str, ledger: Ledger, session: aiohttp.ClientSession, reported: list[tuple[str, str]]
    ) -> None:
        self.url = url
        self.origin = f"http://{urlsplit(url).netloc}"
        self.token = url.partition("token=")[2]
        self.ledger = ledger
        self.session = session
        self.reported = reported

    async def __call__(
        self, path: str, body: Any = None, *, method: str | None = None, **headers: str
    ) -> tuple[int, str, Any]:
        """Ask as a script does that has the token; give the status, the text and the headers."""
        headers = {"Authorization": f"Bearer {self.token}", **headers}
        async with self.session.request(
            method or ("GET" if body is None else "POST"), f"{self.origin}{path}", json=body, headers=headers
        ) as answer:
            return answer.status, await answer.text(), answer.headers

    async def shown(self, path: str, until: Callable[[dict[str, Any]], bool] = bool) -> dict[str, Any]:
        """The parts that a stream of events has shown as soon as they are as awaited."""
        headers = {"Authorization": f"Bearer {self.token}"}
        parts: dict[str, Any] = {}
        async with self.session.get(f"{self.origin}{path}", headers=headers) as answer:
            assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
            while not until(parts):
                line = await answer.content.readline()
                if line.startswith(b"data: "):
                    parts |= json.loads(line[6:])
        return parts


@asynccontextmanager
async def served(path: Path, **client: Any) -> AsyncIterator[Dashboard]:
    reported: list[tuple[str, str]] = []
    async with (
        open_ledger(path) as ledger,
        serve(ledger, lambda: M2Client(**client), lambda run, what: reported.append((run, what))) as url,
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session,
    ):
        yield Dashboard(url, ledger, session, reported)


@pytest.fixture
async def dashboard(tmp_path: Path, endpoint: LocalEndpoint) -> AsyncIterator[Dashboard]:
    async with served(tmp_path / "ledger.db", **endpoint.client_settings()) as dashboard:
        yield dashboard


def job(script: str = "LONG") -> StartBatchJob:
    return StartBatchJob("carddemolocalapplication23", ScriptJob(script))


async def add_run(ledger: Ledger, name: str, *keys: str) -> None:
    async with await ledger.open_run(name) as run:
        await run.plan((key, job()) for key in keys or ("row",))


def spoil(folder: Path) -> None:
    for file in folder.glob("ledger.db*"):
        file.write_bytes(b"not a ledger" * 1000)


# Who is let in


async def test_a_browser_with_the_token_gets_a_cookie_and_the_list_and_the_url_is_clean(dashboard: Dashboard) -> None:
    await add_run(dashboard.ledger, "night")
    async with dashboard.session.get(dashboard.url, allow_redirects=False) as answer:
        assert answer.status == 303
        cookie = answer.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert urlsplit(dashboard.origin).port in {int(part) for part in cookie.partition("=")[0].split("-")[1:]}
        folder = answer.headers["Location"]
        assert f"Path={folder};" in cookie
    assert dashboard.token not in folder
    async with dashboard.session.get(f"{dashboard.origin}{folder}") as answer:
        assert answer.status == 200
        assert dashboard.token not in await answer.text()
    dashboard.session.cookie_jar.clear()
    async with dashboard.session.get(f"{dashboard.origin}{folder}") as answer:
        assert answer.status == 401


@pytest.mark.parametrize("path", ["/", "/?token=wrong", "/events", "/run?name=night", "/run/events?name=night", "/x"])
@pytest.mark.parametrize("accept", ["text/html", "*/*"])
async def test_without_the_token_nothing_is_told_but_what_to_do(dashboard: Dashboard, path: str, accept: str) -> None:
    await add_run(dashboard.ledger, "night-run")
    async with dashboard.session.get(
        f"{dashboard.origin}{path}", headers={"Accept": accept}, allow_redirects=False
    ) as answer:
        text = await answer.text()
        assert answer.status == 401
    assert "Open the URL that m2async dashboard printed" in text
    assert "night-run" not in text
    assert "ledger.db" not in text
    assert "Set-Cookie" not in answer.headers


async def test_a_name_that_someone_points_to_this_machine_is_refused(dashboard: Dashboard) -> None:
    for host in ("evil.example", f"evil.example:{urlsplit(dashboard.origin).port}", "127.0.0.1", "[::1]:80", ""):
        status, text, _ = await dashboard("/", Host=host)
        assert (status, "Runs" in text) == (421, False)
    status, _, _ = await dashboard("/", Host=f"localhost:{urlsplit(dashboard.origin).port}")
    assert status == 200


async def test_every_answer_tells_the_browser_to_share_it_with_nobody(dashboard: Dashboard) -> None:
    await add_run(dashboard.ledger, "night")
    answers = [
        await dashboard("/"),
        await dashboard("/", Authorization="", Accept="text/html"),
        await dashboard("/", Host="evil.example"),
        await dashboard("/run?name=night"),
        await dashboard("/run?name=nosuch", Accept="text/html"),
        await dashboard("/nowhere"),
        await dashboard("/run/pause?name=night", {}),
        await dashboard("/run/pause?name=night", {}, Origin="http://evil.example"),
        await dashboard("/run/pause?name=night", method="OPTIONS", Origin="http://evil.example"),
    ]
    assert [status for status, _, _ in answers] == [200, 401, 421, 200, 404, 404, 409, 403, 405]
    for _, _, headers in answers:
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; ")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert not [name for name in headers if name.lower().startswith("access-control")]


# What is shown


async def test_runs_and_keys_of_any_name_are_shown_as_text(dashboard: Dashboard) -> None:
    for name in HOSTILE:
        await add_run(dashboard.ledger, name, "<img src=x onerror=alert(1)>")
    listed = (await dashboard.shown("/events"))["runs"]
    assert "<script" not in listed
    assert "onload=alert(1)>" not in listed
    assert "\u202e" not in listed
    for name in HOSTILE:
        assert f'href="run?name={quote(name, safe="")}"' in listed
        status, page, _ = await dashboard(f"/run?name={quote(name, safe='')}")
        assert status == 200
        assert "<script>alert" not in page
        assert (await dashboard.shown(f"/run/events?name={quote(name, safe='')}"))["headline"] == "Stopped"


async def test_a_run_that_is_not_there_is_said_so(dashboard: Dashboard) -> None:
    status, text, _ = await dashboard("/run?name=%3Cb%3E", Accept="text/html")
    assert (status, "has no run &#39;&lt;b&gt;&#39;" in text) == (404, True)
    trouble = (await dashboard.shown("/run/events?name=%3Cb%3E"))["trouble"]
    assert trouble.startswith("RunNotFoundError: ")
    assert trouble.endswith("has no run &#39;&lt;b&gt;&#39;")


async def test_a_ledger_that_cannot_be_read_any_more_is_said_so(dashboard: Dashboard, tmp_path: Path) -> None:
    await add_run(dashboard.ledger, "night")
    spoil(tmp_path)
    assert "Ledger" in (await dashboard.shown("/run/events?name=night"))["trouble"]
    status, text, _ = await dashboard("/run?name=night")
    assert (status, "Traceback" in text) == (503, False)


# What can be done


async def test_a_run_in_progress_hears_what_it_is_told(dashboard: Dashboard) -> None:
    async with await dashboard.ledger.open_run("night/1") as run:
        await run.plan([("row", job())])
        told = [
            await dashboard("/run/pace?name=night%2F1", {"rate": 12.5, "burst": 3}),
            await dashboard("/run/pause?name=night%2F1", {}),
        ]
        assert [status for status, _, _ in told] == [200, 200]
        orders = await run.orders()
        assert (orders.rate, orders.burst, orders.paused, orders.stopped) == (12.5, 3.0, True, False)
        assert (await dashboard("/run/unpause?name=night%2F1", {}))[0] == 200
        assert not (await run.orders()).paused
        assert (await dashboard("/run/stop?name=night%2F1", {}))[0] == 200
        assert (await run.orders()).stopped
        parts = await dashboard.shown("/run/events?name=night%2F1")
    assert "rate set to 12.5 calls a second, bursts of 3" in parts["done"]
    assert [what for _, what in dashboard.reported][1:] == ["paused", "going on", "told to stop submitting"]


@pytest.mark.parametrize("what", ["pace", "pause", "unpause", "stop"])
async def test_a_run_that_is_not_in_progress_is_told_nothing(dashboard: Dashboard, what: str) -> None:
    await add_run(dashboard.ledger, "night")
    status, text, _ = await dashboard(f"/run/{what}?name=night", {"rate": 5, "burst": 1})
    assert (status, "not in progress" in text) == (409, True)
    assert dashboard.reported == []
    assert (await dashboard.shown("/run/events?name=night"))["controls"]["in_progress"] is False


@pytest.mark.parametrize(
    "body",
    [
        *({"rate": rate, "burst": 1} for rate in (None, "5", True, 0, -1, 1e400, 10**400, [5])),
        *({"rate": 5, "burst": burst} for burst in (None, 0.5)),
        *({}, [], "x", 7),
    ],
)
async def test_a_pace_that_makes_no_sense_is_refused(dashboard: Dashboard, body: Any) -> None:
    async with await dashboard.ledger.open_run("night") as run:
        await run.plan([("row", job())])
        status, text, _ = await dashboard("/run/pace?name=night", body)
        assert (status, "Not done: " in text) == (400, True)
        assert (await run.orders()).rate is None


async def test_no_page_of_another_origin_can_act_even_with_the_token(dashboard: Dashboard) -> None:
    async with await dashboard.ledger.open_run("night") as run:
        await run.plan([("row", job())])
        for headers in ({"Origin": "http://127.0.0.1:9"}, {"Origin": "null"}, {"Sec-Fetch-Site": "same-site"}):
            status, _, _ = await dashboard("/run/stop?name=night", {}, **headers)
            assert status == 403
        assert not (await run.orders()).stopped


async def test_executions_are_cancelled_and_what_came_of_it_is_shown(
    dashboard: Dashboard, endpoint: LocalEndpoint
) -> None:
    async with M2Client(**endpoint.client_settings()) as client:
        async with Submitter(client, rate=1000, burst=10, ledger=dashboard.ledger, run="night") as submitter:
            for number in range(6):
                await submitter.submit(job(), key=f"row-{number}")
    assert (await dashboard("/run/cancel?name=night", {}))[0] == 200
    again = await dashboard("/run/cancel?name=night", {})
    assert (again[0], "being cancelled already" in again[1]) == (409, True)
    ended = "ended; 6 of 6 executions: 6 cancelling"
    await dashboard.shown("/run/events?name=night", lambda parts: ended in parts.get("done", ""))
    async with dashboard.session.get(f"{endpoint.url}/_local/executions") as answer:
        assert {each["status"] for each in (await answer.json())["executions"]} == {"Cancelled"}
    assert ("night", "asked the service to cancel 6 executions: 6 cancelling") in dashboard.reported


async def test_a_run_that_was_sent_elsewhere_is_neither_stopped_nor_cancelled_from_here(dashboard: Dashboard) -> None:
    async with await dashboard.ledger.open_run("night") as run:
        await run.plan([("row", job())])
        await run.belong_to(Destination("https://m2.eu-west-1.amazonaws.com", "eu-west-1"))
        await run.intend(1, 1, 1.0)
        await run.started(1, 1, "e")
        assert (await dashboard("/run/cancel?name=night", {}))[0] == 200
        said = "was sent to https://m2.eu-west-1.amazonaws.com in eu-west-1; this goes to"
        await dashboard.shown("/run/events?name=night", lambda parts: said in parts.get("done", ""))
        assert not (await run.orders()).stopped


async def test_without_credentials_cancelling_says_so_and_stops_nothing(tmp_path: Path) -> None:
    async with served(tmp_path / "ledger.db", region_name="us-east-1", endpoint_url="http://127.0.0.1:9") as dashboard:
        async with await dashboard.ledger.open_run("night") as run:
            await run.plan([("row", job())])
            assert (await dashboard("/run/cancel?name=night", {}))[0] == 200
            await dashboard.shown("/run/events?name=night", lambda parts: "Credentials" in parts.get("done", ""))
            assert not (await run.orders()).stopped
            assert (await dashboard("/run/pause?name=night", {}))[0] == 200


async def test_the_server_ends_at_once_though_streams_are_open(tmp_path: Path) -> None:
    async with aiohttp.ClientSession() as session:
        async with open_ledger(tmp_path / "ledger.db") as ledger:
            async with serve(ledger, M2Client, lambda run, what: None) as url:
                token = url.partition("token=")[2]
                headers = {"Authorization": f"Bearer {token}"}
                stream = await session.get(f"{url.partition('?')[0]}events", headers=headers)
                await stream.content.readline()
        with pytest.raises(aiohttp.ClientError):
            await session.get(url)
        stream.close()
