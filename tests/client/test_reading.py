"""Whatever the reading of an answer stumbles over, the caller sees one thing: which answer cannot be read."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from m2async import M2Client, ScriptJob, StartBatchJob, UnreadableAnswerError
from m2async.client.reading import reading
from m2async.client.wire import transport
from tests.exceptions import every_exception
from tests.scripted import scripted, started

REQUEST = StartBatchJob("carddemolocalapplication23", ScriptJob("POSTTRAN"))
EVERY = [*every_exception(), asyncio.CancelledError(), KeyboardInterrupt(), SystemExit(3), GeneratorExit()]
ERRORS = [each for each in EVERY if isinstance(each, Exception)]


def told(error: UnreadableAnswerError) -> tuple[Any, ...]:
    """What a caller sees of it, but for the reason."""
    whole, _, reason = error.message.partition(": ")
    assert 0 < len(reason) < 300
    assert error.message.isprintable()
    return type(error), whole, error.code


def test_the_table_has_what_it_should() -> None:
    kinds = {type(each) for each in ERRORS}
    assert len(kinds) > 250
    assert {KeyError, UnicodeDecodeError, RecursionError, StopIteration, TimeoutError} <= kinds
    assert sum(kind.__module__.startswith("botocore") for kind in kinds) > 80


def test_every_exception_of_reading_members_comes_to_the_same() -> None:
    seen = set()
    for each in ERRORS:
        with pytest.raises(UnreadableAnswerError) as caught, reading("GetApplication"):
            raise each
        assert not caught.value.may_have_started, "what was asked changed nothing"
        seen.add(told(caught.value))
    assert seen == {(UnreadableAnswerError, "the answer to GetApplication cannot be read", "UnreadableAnswerError")}


@pytest.mark.parametrize("what", [each for each in EVERY if not isinstance(each, Exception)], ids=repr)
def test_what_ends_a_task_or_the_process_passes(what: BaseException) -> None:
    caught = None
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
        for each in ERRORS:

            def stumble(body: bytes, error: Exception = each) -> Any:
                raise error

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
    seen = set()
    async with scripted(started()) as server:
        settings = server.settings(transport="aiobotocore")
        raised: list[Exception] = []

        def stumble(**_: Any) -> None:
            raise raised[-1]

        settings["session"].get_component("event_emitter").register(event, stumble)
        async with M2Client(**settings) as client:
            for each in ERRORS:
                raised.append(each)
                with pytest.raises(UnreadableAnswerError) as caught:
                    await client.start_batch_job(REQUEST)
                assert caught.value.may_have_started, each
                seen.add(told(caught.value))
    assert seen == {ANSWERED}
    assert len(server.requests) == len(ERRORS), "each was sent once"
