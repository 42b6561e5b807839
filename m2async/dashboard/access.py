"""Who may see the dashboard and act on it, decided from what a request says of itself.

Any page in the browser can send requests here, and any server on loopback has pages. Three things keep them out. The
token, which only the terminal shows. The cookie that stands for it afterwards: browsers send cookies to every port of a
host, so it is bound to a folder whose name nobody else can guess, and never reaches another server. And the headers
with which a browser tells the page that a request came from: a script of another origin cannot forge them.

Sources: RFC 6265, section 8.5 (cookies and ports); Fetch Metadata Request Headers (W3C); RFC 9110, section 7.4 (421).
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import NamedTuple

ADDRESS = "127.0.0.1"
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""What every answer tells the browser: nothing from elsewhere, in no frame, for no other origin, kept nowhere."""


class RequestHead(NamedTuple):
    """What a request says of itself; `headers` are found in any case, `path` is without the query.

    `token` is the query's, `cookies` are by their names.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    token: str | None
    cookies: Mapping[str, str]


class Refused(NamedTuple):
    """The request gets this status and this reason, and nothing else."""

    status: int
    reason: str


class Entered(NamedTuple):
    """The token was in the URL: the browser gets the cookie, and is sent on to the folder."""


class Admitted(NamedTuple):
    """The request may have what it asks for: `path`, as seen from the folder."""

    path: str


class Access:
    """The rule for one server.

    Arguments:
        token: what a user has to show.
        folder: the path, from slash to slash, that browsers find the pages under; it must not be guessed either.
        port: the port of loopback that the server listens at.
    """

    def __init__(self, token: str, folder: str, port: int) -> None:
        self._token = token
        self._hosts = frozenset({f"{ADDRESS}:{port}", f"localhost:{port}"})
        self.folder = folder
        self.url: str = f"http://{ADDRESS}:{port}/?token={token}"
        self.cookie: str = f"m2async-{port}"

    @property
    def set_cookie(self) -> str:
        """The header that gives a browser the cookie."""
        return f"{self.cookie}={self._token}; Path={self.folder}; HttpOnly; SameSite=Strict"

    def decide(self, asked: RequestHead) -> Admitted | Entered | Refused:
        """Decide what a request gets."""
        host = asked.headers.get("Host", "")
        if host not in self._hosts:
            return Refused(421, "This server is not the one that the request names.")
        if asked.method not in {"GET", "POST"}:
            return Refused(405, "Only GET and POST are known here.")
        if not _from_own_page(asked):
            return Refused(403, "A page of another origin asked for this.")
        if asked.method == "GET" and asked.path == "/" and asked.token is not None:
            return Entered() if self._is_token(asked.token) else _WITHOUT_TOKEN
        in_folder = asked.path.startswith(self.folder)
        bearer = self._is_token(_bearer(asked))
        if not bearer and not (in_folder and self._is_token(asked.cookies.get(self.cookie, ""))):
            return _WITHOUT_TOKEN
        if asked.method == "POST" and (refused := _may_not_act(asked, f"http://{host}", bearer=bearer)):
            return refused
        return Admitted(asked.path.removeprefix(self.folder if in_folder else "/"))

    def _is_token(self, shown: str) -> bool:
        return hmac.compare_digest(shown.encode(errors="surrogatepass"), self._token.encode())


_WITHOUT_TOKEN = Refused(401, "Open the URL that m2async dashboard printed: it ends with the token.")


def _from_own_page(asked: RequestHead) -> bool:
    """Whether no other page asks; a link that leads here may be on any page."""
    site = asked.headers.get("Sec-Fetch-Site", "none")
    followed = asked.headers.get("Sec-Fetch-Mode") == "navigate" and asked.headers.get("Sec-Fetch-Dest") == "document"
    return site in {"same-origin", "none"} or (asked.method == "GET" and followed)


def _may_not_act(asked: RequestHead, own: str, *, bearer: bool) -> Refused | None:
    origin = asked.headers.get("Origin")
    if origin != own and not (origin is None and bearer):
        return Refused(403, "Only the dashboard's own pages can act.")
    if asked.headers.get("Content-Type", "").partition(";")[0].strip().lower() != "application/json":
        return Refused(415, "The request's body must be JSON.")
    return None


def _bearer(asked: RequestHead) -> str:
    scheme, _, token = asked.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
