"""StartBatchJob requests, checked on construction against the service's model.

Every rule is one of botocore's `m2/2021-04-28/service-2.json`; the shape that it comes from is named
beside it. botocore itself checks none of the patterns and maximum lengths before it sends.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self, TypeGuard
from urllib.parse import quote

import msgspec
from msgspec.structs import force_setattr

from m2async.errors import InvalidRequestError

MAX_PARAMS = 500
"""Parameters of a job at most (BatchJobParametersMap)."""

MAX_PARAM_VALUE = 1_024
"""Characters of a parameter's value at most (BatchParamValue)."""

_LONGEST = 80
_IDENTIFIER = re.compile(rf"\S{{1,{_LONGEST}}}")  # Identifier
_NEXT_TOKEN = re.compile(r"\S{1,2000}")  # NextToken
_PARAM_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]{1,31}")  # BatchParamKey
_INTEGER = range(-(2**31), 2**31)  # Integer: 32 bits, signed
_encode = msgspec.json.Encoder().encode


class Job(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, rename="camel"):
    """What to start: one of ScriptJob, FileJob, S3Job and RestartJob (BatchJobIdentifier, a union)."""

    member: ClassVar[str]

    @property
    def name(self) -> str:
        """What reports and logs call the job."""
        raise NotImplementedError

    @classmethod
    def from_members(cls, members: Mapping[str, Any], path: str) -> Self:
        """Make the job from its union member's own members, as the service names them."""
        raise NotImplementedError

    def to_members(self) -> dict[str, Any]:
        """Give the union member's own members, as the service names them."""
        return msgspec.to_builtins(self)  # type: ignore[no-any-return]

    def encodable(self) -> object:
        """Give what the JSON encoder writes as the union member: itself, where its fields are the members."""
        return self


class ScriptJob(Job, frozen=True, omit_defaults=True, rename="camel"):
    """A job by the name of its script (ScriptBatchJobIdentifier)."""

    script_name: str

    member: ClassVar[str] = "scriptBatchJobIdentifier"

    def __post_init__(self) -> None:
        _check_name("script_name", self.script_name)

    @property
    def name(self) -> str:
        return self.script_name

    @classmethod
    def from_members(cls, members: Mapping[str, Any], path: str) -> Self:
        known = _members(members, path, required=("scriptName",))
        return cls(known["scriptName"])


class FileJob(Job, frozen=True, omit_defaults=True, rename="camel"):
    """A job by the name of its file, within a folder if given (FileBatchJobIdentifier)."""

    file_name: str
    folder_path: str | None = None

    member: ClassVar[str] = "fileBatchJobIdentifier"

    def __post_init__(self) -> None:
        _check_name("file_name", self.file_name)
        _check_text("folder_path", self.folder_path)

    @property
    def name(self) -> str:
        return self.file_name

    @classmethod
    def from_members(cls, members: Mapping[str, Any], path: str) -> Self:
        known = _members(members, path, required=("fileName",), optional=("folderPath",))
        return cls(known["fileName"], known.get("folderPath"))


class S3Job(Job, frozen=True, omit_defaults=True, rename="camel"):
    """A job whose JCL file or script lies in an S3 bucket (S3BatchJobIdentifier).

    Exactly one of `file_name` and `script_name` names it (JobIdentifier, a union).
    """

    bucket: str
    file_name: str | None = None
    script_name: str | None = None
    key_prefix: str | None = None

    member: ClassVar[str] = "s3BatchJobIdentifier"

    def __post_init__(self) -> None:
        _check_name("bucket", self.bucket)
        given = [name for name in ("file_name", "script_name") if getattr(self, name) is not None]
        if len(given) != 1:
            raise InvalidRequestError("file_name, script_name", given or None, "exactly one of the two must be given")
        _check_name(given[0], getattr(self, given[0]))
        _check_text("key_prefix", self.key_prefix)

    @property
    def name(self) -> str:
        return self.file_name or self.script_name or ""

    @classmethod
    def from_members(cls, members: Mapping[str, Any], path: str) -> Self:
        known = _members(members, path, required=("bucket", "identifier"), optional=("keyPrefix",))
        inner = f"{path}.identifier"
        identifier = _members(known["identifier"], inner, optional=("fileName", "scriptName"))
        if len(identifier) != 1:
            raise InvalidRequestError(inner, sorted(identifier), "exactly one of fileName and scriptName must be given")
        return cls(known["bucket"], identifier.get("fileName"), identifier.get("scriptName"), known.get("keyPrefix"))

    def to_members(self) -> dict[str, Any]:
        named = {"fileName": self.file_name} if self.file_name is not None else {"scriptName": self.script_name}
        members: dict[str, Any] = {"bucket": self.bucket, "identifier": named}
        if self.key_prefix is not None:
            members["keyPrefix"] = self.key_prefix
        return members

    def encodable(self) -> object:
        return self.to_members()


