"""The error answers of the local endpoint, as the exceptions that stand for them.

Status codes and members are those of botocore's `m2/2021-04-28/service-2.json` (ValidationException,
ResourceNotFoundException, ConflictException, ThrottlingException, InternalServerException); authentication errors
and UnknownOperationException are common to all AWS services.
"""

from __future__ import annotations

from m2async.errors import M2ServiceException, service_exception

APPLICATION = "Application"
JOB_DEFINITION = "BatchJobDefinition"
EXECUTION = "BatchJobExecution"


def invalid(field: str, rule: str) -> M2ServiceException:
    """Give the ValidationException for a member that breaks a rule of the model."""
    return service_exception(
        "ValidationException",
        f"{field}: {rule}",
        http_status=400,
        details={"reason": "fieldValidationFailed", "fieldList": [{"name": field, "message": rule}]},
    )


def unreadable(reason: str) -> M2ServiceException:
    """Give the ValidationException for a body that is not what rest-json says."""
    return service_exception("ValidationException", reason, http_status=400, details={"reason": "cannotParse"})


def too_large(limit: int) -> M2ServiceException:
    """Give the answer to a body that is longer than any valid request."""
    message = f"The request's body has more than {limit:,} bytes."
    return service_exception("RequestEntityTooLargeException", message, http_status=413)


def not_found(resource_type: str, resource_id: str) -> M2ServiceException:
    """Give the ResourceNotFoundException for a resource."""
    return service_exception(
        "ResourceNotFoundException",
        f"{resource_type} {resource_id} was not found.",
        http_status=404,
        details={"resourceId": resource_id, "resourceType": resource_type},
    )


def conflict(resource_type: str, resource_id: str, reason: str) -> M2ServiceException:
    """Give the ConflictException for a resource in a state that does not allow the call."""
    return service_exception(
        "ConflictException",
        f"{resource_type} {resource_id} {reason}.",
        http_status=409,
        details={"resourceId": resource_id, "resourceType": resource_type},
    )


def throttled(retry_after: int | None) -> M2ServiceException:
    """Give the ThrottlingException for a call over the quota, with whole seconds to wait if that is known."""
    return service_exception(
        "ThrottlingException",
        "Rate exceeded: StartBatchJob is called more often than the quota of this endpoint allows.",
        http_status=429,
        retry_after=retry_after,
        details={"quotaCode": "L-LOCAL001", "serviceCode": "m2"},
    )


def internal_error() -> M2ServiceException:
    """Give the InternalServerException."""
    message = "An unexpected error occurred during the processing of the request."
    return service_exception("InternalServerException", message, http_status=500)


def unknown_operation(method: str, path: str) -> M2ServiceException:
    """Give the answer to a request that is none of the API's operations."""
    return service_exception(
        "UnknownOperationException", f"{method} {path} is not an operation of this endpoint.", http_status=404
    )


def unauthenticated(code: str, message: str) -> M2ServiceException:
    """Give the answer to a request whose signature is missing or wrong."""
    return service_exception(code, message, http_status=403)
