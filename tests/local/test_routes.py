from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from urllib.parse import quote

import pytest

from m2async.local import DEFAULT_APPLICATION_ID, LocalEndpoint
from m2async.local.definitions import ApplicationDefinition
from m2async.local.routes import MAX_BODY
from tests.local.conftest import Clock
from tests.local.raw import (
    EXECUTIONS_PATH,
    SCRIPT,
    START_PATH,
    Reply,
    call,
    send,
    signed_headers,
    start,
    started,
)

STOPPED = ApplicationDefinition("stopped", "Stopped", "Stopped")


def fields(reply: Reply) -> list[str]:
    """The members that a ValidationException names, after a look at its shape."""
    assert (reply.status, reply.code, reply.json["reason"]) == (400, "ValidationException", "fieldValidationFailed")
    assert all(set(field) == {"name", "message"} for field in reply.json["fieldList"])
    return [field["name"] for field in reply.json["fieldList"]]


def file(name: str) -> dict[str, Any]:
    return {"batchJobIdentifier": {"fileBatchJobIdentifier": {"fileName": name}}}


def restart(execution_id: str, **marker: str) -> dict[str, Any]:
    member = {"executionId": execution_id, "jobStepRestartMarker": marker}
    return {"batchJobIdentifier": {"restartBatchJobIdentifier": member}}


async def test_every_answer_has_a_request_id_of_its_own(endpoint: LocalEndpoint) -> None:
    replies = [
        await call(endpoint, "GET", "/applications"),
        await call(endpoint, "GET", "/nothing"),
        await start(endpoint, {}),
        await send(endpoint, "GET", "/applications"),
        await send(endpoint, "GET", "/_local/executions"),
    ]
    assert len({reply.headers["x-amzn-requestid"] for reply in replies}) == len(replies)
    assert {reply.headers["content-type"] for reply in replies} == {"application/json"}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "http://127.0.0.1/applications"),
        ("GET", "/environments"),
        ("GET", "//applications"),
        ("DELETE", f"/applications/{DEFAULT_APPLICATION_ID}"),
        ("GET", START_PATH),
        ("POST", EXECUTIONS_PATH),
        ("GET", EXECUTIONS_PATH + "/a/b/c"),
        ("POST", "/_local/executions"),
    ],
)
async def test_what_is_no_operation_is_answered_as_unknown(endpoint: LocalEndpoint, method: str, path: str) -> None:
    reply = await send(endpoint, method, path)
    assert (reply.status, reply.code) == (404, "UnknownOperationException")


async def test_a_started_job_runs_to_its_end_by_the_clock(endpoint: LocalEndpoint, clock: Clock) -> None:
    execution_id = (await start(endpoint, file("POSTTRAN.jcl"))).json["executionId"]
    path = f"{EXECUTIONS_PATH}/{execution_id}"
    first = (await call(endpoint, "GET", path)).json
    assert (first["status"], first["jobName"], first["jobType"]) == ("Submitting", "POSTTRAN", "JES2")
    assert first["batchJobIdentifier"] == file("POSTTRAN.jcl")["batchJobIdentifier"]
    assert first["startTime"] == pytest.approx(clock.now, abs=0.001)
    clock.now += 2
    last = (await call(endpoint, "GET", path)).json
    assert (last["status"], last["returnCode"]) == ("Succeeded", "0")
    assert (await call(endpoint, "GET", EXECUTIONS_PATH)).json == {"batchJobExecutions": [last]}


async def test_what_was_started_is_shown_with_its_parameters_and_no_signature(endpoint: LocalEndpoint) -> None:
    await start(endpoint, {**SCRIPT, "jobParams": {"RUNDATE": "20261123"}})
    await start(endpoint, {"batchJobIdentifier": {}})
    await start(endpoint, file("INTCALC.jcl"))
    first, second = await started(endpoint)
    assert first["jobParams"] == {"RUNDATE": "20261123"}
    assert first["batchJobIdentifier"] == SCRIPT["batchJobIdentifier"]
    assert (second["jobParams"], second["applicationId"]) == ({}, DEFAULT_APPLICATION_ID)


async def test_the_service_never_shows_parameters(endpoint: LocalEndpoint) -> None:
    reply = await start(endpoint, {**SCRIPT, "jobParams": {"RUNDATE": "20261123"}})
    path = f"{EXECUTIONS_PATH}/{reply.json['executionId']}"
    for shown in (await call(endpoint, "GET", path), await call(endpoint, "GET", EXECUTIONS_PATH)):
        assert b"20261123" not in shown.body


