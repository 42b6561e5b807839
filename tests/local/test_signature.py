from __future__ import annotations

import hashlib
import json
import time
from datetime import UTC, datetime
from email.message import Message

import pytest
from botocore.auth import SigV4Auth

from m2async.local import LocalEndpoint
from tests.local.conftest import Clock
from tests.local.raw import EXECUTIONS_PATH, SCRIPT, START_PATH, call, send, signed_headers, started

BODY = json.dumps(SCRIPT).encode()
CHANGED_BODY = BODY.replace(b"POSTTRAN", b"INTCALC")


async def test_an_unsigned_request_is_refused(endpoint: LocalEndpoint) -> None:
    reply = await send(endpoint, "POST", START_PATH, BODY)
    assert (reply.status, reply.code) == (403, "MissingAuthenticationTokenException")
    assert "AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local" in reply.json["message"]
    assert await started(endpoint) == []


@pytest.mark.parametrize("key_id", ["local", "test", "AKIDEXAMPLE", "with/slash"])
async def test_any_access_key_id_is_accepted_whose_secret_is_the_same_text(
    endpoint: LocalEndpoint, key_id: str
) -> None:
    headers = signed_headers(endpoint, "POST", START_PATH, BODY, key_id=key_id, secret=key_id)
    assert (await send(endpoint, "POST", START_PATH, BODY, headers)).status == 200


async def test_another_secret_is_refused_with_a_word_on_which_one_is_accepted(endpoint: LocalEndpoint) -> None:
    headers = signed_headers(endpoint, "POST", START_PATH, BODY, secret="other")
    reply = await send(endpoint, "POST", START_PATH, BODY, headers)
    assert (reply.status, reply.code) == (403, "InvalidSignatureException")
    assert "any access key id whose secret access key is the same text" in reply.json["message"]
    assert await started(endpoint) == []


async def test_the_key_of_the_environment_is_accepted_besides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKID")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "its-secret")
    async with LocalEndpoint() as endpoint:
        for secret, status in (("its-secret", 200), ("AKID", 200), ("other", 403)):
            headers = signed_headers(endpoint, "GET", "/applications", key_id="AKID", secret=secret)
            reply = await send(endpoint, "GET", "/applications", headers=headers)
            assert reply.status == status
            assert "its-secret" not in reply.body.decode()


async def test_the_given_credentials_take_the_place_of_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKID")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "its-secret")
    async with LocalEndpoint(credentials={"given": "secret"}) as endpoint:
        for key_id, secret, status in (("given", "secret", 200), ("AKID", "its-secret", 403)):
            headers = signed_headers(endpoint, "GET", "/applications", key_id=key_id, secret=secret)
            assert (await send(endpoint, "GET", "/applications", headers=headers)).status == status


@pytest.mark.parametrize("changed", ["body", "path", "query", "header", "date", "method", "signature", "host"])
async def test_a_request_that_was_changed_after_signing_is_refused(endpoint: LocalEndpoint, changed: str) -> None:
    method, target, body = "POST", START_PATH + "?a=1&b=2", BODY
    headers = signed_headers(endpoint, method, target, body, headers={"X-Amz-Meta": "signed"})
    assert (await send(endpoint, method, target, body, headers)).status == 200
    if changed == "body":
        body = CHANGED_BODY
    elif changed == "path":
        target = target.replace("carddemo", "carddem0")
    elif changed == "query":
        target = target.replace("a=1", "a=3")
    elif changed == "header":
        headers["X-Amz-Meta"] = "changed"
    elif changed == "date":
        later = datetime.fromtimestamp(time.time() + 60, UTC)
        headers["X-Amz-Date"] = later.strftime("%Y%m%dT%H%M%SZ")
    elif changed == "method":
        method, target = "GET", EXECUTIONS_PATH + "?a=1&b=2"
        headers = signed_headers(endpoint, "POST", target, body)
    elif changed == "signature":
        headers["Authorization"] = headers["Authorization"][:-1] + ("0" if headers["Authorization"][-1] != "0" else "1")
    elif changed == "host":
        headers["Host"] = "localhost"
    reply = await send(endpoint, method, target, body, headers)
    assert (reply.status, reply.code) == (403, "InvalidSignatureException")
    assert len(await started(endpoint)) == 1


async def test_the_stated_hash_of_the_body_must_be_the_bodys(endpoint: LocalEndpoint) -> None:
    stated = {"X-Amz-Content-SHA256": hashlib.sha256(BODY).hexdigest()}
    headers = signed_headers(endpoint, "POST", START_PATH, BODY, headers=stated)
    assert (await send(endpoint, "POST", START_PATH, BODY, headers)).status == 200
    reply = await send(endpoint, "POST", START_PATH, CHANGED_BODY, headers)
    assert (reply.status, reply.code) == (403, "InvalidSignatureException")


