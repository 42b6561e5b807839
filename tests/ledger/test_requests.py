from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m2async import ScriptJob, StartBatchJob
from m2async.ledger import canonical_identifier
from m2async.ledger.requests import from_columns, to_columns
from m2async.service.requests import Job
from tests.ledger.samples import APPLICATION, JOBS

_texts = st.text(st.characters(codec="utf-8"), max_size=20)


@given(
    job=st.sampled_from(JOBS),
    params=st.dictionaries(st.from_regex(r"[A-Za-z][A-Za-z0-9]{1,5}", fullmatch=True), _texts, max_size=4),
    secret=st.none() | st.text(st.characters(codec="utf-8"), min_size=20, max_size=30),
)
def test_a_request_comes_back_as_it_was(job: Job, params: dict[str, str], secret: str | None) -> None:
    request = StartBatchJob(APPLICATION, job, params, secret)
    again = from_columns(*to_columns(request))
    assert again == request
    assert again.body() == StartBatchJob.from_api(again.to_api()).body()
    assert to_columns(again) == to_columns(request)


def test_requests_that_were_made_from_columns_share_nothing() -> None:
    columns = to_columns(StartBatchJob(APPLICATION, ScriptJob("A")))
    one, other = from_columns(*columns), from_columns(*columns)
    assert one.params is not other.params


def test_equal_parameters_in_another_order_are_the_same_columns() -> None:
    one = StartBatchJob(APPLICATION, ScriptJob("A"), {"AA": "1", "BB": "2"})
    other = StartBatchJob(APPLICATION, ScriptJob("A"), {"BB": "2", "AA": "1"})
    assert to_columns(one) == to_columns(other)


@pytest.mark.parametrize("job", JOBS, ids=lambda job: type(job).__name__)
def test_an_identifier_is_the_services_own_shape(job: Job) -> None:
    assert json.loads(canonical_identifier(job)) == {job.member: job.to_members()}


def test_different_jobs_have_different_identifiers() -> None:
    assert len({canonical_identifier(job) for job in JOBS}) == len(JOBS)
