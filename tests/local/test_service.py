from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain
from typing import Any

import pytest

from m2async.local import DEFAULT_APPLICATION_ID
from m2async.local.definitions import ApplicationDefinition, JobDefinition, StepDefinition, default_definitions
from m2async.local.execution import Execution
from m2async.local.service import BatchService, ExecutionQuery
from m2async.service.requests import FileJob, RestartJob, S3Job, ScriptJob, StartBatchJob
from tests.local.conftest import Clock

ANY_SIZE = 2_000
BEGIN = 1_795_435_200.0


def service(clock: Clock, seed: int = 1) -> BatchService:
    return BatchService(default_definitions(), ["other"], clock, seed)


def start(service: BatchService, name: str = "POSTTRAN", application_id: str = DEFAULT_APPLICATION_ID) -> str:
    return service.start(StartBatchJob(application_id, ScriptJob(name)))


def pages(service: BatchService, query: ExecutionQuery) -> Iterator[list[str]]:
    position = None
    while True:
        query = ExecutionQuery(
            max_results=query.max_results,
            job_name=query.job_name,
            status=query.status,
            started_after=query.started_after,
            started_before=query.started_before,
            before_number=position,
        )
        page, position = service.executions(DEFAULT_APPLICATION_ID, query)
        yield [execution["executionId"] for execution in page]
        if position is None:
            return


def everything(service: BatchService, query: ExecutionQuery) -> list[str]:
    return list(chain.from_iterable(pages(service, query)))


class Watched(list[Execution]):
    """Executions that count how many of them are looked at."""

    looks = 0

    def __getitem__(self, index: Any) -> Any:
        self.looks += 1
        return super().__getitem__(index)

    def __iter__(self) -> Iterator[Execution]:
        raise AssertionError("all executions are looked at")


def test_execution_ids_are_the_services_kind_unique_and_the_seeds(clock: Clock) -> None:
    one, same, other = service(clock), service(clock), service(clock, seed=2)
    ids = [start(one) for _ in range(100)]
    assert ids == [start(same) for _ in range(100)]
    assert ids != [start(other) for _ in range(100)]
    assert len(set(ids)) == 100
    assert all(re.fullmatch("[a-z2-7]{26}", execution_id) for execution_id in ids)


def test_the_same_seed_gives_the_same_lives(clock: Clock) -> None:
    one, same = service(clock), service(clock)
    for batch in (one, same):
        for _ in range(20):
            start(batch)
    clock.now += 0.9
    assert one.everything_started() == same.everything_started()
    clock.now += 10
    assert one.everything_started() == same.everything_started()


def test_everything_started_is_listed_in_order_with_its_parameters(clock: Clock) -> None:
    batch = service(clock)
    for application_id, day in ((DEFAULT_APPLICATION_ID, "1"), ("other", "2"), (DEFAULT_APPLICATION_ID, "3")):
        batch.start(StartBatchJob(application_id, ScriptJob("A"), {"DAY": day}))
    assert [(one["applicationId"], one["jobParams"], one["jobId"]) for one in batch.everything_started()] == [
        (DEFAULT_APPLICATION_ID, {"DAY": "1"}, "J0000001"),
        ("other", {"DAY": "2"}, "J0000002"),
        (DEFAULT_APPLICATION_ID, {"DAY": "3"}, "J0000003"),
    ]


@pytest.mark.parametrize(
    ("job", "job_name", "steps"),
    [
        (FileJob("CREADB21.jcl"), "CREADB2", ["FREEPLN", "CRCRDDB", "LDTTYPE", "RUNTEP2", "LDTCCAT"]),
        (ScriptJob("INTCALC"), "INTCALC", ["STEP15"]),
        (ScriptJob("CREADB21"), "CREADB2", ["FREEPLN", "CRCRDDB", "LDTTYPE", "RUNTEP2", "LDTCCAT"]),
        (ScriptJob("INTCALC.groovy"), "INTCALC", ["STEP15"]),
        (ScriptJob("a new one"), "anewone", ["STEP01"]),
        (ScriptJob(" "), "JOB", ["STEP01"]),
        (S3Job("bucket", file_name="INTCALC.jcl", key_prefix="jcl/"), "INTCALC", ["STEP15"]),
        (S3Job("bucket", script_name="jcl/NEW.groovy"), "NEW", ["STEP01"]),
    ],
)
def test_a_job_has_the_name_and_the_steps_of_its_member(
    clock: Clock, job: FileJob | ScriptJob | S3Job, job_name: str, steps: list[str]
) -> None:
    batch = service(clock)
    execution_id = batch.start(StartBatchJob(DEFAULT_APPLICATION_ID, job))
    assert batch.get(DEFAULT_APPLICATION_ID, execution_id)["jobName"] == job_name
    points = batch.restart_points(DEFAULT_APPLICATION_ID, execution_id)
    assert [point["stepName"] for point in points] == steps


def test_a_restart_runs_the_steps_of_the_execution_before(clock: Clock) -> None:
    batch = service(clock)
    first = batch.start(StartBatchJob(DEFAULT_APPLICATION_ID, FileJob("INTCALC.jcl")))
    second = batch.start(StartBatchJob(DEFAULT_APPLICATION_ID, RestartJob(first, "STEP15")))
    third = batch.start(StartBatchJob(DEFAULT_APPLICATION_ID, RestartJob(second, "STEP15", to_step="STEP15")))
    assert batch.get(DEFAULT_APPLICATION_ID, third)["jobName"] == "INTCALC"


