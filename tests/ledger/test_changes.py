from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import pytest

from m2async.ledger.changes import MAX_KEYS, ChangeKind, Differences, RowChange, is_finished, may_amend
from m2async.ledger.states import RowState

ADDED, REMOVED, CHANGED = ChangeKind


def row(
    change: ChangeKind, *, may_have_started: bool = False, elsewhere: bool = False, numbered: bool = False
) -> RowChange:
    return RowChange(change, may_have_started, elsewhere, numbered)


def differences(keys: dict[RowChange, Sequence[str]]) -> Differences:
    return Differences({each: len(those) for each, those in keys.items()}, keys)


def test_the_same_rows_are_no_difference() -> None:
    same = differences({})
    assert not same
    assert same.error("ledger", "run") is None
    assert may_amend(same, asked=False, by_itself=True)


def test_every_kind_of_difference_is_told() -> None:
    found = differences({
        row(ADDED): ["new"], row(ADDED, elsewhere=True): ["other"], row(REMOVED): ["a", "c"], row(CHANGED): ["b"],
    })  # fmt: skip
    error = found.error("ledger", "nightly")
    assert error is not None
    assert (error.added, error.removed, error.changed) == (("new", "other"), ("a", "c"), ("b",))
    assert str(error) == (
        "ledger ledger: run 'nightly' was planned with other rows: "
        "2 added (new, other); 2 removed (a, c); 1 changed (b)"
    )


def test_of_many_differences_the_first_are_named_and_all_counted() -> None:
    kinds = row(ADDED), row(ADDED, elsewhere=True)
    found = Differences(dict.fromkeys(kinds, 100), {key: [f"key-{n}" for n in range(MAX_KEYS)] for key in kinds})
    error = found.error("ledger", "run")
    assert error is not None
    assert (error.added_count, len(error.added)) == (200, MAX_KEYS)
    assert ", …)" in str(error)


@pytest.mark.parametrize("change", ChangeKind)
def test_a_run_goes_on_by_itself_only_unfinished_and_where_nothing_that_differs_was_started(change: ChangeKind) -> None:
    for may_have_started, elsewhere, by_itself in product((False, True), repeat=3):
        found = differences({row(change, may_have_started=may_have_started, elsewhere=elsewhere): ["key"]})
        goes_on = by_itself and not (may_have_started or elsewhere)
        assert may_amend(found, asked=False, by_itself=by_itself) is goes_on
        assert may_amend(found, asked=True, by_itself=by_itself)


def test_more_than_half_of_a_runs_rows_are_most_of_it() -> None:
    for removed, rows in ((1, 3), (2, 5), (0, 1)):
        assert differences({row(REMOVED): ["1"] * removed, row(ADDED): ["2"] * 99}).keeps_most_of(rows)
    for changed, rows in ((2, 4), (3, 4), (1, 2)):
        assert not differences({row(CHANGED): ["1"] * changed}).keeps_most_of(rows)


def test_one_row_that_was_started_is_enough() -> None:
    found = differences({row(ADDED): ["new"], row(REMOVED, may_have_started=True): ["old"]})
    assert not may_amend(found, asked=False, by_itself=True)
    assert may_amend(found, asked=True, by_itself=True)


def test_without_keys_an_added_row_may_be_one_that_was_started() -> None:
    gone = row(REMOVED, may_have_started=True, numbered=True)
    keyed = row(REMOVED, may_have_started=True)
    for started, added in ((gone, row(ADDED, numbered=True)), (gone, row(ADDED)), (keyed, row(ADDED, numbered=True))):
        assert not may_amend(differences({started: ["1"], added: ["2"]}), asked=True, by_itself=True)
    assert may_amend(differences({keyed: ["1"], row(ADDED): ["2"]}), asked=True, by_itself=True)
    for other in (row(ADDED, numbered=True, elsewhere=True), row(REMOVED, numbered=True)):
        assert may_amend(differences({gone: ["1"], other: ["2"]}), asked=True, by_itself=False)
    mended = differences({row(REMOVED, numbered=True): ["1"], row(ADDED, numbered=True): ["1"]})
    assert may_amend(mended, asked=False, by_itself=True)


def test_a_run_has_finished_once_nothing_is_left_that_may_start_or_may_have() -> None:
    for state in RowState:
        counts = {**dict.fromkeys(RowState, 0), state: 1}
        assert is_finished(counts) is (state in {RowState.STARTED, RowState.REJECTED})
