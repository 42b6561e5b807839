"""Unmodified clients use every route: boto3, the AWS CLI and the JavaScript SDK."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import boto3
import pytest
from botocore.config import Config

from m2async.local import DEFAULT_APPLICATION_ID as APPLICATION
from m2async.local import LocalEndpoint
from tests.local.conftest import Clock
from tests.local.raw import started

JAVASCRIPT = Path(__file__).parents[1] / "javascript"
FILE = {"fileBatchJobIdentifier": {"fileName": "POSTTRAN.jcl"}}
SCRIPT = {"scriptBatchJobIdentifier": {"scriptName": "ä script"}}
S3 = {"s3BatchJobIdentifier": {"bucket": "b", "keyPrefix": "k/", "identifier": {"fileName": "INTCALC.jcl"}}}
PARAMS = {"RUNDATE": "20261123", "NAME": "é €"}


def environment(endpoint: LocalEndpoint, home: Path) -> dict[str, str]:
    """Nothing but what points a client at the endpoint."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "PYTHONUTF8": "1",
        "AWS_ENDPOINT_URL_M2": endpoint.url,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@pytest.fixture
def boto(endpoint: LocalEndpoint) -> Iterator[Any]:
    with _boto_client(endpoint) as client:
        yield client


class _boto_client:  # noqa: N801 - a context
    def __init__(self, endpoint: LocalEndpoint, **config: Any) -> None:
        self.client: Any = boto3.client(
            "m2",
            region_name="us-east-1",
            endpoint_url=endpoint.url,
            aws_access_key_id="local",
            aws_secret_access_key="local",
            config=Config(**config),
        )

    def __enter__(self) -> Any:
        return self.client

    def __exit__(self, *_: object) -> None:
        self.client.close()


async def ask(operation: Callable[..., Any], **arguments: Any) -> Any:
    """Call a blocking client's operation for the default application."""
    return await anyio.to_thread.run_sync(partial(operation, applicationId=APPLICATION, **arguments))


async def test_boto3_lists_what_there_is_to_start(boto: Any) -> None:
    answer = await anyio.to_thread.run_sync(partial(boto.list_applications, names=["CardDemo"], maxResults=10))
    [summary] = answer["applications"]
    assert (summary["applicationId"], summary["status"]) == (APPLICATION, "Running")
    application = await ask(boto.get_application)
    assert application["latestVersion"]["applicationVersion"] == 1
    pages = boto.get_paginator("list_batch_job_definitions").paginate(
        applicationId=APPLICATION, prefix="READ", PaginationConfig={"PageSize": 3}
    )
    found = await anyio.to_thread.run_sync(lambda: list(pages.search("batchJobDefinitions")))
    assert [one["fileBatchJobDefinition"]["fileName"] for one in found] == [
        "READACCT.jcl",
        "READCARD.jcl",
        "READCUST.jcl",
        "READXREF.jcl",
    ]


async def test_boto3_starts_and_follows_every_kind_of_job(boto: Any, endpoint: LocalEndpoint, clock: Clock) -> None:
    ids = [
        (await ask(boto.start_batch_job, batchJobIdentifier=job, jobParams=PARAMS))["executionId"]
        for job in (FILE, SCRIPT, S3)
    ]
    restart = {"executionId": ids[0], "jobStepRestartMarker": {"fromStep": "STEP15", "skip": True}}
    job = {"restartBatchJobIdentifier": restart}
    ids.append((await ask(boto.start_batch_job, batchJobIdentifier=job))["executionId"])
    assert [one["executionId"] for one in await started(endpoint)] == ids
    assert [one["jobParams"] for one in await started(endpoint)] == [PARAMS, PARAMS, PARAMS, {}]
    shown = await ask(boto.get_batch_job_execution, executionId=ids[0])
    assert (shown["status"], shown["jobName"]) == ("Submitting", "POSTTRAN")
    assert abs(shown["startTime"] - datetime.fromtimestamp(clock.now, UTC)) < timedelta(milliseconds=1)
    assert (await ask(boto.get_batch_job_execution, executionId=ids[3]))["jobStepRestartMarker"] == {
        "fromStep": "STEP15",
        "skip": True,
    }
    assert await ask(boto.cancel_batch_job_execution, executionId=ids[1])
    clock.now += 5
    listed = (await ask(boto.list_batch_job_executions))["batchJobExecutions"]
    assert [one["executionId"] for one in listed] == ids[::-1]
    assert [one["status"] for one in listed] == ["Succeeded", "Succeeded", "Cancelled", "Succeeded"]
    assert listed[0]["endTime"] > listed[0]["startTime"]
    steps = (await ask(boto.list_batch_job_restart_points, executionId=ids[2]))["batchJobSteps"]
    assert [(step["stepName"], step["stepCondCode"]) for step in steps] == [("STEP15", "0")]