def test_a_job_with_so_many_failures_succeeds_afterwards_also_when_it_is_restarted(clock: Clock) -> None:
    job = JobDefinition("A.jcl", "A", (StepDefinition("STEP1"),), seconds=0, return_code=8, failures=2)
    served = BatchService([ApplicationDefinition("app", "Nightly", jobs=(job,))], [], clock, 1)
    first, *_ = (start(served, "A", "app") for _ in range(3))
    served.start(StartBatchJob("app", RestartJob(first, "STEP1")))
    clock.now += 10
    ends = [(execution["status"], execution["returnCode"]) for execution in served.everything_started()]
    assert ends == [("Failed", "8"), ("Failed", "8"), ("Succeeded", "0"), ("Succeeded", "0")]


def test_pages_hold_every_execution_once_newest_first(clock: Clock) -> None:
    batch = service(clock)
    ids = []
    for number in range(25):
        ids.append(start(batch))
        start(batch, application_id="other")
        clock.now += 0.01 * (number % 3)  # several in the same millisecond
    found = list(pages(batch, ExecutionQuery(max_results=7)))
    assert [len(page) for page in found] == [7, 7, 7, 4]
    assert list(chain.from_iterable(found)) == ids[::-1]


def test_pages_stay_what_they_are_while_jobs_are_being_started(clock: Clock) -> None:
    batch = service(clock)
    ids = [start(batch) for _ in range(20)]
    found = []
    for page in pages(batch, ExecutionQuery(max_results=3)):
        found += page
        for _ in range(5):
            start(batch)
        clock.now += 1
    assert found == ids[::-1]


def test_the_window_of_start_times_is_exclusive_on_both_sides(clock: Clock) -> None:
    batch = service(clock)
    clock.now = begin = float(int(clock.now) + 1)
    ids = []
    for offset in range(6):
        clock.now = begin + offset
        ids += [start(batch), start(batch)]
    query = ExecutionQuery(max_results=ANY_SIZE, started_after=begin + 1, started_before=begin + 4)
    assert everything(batch, query) == ids[4:8][::-1]
    query = ExecutionQuery(max_results=3, started_after=begin + 1, started_before=begin + 4)
    assert everything(batch, query) == ids[4:8][::-1]
    assert everything(batch, ExecutionQuery(max_results=3, started_after=begin + 9)) == []
    query = ExecutionQuery(max_results=3, started_after=begin + 4, started_before=begin + 1)
    assert everything(batch, query) == []


def test_job_name_and_status_are_filters_over_all_pages(clock: Clock) -> None:
    batch = service(clock)
    for _ in range(10):
        start(batch, "INTCALC")
        start(batch)
    clock.now += 10
    fresh = [start(batch, "INTCALC"), start(batch), start(batch, "INTCALC")]
    both = ExecutionQuery(max_results=1, job_name="INTCALC", status="Submitting")
    assert everything(batch, both) == [fresh[2], fresh[0]]
    assert len(everything(batch, ExecutionQuery(max_results=4, job_name="INTCALC"))) == 12
    assert len(everything(batch, ExecutionQuery(max_results=4, status="Succeeded"))) == 20
    assert everything(batch, ExecutionQuery(max_results=4, job_name="NONE")) == []


def test_executions_by_id_are_those_of_the_application_that_match(clock: Clock) -> None:
    batch = service(clock)
    one, two, three = start(batch), start(batch, "INTCALC"), start(batch)
    foreign = start(batch, application_id="other")
    query = ExecutionQuery(max_results=10, execution_ids=[one, two, three, one, foreign, "none"])
    page, position = batch.executions(DEFAULT_APPLICATION_ID, query)
    assert [execution["executionId"] for execution in page] == [three, two, one]
    assert position is None
    query = ExecutionQuery(max_results=10, execution_ids=[one, two, foreign], job_name="POSTTRAN")
    assert [found["executionId"] for found in batch.executions(DEFAULT_APPLICATION_ID, query)[0]] == [one]


def test_a_clock_that_goes_back_takes_nothing_back(clock: Clock) -> None:
    batch = service(clock)
    first = start(batch)
    clock.now += 10
    assert batch.get(DEFAULT_APPLICATION_ID, first)["status"] == "Succeeded"
    clock.now -= 10
    assert batch.get(DEFAULT_APPLICATION_ID, first)["status"] == "Succeeded"
    second = start(batch)
    found = everything(batch, ExecutionQuery(max_results=10, started_after=clock.now + 5))
    assert found == [second]


@pytest.mark.parametrize(
    "query",
    [
        ExecutionQuery(max_results=10),
        ExecutionQuery(max_results=10, started_after=BEGIN + 500, started_before=BEGIN + 501),
        ExecutionQuery(max_results=10, job_name="POSTTRAN", started_before=BEGIN + 500),
        ExecutionQuery(max_results=10, before_number=15_000),
    ],
)
def test_a_page_of_thousands_of_executions_is_found_without_a_look_at_each(clock: Clock, query: ExecutionQuery) -> None:
    clock.now = BEGIN
    batch = service(clock)
    for _ in range(30_000):
        clock.now += 0.05
        start(batch)
    application = batch.application(DEFAULT_APPLICATION_ID)
    watched = application.executions = Watched(application.executions)
    application.executions_of_job["POSTTRAN"] = watched
    page, position = batch.executions(DEFAULT_APPLICATION_ID, query)
    assert len(page) == 10
    assert position is not None
    assert watched.looks < 70


def test_a_search_for_what_there_is_not_is_spread_over_pages(clock: Clock) -> None:
    batch = service(clock)
    first = start(batch)
    batch.cancel(DEFAULT_APPLICATION_ID, first)
    clock.now += 60
    for _ in range(45_000):
        start(batch)
    query = ExecutionQuery(max_results=10, status="Cancelled")
    assert list(pages(batch, query)) == [[], [], [first]]
