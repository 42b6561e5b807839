"""One row: fields under their column names become a request; whatever is wrong is named by its column."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from m2async.errors import InvalidRequestError, ManifestError, ManifestProblem
from m2async.service import MAX_PARAMS, FileJob, Job, RestartJob, S3Job, ScriptJob, StartBatchJob

PARAM = "param."
"""What the name of a parameter's column begins with."""

_COLUMNS_OF_JOB: Mapping[type[Job], tuple[str, ...]] = {
    ScriptJob: ("script",),
    FileJob: ("file", "folder"),
    S3Job: ("s3_bucket", "s3_prefix", "s3_file", "s3_script"),
    RestartJob: (
        "restart_execution_id", "from_step", "from_proc_step", "to_step", "to_proc_step", "skip", "step_checkpoint",
    ),
}  # fmt: skip
_JOB_OF_COLUMN = {column: job for job, columns in _COLUMNS_OF_JOB.items() for column in columns}
_NEEDED = {
    ScriptJob: ("script",),
    FileJob: ("file",),
    S3Job: ("s3_bucket",),
    RestartJob: _COLUMNS_OF_JOB[RestartJob][:2],
}

JOB_COLUMNS = tuple(_JOB_OF_COLUMN)
NAMING_COLUMNS = ("script", "file", "s3_file", "s3_script")
"""The columns whose value alone is the job's name."""

COLUMNS = ("key", "after", "application_id", *JOB_COLUMNS, "auth_secrets_manager_arn")
"""Every column but those of the parameters."""

_COLUMN_OF_FIELD: Mapping[type[Job], Mapping[str, str]] = {
    ScriptJob: {"script_name": "script"},
    FileJob: {"file_name": "file", "folder_path": "folder"},
    S3Job: {"bucket": "s3_bucket", "key_prefix": "s3_prefix", "file_name": "s3_file", "script_name": "s3_script"},
    RestartJob: {"execution_id": "restart_execution_id"},
}
MAX_FAULTS = 100
"""How many faults of one row are told."""

_SOUND_APPLICATION, _SOUND_JOB = "application", ScriptJob("SCRIPT")


class ManifestRow(NamedTuple):
    """One job of a manifest: its key, which no other row has, and the request that starts it."""

    key: str
    request: StartBatchJob


class RowProblem(NamedTuple):
    """One thing that is wrong in a row: the column, as the user wrote it, and the reason."""

    column: str | None
    reason: str


class RowError(Exception):
    """A row that makes no request."""

    def __init__(self, *faults: RowProblem) -> None:
        super().__init__(faults)
        self.faults = faults

    def at(self, file: str, line: int | None) -> ManifestError:
        """Say where the row stands."""
        return ManifestError([problem(file, line, fault.column, fault.reason) for fault in self.faults])