async def test_a_fragment_does_not_slip_past_the_signature(endpoint: LocalEndpoint) -> None:
    target = EXECUTIONS_PATH + "?jobName=A"
    headers = signed_headers(endpoint, "GET", target)
    assert (await send(endpoint, "GET", target, headers=headers)).status == 200
    reply = await send(endpoint, "GET", target + "#B", headers=headers)
    assert (reply.status, reply.code) == (403, "InvalidSignatureException")


async def test_the_credential_scope_must_be_of_the_requests_day(endpoint: LocalEndpoint) -> None:
    headers = signed_headers(endpoint, "GET", "/applications")
    today = headers["X-Amz-Date"][:8]
    headers["Authorization"] = headers["Authorization"].replace(f"/{today}/", "/20260101/")
    reply = await send(endpoint, "GET", "/applications", headers=headers)
    assert (reply.status, reply.code) == (403, "InvalidSignatureException")


async def test_a_signed_header_may_come_in_several_lines(endpoint: LocalEndpoint) -> None:
    headers = signed_headers(endpoint, "GET", "/applications", headers={"X-Amz-Meta": "a,b"})
    headers["X-Amz-Meta"] = "a\r\nX-Amz-Meta:  b"
    assert (await send(endpoint, "GET", "/applications", headers=headers)).status == 200
    headers["X-Amz-Meta"] = "a\r\nX-Amz-Meta: c"
    assert (await send(endpoint, "GET", "/applications", headers=headers)).status == 403


@pytest.mark.parametrize("missing", ["host", "x-amz-date"])
async def test_host_and_date_must_be_signed(
    endpoint: LocalEndpoint, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    sign_all = SigV4Auth.headers_to_sign
    with monkeypatch.context() as patch:
        patch.setattr(SigV4Auth, "headers_to_sign", lambda self, request: _without(missing, sign_all(self, request)))
        headers = signed_headers(endpoint, "GET", "/applications")
    reply = await send(endpoint, "GET", "/applications", headers=headers)
    assert (reply.status, reply.code) == (403, "InvalidSignatureException")
    assert reply.json["message"] == f"The header '{missing}' must be a signed header."


def _without(name: str, headers: Message) -> Message:
    del headers[name]
    return headers


async def test_a_signature_for_another_service_is_refused(endpoint: LocalEndpoint) -> None:
    headers = signed_headers(endpoint, "GET", "/applications", service="s3")
    reply = await send(endpoint, "GET", "/applications", headers=headers)
    assert (reply.status, reply.code) == (403, "InvalidSignatureException")
    assert "correct service: 'm2', not 's3'" in reply.json["message"]


@pytest.mark.parametrize("authorization", ["", "Bearer token", "AWS4-HMAC-SHA256 Credential=a/b", "AWS4-HMAC-SHA256"])
async def test_an_authorization_of_another_kind_is_refused(endpoint: LocalEndpoint, authorization: str) -> None:
    reply = await send(endpoint, "GET", "/applications", headers={"Authorization": authorization})
    assert (reply.status, reply.code) == (403, "InvalidSignatureException")


@pytest.mark.parametrize("date", ["", "yesterday", "2026-11-23T00:00:00Z"])
async def test_a_date_that_is_none_is_refused(endpoint: LocalEndpoint, date: str) -> None:
    headers = signed_headers(endpoint, "GET", "/applications")
    headers["X-Amz-Date"] = date
    reply = await send(endpoint, "GET", "/applications", headers=headers)
    assert (reply.status, reply.code) == (403, "InvalidSignatureException")


@pytest.mark.parametrize(
    ("skew", "message"),
    [(310, "Signature expired: "), (290, None), (-290, None), (-310, "Signature not yet current: ")],
)
async def test_a_signature_holds_for_five_minutes_of_the_endpoints_clock(
    endpoint: LocalEndpoint, clock: Clock, skew: float, message: str | None
) -> None:
    clock.now = time.time() + skew
    reply = await call(endpoint, "GET", "/applications")
    if message is None:
        assert reply.status == 200
    else:
        assert (reply.status, reply.code) == (403, "InvalidSignatureException")
        assert reply.json["message"].startswith(message)
    shown = datetime.strptime(reply.headers["date"], "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=UTC)
    assert shown.timestamp() == int(clock.now)


async def test_names_that_a_path_and_a_query_must_encode_are_verified_as_they_came() -> None:
    application_id = "a+b%c/d~é"
    async with LocalEndpoint(extra_applications=[application_id]) as endpoint:
        target = "/applications/a%2Bb%25c%2Fd~%C3%A9"
        reply = await call(endpoint, "GET", target)
        assert reply.json["applicationId"] == application_id
        reply = await call(endpoint, "GET", target + "/batch-job-executions?jobName=%2B%20&jobName=%2A")
        assert (reply.status, reply.code) == (400, "ValidationException")  # and not 403
