"""One of every exception that the standard library and botocore have, found by looking."""

from __future__ import annotations

import asyncio
import ftplib
import http.client
import imaplib
import json
import multiprocessing
import smtplib
import sqlite3
import ssl
import subprocess
import sys
import tarfile
import urllib.error
import xml.parsers.expat
import zipfile
from collections.abc import Iterator
from string import Formatter
from typing import Any

import aiobotocore.session
import botocore.exceptions

_LOADED = (
    asyncio, ftplib, http.client, imaplib, json, multiprocessing, smtplib, sqlite3, ssl, subprocess, tarfile,
    urllib.error, xml.parsers.expat, zipfile, aiobotocore.session, botocore.exceptions,
)  # fmt: skip
"""What brings them: an exception is known once its module is."""

_PLACES = {"botocore", "aiobotocore"}


class _UnspeakableError(Exception):
    def __str__(self) -> str:
        raise ValueError("it cannot be told")


def every_exception() -> Iterator[Exception]:
    """Make one of each, and some that are worse."""
    for kind in _kinds(Exception):
        yield _made(kind)
    yield _UnspeakableError()
    yield Exception("two\nlines")
    yield OSError(5, None)
    yield OSError(5, "two\nlines")
    yield ExceptionGroup("several", [OSError(1, "a"), ValueError("b")])
    yield Exception("\x1b[31m\u202e\x00")


def _kinds(root: type[Exception]) -> list[type[Exception]]:
    found: dict[type[Exception], None] = {}
    left = [root]
    while left:
        kind = left.pop()
        if kind in found:
            continue
        left += kind.__subclasses__()
        place = kind.__module__.partition(".")[0]
        if place in sys.stdlib_module_names or place in _PLACES:
            found[kind] = None
    return list(found)


def _made(kind: type[Exception]) -> Exception:
    """Make one, with a text where that can be."""
    named = {name: "x" for _, name, _, _ in Formatter().parse(str(getattr(kind, "fmt", ""))) if name}
    ways: list[tuple[tuple[Any, ...], dict[str, Any]]] = [((), named), (("x",), {}), ((1, "x"), {})]
    for args, kwargs in ways:
        try:
            return kind(*args, **kwargs)
        except Exception:  # noqa: BLE001
            continue
    if issubclass(kind, ExceptionGroup):
        return kind("x", [ValueError("y")])
    return kind.__new__(kind)
