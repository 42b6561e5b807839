"""Every exception of m2async, and the table from a service error code to its class.

Each error that a call can raise says through `may_have_started` on which side of the line it lies:
`False` means that the job was surely not started, so that sending again is safe; `True` means that
the whole request may have reached the service. StartBatchJob has no client token, so that line is
what decides whether a call may be repeated.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from traceback import walk_tb
from typing import Any, ClassVar, Literal, Self, TypeVar


class M2AsyncError(Exception):
    """Root of every exception that m2async raises.

    Each goes from process to process with all that it holds, and can be copied. In the place of what cannot be pickled
    and made again, such as an open file that was given as a parameter, stands its text.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    @property
    def code(self) -> str:
        """The error's name, as it stands in logs and in the `error.code` of an output line."""
        return type(self).__name__

    # Exception makes its like by its arguments, which are what was said here, and not what it was made of.

    def __reduce__(self) -> tuple[Any, ...]:
        return _remade, (type(self), self.args), {name: _portable(value) for name, value in vars(self).items()}

    def __copy__(self) -> Self:
        same = _remade(type(self), self.args)
        vars(same).update(vars(self))
        return same

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        same = memo[id(self)] = _remade(type(self), self.args)
        vars(same).update({name: _deeply(value, memo) for name, value in vars(self).items()})
        return same


_Error = TypeVar("_Error", bound=M2AsyncError)


def _remade(kind: type[_Error], args: tuple[Any, ...]) -> _Error:
    """Make an exception anew; what it holds is put into it afterwards."""
    return kind.__new__(kind, *args)


def _portable(value: object) -> object:
    """Give a value as it can be pickled and made again: itself, or else its text."""
    try:
        pickle.loads(pickle.dumps(value))  # noqa: S301 - our own
    except Exception:  # noqa: BLE001 - whatever its own pickling raises
        return repr(value)
    return value


def _deeply(value: object, memo: dict[int, Any]) -> object:
    """Copy a value deeply, as far as it can be copied."""
    try:
        return copy.deepcopy(value, memo)
    except Exception:  # noqa: BLE001 - whatever its own copying raises
        return value


class InvalidRequestError(M2AsyncError, ValueError):
    """A request violates the service's model; nothing was sent."""

    def __init__(self, field: str, value: object, rule: str) -> None:
        super().__init__(f"{field}: {_shorten(value)}: {rule}")
        self.field = field
        self.value = value
        self.rule = rule


@dataclass(frozen=True, slots=True)
class ManifestProblem:
    """One thing that is wrong in a manifest, and where: line and column count from 1."""

    file: str
    line: int | None
    column: str | None
    reason: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.reason}" if self.column is None else f"{place}: {self.column}: {self.reason}"


