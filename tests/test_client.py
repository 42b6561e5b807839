from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from aiobotocore.session import AioSession
from botocore.credentials import SSOProvider

from m2async import (
    AnswerTimeoutError,
    CallError,
    ConfigurationError,
    ConnectionLostError,
    CredentialsError,
    FileJob,
    InternalServerException,
    InvalidRequestError,
    LocalEndpoint,
    M2Client,
    M2ServiceException,
    NotSentError,
    ResourceNotFoundException,
    ScriptJob,
    StartBatchJob,
    StartBatchJobResponse,
    ThrottlingException,
    UnreadableAnswerError,
    ValidationException,
)
from m2async.answers import parse_retry_after
from tests.scripted import Step, answer, close, error, hang, reset, scripted, send, started, truncated

APPLICATION = "carddemolocalapplication23"
REQUEST = StartBatchJob(APPLICATION, ScriptJob("POSTTRAN"), {"RUNDATE": "20261123"})


async def test_a_started_job_gives_its_execution_id_and_the_request_id() -> None:
    async with scripted(started("abc")) as server, M2Client(**server.settings()) as client:
        response = await client.start_batch_job(REQUEST)
    assert response == StartBatchJobResponse("abc", "r-1")
    [sent] = server.requests
    assert sent.startswith(f"POST {REQUEST.path} HTTP/1.1\r\n".encode())
    assert json.loads(sent.partition(b"\r\n\r\n")[2]) == json.loads(REQUEST.body())


@pytest.mark.parametrize(
    ("step", "kind", "may_have_started"),
    [
        (error(400, "ValidationException", reason="other"), ValidationException, False),
        (error(404, "ResourceNotFoundException"), ResourceNotFoundException, False),
        (error(429, "ThrottlingException"), ThrottlingException, False),
        (answer(429, b"slow down"), ThrottlingException, False),
        (error(500, "InternalServerException"), InternalServerException, True),
        (answer(500, b"<html>"), M2ServiceException, True),
        (answer(503, b""), M2ServiceException, True),
        (answer(200, {}), UnreadableAnswerError, True),
        (answer(200, {"executionId": 7}), UnreadableAnswerError, True),
        (answer(200, {"executionId": ""}), UnreadableAnswerError, True),
        (answer(200, b"[1]"), UnreadableAnswerError, True),
        (answer(200, b"not json"), UnreadableAnswerError, True),
        (send(b"SMTP ready\r\n\r\n"), CallError, True),
        (truncated, ConnectionLostError, True),
        (close, ConnectionLostError, True),
        (reset, ConnectionLostError, True),
        (hang, AnswerTimeoutError, True),
    ],
)
async def test_each_end_of_a_call_has_its_error_and_the_request_was_sent_once(
    step: Step, kind: type[CallError], may_have_started: bool
) -> None:
    async with scripted(step) as server, M2Client(**server.settings(read_timeout=0.3)) as client:
        with pytest.raises(CallError) as caught:
            await client.start_batch_job(REQUEST)
        assert len(server.requests) == 1
    assert isinstance(caught.value, kind)
    assert caught.value.may_have_started is may_have_started
    assert caught.value.code
    assert caught.value.message


async def test_a_connection_that_breaks_on_its_second_use_is_not_used_to_send_again() -> None:
    async with scripted(started(), reset) as server, M2Client(**server.settings()) as client:
        await client.start_batch_job(REQUEST)
        with pytest.raises(ConnectionLostError):
            await client.start_batch_job(REQUEST)
        assert len(server.requests) == 2


async def test_a_port_where_nobody_listens_means_not_sent() -> None:
    async with scripted(started()) as server:
        settings = server.settings()
    async with M2Client(**settings) as client:
        with pytest.raises(NotSentError) as caught:
            await client.start_batch_job(REQUEST)
    assert caught.value.may_have_started is False


async def test_an_unverifiable_certificate_means_not_sent(tmp_path: Path) -> None:
    async with scripted(started()) as server:
        settings = server.settings()
        settings["endpoint_url"] = settings["endpoint_url"].replace("http:", "https:")
        async with M2Client(**settings) as client:  # it speaks no TLS
            with pytest.raises(NotSentError):
                await client.start_batch_job(REQUEST)
    assert server.requests == []


async def test_retry_after_and_modelled_members_reach_the_caller() -> None:
    step = error(429, "ThrottlingException", {"Retry-After": "7"}, quotaCode="L-1", serviceCode="m2")
    async with scripted(step) as server, M2Client(**server.settings()) as client:
        with pytest.raises(ThrottlingException) as caught:
            await client.start_batch_job(REQUEST)
    throttled = caught.value
    assert (throttled.retry_after, throttled.quota_code, throttled.service_code) == (7.0, "L-1", "m2")
    assert (throttled.http_status, throttled.request_id, throttled.message) == (429, "r-1", "ThrottlingException said")