class Number:
    """A number as it is written, where a text is wanted."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


class RequestMaker:
    """Makes requests of fields: the application for rows that name none, and parameters set over every row's own.

    Raises InvalidRequestError when what it is made with violates the service's model.
    """

    def __init__(self, application_id: str | None, params: Mapping[str, str]) -> None:
        StartBatchJob(_SOUND_APPLICATION if application_id is None else application_id, _SOUND_JOB, params)
        self.application_id = application_id
        self.params: dict[str, str] = dict(params)

    def request(self, fields: Mapping[str, Any], params: Mapping[str, Any]) -> StartBatchJob:
        """Make the request of a row's given fields (no key among them) and parameters, or raise RowError."""
        try:
            return StartBatchJob(
                fields.get("application_id", self.application_id),
                job_of(fields),
                {**params, **self.params} if self.params else params,
                fields.get("auth_secrets_manager_arn"),
            )
        except (InvalidRequestError, RowError):
            raise RowError(*islice(self._faults(fields, params), MAX_FAULTS)) from None

    def request_from_api(self, members: Mapping[str, Any]) -> StartBatchJob:
        """Make the request of the service's own shape (StartBatchJobRequest), or raise RowError."""
        if self.application_id is not None and members.get("applicationId") is None:
            members = {**members, "applicationId": self.application_id}
        elif members.get("applicationId") is None:
            raise RowError(_no_application("applicationId"))
        try:
            request = StartBatchJob.from_api(members)
            if not self.params:
                return request
            merged = {**request.params, **self.params}
            return StartBatchJob(request.application_id, request.job, merged, request.auth_secrets_manager_arn)
        except InvalidRequestError as error:
            params = members.get("jobParams")
            bad_params = islice(param_faults(params, "jobParams."), MAX_FAULTS) if isinstance(params, Mapping) else ()
            raise RowError(*(tuple(bad_params) or (_fault(_api_name(error.field), error),))) from None

    def _faults(self, fields: Mapping[str, Any], params: Mapping[str, Any]) -> Iterator[RowProblem]:
        application_id = fields.get("application_id", self.application_id)
        if application_id is None:
            yield _no_application("application_id")
        else:
            yield from _faults_of("application_id", application_id, _SOUND_JOB, {}, None)
        try:
            job_of(fields)
        except RowError as error:
            yield from error.faults
        arn = fields.get("auth_secrets_manager_arn")
        yield from _faults_of("auth_secrets_manager_arn", _SOUND_APPLICATION, _SOUND_JOB, {}, arn)
        own = {name: value for name, value in params.items() if name not in self.params}
        yield from param_faults(own, PARAM)
        if (count := len(own) + len(self.params)) > MAX_PARAMS:
            yield RowProblem("params", f"{count} parameters: a job takes at most {MAX_PARAMS}")


def job_of(fields: Mapping[str, Any]) -> Job:
    """Make the job that a row's given fields name; raise RowError if they name none or several."""
    kinds = {_JOB_OF_COLUMN[column] for column in fields if column in _JOB_OF_COLUMN}
    if len(kinds) != 1:
        raise RowError(_not_one_job(fields))
    kind = kinds.pop()
    missing = [column for column in _NEEDED[kind] if column not in fields]
    if missing:
        others = ", ".join(column for column in _COLUMNS_OF_JOB[kind] if column in fields)
        raise RowError(*(RowProblem(column, f"is missing, but {others} is given: give both") for column in missing))
    try:
        if kind is ScriptJob:
            return ScriptJob(fields["script"])
        if kind is FileJob:
            return FileJob(fields["file"], fields.get("folder"))
        if kind is S3Job:
            return _s3_job(fields)
        return _restart_job(fields)
    except InvalidRequestError as error:
        raise RowError(_fault(_COLUMN_OF_FIELD[kind].get(error.field, error.field), error)) from None


def split_fields(members: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], list[RowProblem]]:
    """Part a row's members into fields, parameters and faults; what is None counts as not given."""
    fields: dict[str, Any] = {}
    params: dict[str, Any] = {}
    faults: list[RowProblem] = []
    for name, value in _flat(members):
        if len(faults) == MAX_FAULTS:
            break
        if name.startswith(PARAM):
            if name[len(PARAM) :] in params:
                faults.append(RowProblem(name, "is given both by itself and within params: keep one"))
            elif value is not None:
                params[name[len(PARAM) :]] = value
        elif name == "params":
            faults.append(RowProblem(name, f"{shown(value)}: must map names to values"))
        elif name not in COLUMNS:
            faults.append(unknown_column(name))
        elif value is not None:
            fields[name] = value
    return fields, params, faults


def param_faults(params: Mapping[str, Any], prefix: str) -> Iterator[RowProblem]:
    """Say what is wrong with each parameter by itself."""
    for name, value in params.items():
        yield from _faults_of(f"{prefix}{name}", _SOUND_APPLICATION, _SOUND_JOB, {name: value}, None)


def unknown_column(name: str) -> RowProblem:
    """Refuse a column that there is not."""
    if name.lower().startswith(PARAM):
        return RowProblem(name, f"is no column; write a parameter's column as {PARAM}NAME")
    return RowProblem(name, f"is no column; {nearest(name, (*COLUMNS, f'{PARAM}NAME'))}")