class ManifestError(M2AsyncError):
    """A manifest cannot be used; `problems` lists what is wrong, in the order of the file."""

    def __init__(self, problems: Sequence[ManifestProblem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems: tuple[ManifestProblem, ...] = tuple(problems)


class HeldError(M2AsyncError):
    """A job was not started: a job it depends on failed or is not confirmed."""


class SubmissionStoppedError(M2AsyncError):
    """The submitter sends nothing more, because `cause` would meet every further call as well."""

    def __init__(self, cause: M2AsyncError) -> None:
        super().__init__(f"submission stopped: {cause.code}: {cause.message}")
        self.cause = cause


class UnexpectedError(M2AsyncError):
    """m2async itself failed: a fault of it, which ends what it does. The `__cause__` is what was raised.

    Its message says where, and not what, as that may hold what a job was given.
    """

    @classmethod
    def of(cls, error: BaseException) -> Self:
        """Make it of what was raised, or of the first of several."""
        first = error
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        places = [
            f" in {frame.f_globals.get('__name__', '?')}, line {line}" for frame, line in walk_tb(first.__traceback__)
        ]
        place = places[-1] if places else ""
        unexpected = cls(f"m2async failed by a fault of its own: {type(first).__name__}{place}")
        unexpected.__cause__ = error
        return unexpected


class CallError(M2AsyncError):
    """A call to the service that did not succeed."""

    may_have_started: bool = False

    ended_by_service: bool = False
    """Whether the service itself ended the exchange: a job that was not started by then is not started any more."""

    not_the_service: str | None = None
    """What was seen, in short, where what answered is not the service, such as a login page or a proxy's error."""


class ConfigurationError(CallError):
    """A setting is wrong: profile, region, endpoint, certificates or another; nothing was sent."""


class WrongEventLoopError(CallError, RuntimeError):
    """Something is used in another event loop or process than the one it was opened in; nothing was sent."""


class CredentialsError(CallError):
    """No usable AWS credentials could be had, so the call was not sent."""


class NotSentError(CallError):
    """No connection could be made, or it failed before the whole request was sent."""


class SignatureTooLateError(NotSentError):
    """The request was not sent, since its signature would have borne a later date than was written of it before."""


class RepeatedCallError(CallError):
    """A middleware or a session's hook wanted a second request sent in one call; only the first was."""

    def __init__(self, message: str, *, may_have_started: bool) -> None:
        super().__init__(message)
        self.may_have_started = may_have_started


class MiddlewareError(CallError):
    """What stands around a call failed, such as a middleware or another's client: its error is the `__cause__`."""

    def __init__(self, message: str, *, may_have_started: bool) -> None:
        super().__init__(message)
        self.may_have_started = may_have_started


class AnswerTimeoutError(CallError):
    """The request was sent and no answer came in time."""

    may_have_started = True


class ConnectionLostError(CallError):
    """The connection was lost after the request may have been sent whole."""

    may_have_started = True

    def __init__(self, message: str, *, ended_by_service: bool = False) -> None:
        super().__init__(message)
        self.ended_by_service = ended_by_service


class UnreadableAnswerError(CallError):
    """An answer came that cannot be read as the service's model says."""

    may_have_started = True


class CallCancelledError(CallError):
    """The caller was cancelled while the call was under way."""

    may_have_started = True


def _may_have_started(code: str, http_status: int) -> bool:
    """Whether a request with this error answer may have had its effect: the one place where that is decided.

    Surely not if the status is a 4xx, whatever the code: "the client seems to have erred" (RFC 9110, section 15.5), and
    the errors that the service's model has for StartBatchJob and that are raised before a job is started are all of
    them: 400, 403, 404, 409, 429. Any other status leaves it open, also one with a code that otherwise means a refusal:
    a 503 ThrottlingException may as well come from something that failed behind the service's front.

    Nor is it sure of a 4xx that tells of a connection instead of the request: 408, which can be meant for an idle
    connection while a request arrives on it (RFC 9110, section 15.5.9); 499, by which proxies say that they gave up a
    request under way; and RequestAbortedException ("aborted before a reply is sent back", which has status 400),
    RequestTimeout and RequestTimeoutException (AWS, "Common error types"; botocore.retries.standard has the latter two
    as transient, not as refusals).
    """
    return not 400 <= http_status < 500 or http_status in {408, 499} or code in _CODES_OF_CONNECTIONS


_CODES_OF_CONNECTIONS = frozenset({"RequestAbortedException", "RequestTimeout", "RequestTimeoutException"})


class M2ServiceException(CallError):  # noqa: N818 - the services' exceptions bear the services' names
    """An error answer of the service; also the class of every code that has none of its own.

    `fault` is "client" or "server", `retry_after` the `Retry-After` header in seconds, and `details`
    holds the members of the answer besides `message`, as the service named them.
    """

    default_fault: ClassVar[Literal["client", "server"] | None] = None

    def __init__(
        self,
        message: str,
        *,
        code: str,
        http_status: int,
        request_id: str | None = None,
        retry_after: float | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self._code = code
        self.http_status = http_status
        self.request_id = request_id
        self.retry_after = retry_after
        self.details: Mapping[str, Any] = dict(details or {})
        self.may_have_started: bool = _may_have_started(code, http_status)
        # What stands between answers as well, with 502, 503 or 504, and without a request id of the service's.
        self.ended_by_service: bool = http_status == 500 and request_id is not None

    @property
    def code(self) -> str:
        """The service's error code, without namespace or URL."""
        return self._code

    @property
    def fault(self) -> Literal["client", "server"]:
        """Whose fault the service says it is."""
        return self.default_fault or ("client" if 400 <= self.http_status < 500 else "server")

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class AccessDeniedException(M2ServiceException):
    """The caller may not do this (HTTP 403)."""

    default_fault: ClassVar[Literal["client", "server"] | None] = "client"


class _ResourceException(M2ServiceException):
    default_fault: ClassVar[Literal["client", "server"] | None] = "client"

    @property
    def resource_id(self) -> str | None:
        """The resource's identifier."""
        return _text(self.details.get("resourceId"))

    @property
    def resource_type(self) -> str | None:
        """The resource's type."""
        return _text(self.details.get("resourceType"))


class ConflictException(_ResourceException):
    """The resource is not in a state that allows this, such as a stopped application (HTTP 409)."""


class ResourceNotFoundException(_ResourceException):
    """The resource does not exist (HTTP 404)."""


@dataclass(frozen=True, slots=True)
class ValidationExceptionField:
    """One member that failed the service's validation."""

    name: str
    message: str


class ValidationException(M2ServiceException):
    """One or more members of the request are not valid (HTTP 400)."""

    default_fault: ClassVar[Literal["client", "server"] | None] = "client"

    @property
    def reason(self) -> str | None:
        """Why, as one of the service's words, such as `fieldValidationFailed`."""
        return _text(self.details.get("reason"))

    @property
    def field_list(self) -> tuple[ValidationExceptionField, ...]:
        """The members that failed, each with a message."""
        fields = self.details.get("fieldList")
        if not isinstance(fields, list):
            return ()
        return tuple(
            ValidationExceptionField(str(field.get("name", "")), str(field.get("message", "")))
            for field in fields
            if isinstance(field, Mapping)
        )


class ThrottlingException(M2ServiceException):
    """The request rate exceeds a quota; with HTTP 429, as the service's model has it, nothing was started."""

    default_fault: ClassVar[Literal["client", "server"] | None] = "client"

    @property
    def quota_code(self) -> str | None:
        """The quota, in the terms of Service Quotas."""
        return _text(self.details.get("quotaCode"))

    @property
    def service_code(self) -> str | None:
        """The service that owns the quota."""
        return _text(self.details.get("serviceCode"))


class InternalServerException(M2ServiceException):
    """An unexpected error inside the service (HTTP 500); the job may have been started."""

    default_fault: ClassVar[Literal["client", "server"] | None] = "server"


class AuthenticationException(M2ServiceException):
    """The credentials or the signature are not accepted; codes common to all AWS services."""

    default_fault: ClassVar[Literal["client", "server"] | None] = "client"


class ExpiredTokenException(AuthenticationException):
    """The session token has expired."""


_THROTTLING_CODES = (
    # botocore's legacy and standard retry modes treat these as throttling (botocore.retries.standard).
    "ThrottlingException", "Throttling", "ThrottledException", "RequestThrottledException", "RequestThrottled",
    "TooManyRequestsException", "RequestLimitExceeded", "BandwidthLimitExceeded", "LimitExceededException",
    "SlowDown", "PriorRequestNotComplete", "EC2ThrottledException", "ProvisionedThroughputExceededException",
    "TransactionInProgressException",
)  # fmt: skip
_AUTHENTICATION_CODES = (
    # AWS: Mainframe Modernization API Reference, "Common Errors", and the signing errors of SigV4.
    "UnrecognizedClientException", "InvalidClientTokenId", "InvalidSignatureException", "SignatureDoesNotMatch",
    "IncompleteSignature", "IncompleteSignatureException", "MissingAuthenticationToken",
    "MissingAuthenticationTokenException", "AuthFailure", "InvalidAccessKeyId", "OptInRequired",
    "SubscriptionRequiredException", "RequestTimeTooSkewed", "RequestExpired", "NotAuthorized",
)  # fmt: skip

EXCEPTION_OF_CODE: Mapping[str, type[M2ServiceException]] = {
    **dict.fromkeys(_THROTTLING_CODES, ThrottlingException),
    **dict.fromkeys(_AUTHENTICATION_CODES, AuthenticationException),
    "ExpiredTokenException": ExpiredTokenException,
    "ExpiredToken": ExpiredTokenException,
    "AccessDeniedException": AccessDeniedException,
    "AccessDenied": AccessDeniedException,
    "ConflictException": ConflictException,
    "ResourceNotFoundException": ResourceNotFoundException,
    "ValidationException": ValidationException,
    "ValidationError": ValidationException,
    "InternalServerException": InternalServerException,
}
"""The class of each code that has one of its own."""


def service_exception(
    code: str,
    message: str,
    *,
    http_status: int,
    request_id: str | None = None,
    retry_after: float | None = None,
    details: Mapping[str, Any] | None = None,
) -> M2ServiceException:
    """Make the exception of an error answer.

    `code` may still carry a namespace (`aws.m2#Name`) or a URL behind a colon (`Name:http://…`), as
    rest-json allows. An answer with status 429 is a ThrottlingException whatever its code.
    """
    name = code.partition(":")[0].rpartition("#")[2]
    kind = EXCEPTION_OF_CODE.get(name, M2ServiceException)
    if http_status == 429:
        kind = ThrottlingException
    return kind(
        message,
        code=name,
        http_status=http_status,
        request_id=request_id,
        retry_after=retry_after,
        details=details,
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _shorten(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    if len(text) > 60:
        return f"{text[:57]!r}… ({len(text):,} characters)" if isinstance(value, str) else f"{text[:57]}…"
    return repr(value) if isinstance(value, str) else text
