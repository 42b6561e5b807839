"""What answers and is not the service: the run stops after a few answers, and what was sent is not made up."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import pytest

from m2async import (
    CallError,
    LocalEndpoint,
    M2Client,
    ScriptJob,
    StartBatchJob,
    SubmissionStoppedError,
    Submitter,
    open_ledger,
)
from m2async.ledger import RowState, destination_of
from m2async.submitting.strangers import StrangersAnswers
from tests.scripted import ScriptedServer, Step, error, scripted, send, started

APPLICATION = "carddemolocalapplication23"
JOBS, AT_ONCE, FEW = 300, 4, 5
PAGE = b"<html><script>var a = 1;</script><body>Sign in to the corporate&nbsp;network</body></html>"


def page(status: int, body: bytes = PAGE, *headers: str, kind: str = "text/html; charset=utf-8") -> Step:
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", f"Content-Type: {kind}", *headers]
    return send("\r\n".join([*lines, "", ""]).encode() + body)


def other(status: int, members: object, *headers: str) -> Step:
    return page(status, json.dumps(members).encode(), *headers, kind="application/json")


def titled(title: str) -> bytes:
    return f"<html><head><title>{title}</title></head><body>more</body></html>".encode()


STRANGERS: dict[str, tuple[Step, RowState, str]] = {
    "a portal": (page(200), RowState.UNKNOWN, '200 OK, text/html, "Sign in to the corporate network"'),
    "a login": (
        page(302, b"", "Location: https://login.invalid/start?token=topsecret"), RowState.UNKNOWN,
        "302 Found, text/html, to login.invalid",
    ),
    "a gateway": (page(502, titled("Bad\n\x1b[31m gateway")), RowState.UNKNOWN, '"Bad [31m gateway"'),
    "a proxy that forbids": (page(403), RowState.REJECTED, '403 Forbidden, text/html, "Sign in'),
    "a web server": (page(404, titled("&#27;No&#7;t &lt;found&gt;")), RowState.REJECTED, '"Not <found>"'),
    "a proxy that wants a password": (page(407), RowState.REJECTED, "407 Proxy Authentication Required"),
    "an unheard status": (page(299, b"\xff\xfe" * 20_000), RowState.UNKNOWN, "299, text/html"),
    "a health check": (other(200, {"status": "ok"}), RowState.UNKNOWN, '200 OK, application/json, "{"status":'),
    "another program": (other(404, {"detail": "Not Found"}), RowState.REJECTED, "404 Not Found, application/json"),
    "a list": (other(200, []), RowState.UNKNOWN, "200 OK, application/json"),
    "its own codes": (other(401, {"code": "no_session", "message": "log in"}), RowState.REJECTED, "401 Unauthorized"),
    "another service": (
        other(404, {"message": None}, "x-amzn-requestid: 1", "x-amzn-errortype: UnknownOperationException"),
        RowState.REJECTED, "404 Not Found",
    ),
    "mail": (send(b"220 SMTP ready\r\n\r\n"), RowState.UNKNOWN, "StartBatchJob cannot be read"),
    "an empty page": (page(200, b""), RowState.UNKNOWN, "200 OK, text/html"),
}  # fmt: skip


def jobs(count: int = JOBS) -> list[tuple[str, StartBatchJob]]:
    return [(f"k{n}", StartBatchJob(APPLICATION, ScriptJob(f"J{n}"), {"PASSWORD": "hunter2"})) for n in range(count)]


async def submit(
    server: ScriptedServer, path: Path, transport: Literal["wire", "aiobotocore"] = "wire", **others: Any
) -> tuple[Counter[str], CallError | None]:
    """Submit the jobs; gives how the outcomes stand, and what stopped it."""
    states: Counter[str] = Counter()
    async with M2Client(**server.settings(transport=transport)) as client:
        settings = {"ledger": path, "run": "night", "concurrency": AT_ONCE, "settle": 0.01, **others}
        async with Submitter(client, **settings) as submitter:
            try:
                async for outcome in submitter.submit_many(jobs()):
                    states[outcome.state] += 1
            except SubmissionStoppedError as stopped:
                assert isinstance(stopped.cause, CallError)
                return states, stopped.cause
    return states, None


@pytest.mark.parametrize("transport", ["wire", "aiobotocore"])
@pytest.mark.parametrize("kind", STRANGERS)
async def test_a_stranger_stops_the_run_after_a_few_answers(
    kind: str, transport: Literal["wire", "aiobotocore"], tmp_path: Path
) -> None:
    step, state, seen = STRANGERS[kind]
    async with scripted(step) as server:
        states, cause = await submit(server, tmp_path / "l.db", transport)
    sent = sum(request.startswith(b"POST ") for request in server.requests)
    assert FEW <= sent <= FEW + AT_ONCE
    assert cause is not None
    assert seen in cause.message
    assert cause.message.isprintable()
    assert len(cause.message) < 300
    assert "secret" not in cause.message
    async with open_ledger(tmp_path / "l.db") as ledger:
        counts = await (await ledger.run("night")).counts()
    assert (counts[state], counts[RowState.PENDING] + counts[state]) == (sent, sum(counts.values()))
    assert states.keys() <= {state.label}


async def test_what_was_sent_is_decided_once_the_service_answers_again(tmp_path: Path) -> None:
    async with scripted(page(200)) as server:
        await submit(server, tmp_path / "l.db", rate=1_000.0)
    async with LocalEndpoint() as endpoint, M2Client(**endpoint.client_settings()) as client:
        settings: dict[str, Any] = {"settle": 0.01, "start_anyway": True}
        async with open_ledger(tmp_path / "l.db") as ledger:
            async with await ledger.open_run("night") as run:
                place = destination_of(client)
                assert place is not None
                await run.belong_to(place, moved=True)
                async with Submitter(client, ledger=ledger, run=run, **settings) as submitter:
                    outcomes = [outcome async for outcome in submitter.submit_many(jobs())]
    assert Counter(outcome.state for outcome in outcomes) == {"started": JOBS}


async def test_a_few_strangers_among_answers_of_the_service_stop_nothing(tmp_path: Path) -> None:
    strangers = [page(404)] * (FEW - 1)
    own = [started("e-1"), error(400, "ValidationException")]
    steps = [step for each in own for step in (*strangers, each)]
    async with scripted(*steps, *strangers, *(started(f"e-{n}") for n in range(2, JOBS))) as server:
        states, cause = await submit(server, tmp_path / "l.db", concurrency=1)
    assert cause is None
    assert states == {"rejected": 3 * (FEW - 1) + 1, "started": JOBS - 3 * (FEW - 1) - 1}


def test_what_one_job_meets_again_and_again_says_nothing_of_the_others() -> None:
    answers, stranger = StrangersAnswers(), CallError("x")
    stranger.not_the_service = "502 Bad Gateway"
    assert not any(answers.are_all("k0", stranger) for _ in range(3 * FEW))
    assert [answers.are_all(f"k{n}", stranger) for n in range(FEW)] == [False] * (FEW - 1) + [True]
    assert not answers.are_all("k9", None)
    assert not answers.are_all("k0", stranger)


async def test_a_wait_that_a_stranger_asks_for_is_waited(tmp_path: Path) -> None:
    throttles = [page(429, PAGE, "Retry-After: 0")] * (FEW + 2)
    async with scripted(*throttles, *(started(f"e-{n}") for n in range(JOBS))) as server:
        states, cause = await submit(server, tmp_path / "l.db", concurrency=1)
    assert (states, cause) == ({"started": JOBS}, None)


@pytest.mark.parametrize("transport", ["wire", "aiobotocore"])
async def test_nothing_is_shown_of_what_was_sent_where_a_page_repeats_it(
    transport: Literal["wire", "aiobotocore"], tmp_path: Path
) -> None:
    async def repeat(writer: Any) -> None:
        said = re.search(rb"Credential=\S+", server.requests[-1], re.IGNORECASE)
        signed = re.search(rb"Signature=\S+", server.requests[-1], re.IGNORECASE)
        if said and signed:
            await page(200, b"<html>You sent hunter2 %b %b</html>" % (said[0], signed[0]))(writer)
        else:
            await started()(writer)

    async with scripted(repeat) as server:
        _, cause = await submit(server, tmp_path / "l.db", transport)
    assert cause is not None
    assert "You" in cause.message
    assert "hunter2" not in cause.message
    assert "local/" not in cause.message  # the access key
    assert not re.search("[0-9a-f]{32}", cause.message)  # the signature


@pytest.mark.parametrize("transport", ["wire", "aiobotocore"])
@pytest.mark.parametrize(
    "repeated",
    [
        "HUNTER2 JOSÉPIN", "ab%20hunter2%0Ajos%C3%A9pin", "ab%2520hunter2", "jos\\u00e9pin", "jos\\xE9pin",
        "ab&amp;#37;20hunter2", "jos&eacute;pin", "jose\u0301pin", "hunter2\\njos%E9pin", "ab\\nhunter2",
    ],
)  # fmt: skip
async def test_nothing_is_shown_of_what_was_sent_however_a_page_writes_it(
    repeated: str, transport: Literal["wire", "aiobotocore"]
) -> None:
    job = StartBatchJob(APPLICATION, ScriptJob("J"), {"PASSWORD": "ab hunter2\njosépin"})
    async with scripted(page(403, titled(f"No: {repeated} allowed"))) as server:
        async with M2Client(**server.settings(transport=transport)) as client:
            with pytest.raises(CallError) as refused:
                await client.start_batch_job(job)
    shown = refused.value.message
    assert "No: " in shown
    assert " allowed" in shown
    assert not re.search("hunter2|jos|pin", shown, re.IGNORECASE)