async def test_an_unknown_application_is_not_found(endpoint: LocalEndpoint) -> None:
    for reply in (
        await start(endpoint, application_id="none"),
        await call(endpoint, "GET", "/applications/none"),
        await call(endpoint, "GET", "/applications/none/batch-job-definitions"),
        await call(endpoint, "GET", "/applications/none/batch-job-executions"),
        await call(endpoint, "GET", "/applications/none/batch-job-executions/x"),
        await call(endpoint, "GET", "/applications/none/batch-job-executions/x/steps"),
        await call(endpoint, "POST", "/applications/none/batch-job-executions/x/cancel", {}),
    ):
        assert (reply.status, reply.code) == (404, "ResourceNotFoundException")
        assert (reply.json["resourceId"], reply.json["resourceType"]) == ("none", "Application")


async def test_an_unknown_execution_is_not_found(endpoint: LocalEndpoint) -> None:
    for reply in (
        await call(endpoint, "GET", f"{EXECUTIONS_PATH}/none"),
        await call(endpoint, "GET", f"{EXECUTIONS_PATH}/none/steps"),
        await call(endpoint, "POST", f"{EXECUTIONS_PATH}/none/cancel", {}),
        await start(endpoint, restart("none", fromStep="STEP15")),
    ):
        assert (reply.status, reply.code) == (404, "ResourceNotFoundException")
        assert (reply.json["resourceId"], reply.json["resourceType"]) == ("none", "BatchJobExecution")


async def test_an_execution_of_another_application_is_not_found() -> None:
    async with LocalEndpoint(extra_applications=["other"]) as endpoint:
        execution_id = (await start(endpoint)).json["executionId"]
        reply = await call(endpoint, "GET", f"/applications/other/batch-job-executions/{execution_id}")
        assert (reply.status, reply.json["resourceId"]) == (404, execution_id)
        reply = await start(endpoint, restart(execution_id, fromStep="STEP15"), "other")
        assert (reply.status, reply.json["resourceId"]) == (404, execution_id)
        assert len(await started(endpoint)) == 1


async def test_a_file_that_is_not_among_the_members_is_not_found_by_its_own_name(endpoint: LocalEndpoint) -> None:
    reply = await start(endpoint, file("NOSUCH.jcl"))
    assert (reply.status, reply.code) == (404, "ResourceNotFoundException")
    assert (reply.json["resourceId"], reply.json["resourceType"]) == ("NOSUCH.jcl", "BatchJobDefinition")
    assert await started(endpoint) == []


async def test_an_application_that_is_not_running_is_a_conflict() -> None:
    async with LocalEndpoint(definitions=[STOPPED]) as endpoint:
        reply = await start(endpoint, application_id="stopped")
        assert (reply.status, reply.code) == (409, "ConflictException")
        assert (reply.json["resourceId"], reply.json["resourceType"]) == ("stopped", "Application")
        assert (await call(endpoint, "GET", "/applications/stopped")).json["status"] == "Stopped"
        assert await started(endpoint) == []


async def test_an_extra_application_accepts_any_script_file_and_s3_job() -> None:
    s3 = {"batchJobIdentifier": {"s3BatchJobIdentifier": {"bucket": "b", "identifier": {"fileName": "X.jcl"}}}}
    async with LocalEndpoint(extra_applications=["one", "two-with/é"]) as endpoint:
        for body in (SCRIPT, file("NOSUCH.jcl"), s3):
            assert (await start(endpoint, body, "one")).status == 200
            assert (await start(endpoint, body, "two-with%2F%C3%A9")).status == 200
        assert (await start(endpoint)).status == 200  # the default application stays
        assert len(await started(endpoint)) == 7


async def test_an_extra_application_takes_no_defined_ones_place() -> None:
    async with LocalEndpoint(extra_applications=[DEFAULT_APPLICATION_ID]) as endpoint:
        assert (await start(endpoint, file("NOSUCH.jcl"))).status == 404
        assert len((await call(endpoint, "GET", "/applications")).json["applications"]) == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "batchJobIdentifier"),
        ({"batchJobIdentifier": {}}, "batchJobIdentifier"),
        ({"batchJobIdentifier": 1}, "batchJobIdentifier"),
        ({**SCRIPT, "jobParams": {"1": "x"}}, "jobParams"),
        ({**SCRIPT, "jobParams": {"RUNDATE": "x" * 1_025}}, "jobParams.RUNDATE"),
        ({**SCRIPT, "jobParams": {f"P{number}": "" for number in range(501)}}, "jobParams"),
        ({**SCRIPT, "authSecretsManagerArn": "short"}, "authSecretsManagerArn"),
        ({**SCRIPT, "more": 1}, "more"),
        (
            {"batchJobIdentifier": {"scriptBatchJobIdentifier": {}}},
            "batchJobIdentifier.scriptBatchJobIdentifier.scriptName",
        ),
        (file(""), "fileName"),
    ],
)
async def test_a_request_that_breaks_the_model_is_refused_with_its_member(
    endpoint: LocalEndpoint, body: dict[str, Any], field: str
) -> None:
    assert fields(await start(endpoint, body)) == [field]
    assert await started(endpoint) == []


