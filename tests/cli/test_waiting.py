from __future__ import annotations

import pytest

from m2async.cli.waiting import WaitingNames
from m2async.submitting import WaitingName


def name(job: str, jobs: int, left: float) -> WaitingName:
    return WaitingName("app", job, jobs, 0.0, 0.0 if left else 0.1, left)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ([], ""),
        ([name("A", 0, 9.0)], ""),
        ([name("A", 3, 0.0), name("B", 2, 0.0)], "5 waiting"),
        ([name("A", 3, 9.0)], "3 waiting for one in doubt"),
        ([name("A", 3, 9.0), name("B", 0, 9.0)], "3 waiting for one in doubt"),
        ([name("A", 3, 9.0), name("B", 2, 0.0)], "5 waiting, 3 for one in doubt"),
        ([name("A", 1_000, 9.0), name("B", 2, 9.0)], "1,002 waiting for some in doubt"),
        ([name("A", 3, 9.0), name("B", 2, 9.0), name("C", 1, 0.0)], "6 waiting, 5 for some in doubt"),
    ],
)
def test_it_is_told_how_many_jobs_wait_and_how_many_of_them_for_what_was_left_in_doubt(
    names: list[WaitingName], told: str
) -> None:
    assert WaitingNames().look(names) == told
