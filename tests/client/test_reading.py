"""Whatever the reading of an answer stumbles over, the caller sees one thing: which answer cannot be read."""

from __future__ import annotations

import asyncio
import importlib
import sys
import warnings
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from m2async import M2Client, ScriptJob, StartBatchJob, UnreadableAnswerError
from m2async.client.reading import reading
from m2async.client.wire import transport
from tests.scripted import scripted, started

REQUEST = StartBatchJob("carddemolocalapplication23", ScriptJob("POSTTRAN"))
OPENS_WINDOWS = {"antigravity", "this", "idlelib", "turtle", "turtledemo", "tkinter", "lib2to3"}
MODULES = [
    *sorted(name for name in sys.stdlib_module_names if not name.startswith("_") and name not in OPENS_WINDOWS),
    *("asyncio.exceptions", "email.errors", "http.client", "json.decoder", "urllib.error", "concurrent.futures"),
    *("xml.parsers.expat", "xml.etree.ElementTree", "botocore.exceptions", "botocore.parsers", "botocore.awsrequest"),
    *("botocore.auth", "botocore.tokens", "botocore.utils", "botocore.hooks", "botocore.httpsession"),
]


def every_exception() -> Iterator[type[BaseException]]:
    """Every class of the standard library and of botocore."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in MODULES:
            try:
                importlib.import_module(name)
            except ImportError:  # of another system
                continue
    found, to_look_at = dict[type[BaseException], None](), [BaseException]
    while to_look_at:
        kind = to_look_at.pop()
        if kind not in found:
            found[kind] = None
            to_look_at += kind.__subclasses__()
    for kind in found:
        root = kind.__module__.partition(".")[0]
        if root == "botocore" or root in sys.stdlib_module_names:
            yield kind


EVERY = list(every_exception())
ERRORS = [kind for kind in EVERY if issubclass(kind, Exception)]


def made(kind: type[BaseException]) -> BaseException:
    try:
        return kind("of", [SystemExit()]) if issubclass(kind, BaseExceptionGroup) else kind()
    except Exception:  # noqa: BLE001 - it wants to be told more
        return kind.__new__(kind)


def told(error: UnreadableAnswerError) -> tuple[Any, ...]:
    """What a caller sees of it, but for the reason."""
    whole, _, reason = error.message.partition(": ")
    assert 0 < len(reason) < 300
    assert error.message.isprintable()
    return type(error), whole, error.code


def test_the_table_has_what_it_should() -> None:
    assert len(ERRORS) > 250
    assert {KeyError, UnicodeDecodeError, RecursionError, StopIteration, TimeoutError} <= set(ERRORS)
    assert sum(kind.__module__.startswith("botocore") for kind in ERRORS) > 80


def test_every_exception_of_reading_members_comes_to_the_same() -> None:
    seen = set()
    for kind in ERRORS:
        with pytest.raises(UnreadableAnswerError) as caught, reading("GetApplication"):
            raise made(kind)
        assert not caught.value.may_have_started, "what was asked changed nothing"
        seen.add(told(caught.value))
    assert seen == {(UnreadableAnswerError, "the answer to GetApplication cannot be read", "UnreadableAnswerError")}


@pytest.mark.parametrize("kind", [kind for kind in EVERY if not issubclass(kind, Exception)])
def test_what_ends_a_task_or_the_process_passes(kind: type[BaseException]) -> None:
    what, caught = made(kind), None
    try:
        with reading("GetApplication"):
            raise what
    except BaseException as exc:  # noqa: BLE001 - which is what it is about
        caught = exc
    assert caught is what


ANSWERED = (UnreadableAnswerError, "the answer to StartBatchJob cannot be read", "UnreadableAnswerError")


async def test_every_exception_of_reading_a_start_leaves_it_open_on_the_wire(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = set()
    async with scripted(started()) as server, M2Client(**server.settings(transport="wire")) as client:
        for kind in ERRORS:

            def stumble(body: bytes, kind: type[Exception] = kind) -> Any:
                raise made(kind)

            monkeypatch.setattr(transport, "_started", SimpleNamespace(decode=stumble))
            with pytest.raises(UnreadableAnswerError) as caught:
                await client.start_batch_job(REQUEST)
            assert caught.value.may_have_started
            seen.add(told(caught.value))
    assert seen == {ANSWERED}
    assert len(server.requests) == len(ERRORS), "each was sent once"


@pytest.mark.parametrize("event", ["response-received.m2", "after-call.m2"])
async def test_every_exception_of_a_hook_behind_a_start_leaves_it_open(event: str) -> None:
    """Whatever it is elsewhere: an error of the credentials, of the parameters, an answer of the service."""
    seen, kinds = set(), [kind for kind in ERRORS if not issubclass(kind, asyncio.CancelledError)]
    async with scripted(started()) as server:
        settings = server.settings(transport="aiobotocore")
        raised: list[type[BaseException]] = []

        def stumble(**_: Any) -> None:
            raise made(raised[-1])

        settings["session"].get_component("event_emitter").register(event, stumble)
        async with M2Client(**settings) as client:
            for kind in kinds:
                raised.append(kind)
                with pytest.raises(UnreadableAnswerError) as caught:
                    await client.start_batch_job(REQUEST)
                assert caught.value.may_have_started, kind
                seen.add(told(caught.value))
    assert seen == {ANSWERED}
    assert len(server.requests) == len(kinds), "each was sent once"
