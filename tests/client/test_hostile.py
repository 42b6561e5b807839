"""Answers that no service gives: over each way of a request one goes out, and nothing untrue is said of it."""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import Any, Literal, NamedTuple

import pytest
from aiobotocore.config import AioConfig

from m2async import CallError, M2Client, ScriptJob, StartBatchJob, UnreadableAnswerError
from tests.scripted import ScriptedServer, Step, close, hang, reset, scripted, send

APPLICATION = "carddemolocalapplication23"
REQUEST = StartBatchJob(APPLICATION, ScriptJob("POSTTRAN"), {"PASSWORD": "SECRET"})
LONGEST = 0.3  # what an answer may take, in seconds
STARTED = b'{"executionId": "e-1"}'

Ends = Literal["started", "in doubt", "not started"]


class Way(NamedTuple):
    """How requests get to a server that is scripted."""

    transport: Literal["wire", "aiobotocore"]
    through_proxy: bool
    has_hooks: bool = False


WAYS = {
    "wire": Way("wire", through_proxy=False),
    "aiobotocore": Way("aiobotocore", through_proxy=False),
    "hooks": Way("aiobotocore", through_proxy=False, has_hooks=True),
    "proxy": Way("aiobotocore", through_proxy=True),
}


@pytest.fixture(params=list(WAYS.values()), ids=list(WAYS))
def way(request: pytest.FixtureRequest) -> Way:
    chosen: Way = request.param
    return chosen


def settings(server: ScriptedServer, way: Way, **others: Any) -> dict[str, Any]:
    given = server.settings(transport=way.transport, read_timeout=LONGEST, **others)
    if way.through_proxy:
        given["session"].set_default_client_config(AioConfig(proxies={"http": server.url}))
        given["endpoint_url"] = "http://localhost:9"
    if way.has_hooks:
        given["session"].get_component("event_emitter").register("needs-retry.m2", lambda **_: 0)
    return given


def says(status: int, body: object = STARTED, *headers: str, length: object = None, version: str = "1.1") -> Step:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/{version} {status} X", f"Content-Length: {len(content) if length is None else length}", *headers]
    return send("\r\n".join([*lines, "", ""]).encode() + content)


def then(step: Step, end: Step) -> Step:
    async def both(writer: asyncio.StreamWriter) -> None:
        await step(writer)
        await writer.drain()
        await end(writer)

    return both


def for_ever(piece: bytes, first: bytes = b"", *, pause: float = 0.0) -> Step:
    async def step(writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)

    return step


def chunked(*chunks: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)


def identified(value: object) -> Step:
    return says(200, {"executionId": value})