class RestartJob(Job, frozen=True, omit_defaults=True, rename="camel"):
    """An earlier execution again, from one of its steps (RestartBatchJobIdentifier, JobStepRestartMarker)."""

    execution_id: str
    from_step: str
    from_proc_step: str | None = None
    to_step: str | None = None
    to_proc_step: str | None = None
    skip: bool | None = None
    step_checkpoint: int | None = None

    member: ClassVar[str] = "restartBatchJobIdentifier"

    def __post_init__(self) -> None:
        check_identifier("execution_id", self.execution_id)
        _check_name("from_step", self.from_step)
        for field in ("from_proc_step", "to_step", "to_proc_step"):
            _check_text(field, getattr(self, field))
        if self.skip is not None and not isinstance(self.skip, bool):
            raise InvalidRequestError("skip", self.skip, "must be true or false")
        checkpoint = self.step_checkpoint
        if checkpoint is not None and (type(checkpoint) is not int or checkpoint not in _INTEGER):
            raise InvalidRequestError("step_checkpoint", checkpoint, "must be an integer of 32 bits")

    @property
    def name(self) -> str:
        return f"restart {self.execution_id} from {self.from_step}"

    @classmethod
    def from_members(cls, members: Mapping[str, Any], path: str) -> Self:
        known = _members(members, path, required=("executionId", "jobStepRestartMarker"))
        marker = _members(
            known["jobStepRestartMarker"],
            f"{path}.jobStepRestartMarker",
            required=("fromStep",),
            optional=("fromProcStep", "toStep", "toProcStep", "skip", "stepCheckpoint"),
        )
        return cls(
            known["executionId"],
            marker["fromStep"],
            marker.get("fromProcStep"),
            marker.get("toStep"),
            marker.get("toProcStep"),
            marker.get("skip"),
            marker.get("stepCheckpoint"),
        )

    def to_members(self) -> dict[str, Any]:
        marker = msgspec.to_builtins(self)
        return {"executionId": marker.pop("executionId"), "jobStepRestartMarker": marker}

    def encodable(self) -> object:
        return self.to_members()


_JOB_OF_MEMBER: Mapping[str, type[Job]] = {job.member: job for job in (ScriptJob, FileJob, S3Job, RestartJob)}


class StartBatchJob(msgspec.Struct, frozen=True, gc=False):
    """One StartBatchJob request.

    Arguments:
        application_id: the application to run it in; 1 to 80 characters without white space (Identifier).
        job: what to start.
        params: at most 500 job parameters; a name is a letter and 1 to 31 letters or digits
            (BatchParamKey), a value at most 1,024 characters (BatchParamValue).
        auth_secrets_manager_arn: the Secrets Manager secret with the user to run as, 20 to 2,048
            characters (AuthSecretsManagerArn).

    Raises InvalidRequestError, with the field, the value and the rule, for whatever violates the model.
    """

    application_id: str
    job: Job
    params: Mapping[str, str] = {}
    auth_secrets_manager_arn: str | None = None

    def __post_init__(self) -> None:
        check_identifier("application_id", self.application_id)
        if not isinstance(self.job, Job):
            raise InvalidRequestError("job", self.job, "must be a ScriptJob, FileJob, S3Job or RestartJob")
        _check_params(self.params)
        force_setattr(self, "params", dict(self.params))  # later changes by the caller do not reach it
        arn = self.auth_secrets_manager_arn
        if arn is not None:
            _check_text("auth_secrets_manager_arn", arn)
            if not 20 <= len(arn) <= 2_048:
                raise InvalidRequestError("auth_secrets_manager_arn", arn, "must have 20 to 2,048 characters")

    def __repr__(self) -> str:
        """Show everything but the parameters' values and the secret's name."""
        params = f", params=<{', '.join(self.params)}>" if self.params else ""
        arn = ", auth_secrets_manager_arn=<hidden>" if self.auth_secrets_manager_arn else ""
        return f"StartBatchJob({self.application_id!r}, {self.job!r}{params}{arn})"

    @property
    def path(self) -> str:
        """The request's path, percent-encoded."""
        return f"/applications/{quote(self.application_id, safe='-._~')}/batch-job"

    def body(self) -> bytes:
        """The request's body: JSON."""
        job = self.job
        members: dict[str, Any] = {"batchJobIdentifier": {job.member: job.encodable()}}
        if self.params:
            members["jobParams"] = self.params
        if self.auth_secrets_manager_arn is not None:
            members["authSecretsManagerArn"] = self.auth_secrets_manager_arn
        return _encode(members)

    @classmethod
    def of_checked(
        cls, application_id: str, job: Job, params: Mapping[str, str], auth_secrets_manager_arn: str | None
    ) -> StartBatchJob:
        """Make a request of parts that were checked before; `params` itself becomes part of it.

        The constructor would check every parameter again, which takes ten times as long.
        """
        request = _copy(_BLANK)
        force_setattr(request, "application_id", application_id)
        force_setattr(request, "job", job)
        force_setattr(request, "params", params)
        force_setattr(request, "auth_secrets_manager_arn", auth_secrets_manager_arn)
        return request

    @classmethod
    def from_api(cls, request: Mapping[str, Any]) -> Self:
        """Take the service's own shape (StartBatchJobRequest), as boto3's `start_batch_job` takes it.

        Raises InvalidRequestError for members that the model does not have and for a union with no
        member or with more than one, besides what the constructor raises.
        """
        known = _members(
            request,
            "request",
            required=("applicationId", "batchJobIdentifier"),
            optional=("jobParams", "authSecretsManagerArn"),
        )
        return cls(
            known["applicationId"],
            job_from_api(known["batchJobIdentifier"]),
            known.get("jobParams", {}),
            known.get("authSecretsManagerArn"),
        )

    def to_api(self) -> dict[str, Any]:
        """Give the service's own shape (StartBatchJobRequest), as boto3's `start_batch_job` takes it."""
        request: dict[str, Any] = {
            "applicationId": self.application_id,
            "batchJobIdentifier": {self.job.member: self.job.to_members()},
        }
        if self.params:
            request["jobParams"] = dict(self.params)
        if self.auth_secrets_manager_arn is not None:
            request["authSecretsManagerArn"] = self.auth_secrets_manager_arn
        return request


