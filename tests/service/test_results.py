"""The table of results, exhaustively: every status, every kind of return code, every rule."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m2async.service import results
from m2async.service.responses import TERMINAL_STATUSES
from m2async.service.results import OPEN_STATUSES, Result, has_ended, judge
from tests.model import service

STATUSES: tuple[str, ...] = tuple(service().shape_for("BatchJobExecutionStatus").metadata["enum"])
CODES: dict[str, list[str | None]] = {
    "no return code": [None],
    "0": ["0", "00", "0000", " 0 "],
    "1 to max_rc": ["1", "4", "0004"],
    "above max_rc": ["5", "8", "12", "0016", "4095"],
    "no number": ["", " ", "S0C7", "U4038", "-1", "+0", "4.0", "0x0", "RC=0", "CC 0000", "\u0660", "\u00b2", "9" * 11],
}
ROWS = {
    # status: (without a rule, with --max-rc 4), each by kind of code, in the order above; + success, - failure
    "Succeeded": ("++---", "-++--"),
    "Succeeded With Warning": ("-----", "-++--"),
    "Failed": ("-----", "-----"),
    "Cancelled": ("-----", "-----"),
    "Purged": ("-----", "-----"),
}


def test_the_statuses_are_the_services() -> None:
    assert set(STATUSES) == TERMINAL_STATUSES | OPEN_STATUSES
    assert not TERMINAL_STATUSES & OPEN_STATUSES
    assert set(ROWS) == TERMINAL_STATUSES


@pytest.mark.parametrize(("status", "with_rule"), list(product(ROWS, [False, True])))
def test_what_an_end_comes_to(status: str, with_rule: bool) -> None:
    expected = ROWS[status][with_rule]
    for sign, kind in zip(expected, CODES, strict=True):
        for code in CODES[kind]:
            for has_end_time in (False, True):
                ended = has_ended(status, has_end_time=has_end_time)
                judgement = judge(status, code, 4 if with_rule else None, ended=ended, gone=False)
                assert judgement.result is (Result.SUCCESS if sign == "+" else Result.FAILURE), (status, code)
                assert status in judgement.reason


@pytest.mark.parametrize(("status", "max_rc"), list(product([*sorted(OPEN_STATUSES), None], [None, 0, 4])))
def test_what_has_not_ended_is_open_whatever_else_is_said_of_it(status: str | None, max_rc: int | None) -> None:
    for code, has_end_time in product([None, "0", "12", "S0C7"], [False, True]):
        ended = has_ended(status, has_end_time=has_end_time)
        assert judge(status, code, max_rc, ended=ended, gone=False).result is Result.OPEN


@pytest.mark.parametrize("max_rc", [None, 0, 4, 4_095])
@pytest.mark.parametrize("code", [None, "0", "4"])
def test_a_status_that_is_not_known_is_open_until_it_has_an_end_and_never_a_success(
    code: str | None, max_rc: int | None
) -> None:
    for status in ("Succeeded With Honours", "SUCCEEDED", "succeeded", ""):
        assert not has_ended(status, has_end_time=False)
        assert has_ended(status, has_end_time=True)
        judgement = judge(status, code, max_rc, ended=True, gone=False)
        assert judgement.result is Result.FAILURE
        assert "not known here" in judgement.reason


@given(st.sampled_from([*STATUSES, "Other", None]), st.none() | st.text(max_size=6), st.none() | st.integers(0, 4_095))
def test_nothing_that_the_service_lost_is_a_success(status: str | None, code: str | None, max_rc: int | None) -> None:
    judgement = judge(status, code, max_rc, ended=True, gone=True)
    assert judgement.result is Result.FAILURE
    assert "does not know" in judgement.reason


@given(
    st.sampled_from([*STATUSES, "Other", None]),
    st.none() | st.text(max_size=6) | st.integers(0, 20).map(str),
    st.none() | st.integers(0, 20),
    st.booleans(),
)
def test_success_is_said_only_of_what_the_service_calls_so_and_of_no_code_above_the_rule(
    status: str | None, code: str | None, max_rc: int | None, has_end_time: bool
) -> None:
    ended = has_ended(status, has_end_time=has_end_time)
    if judge(status, code, max_rc, ended=ended, gone=False).result is Result.SUCCESS:
        assert status in {"Succeeded", "Succeeded With Warning"}
        assert (code is None and max_rc is None) or (code is not None and int(code) <= (max_rc or 0))


def test_the_table_in_the_documentation_is_the_one_that_is_tested() -> None:
    table = [line.strip("| ").split(" | ") for line in (results.__doc__ or "").splitlines() if line.startswith("| S")]
    assert [row[0] for row in table][:2] == ["Succeeded", "Succeeded With Warning"]
    signs = {
        "success": "++",
        "failure": "--",
        "success without a rule, failure with one": "+-",
        "success with a rule": "-+",
    }
    for row in table[:2]:
        without, with_rule = ROWS[row[0]]
        for cell, sign, ruled, kind in zip(row[1:], without, with_rule, CODES, strict=True):
            # Without a rule max_rc is 0, so that there is no code between.
            assert signs[cell][1] == ruled
            assert kind == "1 to max_rc" or signs[cell][0] == sign