async def test_the_application_is_the_paths(endpoint: LocalEndpoint) -> None:
    assert (await start(endpoint, {**SCRIPT, "applicationId": "other"})).status == 200
    assert [execution["applicationId"] for execution in await started(endpoint)] == [DEFAULT_APPLICATION_ID]


async def test_a_step_that_the_job_does_not_have_is_refused(endpoint: LocalEndpoint) -> None:
    execution_id = (await start(endpoint, file("INTCALC.jcl"))).json["executionId"]
    marker = "batchJobIdentifier.restartBatchJobIdentifier.jobStepRestartMarker"
    assert fields(await start(endpoint, restart(execution_id, fromStep="STEP99"))) == [f"{marker}.fromStep"]
    wrong_end = restart(execution_id, fromStep="STEP15", toStep="STEP99")
    assert fields(await start(endpoint, wrong_end)) == [f"{marker}.toStep"]
    assert (await start(endpoint, restart(execution_id, fromStep="STEP15"))).status == 200


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"1", b'{"a": "\xff"}', b'{"a": "\\ud800"}', b"[" * 100_000, b"\x00"]
)
async def test_a_body_that_is_no_json_object_cannot_be_parsed(endpoint: LocalEndpoint, body: bytes) -> None:
    reply = await start(endpoint, body)
    assert (reply.status, reply.code, reply.json["reason"]) == (400, "ValidationException", "cannotParse")


async def test_the_longest_valid_request_is_accepted_and_a_longer_body_is_not_read(endpoint: LocalEndpoint) -> None:
    params = {f"P{number:031}": "\N{PILE OF POO}" * 1_024 for number in range(500)}
    assert (await start(endpoint, {**SCRIPT, "jobParams": params})).status == 200
    reply = await start(endpoint, b" " * (MAX_BODY + 1))
    assert (reply.status, reply.code) == (413, "RequestEntityTooLargeException")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("maxResults=0", "maxResults"),
        ("maxResults=2001", "maxResults"),
        ("maxResults=ten", "maxResults"),
        ("maxResults=%D9%A1", "maxResults"),
        ("nextToken=bad", "nextToken"),
        ("nextToken=YWJj", "nextToken"),
        ("nextToken=%C3%A9", "nextToken"),
        ("nextToken=LTE%3D", "nextToken"),  # -1
        ("status=succeeded", "status"),
        ("jobName=a%20b", "jobName"),
        ("jobName=", "jobName"),
        ("&".join(f"executionIds=id{number}" for number in range(11)), "executionIds"),
        ("executionIds=a%20b", "executionIds"),
        ("startedAfter=1795446000", "startedAfter"),
        ("startedAfter=2026-11-23", "startedAfter"),
        ("startedAfter=2026-11-23T00%3A00%3A00", "startedAfter"),
        ("startedBefore=2026-13-23T00%3A00%3A00Z", "startedBefore"),
        ("startedBefore=", "startedBefore"),
    ],
)
async def test_a_query_that_breaks_the_model_is_refused_with_its_member(
    endpoint: LocalEndpoint, query: str, field: str
) -> None:
    assert fields(await call(endpoint, "GET", f"{EXECUTIONS_PATH}?{query}")) == [field]


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("GET", "/applications?names=a%20b", None, "names"),
        ("GET", "/applications?environmentId=", None, "environmentId"),
        ("GET", "/applications/a%20b", None, "applicationId"),
        ("GET", f"/applications/{'a' * 81}", None, "applicationId"),
        ("GET", f"/applications/{DEFAULT_APPLICATION_ID}/batch-job-definitions?maxResults=x", None, "maxResults"),
        ("GET", f"{EXECUTIONS_PATH}/a%20b", None, "executionId"),
        ("GET", f"{EXECUTIONS_PATH}/a/steps?authSecretsManagerArn=short", None, "authSecretsManagerArn"),
        ("POST", f"{EXECUTIONS_PATH}/a/cancel", {"authSecretsManagerArn": 1}, "authSecretsManagerArn"),
    ],
)
async def test_other_operations_check_their_input_too(
    endpoint: LocalEndpoint, method: str, path: str, body: object, field: str
) -> None:
    assert fields(await call(endpoint, method, path, body)) == [field]


