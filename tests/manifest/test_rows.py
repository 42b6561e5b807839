from __future__ import annotations

import pytest

from m2async.errors import InvalidRequestError
from m2async.manifest.rows import COLUMNS, RequestMaker, RowError, RowProblem, job_of, shown, split_fields
from m2async.service.requests import FileJob


def test_a_request_is_made_of_fields_and_parameters() -> None:
    request = RequestMaker("app1", {"AA": "1"}).request({"file": "A"}, {"BB": "2"})
    assert (request.application_id, request.job, request.params) == ("app1", FileJob("A"), {"AA": "1", "BB": "2"})


def test_defaults_that_the_model_refuses_are_refused_at_once() -> None:
    with pytest.raises(InvalidRequestError):
        RequestMaker("", {})
    with pytest.raises(InvalidRequestError):
        RequestMaker(None, {"A": "1"})


def test_a_parameter_that_is_replaced_for_all_rows_is_not_looked_at() -> None:
    assert RequestMaker("app1", {"AA": "1"}).request({"file": "A"}, {"AA": "v" * 2000}).params == {"AA": "1"}
    with pytest.raises(RowError) as raised:
        RequestMaker("app1", {"AA": "1"}).request({"folder": "A"}, {"AA": "v" * 2000})
    assert [fault.column for fault in raised.value.faults] == ["file"]


def test_every_column_is_known_and_none_makes_a_parameter() -> None:
    fields, params, faults = split_fields(dict.fromkeys(COLUMNS, "x"))
    assert (list(fields), params, faults) == (list(COLUMNS), {}, [])


def test_a_row_names_exactly_one_job() -> None:
    with pytest.raises(RowError) as raised:
        job_of({"script": "A", "file": "B", "s3_bucket": "C"})
    assert raised.value.faults == (
        RowProblem("file", "a second job: script is given as well, and a row starts one job; keep one of them"),
    )


@pytest.mark.parametrize("value", ["x\ny\x1b", "x" * 10_000, ["x"] * 10_000, {"a": "\n"}, None, 10**1000])
def test_a_value_is_shown_on_one_short_line(value: object) -> None:
    assert shown(value).isprintable()
    assert len(shown(value)) < 400


def test_columns_of_a_problem_are_printable() -> None:
    error = RowError(RowProblem("\x1b[2J\n", "reason"), RowProblem("x" * 100, "reason")).at("m", 1)
    assert [found.column for found in error.problems] == [r"'\x1b[2J\n'", f"'{'x' * 57}'… (100 characters)"]
