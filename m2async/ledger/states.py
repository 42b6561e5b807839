"""The states of a row, and what leads from one to another: a table, and the one rule that goes over it.

    PENDING ──intend──▶ INTENT ──started──▶ STARTED
      ▲ ▲ │               ├─────rejected──▶ REJECTED ──retry──▶ PENDING
      │ │ └──given up─────┼───────────────▶ REJECTED
      │ └────refused──────┤
      └─not started─ UNKNOWN ◀──unknown, crash── INTENT
                          ├──claimed, or grouped──▶ STARTED
                          └──resend───▶ INTENT
    PENDING, REJECTED ──amended──▶ PENDING, with another request
    STARTED ──restart──▶ PENDING, with another job in the place of the one that was started
    INTENT ──withdrawn──▶ PENDING or UNKNOWN, and all is as it was before the attempt was intended
    STARTED, PENDING, REJECTED ──taken back──▶ UNKNOWN, if that was decided of a doubt and nothing was sent since

Rows are grouped where all of them were started and only which execution is whose cannot be told: each holds one of the
group's executions, which need not be its own.

The rule: an attempt in doubt stays in doubt until somebody finds its execution or learns that there is none.
So a row that is resent while an attempt is in doubt does not become PENDING or REJECTED by what a later
attempt meets: it is UNKNOWN again. If the later attempt starts the job, the row is STARTED and its earlier
doubt is still counted, because the job may have been started twice: until somebody confirms that the row's execution
is all that was started.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class RowState(IntEnum):
    """What is known of a row; the numbers are what a ledger stores."""

    PENDING = 0  # surely not started, and nothing of it is under way
    INTENT = 1  # a call is under way, or was when the process ended
    STARTED = 2
    REJECTED = 3  # surely not started, and not tried again
    UNKNOWN = 4  # it may have been started

    @property
    def label(self) -> str:
        """The state in lower case, as output has it."""
        return self.name.lower()


class RowEvent(IntEnum):
    """What happens to a row; the numbers are what a ledger's history stores."""

    INTEND = 0  # the next attempt is about to be sent
    RESEND = 1  # the same, although an earlier attempt is in doubt
    STARTED = 2  # the service answered with an execution id
    REFUSED = 3  # surely not started, and may be tried again
    REJECTED = 4  # surely not started, and trying again would not help
    UNKNOWN = 5  # no answer says what became of the attempt
    CRASH = 6  # the process ended during the attempt
    CLAIMED = 7  # an execution was found to be this attempt's
    NOT_STARTED = 8  # it turned out that none of the attempts in doubt started the job
    RETRY = 9  # an operator wants a rejected job to be tried again
    GIVEN_UP = 10  # it was tried often enough
    RESTART = 11  # an operator wants the execution to be restarted from one of its steps
    TAKEN_BACK = 12  # what was decided of the attempts in doubt was an error
    CONFIRMED = 13  # the row's execution is all that its attempts started
    WITHDRAWN = 14  # the attempt that was about to be sent was not, and does not count; no history has it
    AMENDED = 15  # the manifest was given again, with another request for the row
    GROUPED = 16  # its attempt in doubt and others have started as many executions, and which is whose cannot be told


class Standing(NamedTuple):
    """Where a row stands: its state, and how many of its attempts are in doubt.

    `settled` counts those whose doubt was decided since something was sent last: that can be taken back.
    """

    state: RowState
    doubts: int
    settled: int = 0


NEXT_STATE: dict[tuple[RowState, RowEvent], RowState] = {
    (RowState.PENDING, RowEvent.INTEND): RowState.INTENT,
    (RowState.UNKNOWN, RowEvent.RESEND): RowState.INTENT,
    (RowState.INTENT, RowEvent.STARTED): RowState.STARTED,
    (RowState.INTENT, RowEvent.REFUSED): RowState.PENDING,
    (RowState.INTENT, RowEvent.WITHDRAWN): RowState.PENDING,
    (RowState.INTENT, RowEvent.REJECTED): RowState.REJECTED,
    (RowState.INTENT, RowEvent.UNKNOWN): RowState.UNKNOWN,
    (RowState.INTENT, RowEvent.CRASH): RowState.UNKNOWN,
    (RowState.UNKNOWN, RowEvent.CLAIMED): RowState.STARTED,
    (RowState.UNKNOWN, RowEvent.GROUPED): RowState.STARTED,
    (RowState.UNKNOWN, RowEvent.NOT_STARTED): RowState.PENDING,
    (RowState.REJECTED, RowEvent.RETRY): RowState.PENDING,
    (RowState.PENDING, RowEvent.GIVEN_UP): RowState.REJECTED,
    (RowState.STARTED, RowEvent.RESTART): RowState.PENDING,
    (RowState.STARTED, RowEvent.CONFIRMED): RowState.STARTED,
    (RowState.PENDING, RowEvent.AMENDED): RowState.PENDING,
    (RowState.REJECTED, RowEvent.AMENDED): RowState.PENDING,
    (RowState.STARTED, RowEvent.TAKEN_BACK): RowState.UNKNOWN,
    (RowState.PENDING, RowEvent.TAKEN_BACK): RowState.UNKNOWN,
    (RowState.REJECTED, RowEvent.TAKEN_BACK): RowState.UNKNOWN,
}
"""Every legal transition of a row without doubts; whatever is not here is illegal."""


def follow(standing: Standing, event: RowEvent) -> Standing | None:
    """Say where `event` leads a row from `standing`; None if it must not happen there."""
    state = NEXT_STATE.get((standing.state, event))
    if state is None:
        return None
    _, doubts, settled = standing
    match event:
        case RowEvent.INTEND | RowEvent.RESEND:  # what was decided comes back if nothing is sent after all
            return Standing(state, doubts, settled)
        case RowEvent.WITHDRAWN:
            return Standing(RowState.UNKNOWN if doubts else state, doubts, settled)
        case RowEvent.UNKNOWN | RowEvent.CRASH:
            doubts += 1
        case RowEvent.GROUPED if doubts > 1:
            return None
        case RowEvent.CLAIMED | RowEvent.GROUPED:
            return Standing(state, doubts - 1, 1)
        case RowEvent.NOT_STARTED:
            return Standing(state, 0, doubts)
        case RowEvent.CONFIRMED:
            return Standing(state, 0, settled and settled + doubts) if doubts else None
        case RowEvent.TAKEN_BACK:
            return Standing(state, doubts + settled) if settled else None
        case RowEvent.RETRY | RowEvent.GIVEN_UP:
            return Standing(state, doubts, settled)
        case RowEvent.RESTART if doubts:  # its job would change under the attempt in doubt
            return None
        case RowEvent.REFUSED | RowEvent.REJECTED if doubts:  # which says nothing about the earlier attempt
            state = RowState.UNKNOWN
    return Standing(state, doubts)


def illegal_reason(what: str, standing: Standing, attempts: int) -> str:
    """Say why something must not happen to a row that has had `attempts` attempts."""
    doubts = f", {standing.doubts} of them in doubt" if standing.doubts else ""
    return f"{what}: not possible for a row that is {standing.state.name}, attempts {attempts}{doubts}"
