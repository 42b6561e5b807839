"""The dashboard's server: from a request to a page, a stream of events, or something that is done."""

from __future__ import annotations

import logging
import os
import secrets
import socket
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Any

import anyio
import msgspec
from aiohttp import web
from anyio.abc import TaskGroup

from m2async.client import M2Client
from m2async.dashboard import parts
from m2async.dashboard.access import ADDRESS, HEADERS, Access, Entered, Refused, RequestHead
from m2async.dashboard.actions import Actions, BadOrderError, NotPossibleError
from m2async.dashboard.feed import Feed, Parts
from m2async.errors import ConfigurationError
from m2async.figures import Looks, glance
from m2async.ledger import Ledger, LedgerError, RunNotFoundError
from m2async.loops import OwnTask
from m2async.pages import Pages

_STYLES, _SCRIPTS = ("dashboard.css",), ("dashboard.js",)
_MAX_BODY = 16 * 1024
_GRACE = 0.1  # seconds that answers have to be finished when the server ends; streams of events never are
_logger = logging.getLogger("m2async.dashboard")


def serve(
    ledger: Ledger,
    client: Callable[[], AbstractAsyncContextManager[M2Client]],
    report: Callable[[str, str], None],
    *,
    port: int = 0,
) -> OwnTask[str]:
    """Serve the dashboard within the block, and give the URL that a user opens.

    The block should end when it `fails`: nothing is served any more then.

    Arguments:
        ledger: whose runs are shown.
        client: makes a client of the service, for cancelling.
        report: told each thing that is done from the page: the run, and what.
        port: of loopback; 0 for a free one.

    Raises ConfigurationError for a port that cannot be had.
    """
    return OwnTask(_serving(ledger, client, report, port))


@asynccontextmanager
async def _serving(
    ledger: Ledger,
    client: Callable[[], AbstractAsyncContextManager[M2Client]],
    report: Callable[[str, str], None],
    port: int,
) -> AsyncGenerator[str, None]:
    try:
        listener = socket.create_server((ADDRESS, port))
    except (OSError, OverflowError) as exc:
        reason = os.strerror(exc.errno) if isinstance(exc, OSError) and exc.errno else str(exc)
        raise ConfigurationError(f"port {port} of {ADDRESS} cannot be opened: {reason}") from exc
    with listener:
        access = Access(secrets.token_urlsafe(32), f"/{secrets.token_urlsafe(16)}/", listener.getsockname()[1])
        async with anyio.create_task_group() as tasks:
            dashboard = _Dashboard(ledger, client, report, access, tasks)
            # A handler whose browser has gone is cancelled: that is what ends a stream of events.
            server = web.Server(dashboard.handle, handler_cancellation=True, access_log=None, logger=_logger)
            runner = web.ServerRunner(server, handle_signals=False, shutdown_timeout=_GRACE)
            await runner.setup()
            try:
                await web.SockSite(runner, listener).start()
                yield access.url
            finally:
                with anyio.CancelScope(shield=True):
                    await runner.cleanup()
                tasks.cancel_scope.cancel()


