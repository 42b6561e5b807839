"""The calls of a probe, and the stretches of them that are to be made; times in seconds from the probe's beginning."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum
from typing import Literal, NamedTuple

import msgspec


class QuotaVerdict(Enum):
    """What an answer says of the quota."""

    ACCEPTED = "accepted"  # the quota let the call pass, whatever came of it then
    THROTTLED = "throttled"
    UNKNOWN = "unknown"  # no answer, or a 5xx: it may or may not have counted


class Call(msgspec.Struct, gc=False):
    """One call: when it was due, sent and answered, and by what; `code` is the error's, `quota` a throttle's words."""

    due: float
    sent: float
    answered: float | None = None
    verdict: QuotaVerdict | None = None
    code: str | None = None
    quota: tuple[str | None, str | None] = (None, None)


class Record:
    """Calls in the order of sending, and in the order of their answers."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.answers: list[Call] = []

    @property
    def under_way(self) -> int:
        """How many calls are not answered yet."""
        return len(self.calls) - len(self.answers)

    def sent(self, due: float, now: float) -> Call:
        """Note a call."""
        call = Call(due, now)
        self.calls.append(call)
        return call

    def answered(
        self,
        call: Call,
        now: float,
        verdict: QuotaVerdict,
        code: str | None = None,
        quota: tuple[str | None, str | None] = (None, None),
    ) -> None:
        """Note its answer, or that there will be none."""
        call.answered, call.verdict, call.code, call.quota = now, verdict, code, quota
        self.answers.append(call)


StretchKind = Literal["ramp", "settle", "hold", "flash", "step"]
"""What a stretch is for; see Ramp and Steps."""


class CallStretch(NamedTuple):
    """Calls to be made one after another, whatever becomes of them.

    kind: what it is for.
    rest: seconds of silence before it, behind the last answer of the stretch before.
    offsets: when each call is due, in seconds from the stretch's beginning, rising.
    over: whether to end it early, by what its own record says at a time; asked at each call and each answer.
    rate: the rate that it offers, for reports; for a ramp the highest.
    """

    kind: StretchKind
    rest: float
    offsets: Iterable[float]
    over: Callable[[Record, float], bool]
    rate: float


class SentStretch(NamedTuple):
    """A stretch, and the calls that were made in it."""

    stretch: CallStretch
    record: Record