@pytest.mark.parametrize(
    ("zone", "form"),
    [
        (UTC, "%Y-%m-%dT%H:%M:%SZ"),  # botocore and the AWS CLI, on a whole second
        (UTC, "%Y-%m-%dT%H:%M:%S.%fZ"),  # botocore and the AWS CLI
        (UTC, "%Y-%m-%dT%H:%M:%S.000Z"),  # the JavaScript SDK
        (timezone(timedelta(hours=1)), "%Y-%m-%dT%H:%M:%S+01:00"),
        (timezone(timedelta(hours=-9)), "%Y-%m-%dt%H:%M:%S-09:00"),
    ],
)
async def test_times_of_a_query_are_rfc_3339(endpoint: LocalEndpoint, clock: Clock, zone: timezone, form: str) -> None:
    clock.now = float(int(clock.now) + 1)
    shown = quote(datetime.fromtimestamp(clock.now, zone).strftime(form))
    clock.now -= 0.001
    before = (await start(endpoint)).json["executionId"]
    clock.now += 0.002
    after = (await start(endpoint)).json["executionId"]
    for query, found in ((f"startedAfter={shown}", after), (f"startedBefore={shown}", before)):
        reply = await call(endpoint, "GET", f"{EXECUTIONS_PATH}?{query}")
        assert [execution["executionId"] for execution in reply.json["batchJobExecutions"]] == [found]


async def test_lists_go_over_several_pages(endpoint: LocalEndpoint) -> None:
    ids = [(await start(endpoint)).json["executionId"] for _ in range(5)]
    found, query = [], "maxResults=2"
    for _ in range(3):
        reply = await call(endpoint, "GET", f"{EXECUTIONS_PATH}?{query}")
        found += [execution["executionId"] for execution in reply.json["batchJobExecutions"]]
        await start(endpoint)
        query = f"maxResults=2&nextToken={reply.json.get('nextToken')}"
    assert found == ids[::-1]
    assert "nextToken" not in reply.json


async def test_definitions_are_listed_by_prefix_and_page(endpoint: LocalEndpoint) -> None:
    path = f"/applications/{DEFAULT_APPLICATION_ID}/batch-job-definitions"

    async def files(query: str) -> tuple[list[str], str | None]:
        reply = (await call(endpoint, "GET", f"{path}?{query}")).json
        names = [one["fileBatchJobDefinition"]["fileName"] for one in reply["batchJobDefinitions"]]
        return names, reply.get("nextToken")

    assert len((await files(""))[0]) == 46
    assert await files("prefix=CBA") == (["CBADMCDJ.jcl"], None)
    assert await files("prefix=none") == ([], None)
    all_of_read, _ = await files("prefix=READ")
    first, token = await files("prefix=READ&maxResults=3")
    rest, end = await files(f"prefix=READ&maxResults=3&nextToken={token}")
    assert first + rest == all_of_read == ["READACCT.jcl", "READCARD.jcl", "READCUST.jcl", "READXREF.jcl"]
    assert end is None


async def test_applications_are_listed_by_name_and_page() -> None:
    async with LocalEndpoint(definitions=[STOPPED], extra_applications=["one", "two"]) as endpoint:

        async def names(query: str) -> list[str]:
            reply = (await call(endpoint, "GET", f"/applications?{query}")).json
            return [application["name"] for application in reply["applications"]]

        assert await names("") == ["app-one", "app-two", "Stopped"]
        assert await names("names=Stopped&names=app-two") == ["app-two", "Stopped"]
        assert await names("environmentId=some") == []
        assert "nextToken" not in (await call(endpoint, "GET", "/applications?maxResults=3")).json
        reply = (await call(endpoint, "GET", "/applications?maxResults=2")).json
        assert await names(f"maxResults=2&nextToken={reply['nextToken']}") == ["Stopped"]


async def test_a_cancelled_job_is_cancelled_and_an_ended_one_is_a_conflict(
    endpoint: LocalEndpoint, clock: Clock
) -> None:
    ended = (await start(endpoint)).json["executionId"]
    clock.now += 10
    fresh = (await start(endpoint)).json["executionId"]
    for body in (b"", b"{}"):
        reply = await call(endpoint, "POST", f"{EXECUTIONS_PATH}/{fresh}/cancel", body)
        assert (reply.status, reply.json) == (200, {})
        assert (await call(endpoint, "GET", f"{EXECUTIONS_PATH}/{fresh}")).json["status"] == "Cancelling"
    clock.now += 1
    assert (await call(endpoint, "GET", f"{EXECUTIONS_PATH}/{fresh}")).json["status"] == "Cancelled"
    for execution_id in (ended, fresh):
        reply = await call(endpoint, "POST", f"{EXECUTIONS_PATH}/{execution_id}/cancel", {})
        assert (reply.status, reply.code) == (409, "ConflictException")
        assert (reply.json["resourceId"], reply.json["resourceType"]) == (execution_id, "BatchJobExecution")


