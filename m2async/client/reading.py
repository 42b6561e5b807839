"""Members of answers, read as the model says: whatever is wrong with them is told with the name of the operation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

from m2async.client.answers import unreadable
from m2async.service import (
    Application,
    BatchJobDefinition,
    BatchJobExecution,
    ExecutionsPage,
    JobStep,
    definition_from_api,
    is_execution_id,
    is_next_token,
)

_T = TypeVar("_T")
_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST = datetime(9999, 1, 1, tzinfo=UTC)
"""Times that are not shown as they are in every time zone, or cannot be reckoned with, are none."""


@contextmanager
def reading(operation: str) -> Iterator[None]:
    """Read what an operation answered that changes nothing.

    Whatever goes wrong is an UnreadableAnswerError. It is told as what surely had no effect, so that nobody asks again:
    the same would come.
    """
    try:
        yield
    except Exception as exc:
        error = unreadable(operation, exc)
        error.may_have_started = False
        raise error from exc


def read_items(page: Mapping[str, Any], member: str, missing: list[Any] | None = None) -> list[Any]:
    """The items of a page. One without its list is not an empty list: what is missing there may exist."""
    items = page.get(member, missing)
    if not isinstance(items, list):
        raise ValueError(f"it holds no {member}")
    return items


def read_next_token(page: Mapping[str, Any]) -> str | None:
    """What asks for the next page; None where this is the last."""
    token = page.get("nextToken")
    if token in (None, ""):
        return None
    if not is_next_token(token):
        raise ValueError("its nextToken is invalid")
    return token


def read_execution(members: Any) -> BatchJobExecution:
    """One execution."""
    execution = _read(members, BatchJobExecution)
    for member in ("startTime", "endTime"):
        if isinstance(members.get(member), str | bool):  # the model has it as a number
            raise ValueError(f"its {member} is no time")
    if not is_execution_id(execution.execution_id):
        raise ValueError("its executionId is invalid")
    _check_times(execution.start_time, execution.end_time)
    return execution


def read_executions(page: Mapping[str, Any], application_id: str) -> ExecutionsPage:
    """A page of an application's executions; what is none of them, or cannot be read, is counted."""
    executions, passed_over = list[BatchJobExecution](), 0
    for item in read_items(page, "batchJobExecutions"):
        try:
            execution = read_execution(item)
        except Exception:  # noqa: BLE001 - whatever is wrong with one does not hide the others
            passed_over += 1
            continue
        if execution.application_id == application_id:
            executions.append(execution)
        else:
            passed_over += 1
    return ExecutionsPage(executions, read_next_token(page), passed_over)


def read_definition(members: Any) -> BatchJobDefinition | None:
    """One definition of a job; None for a kind that is not known here."""
    return definition_from_api(members)


def read_step(members: Any) -> JobStep:
    """One step of an execution."""
    step = _read(members, JobStep)
    _check_times(step.step_checkpoint_time)
    return step


def read_application(members: Any) -> Application:
    """One application."""
    application = _read(members, Application)
    if not is_execution_id(application.application_id):  # it has the pattern of every id
        raise ValueError("its applicationId is invalid")
    _check_times(application.creation_time, application.last_start_time)
    return application


def account_in(arn: str | None) -> str | None:
    """The account in the ARN of an application, arn:aws:m2:REGION:ACCOUNT:app/ID."""
    parts = (arn or "").split(":")
    account = parts[4] if len(parts) > 5 and parts[2] == "m2" else ""
    return account if len(account) == 12 and account.isascii() and account.isdigit() else None


def _read(members: Any, kind: type[_T]) -> _T:
    if not isinstance(members, Mapping):
        raise ValueError(f"{kind.__name__}: it is no JSON object")
    return msgspec.convert(members, kind, strict=False)


def _check_times(*times: datetime | None) -> None:
    if any(time is not None and not _EARLIEST <= _aware(time) < _LATEST for time in times):
        raise ValueError("a time is out of bounds")


def _aware(time: datetime) -> datetime:
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)