def test_retry_after_is_a_number_of_seconds_or_a_date() -> None:
    assert parse_retry_after("2.5") == 2.5
    in_a_minute = parse_retry_after(format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True))
    assert in_a_minute is not None
    assert 55 < in_a_minute <= 60
    assert parse_retry_after("Mon, 01 Jan 2001 00:00:00 GMT") == 0
    for nothing in (None, "", "soon", "nan", "inf", "-3"):
        assert parse_retry_after(nothing) in {None, 0}


async def test_lists_follow_the_token_to_their_end(client: M2Client, endpoint: LocalEndpoint) -> None:
    ids = [(await client.start_batch_job(REQUEST)).execution_id for _ in range(7)]
    listed = [e async for e in client.list_batch_job_executions(APPLICATION, page_size=3)]
    assert {e.execution_id for e in listed} == set(ids)
    assert len(listed) == 7
    two = [e.execution_id async for e in client.list_batch_job_executions(APPLICATION, execution_ids=ids[:2])]
    assert set(two) == set(ids[:2])
    long_ago, soon = datetime(2001, 1, 1, tzinfo=UTC), datetime.now(UTC) + timedelta(hours=1)
    assert len([e async for e in client.list_batch_job_executions(APPLICATION, started_after=long_ago)]) == 7
    assert [e async for e in client.list_batch_job_executions(APPLICATION, started_after=soon)] == []
    definitions = [d async for d in client.list_batch_job_definitions(APPLICATION, page_size=10)]
    assert len({d.name for d in definitions}) == 46
    named = [d async for d in client.list_batch_job_definitions(APPLICATION, prefix="POSTTRAN")]
    assert [(d.type, d.name) for d in named] == [("file", "POSTTRAN.jcl")]
    assert [a.application_id async for a in client.list_applications()] == [APPLICATION]
    assert [a async for a in client.list_applications(names=["Nobody"])] == []


async def test_an_execution_can_be_read_cancelled_and_asked_for_its_steps(client: M2Client) -> None:
    started = await client.start_batch_job(StartBatchJob(APPLICATION, FileJob("CARDFILE.jcl")))
    execution = await client.get_batch_job_execution(APPLICATION, started.execution_id)
    assert execution.job == FileJob("CARDFILE.jcl")
    assert not execution.is_terminal
    steps = await client.list_batch_job_restart_points(APPLICATION, started.execution_id)
    assert [step.step_name for step in steps][:2] == ["CLCIFIL", "STEP05"]
    await client.cancel_batch_job_execution(APPLICATION, started.execution_id)
    execution = await client.get_batch_job_execution(APPLICATION, started.execution_id)
    assert execution.status in {"Cancelling", "Cancelled"}
    application = await client.get_application(APPLICATION)
    assert (application.name, application.status) == ("CardDemo", "Running")


async def test_an_id_that_would_change_the_path_is_refused_before_it_is_sent(client: M2Client) -> None:
    for wrong in ("..", "", "a b"):
        with pytest.raises(InvalidRequestError):
            await client.get_batch_job_execution(APPLICATION, wrong)
        with pytest.raises(InvalidRequestError):
            await client.get_application(wrong)


async def test_middleware_sees_request_and_answer_the_last_one_added_first() -> None:
    seen = []
    async with scripted(started()) as server, M2Client(**server.settings()) as client:
        for name in ("inner", "outer"):

            async def middleware(request: StartBatchJob, call_next: object, name: str = name) -> StartBatchJobResponse:
                seen.append(f"{name} before")
                response: StartBatchJobResponse = await call_next(request)  # type: ignore[operator]
                seen.append(f"{name} after")
                return response

            client.use(middleware)
        await client.start_batch_job(REQUEST)
    assert seen == ["outer before", "inner before", "inner after", "outer after"]


# Settings, as AWS users know them


async def test_a_client_that_is_not_open_says_how_to_open_it() -> None:
    with pytest.raises(RuntimeError, match="async with M2Client"):
        await M2Client("us-east-1").start_batch_job(REQUEST)


CREDENTIALS = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}


async def resolved(**settings: object) -> str:
    async with M2Client(**settings) as client:  # type: ignore[arg-type]
        return client.endpoint_url