async def test_the_quota_holds_for_starts_alone_and_refills_with_the_clock(clock: Clock) -> None:
    async with LocalEndpoint(rate=2, burst=3, clock=clock) as endpoint:
        assert [(await start(endpoint)).status for _ in range(5)] == [200, 200, 200, 429, 429]
        reply = await start(endpoint)
        assert (reply.code, reply.json["serviceCode"]) == ("ThrottlingException", "m2")
        assert reply.json["quotaCode"]
        assert "retry-after" not in reply.headers  # the next token is half a second away
        assert (await call(endpoint, "GET", EXECUTIONS_PATH)).status == 200
        clock.now += 1
        assert [(await start(endpoint)).status for _ in range(3)] == [200, 200, 429]
        assert len(await started(endpoint)) == 5


async def test_retry_after_tells_whole_seconds_if_the_next_token_is_one_or_more_away(clock: Clock) -> None:
    async with LocalEndpoint(rate=0.4, clock=clock) as endpoint:
        assert (await start(endpoint)).status == 200
        assert (await start(endpoint)).headers["retry-after"] == "3"
        clock.now += 1.5
        assert (await start(endpoint)).headers["retry-after"] == "1"
        clock.now += 0.5
        assert "retry-after" not in (await start(endpoint)).headers
        clock.now += 0.5
        assert (await start(endpoint)).status == 200


async def test_the_burst_is_a_seconds_worth_if_it_is_not_given(clock: Clock) -> None:
    async with LocalEndpoint(rate=4, clock=clock) as endpoint:
        assert [(await start(endpoint)).status for _ in range(6)] == [200] * 4 + [429] * 2


async def test_the_signature_is_checked_before_the_quota_and_the_quota_before_the_request(clock: Clock) -> None:
    async with LocalEndpoint(rate=1, clock=clock) as endpoint:
        for _ in range(3):
            assert (await send(endpoint, "POST", START_PATH, b"{}")).status == 403
        assert (await start(endpoint, {})).status == 400  # takes the token
        assert (await start(endpoint, {})).status == 429


async def test_calls_over_one_connection_are_answered_in_turn(endpoint: LocalEndpoint) -> None:
    body = json.dumps(SCRIPT).encode()
    headers = signed_headers(endpoint, "POST", START_PATH, body)
    head = f"POST {START_PATH} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    reader, writer = await asyncio.open_connection("127.0.0.1", int(endpoint.url.rpartition(":")[2]))
    writer.write(request * 3)
    answers = [await reader.readuntil(b"}") for _ in range(3)]
    writer.close()
    ids = [answer.partition(b'"executionId":"')[2][:26].decode() for answer in answers]
    assert ids == [execution["executionId"] for execution in await started(endpoint)]


async def test_the_quota_can_be_changed_while_it_runs(clock: Clock) -> None:
    async with LocalEndpoint(rate=1, burst=1, clock=clock) as endpoint:
        assert [(await start(endpoint)).status for _ in range(2)] == [200, 429]
        changed = await send(endpoint, "POST", "/_local/quota", b'{"rate": 2, "burst": 4}')
        assert (changed.status, changed.json) == (200, {"rate": 2, "burst": 4})
        assert (await start(endpoint)).status == 429
        clock.now += 10
        assert [(await start(endpoint)).status for _ in range(5)] == [200] * 4 + [429]


async def test_an_endpoint_without_a_quota_can_be_given_one(clock: Clock) -> None:
    async with LocalEndpoint(clock=clock) as endpoint:
        await send(endpoint, "POST", "/_local/quota", b'{"rate": 1, "burst": 1}')
        assert [(await start(endpoint)).status for _ in range(2)] == [200, 429]


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"rate": 0, "burst": 1}', b'{"rate": "1", "burst": 1}', b"\xff"])
async def test_what_is_no_quota_is_refused_and_changes_nothing(clock: Clock, body: bytes) -> None:
    async with LocalEndpoint(rate=1, burst=2, clock=clock) as endpoint:
        reply = await send(endpoint, "POST", "/_local/quota", body)
        assert (reply.status, reply.code) == (400, "ValidationException")
        assert [(await start(endpoint)).status for _ in range(3)] == [200, 200, 429]
