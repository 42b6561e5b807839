from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m2async.local.definitions import JobDefinition, StepDefinition
from m2async.local.execution import Execution, schedule
from m2async.service.requests import RestartJob, ScriptJob, StartBatchJob
from m2async.service.responses import TERMINAL_STATUSES

NOW = 1_795_446_000.0
ORDER = ["Submitting", "Dispatching", "Running", "Succeeded"]


def execution(*, seed: int = 1, now: float = NOW, seconds: float | None = None, return_code: int = 0) -> Execution:
    definition = JobDefinition(
        "A.jcl",
        "A",
        (StepDefinition("S1"), StepDefinition("S2"), StepDefinition("S3")),
        seconds=seconds,
        return_code=return_code,
    )
    request = StartBatchJob("app", ScriptJob("A"), {"RUNDATE": "1"})
    return schedule(1, "id", request, definition, now, random.Random(seed))


@given(st.integers(), st.lists(st.floats(0, 5), min_size=2))
def test_the_status_goes_forward_to_its_end_in_about_a_second(seed: int, offsets: list[float]) -> None:
    job = execution(seed=seed)
    places = [ORDER.index(job.status(NOW + offset)) for offset in sorted(offsets)]
    assert places == sorted(places)
    assert job.status(NOW) == "Submitting"
    assert 0.5 <= job.ends_at - NOW <= 1.5
    assert job.status(job.ends_at) == "Succeeded"


def test_every_status_is_seen_in_its_time() -> None:
    job = execution()
    assert [
        job.status(moment) for moment in (NOW, job.dispatching_at, job.running_at, job.ends_at - 0.001, job.ends_at)
    ] == ["Submitting", "Dispatching", "Running", "Running", "Succeeded"]


def test_a_definition_says_how_long_a_job_runs() -> None:
    job = execution(seconds=3_600)
    assert job.ends_at - job.running_at == pytest.approx(3_600)


def test_the_end_shows_in_time_and_return_code_only_once_it_has_come() -> None:
    job = execution()
    running, ended = job.summary(job.running_at), job.summary(job.ends_at)
    assert "endTime" not in running
    assert "returnCode" not in running
    assert (ended["status"], ended["returnCode"]) == ("Succeeded", "0")
    assert 0 <= job.ends_at - ended["endTime"] < 0.001


def test_a_job_with_a_return_code_fails_at_its_last_step() -> None:
    job = execution(return_code=12)
    details = job.details(job.ends_at)
    assert (details["status"], details["returnCode"]) == ("Failed", "12")
    assert details["statusReason"] == "Step S3 ended with return code 12."
    assert [point["stepCondCode"] for point in job.restart_points(job.ends_at)] == ["0", "0", "12"]


def test_the_parameters_are_not_shown() -> None:
    job = execution()
    assert "RUNDATE" not in str(job.details(job.ends_at))


def test_times_are_those_of_whole_milliseconds() -> None:
    assert execution(now=NOW + 0.123999).details(NOW + 1)["startTime"] == NOW + 0.123


@given(st.integers(), st.floats(0, 2))
def test_a_cancelled_job_is_cancelling_and_then_cancelled_unless_it_had_ended(seed: int, offset: float) -> None:
    job, now = execution(seed=seed), NOW + offset
    if job.status(now) in TERMINAL_STATUSES:
        assert not job.cancel(now)
        assert job.status(now) == "Succeeded"
    else:
        assert job.cancel(now)
        assert job.status(now) == "Cancelling"
        assert job.cancel(now + 0.01)  # a second time changes nothing
        assert job.status(now + 0.15) == "Cancelled"
        assert not job.cancel(now + 0.15)
        cancelled = job.details(now + 10)
        assert cancelled["status"] == "Cancelled"
        assert now <= cancelled["endTime"] + 0.001 <= now + 0.16
        assert "returnCode" not in cancelled


def test_a_restarted_job_shows_where_it_restarted() -> None:
    request = StartBatchJob("app", RestartJob("before", "S2", skip=True))
    job = schedule(1, "id", request, execution().definition, NOW, random.Random(1))
    assert job.details(NOW)["jobStepRestartMarker"] == {"fromStep": "S2", "skip": True}
