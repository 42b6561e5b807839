"""Every answer against botocore's model of the service."""

from __future__ import annotations

import re
from typing import Any

import pytest
from botocore.loaders import Loader
from botocore.model import ListShape, MapShape, ServiceModel, Shape, StringShape, StructureShape

from m2async.local import DEFAULT_APPLICATION_ID, LocalEndpoint
from m2async.local.definitions import ApplicationDefinition, JobDefinition, StepDefinition
from tests.local.conftest import Clock
from tests.local.raw import Reply, call, start

MODEL = ServiceModel(Loader().load_service_model("m2", "service-2"))
PATTERNS = {
    name: description["pattern"]
    for name, description in Loader().load_service_model("m2", "service-2")["shapes"].items()
    if "pattern" in description
}
FAILING = JobDefinition("FAIL.jcl", "FAIL", (StepDefinition("S1"), StepDefinition("S2")), return_code=8)
ODD_ID = "odd/ä+" + "x" * 74


def problems(shape: Shape, value: Any, path: str) -> list[str]:
    """Where a value is not what its shape says."""
    if isinstance(shape, StructureShape):
        if not isinstance(value, dict):
            return [f"{path}: not a structure"]
        in_body = {name: member for name, member in shape.members.items() if "location" not in member.serialization}
        found = [f"{path}.{name}: missing" for name in shape.required_members if name not in value]
        found += [f"{path}.{name}: unknown" for name in value if name not in in_body]
        if getattr(shape, "is_tagged_union", False) and len(value) != 1:
            found.append(f"{path}: a union with {len(value)} members")
        for name in value.keys() & in_body.keys():
            found += problems(in_body[name], value[name], f"{path}.{name}")
        return found
    if isinstance(shape, ListShape):
        if not isinstance(value, list):
            return [f"{path}: not a list"]
        return [
            problem for index, one in enumerate(value) for problem in problems(shape.member, one, f"{path}[{index}]")
        ]
    assert not isinstance(shape, MapShape), "no answer of the batch part has a map"
    kinds: dict[str, tuple[type, ...]] = {
        "string": (str,),
        "integer": (int,),
        "boolean": (bool,),
        "timestamp": (int, float),
    }
    if type(value) not in kinds[shape.type_name]:
        return [f"{path}: {value!r} is no {shape.type_name}"]
    if isinstance(shape, StringShape) and shape.enum and value not in shape.enum:
        return [f"{path}: {value!r} is none of {shape.enum}"]
    if shape.name in PATTERNS and not re.search(PATTERNS[shape.name], value):
        return [f"{path}: {value!r} does not match {PATTERNS[shape.name]}"]
    if shape.type_name == "timestamp" and (value < 1_500_000_000 or round(value * 1_000) / 1_000 != value):
        return [f"{path}: {value!r} is not in seconds of the epoch with milliseconds"]
    return []


def check_output(operation: str, reply: Reply) -> None:
    assert reply.status == 200
    shape = MODEL.operation_model(operation).output_shape
    assert shape is not None
    assert problems(shape, reply.json, operation) == []


def check_error(operation: str, name: str, reply: Reply) -> None:
    [shape] = [shape for shape in MODEL.operation_model(operation).error_shapes if shape.name == name]
    assert reply.code == name
    assert reply.status == shape.metadata["error"]["httpStatusCode"]
    assert problems(shape, reply.json, name) == []


def test_the_check_finds_what_is_wrong() -> None:
    shape = MODEL.shape_for("GetBatchJobExecutionResponse")
    right = {"applicationId": "a", "executionId": "b", "startTime": 1_795_446_000.123, "status": "Running"}
    assert problems(shape, right, "x") == []
    wrong = {"applicationId": "a b", "startTime": "2026", "status": "running", "more": 1, "batchJobIdentifier": {}}
    assert len(problems(shape, wrong, "x")) == 6


