from __future__ import annotations

import itertools
import re
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m2async.manifest.sweep import AxisError, format_date, parse_axis, product
from m2async.manifest.yaml_nodes import List, Map, Scalar


def values(**fields: str) -> list[str]:
    axis = parse_axis(range_of(**fields))
    assert list(axis) == list(axis), "an axis must be iterable again"
    return list(axis)


def range_of(**fields: str) -> Map:
    """Make the node of a range; its fields stand on lines 2, 3, …."""
    entries = {name.rstrip("_"): Scalar(text, line) for line, (name, text) in enumerate(fields.items(), 2)}
    return Map(entries, 1)


def days(first: str, last: str) -> list[date]:
    begin, end = date.fromisoformat(first), date.fromisoformat(last)
    return [begin + timedelta(number) for number in range((end - begin).days + 1)]


@given(st.lists(st.lists(st.integers(), max_size=4), max_size=5))
def test_a_product_is_what_itertools_gives(axes: list[list[int]]) -> None:
    assert list(product(axes)) == list(itertools.product(*axes))


def test_a_product_holds_no_axis() -> None:
    combinations = product([range(10**18), range(10**18)])
    assert list(itertools.islice(combinations, 3)) == [(0, 0), (0, 1), (0, 2)]


def test_a_list_is_taken_as_written() -> None:
    axis = parse_axis(List([Scalar("007", 2), Scalar("NO", 3), Scalar("", 4)], 1))
    assert list(axis) == list(axis) == ["007", "NO", ""]
    assert [axis.line_of(value) for value in axis] == [2, 3, 4]


def test_numbers_step_to_the_last_and_have_zeros_up_to_a_width() -> None:
    assert values(from_="1", to="3") == ["1", "2", "3"]
    assert values(from_="1", to="10", step="4") == ["1", "5", "9"]
    assert values(from_="8", to="11", width="4") == ["0008", "0009", "0010", "0011"]
    assert values(from_="-1", to="1", width="3") == ["-01", "000", "001"]
    assert values(from_="098", to="100", width="3") == ["098", "099", "100"]


@given(st.integers(-1000, 1000), st.integers(0, 300), st.integers(1, 50), st.integers(1, 6))
def test_numbers_are_a_range_written_out(first: int, length: int, step: int, width: int) -> None:
    found = values(from_=str(first), to=str(first + length), step=str(step), width=str(width))
    assert list(map(int, found)) == list(range(first, first + length + 1, step))
    assert all(len(text) >= width for text in found)


def test_dates_come_by_day_weekday_and_week() -> None:
    november = days("2026-11-01", "2026-11-30")
    between = {"from_": "2026-11-01", "to": "2026-11-30"}
    assert values(**between) == values(**between, every="day") == list(map(str, november))
    assert values(**between, every="weekday") == [str(day) for day in november if day.isoweekday() <= 5]
    assert values(**between, every="week") == [f"2026-11-{day:02d}" for day in (1, 8, 15, 22, 29)]


def test_dates_come_by_month_and_its_end() -> None:
    assert values(from_="2028-01-31", to="2028-04-30", every="month") == [
        "2028-01-31", "2028-02-29", "2028-03-31", "2028-04-30",
    ]  # fmt: skip
    assert values(from_="2026-11-15", to="2027-01-14", every="month") == ["2026-11-15", "2026-12-15"]
    assert values(from_="2026-11-15", to="2027-02-27", every="month-end") == ["2026-11-30", "2026-12-31", "2027-01-31"]
    assert values(from_="9999-11-30", to="9999-12-31", every="month-end") == ["9999-11-30", "9999-12-31"]


@given(st.dates(), st.integers(0, 1500), st.sampled_from(["day", "weekday", "month-end"]))
def test_dates_are_those_days_of_the_calendar_that_fit(first: date, length: int, every: str) -> None:
    last = date.fromordinal(min(first.toordinal() + length, date.max.toordinal()))
    wanted = [
        day
        for day in map(date.fromordinal, range(first.toordinal(), last.toordinal() + 1))
        if every == "day"
        or (every == "weekday" and day.isoweekday() <= 5)
        or (every == "month-end" and (day == date.max or (day + timedelta(1)).day == 1))
    ]
    node = range_of(from_=str(first), to=str(last), every=every)
    if wanted:
        assert list(parse_axis(node)) == list(map(str, wanted))
    else:
        with pytest.raises(AxisError, match=f"there is no {every}"):
            parse_axis(node)


