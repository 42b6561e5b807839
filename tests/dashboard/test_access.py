from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m2async.dashboard.access import Access, Admitted, Entered, Refused, RequestHead

TOKEN, FOLDER, PORT = "t0ken", "/folder/", 8123
OWN = f"http://127.0.0.1:{PORT}"
ACCESS = Access(TOKEN, FOLDER, PORT)


def asked(
    method: str = "GET",
    path: str = FOLDER,
    token: str | None = None,
    cookies: Mapping[str, str] | None = None,
    **headers: str | None,
) -> RequestHead:
    named = {"Host": f"127.0.0.1:{PORT}", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return RequestHead(method, path, {k: v for k, v in named.items() if v is not None}, token, cookies or {})


def cookie(value: str = TOKEN) -> dict[str, str]:
    return {f"m2async-{PORT}": value}


def test_who_has_the_token_gets_the_cookie_for_the_folder_alone() -> None:
    assert ACCESS.url == f"{OWN}/?token={TOKEN}"
    assert ACCESS.decide(asked(path="/", token=TOKEN)) == Entered()
    assert ACCESS.set_cookie == f"m2async-{PORT}={TOKEN}; Path={FOLDER}; HttpOnly; SameSite=Strict"


def test_what_the_dashboards_own_pages_ask_for_is_admitted() -> None:
    fetched = {"Sec_Fetch_Site": "same-origin", "Sec_Fetch_Mode": "cors", "Sec_Fetch_Dest": "empty"}
    assert ACCESS.decide(asked(cookies=cookie())) == Admitted("")
    assert ACCESS.decide(asked(path=f"{FOLDER}run/events", cookies=cookie(), **fetched)) == Admitted("run/events")
    acted = asked("POST", f"{FOLDER}run/stop", cookies=cookie(), Origin=OWN, Content_Type="application/json", **fetched)
    assert ACCESS.decide(acted) == Admitted("run/stop")


def test_scripts_show_the_token_themselves() -> None:
    bearer = f"Bearer {TOKEN}"
    assert ACCESS.decide(asked(path="/events", Authorization=bearer)) == Admitted("events")
    json = "application/json; charset=utf-8"
    assert ACCESS.decide(asked("POST", "/run/stop", Authorization=bearer, Content_Type=json)) == Admitted("run/stop")


@given(st.text(), st.sampled_from(["query", "cookie", "bearer"]))
def test_nothing_else_is_the_token(guess: str, shown_as: str) -> None:
    if guess.strip() == TOKEN:
        return
    shown = {
        "query": asked(path="/", token=guess),
        "cookie": asked(cookies=cookie(guess)),
        "bearer": asked(path="/", Authorization=f"Bearer {guess}"),
    }
    decided = ACCESS.decide(shown[shown_as])
    assert isinstance(decided, Refused)
    assert decided.status == 401


@given(st.text(max_size=30))
def test_a_server_of_another_name_is_not_here(host: str) -> None:
    """A name that an attacker's DNS points to this address shows in the Host header."""
    if host in {f"127.0.0.1:{PORT}", f"localhost:{PORT}"}:
        return
    decided = ACCESS.decide(asked(path="/", token=TOKEN, cookies=cookie(), Host=host))
    assert isinstance(decided, Refused)
    assert decided.status == 421


def test_the_cookie_counts_in_its_folder_only() -> None:
    """Outside of it a browser does not send it: whoever does has it from elsewhere."""
    assert isinstance(ACCESS.decide(asked(path="/", cookies=cookie())), Refused)
    assert isinstance(ACCESS.decide(asked(path="/run/events", cookies=cookie())), Refused)


SITES = [None, "same-origin", "none", "same-site", "cross-site"]
ORIGINS = [None, OWN, "null", "http://127.0.0.1:9", f"http://localhost:{PORT}", f"https://127.0.0.1:{PORT}", "*", ""]
TYPES = [None, "application/json", "text/plain", "application/x-www-form-urlencoded"]


def test_only_an_own_page_or_the_token_in_hand_can_act() -> None:
    """Every combination of what a browser can say of a request, against the rule in other words."""
    for site, origin, kind, by, mode in product(
        SITES, ORIGINS, TYPES, ["cookie", "bearer", "none"], [None, "navigate"]
    ):
        request = asked(
            "POST",
            f"{FOLDER}run/cancel",
            cookies=cookie() if by == "cookie" else {},
            Authorization=f"Bearer {TOKEN}" if by == "bearer" else None,
            Origin=origin,
            Content_Type=kind,
            Sec_Fetch_Site=site,
            Sec_Fetch_Mode=mode,
            Sec_Fetch_Dest="document" if mode else None,
        )
        foreign = site in {"same-site", "cross-site"} or origin not in {None, OWN}
        named = origin == OWN or by == "bearer"
        allowed = by != "none" and not foreign and named and kind == "application/json"
        assert isinstance(ACCESS.decide(request), Admitted) is allowed, request


@pytest.mark.parametrize("site", ["same-site", "cross-site", "something-new"])
def test_another_page_can_link_to_the_dashboard_and_load_nothing_of_it(site: str) -> None:
    """Pages of other ports are of the same site, so that their requests do carry the cookie."""
    followed = asked(cookies=cookie(), Sec_Fetch_Site=site, Sec_Fetch_Mode="navigate", Sec_Fetch_Dest="document")
    assert ACCESS.decide(followed) == Admitted("")
    for mode, dest in product(["cors", "no-cors", "navigate"], ["empty", "image", "script", "iframe", "embed"]):
        loaded = asked(cookies=cookie(), Sec_Fetch_Site=site, Sec_Fetch_Mode=mode, Sec_Fetch_Dest=dest)
        assert ACCESS.decide(loaded) == Refused(403, "A page of another origin asked for this.")


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "HEAD", "TRACE"])
def test_other_methods_are_not_known(method: str) -> None:
    decided = ACCESS.decide(asked(method, cookies=cookie()))
    assert isinstance(decided, Refused)
    assert decided.status == 405
