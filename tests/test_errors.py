from __future__ import annotations

from typing import Any

import pytest

from m2async import errors
from m2async.errors import (
    AuthenticationException,
    ConflictException,
    ExpiredTokenException,
    InternalServerException,
    M2ServiceException,
    ResourceNotFoundException,
    ThrottlingException,
    ValidationException,
    service_exception,
)
from tests import model

OPERATIONS = [
    "StartBatchJob",
    "GetBatchJobExecution",
    "ListBatchJobExecutions",
    "CancelBatchJobExecution",
    "ListBatchJobDefinitions",
    "ListBatchJobRestartPoints",
    "GetApplication",
    "ListApplications",
]


def modelled_errors() -> dict[str, Any]:
    return {
        shape.name: shape
        for operation in OPERATIONS
        for shape in model.service().operation_model(operation).error_shapes
    }


@pytest.mark.parametrize("name", modelled_errors())
def test_every_modelled_exception_has_a_class_of_its_name_with_status_fault_and_members(name: str) -> None:
    shape = modelled_errors()[name]
    status = shape.metadata["error"]["httpStatusCode"]
    error = service_exception(name, "said", http_status=status, request_id="r-1")
    assert type(error) is getattr(errors, name)
    assert (error.code, error.message, error.request_id, error.http_status) == (name, "said", "r-1", status)
    assert error.fault == ("client" if shape.metadata["error"].get("senderFault") else "server")
    assert error.may_have_started is (status >= 500)
    snake = {"quotaCode": "quota_code", "serviceCode": "service_code", "resourceId": "resource_id"}
    snake |= {"resourceType": "resource_type", "fieldList": "field_list", "retryAfterSeconds": "retry_after"}
    for member in shape.members:
        assert hasattr(error, snake.get(member, member)), member


def test_modelled_members_are_read() -> None:
    details = {"quotaCode": "L-1", "serviceCode": "m2"}
    throttled = service_exception("ThrottlingException", "slow down", http_status=429, retry_after=3.0, details=details)
    assert isinstance(throttled, ThrottlingException)
    assert (throttled.quota_code, throttled.service_code, throttled.retry_after) == ("L-1", "m2", 3.0)
    invalid = service_exception(
        "ValidationException",
        "no",
        http_status=400,
        details={"reason": "fieldValidationFailed", "fieldList": [{"name": "jobParams", "message": "too long"}, 7]},
    )
    assert isinstance(invalid, ValidationException)
    assert invalid.reason == "fieldValidationFailed"
    assert [(field.name, field.message) for field in invalid.field_list] == [("jobParams", "too long")]
    missing = service_exception(
        "ResourceNotFoundException", "no", http_status=404, details={"resourceId": "a", "resourceType": "Application"}
    )
    assert isinstance(missing, ResourceNotFoundException)
    assert (missing.resource_id, missing.resource_type) == ("a", "Application")


@pytest.mark.parametrize(
    ("code", "status", "kind", "name"),
    [
        ("ConflictException:http://internal.amazon.com/coral/com.amazon", 409, ConflictException, "ConflictException"),
        ("aws.m2#ThrottlingException", 429, ThrottlingException, "ThrottlingException"),
        ("TooManyRequestsException", 429, ThrottlingException, "TooManyRequestsException"),
        ("429", 429, ThrottlingException, "429"),
        ("InternalServerException", 500, InternalServerException, "InternalServerException"),
        ("ExpiredTokenException", 403, ExpiredTokenException, "ExpiredTokenException"),
        ("InvalidSignatureException", 403, AuthenticationException, "InvalidSignatureException"),
        ("SomethingNewException", 418, M2ServiceException, "SomethingNewException"),
        ("ServiceUnavailableException", 503, M2ServiceException, "ServiceUnavailableException"),
    ],
)
def test_codes_find_their_class_however_they_are_written(
    code: str, status: int, kind: type[M2ServiceException], name: str
) -> None:
    error = service_exception(code, "said", http_status=status)
    assert type(error) is kind
    assert error.code == name


@pytest.mark.parametrize(
    ("status", "may_have_started"),
    [
        (200, True),
        (302, True),
        (400, False),
        (404, False),
        (408, True),
        (429, False),
        (499, True),
        (500, True),
        (503, True),
    ],
)
def test_only_a_4xx_of_the_request_itself_says_that_nothing_was_started(status: int, may_have_started: bool) -> None:
    assert service_exception("X", "said", http_status=status).may_have_started is may_have_started