@given(
    st.dates(min_value=date(1000, 1, 1)),
    st.text(st.sampled_from("YymdjA-/ ")).map(lambda text: re.sub("([Yymdj])", r"%\1", text)),
)
def test_a_format_writes_what_strftime_does(day: date, form: str) -> None:
    assert format_date(day, f"{form}%%") == day.strftime(f"{form}%%")


def test_a_format_is_the_same_in_early_years() -> None:
    assert format_date(date(7, 2, 1), "%Y %y%j") == "0007 07032"


@pytest.mark.parametrize(
    ("fields", "line", "path", "reason"),
    [
        ({"from_": "2", "to": "1"}, 2, "from", "2: must not be greater than to, 1"),
        ({"from_": "1", "to": "2", "step": "0"}, 4, "step", "0: must be at least 1"),
        ({"from_": "1", "to": "2", "step": "-1"}, 4, "step", "-1: must be at least 1"),
        ({"from_": "1", "to": "2", "step": "x"}, 4, "step", "'x': must be an integer"),
        ({"from_": "1", "to": "2", "width": "0"}, 4, "width", "0: must be 1 to 1,024 characters"),
        ({"from_": "1", "to": "2", "width": "1025"}, 4, "width", "1025: must be 1 to 1,024 characters"),
        ({"from_": "01", "to": "12"}, 2, "from", "'01': has leading zeros, so give the width of the values"),
        (
            {"from_": "1", "to": "2", "every": "day"},
            4,
            "every",
            "is no field of a range of numbers; known are from, to",
        ),
        ({"from_": "1", "to": "2", "stop": "3"}, 4, "stop", "is no field of a range; known are from, to, step, width"),
        ({"from_": "1"}, 1, "to", "is missing: a range needs from and to"),
        ({"to": "1"}, 1, "from", "is missing: a range needs from and to"),
        ({"from_": "a", "to": "b"}, 1, "", "from 'a' to 'b': must be two integers or two dates"),
        ({"from_": "9" * 19, "to": "9" * 19}, 1, "", "from '9999999999999999999' to"),
        ({"from_": "2026-11-02", "to": "2026-11-01"}, 2, "from", "2026-11-02: must not be later than to, 2026-11-01"),
        ({"from_": "2026-11-01", "to": "2026-11-31"}, 3, "to", "'2026-11-31': must be a date (YYYY-MM-DD)"),
        ({"from_": "2026-11-01", "to": "20261130"}, 3, "to", "'20261130': must be a date (YYYY-MM-DD)"),
        ({"from_": "2026-11-01", "to": "2026-11-02", "step": "1"}, 4, "step", "is no field of a range of dates"),
        (
            {"from_": "2026-11-01", "to": "2026-11-02", "every": "days"},
            4,
            "every",
            "'days': must be one of day, weekday",
        ),
        (
            {"from_": "2026-11-01", "to": "2026-11-01", "every": "weekday"},
            1,
            "every",
            "there is no weekday from 2026-11",
        ),
        ({"from_": "2026-11-01", "to": "2026-11-29", "every": "month-end"}, 1, "every", "there is no month-end from"),
        ({"from_": "2026-11-01", "to": "2026-11-02", "format": "%b"}, 4, "format", "'%b': only %Y, %y, %m, %d, %j and"),
        ({"from_": "2026-11-01", "to": "2026-11-02", "format": "x%"}, 4, "format", "'x%': only %Y, %y, %m, %d, %j and"),
    ],
)
def test_what_is_wrong_in_a_range_is_told_with_line_and_path(
    fields: dict[str, str], line: int, path: str, reason: str
) -> None:
    with pytest.raises(AxisError) as raised:
        parse_axis(range_of(**fields))
    assert (raised.value.line, raised.value.fault.column) == (line, path)
    assert raised.value.fault.reason.startswith(reason)


def test_an_axis_is_a_list_of_texts_or_a_range() -> None:
    with pytest.raises(AxisError, match="the list is empty"):
        parse_axis(List([], 1))
    with pytest.raises(AxisError, match="value 2 of the list must be a text"):
        parse_axis(List([Scalar("a", 1), Scalar(None, 1)], 1))
    with pytest.raises(AxisError, match="value 1 of the list must be a text"):
        parse_axis(List([List([], 1)], 1))
    with pytest.raises(AxisError, match="'EAST': must be a list or a range"):
        parse_axis(Scalar("EAST", 1))
    with pytest.raises(AxisError, match="must be a text"):
        parse_axis(Map({"from": List([], 1), "to": Scalar("1", 1)}, 1))