def nearest(name: str, known: Sequence[str]) -> str:
    """Suggest the name that was meant, or tell all of them."""
    near = difflib.get_close_matches(name.lower(), known, n=1) if len(name) <= 40 else []
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"


def boolean(column: str, value: object) -> bool:
    """Take true or false, written or real."""
    if isinstance(value, bool):
        return value
    if value in ("true", "false"):
        return value == "true"
    raise RowError(RowProblem(column, f"{shown(value)}: must be true or false"))


def integer(column: str, value: object) -> int:
    """Take an integer, written or real."""
    if type(value) is int:
        return value
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,18}", value):
        return int(value)
    raise RowError(RowProblem(column, f"{shown(value)}: must be an integer"))


def problem(file: str, line: int | None, column: str | None, reason: str) -> ManifestProblem:
    """Make a problem whose column can be printed on one line, whatever the manifest holds."""
    if column is not None and not (column.isprintable() and len(column) <= 80):
        column = shown(column)
    return ManifestProblem(file, line, column, reason)


def shown(value: object) -> str:
    """Give a value as a message shows it: on one line, and not much of it."""
    text = repr(value[:61] if isinstance(value, str) else value)
    if isinstance(value, str) and len(value) > 60:
        return f"{value[:57]!r}… ({len(value):,} characters)"
    return text if len(text) <= 200 else f"{text[:197]}…"


def quoted_hint(value: object) -> str:
    """Say how a number is written as a text."""
    return "; put it in quotes, so that it is taken as it is written" if isinstance(value, int | Number) else ""


def _s3_job(fields: Mapping[str, Any]) -> S3Job:
    if ("s3_file" in fields) == ("s3_script" in fields):
        found = "both are given" if "s3_file" in fields else "neither is given"
        raise RowError(RowProblem("s3_file, s3_script", f"{found}: with s3_bucket give exactly one of them"))
    return S3Job(fields["s3_bucket"], fields.get("s3_file"), fields.get("s3_script"), fields.get("s3_prefix"))


def _restart_job(fields: Mapping[str, Any]) -> RestartJob:
    return RestartJob(
        fields["restart_execution_id"],
        fields["from_step"],
        fields.get("from_proc_step"),
        fields.get("to_step"),
        fields.get("to_proc_step"),
        boolean("skip", fields["skip"]) if "skip" in fields else None,
        integer("step_checkpoint", fields["step_checkpoint"]) if "step_checkpoint" in fields else None,
    )


def _not_one_job(fields: Mapping[str, Any]) -> RowProblem:
    given = [next((column for column in columns if column in fields), None) for columns in _COLUMNS_OF_JOB.values()]
    named = [column for column in given if column is not None]
    if not named:
        return RowProblem("script, file, s3_bucket, restart_execution_id", "no job is named: give exactly one of them")
    return RowProblem(
        named[1], f"a second job: {named[0]} is given as well, and a row starts one job; keep one of them"
    )


def _no_application(column: str) -> RowProblem:
    return RowProblem(column, f"is missing: give it in the manifest ({column}) or for all rows (-a APPLICATION)")


def _faults_of(column: str, application_id: Any, job: Job, params: Mapping[str, Any], arn: Any) -> Iterator[RowProblem]:
    try:
        StartBatchJob(application_id, job, params, arn)
    except InvalidRequestError as error:
        yield _fault(column, error)


def _fault(column: str, error: InvalidRequestError) -> RowProblem:
    hint = quoted_hint(error.value) if error.rule == "must be a text" else ""
    return RowProblem(column, f"{shown(error.value)}: {error.rule}{hint}")


def _api_name(field: str) -> str:
    """Give a field as the service names it: the attribute `key_prefix` is its `keyPrefix`."""
    field = re.sub(r"^params\b", "jobParams", field.removeprefix("request."))
    return re.sub(r"_([a-z])", lambda match: match[1].upper(), field)


def _flat(members: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in members.items():
        if name == "params" and isinstance(value, Mapping):
            yield from ((f"{PARAM}{param}", text) for param, text in value.items())
        elif name != "params" or value is not None:
            yield name, value