async def test_region_and_endpoint_variants_resolve_as_for_every_aws_tool(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    assert await resolved(region_name="eu-central-1") == "https://m2.eu-central-1.amazonaws.com"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-west-2")
    assert await resolved() == "https://m2.us-west-2.amazonaws.com"
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    assert await resolved() == "https://m2.us-east-1.amazonaws.com"
    monkeypatch.setenv("AWS_USE_FIPS_ENDPOINT", "true")
    assert await resolved() == "https://m2-fips.us-east-1.amazonaws.com"
    monkeypatch.setenv("AWS_USE_DUALSTACK_ENDPOINT", "true")
    assert await resolved() == "https://m2-fips.us-east-1.api.aws"
    monkeypatch.delenv("AWS_USE_FIPS_ENDPOINT")
    assert await resolved() == "https://m2.us-east-1.api.aws"
    monkeypatch.setenv("AWS_ENDPOINT_URL_M2", "http://127.0.0.1:9")
    assert await resolved() == "http://127.0.0.1:9"
    config = tmp_path / "config"
    config.write_text("[profile nightly]\nregion = ap-southeast-2\n")
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL_M2", "AWS_USE_DUALSTACK_ENDPOINT"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    assert await resolved(profile_name="nightly") == "https://m2.ap-southeast-2.amazonaws.com"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"profile_name": "nope", "region_name": "us-east-1"}, "nope"),
        ({}, "AWS_REGION"),
        ({"region_name": "not a region"}, "not a region"),
        ({"region_name": "us-east-1", "endpoint_url": "nonsense"}, "nonsense"),
    ],
)
async def test_settings_that_cannot_be_used_are_named_on_opening(settings: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        await resolved(**settings)


async def test_without_credentials_nothing_is_sent() -> None:
    async with scripted(started()) as server:
        with pytest.raises(CredentialsError, match="Unable to locate credentials"):
            async with M2Client("us-east-1", endpoint_url=server.url):
                pass
        assert server.requests == []


@pytest.mark.parametrize("content", [None, "not a certificate"])
async def test_a_ca_bundle_that_cannot_be_read_is_named_on_opening(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None
) -> None:
    bundle = tmp_path / "bundle.pem"
    if content is not None:
        bundle.write_text(content)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=r"CA bundle .*bundle.pem"):
        await resolved(region_name="us-east-1")


STS = """<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>
<AccessKeyId>ASSUMED</AccessKeyId><SecretAccessKey>ASSUMED</SecretAccessKey><SessionToken>token-of-the-role</SessionToken>
<Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"""


async def test_an_assumed_role_signs_the_calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(
        "[profile base]\naws_access_key_id = base\naws_secret_access_key = base\n"
        "[profile batch]\nrole_arn = arn:aws:iam::123456789012:role/batch\nsource_profile = base\nregion = us-east-1\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    async with scripted(answer(200, STS.encode())) as sts, scripted(started()) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", sts.url)
        async with M2Client(profile_name="batch", endpoint_url=server.url) as client:
            await client.start_batch_job(REQUEST)
    [sent] = server.requests
    assert b"Credential=ASSUMED/" in sent
    assert b"token-of-the-role" in sent


async def test_a_role_that_may_not_be_assumed_is_a_matter_of_credentials(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = tmp_path / "config"
    config.write_text(
        "[profile base]\naws_access_key_id = base\naws_secret_access_key = base\n"
        "[profile batch]\nrole_arn = arn:aws:iam::123456789012:role/batch\nsource_profile = base\nregion = us-east-1\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    denied = answer(
        403, b"<ErrorResponse><Error><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>"
    )
    async with scripted(denied) as sts, scripted(started()) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", sts.url)
        with pytest.raises(CredentialsError, match="AssumeRole"):
            async with M2Client(profile_name="batch", endpoint_url=server.url) as client:
                await client.start_batch_job(REQUEST)
        assert server.requests == []


async def test_single_sign_on_signs_the_calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(
        "[profile sso]\nsso_start_url = https://example.awsapps.com/start\nsso_region = us-east-1\n"
        "sso_account_id = 123456789012\nsso_role_name = Batch\nregion = us-east-1\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    cache = tmp_path / "cache"
    cache.mkdir()
    monkeypatch.setattr(SSOProvider, "_SSO_TOKEN_CACHE_DIR", str(cache))  # else it lies in the home folder
    name = hashlib.sha1(b"https://example.awsapps.com/start").hexdigest()  # as the AWS CLI names it
    (cache / f"{name}.json").write_text(json.dumps({"accessToken": "t", "expiresAt": "2099-01-01T00:00:00Z"}))
    credentials = {"accessKeyId": "FROMSSO", "secretAccessKey": "s", "sessionToken": "t", "expiration": 4070908800000}
    async with scripted(answer(200, {"roleCredentials": credentials})) as sso, scripted(started()) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SSO", sso.url)
        async with M2Client(profile_name="sso", endpoint_url=server.url) as client:
            await client.start_batch_job(REQUEST)
    [sent] = server.requests
    assert b"Credential=FROMSSO/" in sent


def test_a_session_and_a_profile_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="not both"):
        M2Client(session=AioSession(), profile_name="x")
