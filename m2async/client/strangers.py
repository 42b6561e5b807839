"""Answers that are not the service's: a login page, a proxy's error page, another service's JSON."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import unescape
from http import HTTPStatus
from typing import Any
from unicodedata import normalize
from urllib.parse import unquote, urlsplit

import msgspec

from m2async.client.wire.http11 import Response
from m2async.errors import EXCEPTION_OF_CODE

NO_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are not JSON, not UTF-8, or nested without end."""

_MARKS = (b"x-amzn-requestid", b"x-amzn-errortype")
_MOST_READ = 16_384
_LONGEST = 80
_TYPE = re.compile(r"[\w.+-]{1,40}/[\w.+-]{1,40}", re.ASCII)
_TITLE = re.compile(r"<title[^>]*>(.*?)</title", re.DOTALL | re.IGNORECASE)
_UNSEEN = re.compile(r"<(script|style)\b.*?</\1[^>]*>|<[^>]*>", re.DOTALL | re.IGNORECASE)
_WORD = re.compile(r"(\\[bfnrt])?([\w\ufffd]{3,})")
_CODE = re.compile(r"\\(?:u([0-9a-f]{4})|x([0-9a-f]{2}))", re.IGNORECASE)
_MOST_CODINGS = 3
_SECRET = re.compile(r"[\w+/=.-]{20,}")
"""A text that is not shown: an access key id has as many characters, signatures and tokens have more."""


def seen_of_a_stranger(response: Response, sent: bytes) -> str | None:
    """Say in short what was seen, where an answer bears no mark of the service's; None for one of its own.

    Nothing of it is a control character, or a word that was `sent`, however that is written: some pages repeat what
    they were asked.
    """
    if _is_the_services(response):
        return None
    status = f"{response.status} {phrase(response.status)}".strip()
    return ", ".join(part for part in (status, _type(response), _target(response), _text(response, sent)) if part)


def phrase(status: int) -> str:
    """The words of a status; "" for one that is unheard of."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def members_of(response: Response) -> Mapping[str, Any]:
    """The members of a JSON object; none of anything else."""
    try:
        members = msgspec.json.decode(response.body)
    except NO_JSON:
        return {}
    return members if isinstance(members, dict) else {}


def _is_the_services(response: Response) -> bool:
    if response.header(b"x-amzn-errortype") in _OF_OTHERS:
        return False
    if any(response.header(mark) for mark in _MARKS):
        return True
    members = members_of(response)
    return bool(members.get("__type")) or members.get("code") in EXCEPTION_OF_CODE


_OF_OTHERS = ("UnknownOperationException", "UnknownOperation")
"""What an AWS service answers that has no such operation."""


def _type(response: Response) -> str:
    found = _TYPE.match(response.header(b"content-type") or "")
    return found[0] if found else ""


def _target(response: Response) -> str:
    """Where a redirect leads: its host alone, as a query may hold a session."""
    try:
        host = urlsplit(response.header(b"location") or "").hostname or ""
    except ValueError:
        return ""
    return f"to {host[:_LONGEST]}" if host.isprintable() and host else ""


def _text(response: Response, sent: bytes) -> str:
    said = response.body[:_MOST_READ].decode(errors="replace")
    title = _TITLE.search(said)
    words = _decoded(_UNSEEN.sub(" ", title[1] if title else said))
    words = _without(_words_of(sent), _SECRET.sub("…", words))
    words = "".join(each if each.isprintable() else " " for each in words)
    words = " ".join(words.split())
    return f'"{words if len(words) <= _LONGEST else words[: _LONGEST - 1] + "…"}"' if words else ""


def _without(known: set[str], text: str) -> str:
    """Leave out the words that are known, and those that cannot be read, which may be known ones."""
    return _WORD.sub(lambda word: "…" if known & _forms(word) or "\ufffd" in word[0] else word[0], text)


def _words_of(sent: bytes) -> set[str]:
    return set().union(*map(_forms, _WORD.finditer(_decoded(sent.decode(errors="replace")))))


def _forms(word: re.Match[str]) -> set[str]:
    """What a word may be meant for: its first letter may be of a line break, as JSON writes it."""
    return {word[2].casefold(), f"{(word[1] or '')[1:]}{word[2]}".casefold()}


def _decoded(text: str) -> str:
    """Write out what HTML, URLs and JSON write as codes, also where one of them stands in another."""
    for _ in range(_MOST_CODINGS):
        text = _CODE.sub(lambda code: chr(int(code[1] or code[2], 16)), unquote(unescape(text)))
    return normalize("NFKC", text)
