from __future__ import annotations

from itertools import product

import pytest

from m2async.ledger.states import NEXT_STATE, RowEvent, RowState, Standing, follow

PENDING, INTENT, STARTED, REJECTED, UNKNOWN = RowState


def test_exactly_these_transitions_are_legal_without_an_earlier_doubt() -> None:
    legal = {
        (state, event, after.state)
        for state, event in product(RowState, RowEvent)
        if (after := follow(Standing(state, state is UNKNOWN), event))
    }
    assert legal == {
        (PENDING, RowEvent.INTEND, INTENT),
        (UNKNOWN, RowEvent.RESEND, INTENT),
        (INTENT, RowEvent.STARTED, STARTED),
        (INTENT, RowEvent.REFUSED, PENDING),
        (INTENT, RowEvent.WITHDRAWN, PENDING),
        (INTENT, RowEvent.REJECTED, REJECTED),
        (INTENT, RowEvent.UNKNOWN, UNKNOWN),
        (INTENT, RowEvent.CRASH, UNKNOWN),
        (UNKNOWN, RowEvent.CLAIMED, STARTED),
        (UNKNOWN, RowEvent.GROUPED, STARTED),
        (UNKNOWN, RowEvent.NOT_STARTED, PENDING),
        (REJECTED, RowEvent.RETRY, PENDING),
        (PENDING, RowEvent.GIVEN_UP, REJECTED),
        (STARTED, RowEvent.RESTART, PENDING),
        (PENDING, RowEvent.AMENDED, PENDING),
        (REJECTED, RowEvent.AMENDED, PENDING),
    }


def test_what_was_decided_of_a_doubt_can_be_taken_back_until_something_is_sent() -> None:
    for event, state in ((RowEvent.CLAIMED, STARTED), (RowEvent.GROUPED, STARTED), (RowEvent.NOT_STARTED, PENDING)):
        decided = follow(Standing(UNKNOWN, 1), event)
        assert decided == Standing(state, 0, 1)
        assert follow(decided, RowEvent.TAKEN_BACK) == Standing(UNKNOWN, 1)
    given_up = follow(Standing(PENDING, 0, 2), RowEvent.GIVEN_UP)
    assert given_up == Standing(REJECTED, 0, 2)
    assert follow(given_up, RowEvent.TAKEN_BACK) == Standing(UNKNOWN, 2)
    for standing, event in ((Standing(PENDING, 0, 1), RowEvent.INTEND), (Standing(STARTED, 0, 1), RowEvent.RESTART)):
        sent = follow(standing, event)
        assert sent is not None
        assert follow(sent, RowEvent.TAKEN_BACK) is None
    for state in RowState:
        assert follow(Standing(state, 0), RowEvent.TAKEN_BACK) is None  # nothing was decided


def test_an_attempt_that_is_withdrawn_leaves_what_was_decided_as_it_was() -> None:
    before = Standing(PENDING, 0, 2)
    intended = follow(before, RowEvent.INTEND)
    assert intended is not None
    assert follow(intended, RowEvent.TAKEN_BACK) is None
    assert follow(intended, RowEvent.WITHDRAWN) == before
    for event in (RowEvent.STARTED, RowEvent.REFUSED, RowEvent.REJECTED, RowEvent.UNKNOWN, RowEvent.CRASH):
        sent = follow(intended, event)
        assert sent is not None
        assert sent.settled == 0


def test_a_start_beside_a_doubt_can_be_confirmed_as_the_only_one() -> None:
    assert follow(Standing(STARTED, 2), RowEvent.CONFIRMED) == Standing(STARTED, 0)
    assert follow(Standing(STARTED, 2, 1), RowEvent.CONFIRMED) == Standing(STARTED, 0, 3)
    assert follow(Standing(STARTED, 0), RowEvent.CONFIRMED) is None


@pytest.mark.parametrize("event", [RowEvent.REFUSED, RowEvent.REJECTED, RowEvent.WITHDRAWN])
def test_what_a_later_attempt_meets_does_not_settle_an_earlier_doubt(event: RowEvent) -> None:
    resent = follow(Standing(UNKNOWN, 1), RowEvent.RESEND)
    assert resent == Standing(INTENT, 1)
    assert follow(resent, event) == Standing(UNKNOWN, 1)


def test_a_start_after_a_doubt_leaves_the_doubt_visible() -> None:
    assert follow(Standing(INTENT, 1), RowEvent.STARTED) == Standing(STARTED, 1)


def test_each_unanswered_attempt_is_one_more_doubt_and_each_claim_one_less() -> None:
    assert follow(Standing(INTENT, 1), RowEvent.UNKNOWN) == Standing(UNKNOWN, 2)
    assert follow(Standing(INTENT, 1), RowEvent.CRASH) == Standing(UNKNOWN, 2)
    assert follow(Standing(UNKNOWN, 2), RowEvent.CLAIMED) == Standing(STARTED, 1, 1)


def test_a_job_with_an_attempt_in_doubt_is_not_restarted_since_that_attempt_is_of_another_job() -> None:
    assert follow(Standing(STARTED, 1), RowEvent.RESTART) is None


def test_learning_that_nothing_was_started_settles_every_doubt() -> None:
    assert follow(Standing(UNKNOWN, 3), RowEvent.NOT_STARTED) == Standing(PENDING, 0, 3)


def test_no_way_leads_from_a_doubt_to_a_row_that_looks_sure() -> None:
    """Whatever happens: UNKNOWN rows have doubts, PENDING and REJECTED rows have none."""
    seen, ahead = set(), [Standing(PENDING, 0)]
    while ahead:
        standing = ahead.pop()
        if standing in seen or standing.doubts > 4:
            continue
        seen.add(standing)
        assert (standing.doubts > 0) >= (standing.state is UNKNOWN)
        assert not (standing.doubts and standing.state in {PENDING, REJECTED})
        ahead += [after for event in RowEvent if (after := follow(standing, event))]
    assert {standing.state for standing in seen} == set(RowState)


def test_every_event_but_the_ways_into_intent_has_its_place_in_the_table() -> None:
    assert {event for _, event in NEXT_STATE} == set(RowEvent)
