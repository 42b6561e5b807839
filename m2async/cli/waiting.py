"""What `submit` and `resume` say of jobs that wait for others of their name."""

from __future__ import annotations

import math
from collections.abc import Sequence

from m2async.cli.output import say
from m2async.submitting import WaitingName
from m2async.texts import plural, visible

_WORTH_SAYING = 1.0
"""Seconds that jobs of a name wait, in all, before that is told at the end."""


class WaitingNames:
    """Says once of each name that its jobs wait, and for what, and at the end for how long they did."""

    def __init__(self) -> None:
        self._names: Sequence[WaitingName] = ()
        self._said: set[tuple[str, str]] = set()
        self._said_left = False

    def look(self, names: Sequence[WaitingName]) -> str:
        """Say what is new, and give in a few words how many jobs wait now."""
        self._names = names
        left = [each for each in names if each.jobs and each.left > 0]
        if left and not self._said_left:
            self._said_left = True
            say(_waits_for_what_was_left(left))
        for each in names:
            name = each.application_id, each.job
            if each.share_lost and name not in self._said:
                self._said.add(name)
                say(
                    f"m2async: jobs named {visible(each.job)} wait for each other, as answers of theirs were lost: "
                    "else it could not be told which of them were started (--certainty)"
                )
        return _how_many(sum(each.jobs for each in names), left)

    def summary(self) -> None:
        """Say for how long jobs waited."""
        waited = sorted((each for each in self._names if each.share_lost), key=lambda each: -each.seconds)
        waited = [each for each in waited if each.seconds >= _WORTH_SAYING]
        if waited:
            first, others = waited[0], len(waited) - 1
            of = f"Jobs named {visible(first.job)}" + (f" and of {plural(others, 'other name')}" if others else "")
            say(
                f"{of} waited {first.seconds:,.0f} s for each other, as answers were lost "
                f"(of late {first.share_lost:.1%}): --certainty fast would not wait, and leave more jobs unknown."
            )


def _how_many(jobs: int, left: Sequence[WaitingName]) -> str:
    """Say how many jobs wait, and how many of them for what was left in doubt."""
    if not jobs:
        return ""
    for_left = sum(each.jobs for each in left)
    told = f"{jobs:,} waiting" + (f", {for_left:,}" if 0 < for_left < jobs else "")
    return told + ("" if not left else " for one in doubt" if len(left) == 1 else " for some in doubt")


def _waits_for_what_was_left(names: Sequence[WaitingName]) -> str:
    """Say which names wait for jobs that an earlier command left in doubt, and for how long."""
    others, longest = len(names) - 1, max(each.left for each in names)
    of = visible(names[0].job) + (f" and {plural(others, 'other name')}" if others else "")
    at_most = "" if math.isinf(longest) else f", {math.ceil(longest):,} s at most"
    return f"m2async: jobs named {of} wait for an earlier one in doubt{at_most}"
