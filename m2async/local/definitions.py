"""Applications and their batch jobs, as a definitions file describes them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import msgspec
from msgspec import Meta

from m2async.errors import ConfigurationError, InvalidRequestError
from m2async.service import check_identifier

DEFAULT_APPLICATION_ID = "carddemolocalapplication23"
"""The application that a local endpoint has unless told."""

ApplicationStatus = Literal[  # ApplicationLifecycle
    "Creating", "Created", "Available", "Ready", "Starting", "Running", "Stopping", "Stopped", "Failed", "Deleting",
    "Deleting From Environment",
]  # fmt: skip
"""What GetApplication can say of an application; its jobs are started while it is Running."""

_DAY = 86_400


class StepDefinition(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One step of a job, and the program or the procedure that it runs."""

    step: Annotated[str, Meta(min_length=1)]
    program: str | None = None
    procedure: str | None = None


class JobDefinition(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """One batch job.

    `seconds` is how long it runs, in simulated time (0 to 86,400; a fraction of a second if not given). With a
    `return_code` other than 0 (at most 4,095) it ends Failed, at its last step; with `failures`, only its
    first `failures` executions end so, and later ones Succeeded.
    """

    file: Annotated[str, Meta(min_length=1)]
    job_name: Annotated[str, Meta(pattern=r"^\S{1,100}$")]  # String100
    steps: Annotated[tuple[StepDefinition, ...], Meta(min_length=1)]
    symbols: dict[str, str] = {}
    seconds: Annotated[float, Meta(ge=0, le=_DAY)] | None = None
    return_code: Annotated[int, Meta(ge=0, le=4_095)] = 0
    failures: Annotated[int, Meta(ge=0)] | None = None


class ApplicationDefinition(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """One application, its status and its jobs."""

    application_id: str
    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_\-]{1,59}$")]  # EntityName
    status: ApplicationStatus = "Running"
    jobs: tuple[JobDefinition, ...] = ()


class _File(msgspec.Struct, forbid_unknown_fields=True):
    source: str | None = None
    jobs: tuple[JobDefinition, ...] | None = None
    applications: Annotated[tuple[ApplicationDefinition, ...], Meta(min_length=1)] | None = None


def load_definitions(path: Path | str) -> tuple[ApplicationDefinition, ...]:
    """Read a definitions file.

    The file is a JSON object with either `jobs`, which become those of one Running application named CardDemo with
    the id DEFAULT_APPLICATION_ID, or `applications`, each with its `applicationId`, `name`, `status` and `jobs`.

    Raises ConfigurationError, with the file, the place in it and the reason, for a file that cannot be read, is not
    JSON or does not have that shape.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as exc:
        raise ConfigurationError(f"{path}: {exc.strerror or exc}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigurationError(f"{path}: not UTF-8 (byte {exc.start:,})") from exc
    return _parse(text, str(path))


def default_definitions() -> tuple[ApplicationDefinition, ...]:
    """Give the one Running application with the members of CardDemo, AWS's sample application for mainframes."""
    member = resources.files("m2async.local").joinpath("carddemo-jobs.json")
    return _parse(member.read_text(encoding="utf-8"), member.name)


def _parse(text: str, source: str) -> tuple[ApplicationDefinition, ...]:
    try:
        content = msgspec.convert(json.loads(text, parse_constant=_no_constant), _File)
    except json.JSONDecodeError as exc:
        raise ConfigurationError(f"{source}:{exc.lineno}: column {exc.colno}: not JSON: {exc.msg}") from exc
    except msgspec.ValidationError as exc:
        reason, _, place = str(exc).partition(" - at `$")
        raise ConfigurationError(_at(source, place.strip("`."), reason)) from exc
    except (ValueError, RecursionError) as exc:
        raise ConfigurationError(f"{source}: not JSON: {exc}") from exc
    if (content.jobs is None) == (content.applications is None):
        raise ConfigurationError(f'{source}: exactly one of "jobs" and "applications" must be given')
    if content.applications is None:
        _check_files(content.jobs or (), source, "jobs")
        return (ApplicationDefinition(DEFAULT_APPLICATION_ID, "CardDemo", jobs=content.jobs or ()),)
    for index, application in enumerate(content.applications):
        place = f"applications[{index}]"
        try:
            check_identifier("applicationId", application.application_id)
        except InvalidRequestError as exc:
            raise ConfigurationError(_at(source, f"{place}.applicationId", exc.rule)) from exc
        _check_files(application.jobs, source, f"{place}.jobs")
    ids = [application.application_id for application in content.applications]
    _check_unique(ids, source, "applications[{}].applicationId")
    return content.applications


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _check_files(jobs: Iterable[JobDefinition], source: str, place: str) -> None:
    _check_unique([job.file for job in jobs], source, place + "[{}].file")


def _check_unique(values: list[str], source: str, place: str) -> None:
    seen: dict[str, Any] = {}
    for index, value in enumerate(values):
        if value in seen:
            raise ConfigurationError(_at(source, place.format(index), f"{value!r} was given before"))
        seen[value] = index


def _at(source: str, place: str, reason: str) -> str:
    return f"{source}: {place}: {reason}" if place else f"{source}: {reason}"