async def test_boto3_finds_executions_by_every_filter(boto: Any, endpoint: LocalEndpoint, clock: Clock) -> None:
    clock.now = float(int(clock.now) + 1)
    times, ids = [], []
    for job in (FILE, S3, FILE, S3, FILE):
        clock.now += 0.5
        times.append(datetime.fromtimestamp(clock.now, UTC))
        ids.append((await ask(boto.start_batch_job, batchJobIdentifier=job))["executionId"])

    async def found(**query: Any) -> list[str]:
        pages = boto.get_paginator("list_batch_job_executions").paginate(
            applicationId=APPLICATION, PaginationConfig={"PageSize": 2}, **query
        )
        return await anyio.to_thread.run_sync(
            lambda: [one["executionId"] for one in pages.search("batchJobExecutions")]
        )

    assert await found() == ids[::-1]
    assert await found(executionIds=[ids[3], ids[1]]) == [ids[3], ids[1]]
    assert await found(jobName="INTCALC") == [ids[3], ids[1]]
    assert await found(status="Succeeded") == ids[1::-1]
    between = {"startedAfter": times[0], "startedBefore": times[3]}
    assert await found(**between) == [ids[2], ids[1]]
    assert await found(startedAfter=times[3] + timedelta(microseconds=1)) == [ids[4]]
    assert await found(startedAfter=times[4]) == []


async def test_boto3_raises_the_modelled_exceptions_with_their_members(boto: Any) -> None:
    with pytest.raises(boto.exceptions.ResourceNotFoundException) as missing:
        await ask(boto.start_batch_job, batchJobIdentifier={"fileBatchJobIdentifier": {"fileName": "NOSUCH.jcl"}})
    assert missing.value.response["resourceId"] == "NOSUCH.jcl"
    assert missing.value.response["ResponseMetadata"]["RequestId"]
    with pytest.raises(boto.exceptions.ValidationException) as invalid:
        await ask(boto.start_batch_job, batchJobIdentifier=FILE, jobParams={"1": "x"})
    assert invalid.value.response["reason"] == "fieldValidationFailed"
    assert [field["name"] for field in invalid.value.response["fieldList"]] == ["jobParams"]


async def test_boto3_reads_what_a_throttled_answer_says(clock: Clock) -> None:
    async with LocalEndpoint(rate=0.1, clock=clock) as endpoint:
        with _boto_client(endpoint, retries={"total_max_attempts": 1}) as client:
            await ask(client.start_batch_job, batchJobIdentifier=FILE)
            with pytest.raises(client.exceptions.ThrottlingException) as throttled:
                await ask(client.start_batch_job, batchJobIdentifier=FILE)
    response = throttled.value.response
    assert (response["retryAfterSeconds"], response["serviceCode"]) == (10, "m2")