def job_from_api(identifier: Mapping[str, Any]) -> Job:
    """Take the service's BatchJobIdentifier: a union, so exactly one of its members is set."""
    path = "batchJobIdentifier"
    known = _members(identifier, path, optional=tuple(_JOB_OF_MEMBER))
    if len(known) != 1:
        raise InvalidRequestError(path, sorted(known), f"exactly one of {', '.join(_JOB_OF_MEMBER)} must be given")
    [(member, value)] = known.items()
    return _JOB_OF_MEMBER[member].from_members(value, f"{path}.{member}")


def check_identifier(field: str, value: object) -> None:
    """Refuse what is not an Identifier, or what no URL path can carry as one segment."""
    text = _check_text(field, value, required=True)
    if not _IDENTIFIER.fullmatch(text):
        raise InvalidRequestError(field, value, "must have 1 to 80 characters and no white space")
    if text in {".", ".."}:
        raise InvalidRequestError(field, value, "must not be a dot segment, which a URL path loses")


def check_execution_id(field: str, value: object) -> None:
    """Refuse what is no execution id: from people as from the service."""
    check_identifier(field, value)
    if not is_execution_id(value):
        raise InvalidRequestError(field, value, "must hold printable characters only, and no slash")


def is_next_token(value: object) -> TypeGuard[str]:
    """Whether a value can ask for the next page of a list (NextToken): at most 2,000 characters without white space."""
    return isinstance(value, str) and value.isprintable() and _NEXT_TOKEN.fullmatch(value) is not None


def is_execution_id(value: object) -> bool:
    """Whether a value is an Identifier, as the service's model has it, that can be shown and stand in a URL path.

    The model allows any 1 to 80 characters but white space, so also some that control a terminal, turn the text around
    them, or part a path. No id of the service's has them.
    """
    if not isinstance(value, str):
        return False
    if value.isalnum() and value.isascii() and len(value) <= _LONGEST:  # as the service's are
        return True
    if not _IDENTIFIER.fullmatch(value):
        return False
    return value.isprintable() and "/" not in value and "\\" not in value and value not in {".", ".."}


def _check_params(params: object) -> None:
    if not isinstance(params, Mapping):
        raise InvalidRequestError("params", params, "must map names to values")
    if len(params) > MAX_PARAMS:
        raise InvalidRequestError("params", len(params), f"at most {MAX_PARAMS} parameters are allowed")
    for name, value in params.items():
        if not isinstance(name, str) or not _PARAM_NAME.fullmatch(name):
            raise InvalidRequestError(
                "params", name, "a parameter's name must be a letter followed by 1 to 31 letters or digits"
            )
        text = _check_text(f"params.{name}", value, required=True)
        if len(text) > MAX_PARAM_VALUE:
            raise InvalidRequestError(f"params.{name}", value, f"must have at most {MAX_PARAM_VALUE:,} characters")


def _check_name(field: str, value: object) -> None:
    if not _check_text(field, value, required=True):
        raise InvalidRequestError(field, value, "must not be empty")


def _check_text(field: str, value: object, *, required: bool = False) -> str:
    if value is None and not required:
        return ""
    if not isinstance(value, str):
        raise InvalidRequestError(field, value, "must be a text")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise InvalidRequestError(
                field, value, "must be valid Unicode (it holds half of a surrogate pair)"
            ) from None
    return value


def _members(
    value: object, path: str, *, required: tuple[str, ...] = (), optional: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Take the members of a structure, refusing those the model does not have; None counts as absent."""
    if not isinstance(value, Mapping):
        raise InvalidRequestError(path, value, "must be a structure (a JSON object)")
    known = {name: member for name, member in value.items() if member is not None}
    for name in known:
        if name not in required and name not in optional:
            rule = f"unknown member; known are {', '.join(required + optional)}"
            raise InvalidRequestError(f"{path}.{name}", known[name], rule)
    for name in required:
        if name not in known:
            raise InvalidRequestError(f"{path}.{name}", None, "is required")
    return known


_BLANK = StartBatchJob("application", ScriptJob("SCRIPT"))
_copy: Callable[[StartBatchJob], StartBatchJob] = StartBatchJob.__copy__  # type: ignore[attr-defined] # of msgspec