NO_IDS: dict[str, object] = {
    "a number": 5, "null": None, "a list": ["e-1"], "a mapping": {}, "true": True, "nothing": "", "blanks": "  ",
    "two words": "a b", "two lines": "a\nb", "a NUL": "a\0b", "a bell": "a\x07b", "colours": "\x1b[31mRED",
    "C1": "a\x9b31m", "a turn": "a\u202eb", "a zero width": "a\u200bb", "81 characters": "y" * 81,
    "10 MB": "x" * 10_000_000, "a path": "../../etc", "a dot": ".", "two dots": "..", "a surrogate": "a\ud800b",
}  # fmt: skip
CASES: dict[str, tuple[Step, Ends]] = {
    "an answer": (says(200), "started"),
    "in pieces": (send(chunked(STARTED[:5], STARTED[5:]) + b"0\r\n\r\n"), "started"),
    "till the end": (then(send(b"HTTP/1.1 200 OK\r\n\r\n" + STARTED), close), "started"),
    "HTTP/1.0": (then(send(b"HTTP/1.0 200 OK\r\n\r\n" + STARTED), close), "started"),
    "continue first": (then(send(b"HTTP/1.1 100 Continue\r\n\r\n"), says(200)), "started"),
    "hints first": (then(send(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 50), says(200)), "started"),
    "two answers": (then(says(200), identified("STRAY")), "started"),
    "garbage behind": (then(says(200), send(b"garbage\x00\xff\r\n")), "started"),
    "another member": (says(200, {"executionId": "e-1", "new": [1]}), "started"),
    "another success": (says(202), "started"),
    "closes at once": (close, "in doubt"),
    "resets": (reset, "in doubt"),
    "is silent": (hang, "in doubt"),
    "another protocol": (send(b"HTTP/1.1 101 X\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n"), "in doubt"),
    "HTTP/2": (then(send(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00" + bytes(18)), close), "in doubt"),
    "HTTP/0.9": (then(send(STARTED), close), "in doubt"),
    "mail": (send(b"220 SMTP ready\r\n\r\n"), "in doubt"),
    "cut": (then(says(200, length=500), close), "in doubt"),
    "cut and reset": (then(says(200, length=500), reset), "in doubt"),
    "cut and silent": (then(says(200, length=500), hang), "in doubt"),
    "shorter than it is": (says(200, length=10), "in doubt"),
    "a negative length": (says(200, length=-5), "in doubt"),
    "a length beyond bounds": (says(200, length="9" * 20), "in doubt"),
    "two lengths": (says(200, STARTED, "Content-Length: 3"), "in doubt"),
    "chunks that are none": (then(send(chunked() + b"ZZZ\r\nnope"), close), "in doubt"),
    "a chunk beyond bounds": (then(send(chunked() + b"ffffffffffffffff\r\nx"), close), "in doubt"),
    "packed": (says(200, gzip.compress(STARTED), "Content-Encoding: gzip"), "in doubt"),
    "a large head": (says(200, STARTED, "X: " + "a" * 400_000), "in doubt"),
    "many headers": (says(200, STARTED, *(f"X-{n}: v" for n in range(60_000))), "in doubt"),
    "a header for ever": (for_ever(b"a" * 1_000, b"HTTP/1.1 200 OK\r\nX: "), "in doubt"),
    "headers for ever": (for_ever(b"X: a\r\n", b"HTTP/1.1 200 OK\r\n", pause=0.01), "in doubt"),
    "a body for ever": (for_ever(b"a" * 9, b"HTTP/1.1 200 OK\r\n\r\n", pause=0.01), "in doubt"),
    "chunks for ever": (for_ever(b"1\r\na\r\n", chunked(), pause=0.01), "in doubt"),
    "a fast body for ever": (for_ever(bytes(1 << 20), b"HTTP/1.1 200 OK\r\n\r\n"), "in doubt"),
    "hints for ever": (for_ever(b"HTTP/1.1 103 X\r\n\r\n", pause=0.01), "in doubt"),
    "no JSON": (says(200, b"<html>ok</html>"), "in doubt"),
    "nothing": (says(200, b""), "in doubt"),
    "no content": (send(b"HTTP/1.1 204 X\r\n\r\n"), "in doubt"),
    "a list": (says(200, []), "in doubt"),
    "nested without end": (says(200, b'{"a":' * 50_000 + b"1" + b"}" * 50_000), "in doubt"),
    "not UTF-8": (says(200, b'{"executionId": "\xff\xfe"}'), "in doubt"),
    **{f"a {status}": (says(status, STARTED), "in doubt") for status in (300, 304, 305, 399, 500, 502, 503, 504, 599)},
    **{
        f"a {status} to {where}": (says(status, STARTED, f"Location: {where}"), "in doubt")
        for status in (301, 302, 303, 307, 308)
        for where in ("/elsewhere", "batch-job", "http://portal.example/login", "STRANGER")
    },
    **{f"a {status}": (says(status, STARTED), "not started") for status in (400, 401, 403, 404, 407, 409, 413, 429)},
    "an early timeout": (says(408, b""), "in doubt"),
    "given up by a proxy": (says(499, b""), "in doubt"),
    **{f"as id {name}": (identified(value), "in doubt") for name, value in NO_IDS.items()},
    "as id 80 characters": (identified("y" * 80), "started"),
}  # fmt: skip


async def test_one_request_goes_out_to_nobody_else_and_what_is_said_of_it_is_true(way: Way) -> None:
    """All by one client: so nothing of a bad answer reaches the next call either."""
    untrue: dict[str, str] = {}
    async with scripted(identified("STRANGERS")) as stranger, scripted(says(200)) as server:
        async with M2Client(**settings(server, way)) as client:
            for name, (step, ends) in CASES.items():
                server.steps = [placing(step, stranger.url), says(200, {"executionId": "SECOND"})]
                server.requests.clear()
                said, what = await said_of(client)
                if (said, len(server.requests)) != (ends, 1):
                    untrue[name] = f"{said}, {len(server.requests)} requests: {what}"
        assert not stranger.connections
    assert not untrue


async def said_of(client: M2Client) -> tuple[Ends, str]:
    try:
        answer = await client.start_batch_job(REQUEST)
    except CallError as error:
        assert error.message
        assert str(error).isprintable()
        return "in doubt" if error.may_have_started else "not started", str(error)
    assert answer.execution_id in {"e-1", "y" * 80}
    return "started", answer.execution_id


def placing(step: Step, url: str) -> Step:
    """Put the URL of a stranger into what a step sends."""

    async def placed(writer: asyncio.StreamWriter) -> None:
        write = writer.write
        writer.write = lambda data: write(bytes(data).replace(b"STRANGER", url.encode()))  # type: ignore[method-assign]
        try:
            await step(writer)
        finally:
            writer.write = write  # type: ignore[method-assign]

    return placed


# Lists

EXECUTION = {"applicationId": APPLICATION, "executionId": "e-1", "startTime": 1_800_000_000, "status": "Running"}


@pytest.mark.parametrize(
    "page",
    [
        {},
        {"batchJobExecutions": None},
        {"batchJobExecutions": {"a": 1}},
        {"batchJobExecutions": [None]},
        {"batchJobExecutions": ["x"]},
        {"batchJobExecutions": [7]},
        {"batchJobExecutions": [{**EXECUTION, "executionId": "a b"}]},
        {"batchJobExecutions": [EXECUTION, {**EXECUTION, "executionId": "\x1b[31mRED"}]},
        {"batchJobExecutions": [{**EXECUTION, "executionId": "y" * 81}]},
        {"batchJobExecutions": [{**EXECUTION, "startTime": "yesterday"}]},
        {"batchJobExecutions": [{**EXECUTION, "startTime": 1e300}]},
        {"batchJobExecutions": [{**EXECUTION, "startTime": 253_402_300_800}]},
        {"batchJobExecutions": [{**EXECUTION, "startTime": -62_135_596_801}]},
        {"batchJobExecutions": [{**EXECUTION, "startTime": None}]},
        {"batchJobExecutions": [{**EXECUTION, "applicationId": "another"}]},
        {"batchJobExecutions": [], "nextToken": 7},
        {"batchJobExecutions": [], "nextToken": ["a", "b"]},
        {"batchJobExecutions": [], "nextToken": "the same"},
        {"batchJobExecutions": [EXECUTION], "nextToken": "the same"},
    ],
    ids=lambda page: json.dumps(page)[:60],
)
async def test_a_list_that_is_none_or_has_no_end_is_not_taken_for_a_short_one(page: object, way: Way) -> None:
    async with scripted(says(200, page)) as server:
        async with M2Client(**settings(server, way)) as client:
            with pytest.raises(UnreadableAnswerError):
                [execution async for execution in client.list_batch_job_executions(APPLICATION)]
        assert len(server.requests) <= 2


async def test_a_list_of_empty_pages_has_an_end(way: Way) -> None:
    count = 0

    async def another(writer: asyncio.StreamWriter) -> None:
        nonlocal count
        count += 1
        await says(200, {"applications": [], "nextToken": f"t{count}"})(writer)

    async with scripted(another) as server, M2Client(**settings(server, way)) as client:
        with pytest.raises(UnreadableAnswerError, match="does not end"):
            [application async for application in client.list_applications()]
    assert count <= 200


@pytest.mark.parametrize("given", ["1800000000", "2027-01-15T08:00:00Z"])
async def test_a_start_time_that_is_a_text_is_none_of_the_models(given: str) -> None:
    async with scripted(says(200, {"batchJobExecutions": [{**EXECUTION, "startTime": given}]})) as server:
        async with M2Client(**server.settings()) as client:
            page = await client.get_batch_job_executions_page(APPLICATION)
            assert (page.executions, page.passed_over) == ([], 1)
            with pytest.raises(UnreadableAnswerError, match="ListBatchJobExecutions"):
                [execution async for execution in client.list_batch_job_executions(APPLICATION)]


async def test_an_execution_whose_id_can_be_none_does_not_hide_the_others_on_a_page(way: Way) -> None:
    page = {"batchJobExecutions": [{**EXECUTION, "executionId": "a b"}, EXECUTION]}
    async with scripted(says(200, page)) as server, M2Client(**settings(server, way)) as client:
        found = await client.get_batch_job_executions_page(APPLICATION)
    assert ([execution.execution_id for execution in found.executions], found.passed_over) == (["e-1"], 1)


NO_DEFINITIONS: list[object] = [
    {"fileBatchJobDefinition": {"fileName": 7}}, {"fileBatchJobDefinition": {"fileName": ["x"]}},
    {"fileBatchJobDefinition": {"fileName": "x", "folderPath": ["y"]}}, {"fileBatchJobDefinition": {}},
    {"fileBatchJobDefinition": ""}, {"scriptBatchJobDefinition": {"scriptName": None}},
    {"scriptBatchJobDefinition": {"scriptName": ""}}, {"scriptBatchJobDefinition": [["scriptName", "x"]]},
]  # fmt: skip
APP: dict[str, object] = {"applicationId": APPLICATION, "name": "x", "status": "Running"}
WISHES: list[tuple[str, str, tuple[str, ...], object]] = [
    ("ListApplications", "list_applications", (), {"applications": [{**APP, "applicationId": "\x1b[31m"}]}),
    ("ListApplications", "list_applications", (), {"applications": [{**APP, "applicationId": "a b"}]}),
    ("ListApplications", "list_applications", (), {"applications": [APP, None]}),
    ("ListApplications", "list_applications", (), {"applications": [{**APP, "creationTime": -1e300}]}),
    ("ListApplications", "list_applications", (), {"applications": [{**APP, "lastStartTime": 253_402_300_799}]}),
    ("ListApplications", "list_applications", (), {"applications": [], "nextToken": "a\r\nX-Evil: 1"}),
    ("ListApplications", "list_applications", (), {"applications": [], "nextToken": "x" * 2_001}),
    ("ListApplications", "list_applications", (), {"applications": [], "nextToken": True}),
    ("GetApplication", "get_application", (APPLICATION,), {**APP, "status": 7}),
    ("GetApplication", "get_application", (APPLICATION,), {**APP, "applicationArn": ["arn"]}),
    ("ListBatchJobDefinitions", "list_batch_job_definitions", (APPLICATION,), {"batchJobDefinitions": [{}, 7]}),
    *(
        ("ListBatchJobDefinitions", "list_batch_job_definitions", (APPLICATION,), {"batchJobDefinitions": [definition]})
        for definition in NO_DEFINITIONS
    ),
    ("ListBatchJobRestartPoints", "list_batch_job_restart_points", (APPLICATION, "e-1"), {"batchJobSteps": {"a": 1}}),
    (
        "ListBatchJobRestartPoints", "list_batch_job_restart_points", (APPLICATION, "e-1"),
        {"batchJobSteps": [{"stepName": "S", "stepCheckpointTime": -1}]},
    ),
    *(
        ("GetBatchJobExecution", "get_batch_job_execution", (APPLICATION, "e-1"), {**EXECUTION, **members})
        for members in (
            {"startTime": -1}, {"startTime": 253_402_300_799}, {"endTime": -62_135_596_800}, {"status": None},
            {"returnCode": {"a": 1}}, {"batchJobIdentifier": "x"},
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize(("operation", "method", "arguments", "answer"), WISHES)
async def test_whatever_is_wrong_with_an_answer_is_told_with_its_operation(
    operation: str, method: str, arguments: tuple[str, ...], answer: object
) -> None:
    async with scripted(says(200, answer)) as server, M2Client(**server.settings(transport="wire")) as client:
        call = getattr(client, method)(*arguments)
        with pytest.raises(UnreadableAnswerError, match=rf"^the answer to {operation} cannot be read: ") as caught:
            [item async for item in call] if hasattr(call, "__anext__") else await call
        assert caught.value.message.isprintable()
        assert not caught.value.may_have_started, "nobody asks again"
    assert len(server.requests) == 1


@pytest.mark.parametrize("answer", [b"[]", b'{"applications": [], "nextToken": "\\ud800"}', b"7", b"null", b'{"a": 1'])
async def test_what_is_no_object_is_told_with_its_operation(answer: bytes, way: Way) -> None:
    async with scripted(says(200, answer)) as server, M2Client(**settings(server, way)) as client:
        with pytest.raises(UnreadableAnswerError, match=r"^the answer to ListApplications cannot be read: "):
            [item async for item in client.list_applications()]


async def test_a_list_that_brings_the_same_for_ever_under_new_tokens_has_an_end(way: Way) -> None:
    count = 0

    async def another(writer: asyncio.StreamWriter) -> None:
        nonlocal count
        count += 1
        await says(200, {"applications": [APP], "nextToken": f"t{count}"})(writer)

    async with scripted(another) as server, M2Client(**settings(server, way)) as client:
        with pytest.raises(UnreadableAnswerError, match="the list of ListApplications does not end: 100 pages"):
            [application async for application in client.list_applications()]
    assert count <= 102


@pytest.mark.parametrize("account", ["\x1b[31m", "12345678901", "", "1" * 13, "\u0661" * 12, "a" * 12])
async def test_an_account_in_an_arn_that_can_be_none_is_none(account: str) -> None:
    answer = {**APP, "applicationArn": f"arn:aws:m2:us-east-1:{account}:app/x"}
    async with scripted(says(200, answer)) as server, M2Client(**server.settings()) as client:
        await client.get_application(APPLICATION)
        assert client.account_id is None


async def test_what_an_error_says_without_end_is_cut(way: Way) -> None:
    answer = says(400, {"message": "m" * 1_000_000}, f"x-amzn-errortype: {'C' * 20_000}")
    async with scripted(answer) as server, M2Client(**settings(server, way)) as client:
        with pytest.raises(CallError) as caught:
            await client.start_batch_job(REQUEST)
    assert (len(caught.value.message), len(caught.value.code)) == (2_000, 200)


@pytest.mark.parametrize(
    ("method", "arguments", "answer"),
    [
        ("list_batch_job_definitions", (), {"batchJobDefinitions": [{"fileBatchJobDefinition": {"folderPath": "x"}}]}),
        ("list_batch_job_definitions", (), {"batchJobDefinitions": ["x"]}),
        ("list_batch_job_restart_points", ("e-1",), {"batchJobSteps": [7]}),
        ("get_application", (), {"applicationId": 7}),
        ("get_batch_job_execution", ("e-1",), {**EXECUTION, "executionId": "e-2"}),
        ("get_batch_job_execution", ("e-1",), {**EXECUTION, "executionId": 7}),
    ],
)
async def test_what_has_another_shape_is_unreadable(method: str, arguments: Any, answer: object, way: Way) -> None:
    async with scripted(says(200, answer)) as server, M2Client(**settings(server, way)) as client:
        call = getattr(client, method)(APPLICATION, *arguments)
        with pytest.raises(UnreadableAnswerError):
            await (anext(call) if hasattr(call, "__anext__") else call)
