from __future__ import annotations

from m2async.ledger.changes import MAX_KEYS, Changes


def test_the_same_rows_in_another_order_are_no_change() -> None:
    changes = Changes(2)
    assert changes.found("b", given=1, planned=2, same=True) is None
    assert changes.found("a", given=2, planned=1, same=True) is None
    assert changes.missing() == []
    assert changes.error("ledger", "run", []) is None


def test_a_key_that_is_given_twice_is_told_with_both_numbers() -> None:
    changes = Changes(9)
    changes.found("a", given=3, planned=7, same=True)
    assert changes.found("a", given=8, planned=7, same=True) == (3, 8)


def test_every_kind_of_difference_is_told() -> None:
    changes = Changes(3)
    changes.found("b", given=1, planned=2, same=False)
    changes.added("new")
    assert changes.missing() == [1, 3]
    error = changes.error("ledger", "nightly", ["a", "c"])
    assert error is not None
    assert (error.added, error.removed, error.changed) == (("new",), ("a", "c"), ("b",))
    assert str(error) == (
        "ledger ledger: run 'nightly' was planned with other rows: 1 added (new); 2 removed (a, c); 1 changed (b)"
    )


def test_of_many_differences_the_first_are_named_and_all_counted() -> None:
    changes = Changes(1_000)
    for number in range(100):
        changes.added(f"new-{number}")
    missing = changes.missing()
    assert missing == list(range(1, MAX_KEYS + 1))
    error = changes.error("ledger", "run", [str(number) for number in missing])
    assert error is not None
    assert (error.added_count, error.removed_count, error.changed_count) == (100, 1_000, 0)
    assert len(error.added) == MAX_KEYS
    assert "100 added (new-0, " in str(error)
    assert ", …)" in str(error)
