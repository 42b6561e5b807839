"""Settings, as AWS users know them: what is resolved, and by which transport calls then go."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import structlog
from aiobotocore.config import AioConfig
from aiobotocore.credentials import AioCredentials
from aiobotocore.session import AioSession
from botocore.credentials import SSOProvider

from m2async import ConfigurationError, CredentialsError, M2Client, ScriptJob, StartBatchJob
from m2async.client.settings import SessionCredentials
from tests.scripted import answer, scripted, started

REQUEST = StartBatchJob("app", ScriptJob("POSTTRAN"))


async def test_a_client_that_is_not_open_says_how_to_open_it() -> None:
    with pytest.raises(RuntimeError, match="async with M2Client"):
        await M2Client("us-east-1").start_batch_job(REQUEST)


CREDENTIALS = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}


def configure(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str) -> None:
    """Let this be the AWS configuration file."""
    config = folder / "config"
    config.write_text(text)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))


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
    configure(
        monkeypatch,
        tmp_path,
        "[profile nightly]\nregion = ap-southeast-2\naws_access_key_id = local\naws_secret_access_key = local\n",
    )
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL_M2", "AWS_USE_DUALSTACK_ENDPOINT"):
        monkeypatch.delenv(name)
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

ROLE = (
    "[profile base]\naws_access_key_id = base\naws_secret_access_key = base\n"
    "[profile batch]\nrole_arn = arn:aws:iam::123456789012:role/batch\nsource_profile = base\nregion = us-east-1\n"
)


async def test_an_assumed_role_signs_the_calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    configure(monkeypatch, tmp_path, ROLE)
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
    configure(monkeypatch, tmp_path, ROLE)
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
    configure(
        monkeypatch,
        tmp_path,
        "[profile sso]\nsso_start_url = https://example.awsapps.com/start\nsso_region = us-east-1\n"
        "sso_account_id = 123456789012\nsso_role_name = Batch\nregion = us-east-1\n",
    )
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


# The transport that is chosen


async def chosen_transport(**settings: Any) -> tuple[str, list[Any]]:
    with structlog.testing.capture_logs() as events:
        async with M2Client(**settings) as client:
            name = type(client._transport).__name__
    structlog.reset_defaults()
    return name, events


async def test_calls_go_over_the_wire_by_default_and_no_event_is_made_of_it() -> None:
    async with scripted(started()) as server:
        assert await chosen_transport(**server.settings()) == ("WireTransport", [])
        assert await chosen_transport(**server.settings(transport="aiobotocore")) == ("AiobotocoreTransport", [])


async def test_a_proxy_is_served_through_aiobotocore_and_a_log_event_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async with scripted(started()) as server:
        settings = server.settings()
        settings["session"].set_default_client_config(AioConfig(proxies={"http": "http://127.0.0.1:3128"}))
        name, [event] = await chosen_transport(**settings)
        assert name == "AiobotocoreTransport"
        assert (event["event"], event["transport"]) == ("client.transport_chosen", "aiobotocore")
        assert event["reason"] == "proxy"
    async with scripted(started()) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        session = AioSession()
        session.set_credentials("local", "local")
        async with M2Client("us-east-1", session=session, endpoint_url="http://localhost:9") as client:
            await client.start_batch_job(REQUEST)
        assert proxy.requests[0].startswith(b"POST http://localhost:9/applications/app/batch-job HTTP/1.1\r\n")


async def test_event_hooks_of_the_callers_session_are_served_through_aiobotocore() -> None:
    seen = []

    def hook(**arguments: Any) -> None:
        seen.append(arguments["event_name"])

    async with scripted(started()) as server:
        settings = server.settings()
        settings["session"].get_component("event_emitter").register("before-sign.m2", hook)
        name, [event] = await chosen_transport(**settings)
        assert (name, event["reason"]) == ("AiobotocoreTransport", "event hooks")
        async with M2Client(**settings) as client:
            await client.start_batch_job(REQUEST)
    assert seen == ["before-sign.m2.StartBatchJob"]


async def test_plain_http_goes_to_loopback_and_to_hosts_allowed_by_name_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    for url in ("http://127.0.0.1:9", "http://localhost:9", "http://[::1]:9", "https://m2.example"):
        assert await resolved(region_name="us-east-1", endpoint_url=url) == url
    with pytest.raises(ConfigurationError, match=r"http://m2\.example is plain HTTP, which goes to loopback only"):
        await resolved(region_name="us-east-1", endpoint_url="http://m2.example")
    url = "http://m2.example"
    assert await resolved(region_name="us-east-1", endpoint_url=url, plain_http_to=["m2.example"]) == url
    for wrong in ("ftp://127.0.0.1", "http://127.0.0.1:99999"):
        with pytest.raises(ConfigurationError):
            await resolved(region_name="us-east-1", endpoint_url=wrong)


@pytest.mark.parametrize("transport", ["wire", "aiobotocore"])
async def test_credentials_that_no_header_can_hold_are_refused_on_opening(
    monkeypatch: pytest.MonkeyPatch, transport: Any
) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "two\nlines")
    with pytest.raises(CredentialsError, match="the session token holds"):
        await resolved(region_name="us-east-1", transport=transport)


async def test_who_waited_for_a_renewal_in_vain_does_not_ask_again() -> None:
    asked = 0

    async def load() -> AioCredentials:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        return AioCredentials("old", "old", method="test")

    session = AioSession()
    found = await load()
    session.get_component("credential_provider").load_credentials = load
    source = SessionCredentials(session, found)
    old = await source.current()
    assert await asyncio.gather(*[source.renewed(old) for _ in range(20)]) == [old] * 20
    assert asked == 2
    await source.renewed(old)
    assert asked == 3  # later there may be others