async def test_the_aws_cli_drives_every_route(endpoint: LocalEndpoint, clock: Clock, tmp_path: Path) -> None:
    variables = environment(endpoint, tmp_path)

    async def aws(operation: str, *options: str) -> Any:
        command = [sys.executable, "-m", "awscli", "m2", operation, "--output", "json", *options]
        done = await anyio.run_process(command, env=variables, check=False, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, done.stderr.decode()
        return json.loads(done.stdout) if done.stdout else None

    app = ("--application-id", APPLICATION)
    identifier, params = ("--batch-job-identifier", json.dumps(FILE)), ("--job-params", json.dumps(PARAMS))
    first = (await aws("start-batch-job", *app, *identifier, *params))["executionId"]
    [execution] = await started(endpoint)
    assert (execution["executionId"], execution["jobParams"]) == (first, PARAMS)
    second = (await aws("start-batch-job", *app, "--batch-job-identifier", json.dumps(SCRIPT)))["executionId"]
    one = (*app, "--execution-id", first)
    since = datetime.fromtimestamp(clock.now - 1, UTC).isoformat()
    answers: dict[str, Any] = {}

    async def keep(operation: str, *options: str, name: str | None = None) -> None:
        answers[name or operation] = await aws(operation, *options)

    async with anyio.create_task_group() as group:
        for operation, options in {
            "list-applications": ("--names", "CardDemo"),
            "get-application": app,
            "list-batch-job-definitions": (*app, "--prefix", "POST"),
            "get-batch-job-execution": one,
            "list-batch-job-executions": (*app, "--started-after", since, "--page-size", "1"),
            "list-batch-job-restart-points": one,
            "cancel-batch-job-execution": (*app, "--execution-id", second),
        }.items():
            group.start_soon(keep, operation, *options)
        group.start_soon(
            partial(keep, name="filtered"), "list-batch-job-executions", *app, "--execution-ids", first, second,
            "--job-name", "POSTTRAN", "--started-before", "2100-01-01T00:00:00Z", "--max-results", "5",
        )  # fmt: skip
    assert [one["name"] for one in answers["list-applications"]["applications"]] == ["CardDemo"]
    assert answers["get-application"]["status"] == "Running"
    assert answers["list-batch-job-definitions"]["batchJobDefinitions"] == [
        {"fileBatchJobDefinition": {"fileName": "POSTTRAN.jcl"}}
    ]
    assert answers["get-batch-job-execution"]["jobName"] == "POSTTRAN"
    assert [one["executionId"] for one in answers["list-batch-job-executions"]["batchJobExecutions"]] == [second, first]
    assert [one["executionId"] for one in answers["filtered"]["batchJobExecutions"]] == [first]
    assert [one["stepName"] for one in answers["list-batch-job-restart-points"]["batchJobSteps"]] == ["STEP15"]
    assert [one["status"] for one in await started(endpoint)] == ["Submitting", "Cancelling"]


@pytest.fixture(scope="session")
def javascript(pytestconfig: pytest.Config) -> Path:
    """A folder with the JavaScript SDK, kept in pytest's cache from run to run."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not there")
    assert pytestconfig.cache is not None
    folder = Path(pytestconfig.cache.mkdir("m2async-javascript"))
    with (folder / "lock").open("w") as lock:  # the tests may run in several processes
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = (JAVASCRIPT / "package.json").read_text()
        version = json.loads(wanted)["dependencies"]["@aws-sdk/client-m2"]
        installed = folder / "node_modules" / "@aws-sdk" / "client-m2" / "package.json"
        if not installed.exists() or json.loads(installed.read_text())["version"] != version:
            (folder / "package.json").write_text(wanted)
            subprocess.run(
                ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund"], cwd=folder, check=True, timeout=120
            )
    return folder


async def drive(javascript: Path, endpoint: LocalEndpoint, *arguments: str) -> Any:
    done = await anyio.run_process(
        ["node", "--input-type=module", "-", APPLICATION, *arguments],
        input=(JAVASCRIPT / "drive.mjs").read_bytes(),
        cwd=javascript,
        env=environment(endpoint, javascript),
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


async def test_the_javascript_sdk_drives_every_route(endpoint: LocalEndpoint, clock: Clock, javascript: Path) -> None:
    answers = await drive(javascript, endpoint)
    everything = await started(endpoint)
    ids = [execution["executionId"] for execution in everything]
    assert answers["started"] == ids
    assert [execution["jobParams"] for execution in everything] == [PARAMS, PARAMS, PARAMS, {}]
    assert [one["applicationId"] for one in answers["applications"]] == [APPLICATION]
    assert answers["application"]["status"] == "Running"
    assert answers["definitions"] == [{"fileBatchJobDefinition": {"fileName": "POSTTRAN.jcl"}}]
    assert answers["execution"]["jobName"] == "POSTTRAN"
    shown = datetime.fromisoformat(answers["execution"]["startTime"])
    assert abs(shown - datetime.fromtimestamp(clock.now, UTC)) < timedelta(milliseconds=2)
    assert answers["all"] == ids[::-1]
    assert answers["none"] == answers["failed"] == []
    assert answers["byId"] == [ids[1], ids[0]]
    assert answers["byName"] == [ids[3], ids[0]]
    assert [step["stepName"] for step in answers["steps"]] == ["STEP15"]
    assert answers["cancelled"] == {}
    assert everything[1]["status"] == "Cancelling"
    assert (answers["missing"]["name"], answers["missing"]["resourceId"]) == ("ResourceNotFoundException", "NOSUCH.jcl")
    assert answers["missing"]["hasRequestId"]
    assert (answers["invalid"]["name"], answers["invalid"]["fields"]) == ("ValidationException", ["jobParams"])


async def test_the_javascript_sdk_starts_a_job_three_times_when_the_answer_is_lost(javascript: Path) -> None:
    async with LocalEndpoint(faults={"accept-then-500": 1}) as endpoint:
        refused = (await drive(javascript, endpoint, "once"))["refused"]
        assert (refused["name"], refused["attempts"]) == ("InternalServerException", 3)
        assert len(await started(endpoint)) == 3
