"""Small ones of the campaigns: jobs on clocks that misbehave, and beside another client."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from tests.campaigns import another_client, clocks


async def test_with_clocks_that_behave_no_job_of_a_name_of_its_own_is_unknown() -> None:
    audits = await clocks.campaign(60, 1, clocks.well)
    assert sum(audit.problems for audit in audits) == 0
    assert sum(audit.unknown for audit in audits if audit.names == audit.rows) == 0
    assert sum(audit.adopted for audit in audits) > 30
    assert sum(audit.sent_again for audit in audits) > 30


@pytest.mark.parametrize("habits", [clocks.jumping, clocks.badly])
async def test_whatever_the_clocks_do_no_job_is_started_twice_or_lost(habits: clocks.Play) -> None:
    audits = await clocks.campaign(100, 1, habits)
    assert [audit for audit in audits if audit.problems] == []
    assert sum(audit.adopted for audit in audits) > 60


@pytest.mark.parametrize("habits", [clocks.well, clocks.jumping, clocks.badly])
async def test_nor_is_any_of_many_rows_of_one_name_under_the_law(habits: clocks.Play) -> None:
    audits = await clocks.campaign(25, 1, habits, of_one_name=True)
    assert [audit for audit in audits if audit.problems] == []
    assert sum(audit.adopted for audit in audits) > 60
    assert sum(audit.sent_again for audit in audits) > 60
    assert sum(audit.unknown for audit in audits) < 0.06 * sum(audit.rows for audit in audits)


async def test_the_reference_that_trusts_all_clocks_starts_jobs_twice_where_they_misbehave() -> None:
    audits = await clocks.campaign(150, 1, clocks.badly, clocks.by_exact_times)
    assert sum(audit.problems for audit in audits) > 10


def test_beside_another_client_nothing_is_wrongly_called_not_started() -> None:
    counts = Counter[str]()
    for number in range(40):
        draw = random.Random(number)
        counts += another_client.run(draw, draw.choice([0.0, 0.2, 1.0]), draw.choice([1, 10, 100]), 2.0, 0.2)
    assert counts["wrongly not started"] == 0
    assert min(counts["adopted"], counts["not started"], counts["unknown"]) > 50


def test_where_nobody_else_starts_our_jobs_nothing_is_wrongly_adopted() -> None:
    counts = sum((another_client.run(random.Random(number), 0.0, 10, 2.0, 0.2) for number in range(40)), Counter())
    assert counts["wrongly adopted"] == counts["wrongly not started"] == 0
    assert counts["adopted"] > 50
