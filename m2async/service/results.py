"""What a started job came to: its status and return code against a rule.

| status | no return code | 0 | 1 to `max_rc` | above `max_rc` | no number |
|---|---|---|---|---|---|
| Succeeded | success without a rule, failure with one | success | success | failure | failure |
| Succeeded With Warning | failure | success with a rule | success | failure | failure |
| Failed, Cancelled, Purged | failure | failure | failure | failure | failure |
| Submitting, Holding, Dispatching, Running, Cancelling | open, whatever the return code | | | | |
| any other, with an end time | failure, whatever the return code | | | | |
| any other, without one; or none seen yet | open, whatever the return code | | | | |

Without a rule `max_rc` is 0 and the status has to be Succeeded. A rule never turns what the service calls Failed into
a success: it says how much a job may return that the service calls Succeeded, with or without a warning. An execution
that the service does not know is open while it is looked for, and then a failure, whatever was last seen of it. Nothing
is a success by default.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import NamedTuple

from m2async.service.responses import TERMINAL_STATUSES

OPEN_STATUSES = frozenset({"Submitting", "Holding", "Dispatching", "Running", "Cancelling"})
"""The statuses of an execution in progress."""

_NUMBER = re.compile(r"[0-9]{1,10}")


class Result(Enum):
    """What a job came to."""

    SUCCESS = "success"
    FAILURE = "failure"
    OPEN = "open"


class Judgement(NamedTuple):
    """A result, and in words what it follows from."""

    result: Result
    reason: str


def has_ended(status: str | None, *, has_end_time: bool) -> bool:
    """Whether an execution can no longer change; one of a status that is not known here has ended if it says when."""
    return status in TERMINAL_STATUSES or (has_end_time and status is not None and status not in OPEN_STATUSES)


def judge(status: str | None, return_code: str | None, max_rc: int | None, *, ended: bool, gone: bool) -> Judgement:
    """Judge an execution.

    Arguments:
        status: as the service words it; None while nothing was seen of the execution.
        return_code: as the service gives it, a text; None if it gave none.
        max_rc: the greatest return code of a success; None for no rule.
        ended: what `has_ended` says.
        gone: whether the service does not know the execution; with `ended` it is looked for no longer.
    """
    if gone:
        seen = f"last seen {status}" if status else "never seen"
        if not ended:
            return Judgement(Result.OPEN, f"not found by the service ({seen})")
        return Judgement(Result.FAILURE, f"gone: the service does not know the execution any more ({seen})")
    if not ended:
        return Judgement(Result.OPEN, status or "not seen yet")
    if status not in {"Succeeded", "Succeeded With Warning"}:
        known = "" if status in TERMINAL_STATUSES else ", a status that is not known here,"
        code = "" if return_code is None else f" with return code {return_code}"
        return Judgement(Result.FAILURE, f"ended as {status}{known}{code}")
    return _judge_return_code(status, return_code, max_rc)


def _judge_return_code(status: str, return_code: str | None, max_rc: int | None) -> Judgement:
    if status != "Succeeded" and max_rc is None:
        return Judgement(Result.FAILURE, f"ended as {status}, which counts as a success only with --max-rc")
    if return_code is None:
        if max_rc is None:
            return Judgement(Result.SUCCESS, f"{status}, without a return code")
        return Judgement(Result.FAILURE, f"{status}, but without a return code, which may be {max_rc} at most")
    if not _NUMBER.fullmatch(return_code.strip()):
        return Judgement(Result.FAILURE, f"{status}, but its return code {return_code!r} is no number")
    if int(return_code) > (max_rc or 0):
        return Judgement(Result.FAILURE, f"{status}, but its return code {int(return_code)} is above {max_rc or 0}")
    return Judgement(Result.SUCCESS, f"{status} with return code {int(return_code)}")