async def test_every_output_is_what_the_model_says_at_every_stage_of_life(clock: Clock) -> None:
    failing = ApplicationDefinition("failing", "Failing", jobs=(FAILING,))
    stopped = ApplicationDefinition("stopped", "Stopped", "Stopped")
    seen = set()
    async with LocalEndpoint(
        definitions=[failing, stopped], extra_applications=[DEFAULT_APPLICATION_ID, "one", "two/ä"], clock=clock, seed=1
    ) as endpoint:
        check_output("ListApplications", await call(endpoint, "GET", "/applications"))
        check_output("ListApplications", await call(endpoint, "GET", "/applications?maxResults=1"))
        for application_id in ("failing", "stopped", "one", "two%2F%C3%A4"):
            check_output("GetApplication", await call(endpoint, "GET", f"/applications/{application_id}"))
        path = "/applications/failing/batch-job-definitions"
        check_output("ListBatchJobDefinitions", await call(endpoint, "GET", path))
        file = {"batchJobIdentifier": {"fileBatchJobIdentifier": {"fileName": "FAIL.jcl", "folderPath": "jcl"}}}
        script = {"batchJobIdentifier": {"scriptBatchJobIdentifier": {"scriptName": "any script at all " * 20}}}
        s3 = {"batchJobIdentifier": {"s3BatchJobIdentifier": {"bucket": "b", "identifier": {"scriptName": "x"}}}}
        ids = []
        for body in (file, script, s3):
            reply = await start(endpoint, body, "failing")
            check_output("StartBatchJob", reply)
            ids.append(reply.json["executionId"])
        restart = {"executionId": ids[0], "jobStepRestartMarker": {"fromStep": "S2", "skip": False, "toStep": "S2"}}
        reply = await start(endpoint, {"batchJobIdentifier": {"restartBatchJobIdentifier": restart}}, "failing")
        check_output("StartBatchJob", reply)
        ids.append(reply.json["executionId"])
        root = "/applications/failing/batch-job-executions"
        check_output("CancelBatchJobExecution", await call(endpoint, "POST", f"{root}/{ids[1]}/cancel", {}))
        for _ in range(20):
            check_output("ListBatchJobExecutions", await call(endpoint, "GET", f"{root}?maxResults=3"))
            for execution_id in ids:
                reply = await call(endpoint, "GET", f"{root}/{execution_id}")
                check_output("GetBatchJobExecution", reply)
                seen.add(reply.json["status"])
                check_output("ListBatchJobRestartPoints", await call(endpoint, "GET", f"{root}/{execution_id}/steps"))
            clock.now += 0.0801
    assert seen == {"Submitting", "Dispatching", "Running", "Succeeded", "Failed", "Cancelling", "Cancelled"}


async def test_every_error_is_what_the_model_says(clock: Clock) -> None:
    stopped = ApplicationDefinition("stopped", "Stopped", "Stopped")
    async with LocalEndpoint(definitions=[stopped], clock=clock, rate=0.1, burst=3) as endpoint:
        check_error("StartBatchJob", "ResourceNotFoundException", await start(endpoint))
        check_error("StartBatchJob", "ConflictException", await start(endpoint, application_id="stopped"))
        check_error("StartBatchJob", "ValidationException", await start(endpoint, {}))
        reply = await start(endpoint)
        check_error("StartBatchJob", "ThrottlingException", reply)
        assert reply.headers["retry-after"] == "10"
        path = "/applications/none/batch-job-executions"
        reply = await call(endpoint, "GET", path)
        check_error("ListBatchJobExecutions", "ResourceNotFoundException", reply)
        reply = await call(endpoint, "GET", f"{path}?maxResults=0")
        check_error("ListBatchJobExecutions", "ValidationException", reply)
    async with LocalEndpoint(faults={"500": 1}) as endpoint:
        check_error("StartBatchJob", "InternalServerException", await start(endpoint))


async def test_an_application_of_any_valid_id_is_described_as_the_model_says() -> None:
    async with LocalEndpoint(extra_applications=[ODD_ID]) as endpoint:
        check_output("ListApplications", await call(endpoint, "GET", "/applications"))


@pytest.mark.parametrize(
    "operation",
    [
        "ListApplications", "GetApplication", "ListBatchJobDefinitions", "StartBatchJob", "GetBatchJobExecution",
        "ListBatchJobExecutions", "CancelBatchJobExecution", "ListBatchJobRestartPoints",
    ],
)  # fmt: skip
async def test_every_operation_is_found_where_the_model_puts_it(endpoint: LocalEndpoint, operation: str) -> None:
    http = MODEL.operation_model(operation).http
    path = http["requestUri"].format(applicationId="none", executionId="none")
    reply = await call(endpoint, http["method"], path, {} if http["method"] == "POST" else None)
    assert reply.headers.get("x-amzn-errortype") != "UnknownOperationException"
