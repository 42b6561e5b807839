"""Lists for what is in doubt: at a pace, page by page, and again where they fail in passing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from m2async import AccessDeniedException, BatchJobExecution, CallError, InternalServerException, UnreadableAnswerError
from m2async.service import ExecutionsPage
from m2async.submitting import PatientLists
from tests.virtual_time import in_virtual_time, now


def execution(number: int) -> BatchJobExecution:
    return BatchJobExecution("app", f"e{number:025}", datetime.now(UTC), "Running")


def failure(kind: type[InternalServerException | AccessDeniedException], status: int) -> CallError:
    return kind("no", code=kind.__name__, http_status=status)


class Pages:
    """A service whose list has pages of one execution each; `fails` says by their numbers which calls fail."""

    clock_offset = None

    def __init__(self, pages: int, fails: dict[int, CallError] | None = None, passed_over: int = 0) -> None:
        self.calls: list[float] = []
        self._pages = pages
        self._fails = fails or {}
        self._passed_over = passed_over

    def list_batch_job_executions(self, application_id: str, /, **window: Any) -> AsyncIterator[BatchJobExecution]:
        raise AssertionError("it gives pages")

    async def get_batch_job_executions_page(
        self, application_id: str, *, next_token: str | None, **window: Any
    ) -> ExecutionsPage:
        self.calls.append(now())
        if error := self._fails.get(len(self.calls)):
            raise error
        number = int(next_token or 0)
        more = str(number + 1) if number + 1 < self._pages else None
        return ExecutionsPage([execution(number)], more, self._passed_over)


class Whole:
    """A client that gives whole lists alone; the first ones fail midway."""

    clock_offset = 1.5

    def __init__(self, failures: int) -> None:
        self.calls = 0
        self._failures = failures

    async def list_batch_job_executions(self, application_id: str, /, **window: Any) -> AsyncIterator[Any]:
        self.calls += 1
        yield execution(1)
        if self.calls <= self._failures:
            raise failure(InternalServerException, 500)
        yield execution(2)


async def listed(lists: PatientLists, application_id: str = "app") -> list[str]:
    return [each.execution_id[-3:] async for each in lists.list_batch_job_executions(application_id)]


@in_virtual_time
async def test_pages_come_at_a_pace_whatever_lists_they_are_of() -> None:
    service = Pages(40)
    lists = PatientLists(service, patience=5.0)
    for found in await asyncio.gather(listed(lists, "app1"), listed(lists, "app2")):
        assert found == [f"{number:03}" for number in range(40)]
    for first in range(len(service.calls) - 20):
        assert service.calls[first + 20] - service.calls[first] >= 2.0 - 1e-6  # 10 at once, and 5 a second


@in_virtual_time
async def test_a_page_that_fails_in_passing_is_asked_for_again_and_no_other() -> None:
    troubled: list[CallError] = []
    service = Pages(4, {2: failure(InternalServerException, 500), 3: failure(InternalServerException, 503)})
    lists = PatientLists(service, patience=5.0, troubled=lambda error, seconds: troubled.append(error))
    assert await listed(lists) == ["000", "001", "002", "003"]
    assert (len(service.calls), len(troubled)) == (6, 2)


@in_virtual_time
async def test_patience_ends_and_a_refusal_needs_none() -> None:
    failing = Pages(1, {1: failure(InternalServerException, 500)})
    with pytest.raises(InternalServerException):
        await listed(PatientLists(failing, patience=0.0))
    denied = Pages(1, {1: failure(AccessDeniedException, 403)})
    with pytest.raises(AccessDeniedException):
        await listed(PatientLists(denied, patience=20.0))
    assert len(denied.calls) == 1


@in_virtual_time
async def test_the_wait_for_a_turn_takes_nothing_of_the_patience() -> None:
    service = Pages(1, dict.fromkeys(range(1, 41), failure(InternalServerException, 500)))
    lists = PatientLists(service, patience=1.0)
    found = await asyncio.gather(*(listed(lists, f"app{number}") for number in range(40)))
    assert found == [["000"]] * 40  # the last of them had its first turn after 6 s
    assert len(service.calls) == 80


@in_virtual_time
async def test_a_list_with_an_execution_that_may_be_any_is_none() -> None:
    with pytest.raises(UnreadableAnswerError, match="1 of the list cannot be, or are of another application"):
        await listed(PatientLists(Pages(3, passed_over=1), patience=20.0))


@in_virtual_time
async def test_a_client_without_pages_is_asked_for_the_whole_list_again() -> None:
    client = Whole(2)
    lists = PatientLists(client, patience=60.0)
    assert await listed(lists) == ["001", "002"]
    assert client.calls == 3
    assert lists.clock_offset == 1.5
