from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from m2async.texts import moment, number, percent, plural, seconds, visible

ANYTHING = st.text(st.characters(exclude_categories=[]), max_size=60)


@given(ANYTHING)
def test_what_is_shown_of_a_text_is_printable(text: str) -> None:
    shown = visible(text)
    assert shown.isprintable()
    assert shown.encode().decode() == shown  # halves of surrogate pairs are written out as well


def test_marks_that_turn_text_around_are_written_out() -> None:
    assert visible("a\u202eb\u200f\x00") == "a\\u202eb\\u200f\\x00"


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (12_345, "12,345"), (48.13, "48.1"), (0.254, "0.254"), (1_234.5, "1,234"), (3.0, "3")]
)
def test_numbers(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "—"), (0, "0 s"), (0.0123, "12.3 ms"), (0.9999, "1 s"), (3.2, "3.2 s"), (59.94, "59.9 s"),
        (59.97, "1 min 00 s"), (245, "4 min 05 s"), (3_599.6, "1 h 00 min"), (7_800, "2 h 10 min"),
        (273_600, "3 d 4 h"),
    ],
)  # fmt: skip
def test_durations(value: float | None, text: str) -> None:
    assert seconds(value) == text


@example((999_999, 1_000_000))
@example((1, 1_000_000))
@given(st.integers(1, 10**9).flatmap(lambda whole: st.tuples(st.integers(0, whole), st.just(whole))))
def test_only_all_of_it_is_100_percent_and_only_none_of_it_0(given_: tuple[int, int]) -> None:
    part, whole = given_
    shown = float(percent(part, whole).removesuffix(" %"))
    assert (shown == 100) == (part == whole)
    assert (shown == 0) == (part == 0)
    assert shown == pytest.approx(100 * part / whole, abs=0.1)


def test_a_time_says_how_far_it_is_from_utc() -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC[+-]\d\d:\d\d", moment(1_795_000_000.0))


def test_counts_agree_with_their_nouns() -> None:
    assert (plural(1, "job"), plural(2_000, "job")) == ("1 job", "2,000 jobs")
