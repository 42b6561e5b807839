"""One application of a run: what its ledger knows of what was started there."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from m2async.certainty.adopt import Attempt, ListedExecution, Margins
from m2async.certainty.calibration import Calibration, calibrate
from m2async.certainty.explained import OutOfTime, StartedLater
from m2async.certainty.start_times import Precision
from m2async.clock import ClockOffset
from m2async.ledger import AnsweredAttempt, Ledger, OpenAttempt, Run, RunView

RowId = tuple[int, int]
"""A row of a ledger: its run's id and its number."""

_WITNESSED_ROWS = 20
_NEAR = 500
"""Rows before and behind one that is open among which answered ones are looked for."""


class TellsClock(Protocol):
    """What is asked of a client besides lists; M2Client is one."""

    @property
    def clock_offset(self) -> float | None:
        """How far the service's clock is ahead of the local one, in seconds; None if that is not known yet."""


@dataclass(frozen=True, slots=True)
class ApplicationOfRun:
    """An application of a run, where a client's calls go.

    Arguments:
        client: tells the service's clock.
        ledger: knows the open attempts, of all runs, and what is claimed.
        run: the run.
        id: the application's.
        margins: what is not known exactly about times where the list does not show otherwise.
        knows_place: whether the client's calls go where the run was sent before it was opened.
        precision: what is known of how far start times are off; learned from each list.
        recent: numbers of rows of the run that were answered lately: witnesses of what is sent out of its turn.
        out_of_time: executions that attempts in doubt may have started, or somebody else; learned from each list.
        started_later: executions that these may have started late; learned from each list, too.
    """

    client: TellsClock
    ledger: Ledger
    run: RunView
    id: str
    margins: Margins
    knows_place: bool = True
    precision: Precision = field(default_factory=Precision)
    recent: Sequence[int] = ()
    out_of_time: OutOfTime = field(default_factory=OutOfTime)
    started_later: StartedLater = field(default_factory=StartedLater)

    async def open_attempts(self) -> list[OpenAttempt]:
        """Give the attempts, of all runs, that may have started an execution here which no row has claimed."""
        info = self.run.info
        here = info.sent_to if self.knows_place else None
        return [
            attempt
            for attempt in await self.ledger.open_attempts(self.id)
            if here is None or attempt.sent_to is None or attempt.run_id == info.id or here.may_be(attempt.sent_to)
        ]

    async def witnesses(self, near: Iterable[tuple[str, int]], rows: int = _NEAR) -> list[AnsweredAttempt]:
        """Give answered attempts of so many rows around some of these, which are named by their runs and numbers.

        The run keeps note of what is known of the service's clock by now, as their times depend on it.
        """
        if isinstance(self.run, Run):  # else another process, which writes it, notes what it knows
            await self.run.note_clock(self.client.clock_offset)
        numbers_of: dict[str, set[int]] = defaultdict(set)
        for run, number in near:
            numbers_of[run].add(number)
        found: dict[str, AnsweredAttempt] = {}
        for run, numbers in numbers_of.items():
            view = self.run if run == self.run.info.name else await self.ledger.run(run)
            for number in sorted(numbers)[:: max(1, len(numbers) // _WITNESSED_ROWS)]:
                for witness in await view.answered_near(self.id, number, rows):
                    found[witness.execution_id] = witness
        return list(found.values())

    async def recently_answered(self) -> list[AnsweredAttempt]:
        """Give the attempts that were answered lately."""
        return await self.witnesses((self.run.info.name, number) for number in self.recent)

    def calibration(
        self,
        listed: Sequence[ListedExecution],
        witnesses: Iterable[AnsweredAttempt],
        covered: Collection[tuple[float, float]],
        *,
        settled_before: float,
    ) -> Calibration:
        """Say how the list behaves.

        Arguments as those of `calibrate`, but that `settled_before` is by the local clock.
        """
        offset = self.client.clock_offset
        settled = -math.inf if offset is None else settled_before + ClockOffset.of(offset).least
        return calibrate(listed, witnesses, self.margins, covered, settled_before=settled)


def attempt_of(attempt: OpenAttempt, *, in_doubt: bool = False) -> Attempt[RowId]:
    """Take an attempt of a ledger as the matching does: by its row, and by the times that the service's clock gave."""
    return Attempt(
        (attempt.run_id, attempt.number),
        attempt.application_id,
        attempt.job,
        attempt.sent_after,
        attempt.ended_before,
        in_doubt=in_doubt,
    )