class _Dashboard:
    def __init__(
        self,
        ledger: Ledger,
        client: Callable[[], AbstractAsyncContextManager[M2Client]],
        report: Callable[[str, str], None],
        access: Access,
        tasks: TaskGroup,
    ) -> None:
        self._ledger = ledger
        self._access = access
        self._tasks = tasks
        self._pages = Pages("m2async.dashboard")
        self._actions = Actions(ledger, client, tasks, report, self._changed)
        self._feeds: dict[str, Feed] = {}
        self._runs = Feed(self._read_runs, tasks)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        path = request.raw_path.partition("?")[0]
        asked = RequestHead(request.method, path, request.headers, request.query.get("token"), request.cookies)
        decided = self._access.decide(asked)
        if isinstance(decided, Entered):
            headers = {"Location": self._access.folder, "Set-Cookie": self._access.set_cookie}
            return web.Response(status=303, headers={**HEADERS, **headers})
        if isinstance(decided, Refused):
            return self._refused(request, decided.status, decided.reason)
        try:
            return await self._answer(request, decided.path, request.query.get("name"))
        except NotPossibleError as error:
            return self._refused(request, 409, f"Not done: {error}.")
        except BadOrderError as error:
            return self._refused(request, 400, f"Not done: {error}.")
        except RunNotFoundError as error:
            return self._refused(request, 404, str(error))
        except LedgerError as error:
            return self._refused(request, 503, f"{error.code}: {error.message}")

    async def _answer(self, request: web.BaseRequest, path: str, name: str | None) -> web.StreamResponse:
        match request.method, path, name:
            case "GET", "", _:
                return self._page("runs.html")
            case "GET", "events", _:
                return await self._stream(request, self._runs)
            case "GET", "run", str():
                await self._ledger.run(name)
                return self._page("run.html", name=name, quoted=parts.quoted(name))
            case "GET", "run/events", str():
                return await self._stream(request, self._feed(name))
            case "POST", "run/pace", str():
                told = await _members(request)
                return _said(await self._actions.set_pace(name, told.get("rate"), told.get("burst")))
            case "POST", "run/pause", str():
                return _said(await self._actions.pause(name))
            case "POST", "run/unpause", str():
                return _said(await self._actions.unpause(name))
            case "POST", "run/stop", str():
                return _said(await self._actions.stop(name))
            case "POST", "run/cancel", str():
                return _said(await self._actions.cancel(name))
        return self._refused(request, 404, "There is no such page.")

    # Pages

    def _page(self, template: str, **values: object) -> web.Response:
        text = self._pages.render(
            template, styles=_STYLES, scripts=_SCRIPTS, live=True, ledger=self._ledger.address, **values
        )
        return _html(text, self._pages.policy(_STYLES, _SCRIPTS, live=True))

    def _refused(self, request: web.BaseRequest, status: int, reason: str) -> web.Response:
        if request.method == "GET" and "text/html" in request.headers.get("Accept", ""):
            return _html(self._pages.render("refused.html", reason=reason), self._pages.policy(), status)
        return web.json_response({"error": reason}, status=status, headers=HEADERS)

    # Events

    def _feed(self, run: str) -> Feed:
        """The feed of a run, the same for all who watch it; feeds that nobody watches are forgotten."""
        self._feeds = {name: feed for name, feed in self._feeds.items() if feed.watchers}
        return self._feeds.setdefault(
            run, Feed(_PageReader(self._ledger, self._pages, self._actions, run).read, self._tasks)
        )

    async def _stream(self, request: web.BaseRequest, feed: Feed) -> web.StreamResponse:
        response = web.StreamResponse(headers={**HEADERS, "Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        async with aclosing(feed.events()) as events:
            async for event in events:
                await response.write(event)
        return response

    async def _read_runs(self) -> Parts:
        try:
            return parts.of_runs(self._pages, await glance(self._ledger))
        except LedgerError as error:
            return parts.of_trouble(error)

    def _changed(self, run: str) -> None:
        self._runs.hurry()
        if feed := self._feeds.get(run):
            feed.hurry()


class _PageReader:
    """Reads the parts of a run's page."""

    def __init__(self, ledger: Ledger, pages: Pages, actions: Actions, run: str) -> None:
        self._ledger = ledger
        self._pages = pages
        self._actions = actions
        self._run = run
        self._looks: Looks | None = None

    async def read(self) -> Parts:
        """Read them anew; what is wrong with the ledger is a part, too."""
        try:
            if self._looks is None:
                self._looks = Looks(await self._ledger.run(self._run))
            look = await self._looks.look()
        except LedgerError as error:
            return parts.of_trouble(error)
        cancelling, done = self._actions.cancelling(self._run), self._actions.done(self._run)
        return await anyio.to_thread.run_sync(parts.of_run, self._pages, look, cancelling, done)


async def _members(request: web.BaseRequest) -> Mapping[str, Any]:
    if (request.content_length or 0) > _MAX_BODY:
        raise BadOrderError("the request is too long")
    try:
        return msgspec.json.decode(await request.read(), type=dict[str, Any])
    except msgspec.DecodeError as exc:
        raise BadOrderError(f"the request is no object of JSON: {exc}") from exc


def _html(text: str, policy: str, status: int = 200) -> web.Response:
    headers = {**HEADERS, "Content-Security-Policy": f"{policy}; frame-ancestors 'none'"}
    return web.Response(text=text, status=status, content_type="text/html", charset="utf-8", headers=headers)


def _said(what: str) -> web.Response:
    return web.json_response({"said": f"{what[:1].upper()}{what[1:]}."}, headers=HEADERS)
