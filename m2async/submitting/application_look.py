"""A look at the executions of an application: those of a run's jobs that nothing in its ledger explains."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import NamedTuple

import anyio

from m2async.certainty import ANY_TIME, ApplicationOfRun, Calibration, ListedExecution, attempt_of, foreign_among
from m2async.clock import CLOCK_TOLERANCE
from m2async.errors import CallError
from m2async.ledger import AnsweredAttempt, RowState
from m2async.service import Job, has_ended
from m2async.submitting.listing import ExecutionsList, ListsPages

_MOST_SECONDS = 30.0
_AT_ONCE = 10.0
"""Seconds that a look waits for an application's list, and those that one waits which does not try again."""

_UNASKED = (RowState.PENDING, RowState.REJECTED)
_UNSTARTED = (*_UNASKED, RowState.INTENT, RowState.UNKNOWN)
"""States of rows whose jobs are sent as they are, and with those that are looked for first."""

_ROUNDS = 6
_WITNESSES = 50

Spans = Callable[[float, float], Iterable[tuple[float, float]]]
"""Gives the spans of start times to look at, in seconds of the epoch by the service's clock.

Told are how far that clock is ahead of the local one, and how much earlier than it was an execution may show to have
started.
"""


class Unexplained(NamedTuple):
    """An execution that nothing explains, its start time by the clock of the service's answers."""

    execution: ListedExecution
    is_open: bool


class ApplicationLook:
    """What was seen of an application: read it once `find` has ended.

    Before a run is sent, the jobs count that a row still has to start; `at_end` all that a row names, and it is listed
    but once, as the list holds all that the run has started; an attempt in doubt may have started what came after it.

    Attributes:
        unexplained: what nothing explains, within the spans.
        early: as for the spans, in seconds.
        refused: what the service answered if it gave no list.
        trouble: in words, why not all was looked at; None if all was.
    """

    def __init__(self, client: ListsPages, of: ApplicationOfRun, *, settled_before: float, at_end: bool) -> None:
        self.unexplained: list[Unexplained] = []
        self.refused: CallError | None = None
        self.trouble: str | None = None
        self._of = of
        self._client = client
        self._settled_before = settled_before
        self._listing = ExecutionsList(client, of.id, patient=not at_end)
        self._at_end = at_end
        self._seconds = _AT_ONCE if at_end else _MOST_SECONDS
        self._calibration = Calibration(of.margins, 0.0, 0, 0, frozenset())

    @property
    def early(self) -> float:
        margins = self._calibration.margins
        return max(0.0, margins.uncertainty + margins.resolution - CLOCK_TOLERANCE - 1)

    async def find(self, spans: Spans) -> None:
        """List what started within the spans and leave out what is explained."""
        try:
            with anyio.fail_after(self._seconds):
                await self._list(spans)
        except TimeoutError:
            self.trouble = f"its executions were not all listed within {self._seconds:g} s"
            return
        except CallError as error:
            self.refused = error
            return
        asked = self._spans(spans)
        if not all(self._listing.covers(*span) for span in asked):
            self.trouble = f"application {self._of.id} has too many executions; the first were looked at"
        elif self._listing.passed_over:
            count = self._listing.passed_over
            self.trouble = f"{count:,} of the list of application {self._of.id} cannot be read as executions of it"
        listed = [execution for execution in self._listed() if any(after <= execution.start_time for after, _ in asked)]
        jobs = {execution.job for execution in listed if isinstance(execution.job, Job)}
        named = await self._of.run.named_jobs(self._of.id, jobs, *(() if self._at_end else _UNSTARTED))
        unasked = set() if self._at_end else await self._of.run.named_jobs(self._of.id, jobs, *_UNASKED)
        listed = [self._calibration.corrected(execution) for execution in listed if execution.job in named]
        if not listed:
            return
        # Attempts before claims: one that is answered meanwhile is then among the one or the other.
        attempts = [attempt_of(attempt) for attempt in await self._of.open_attempts()]
        claimed = await self._of.ledger.claimed(self._of.id, {each.execution_id for each in listed}, often=False)
        unclaimed = [each for each in listed if each.execution_id not in claimed]
        for execution in foreign_among(unclaimed, attempts, self._calibration, unasked=unasked, or_later=self._at_end):
            seen = self._listing.found[execution.execution_id]
            is_open = not has_ended(seen.status, has_end_time=seen.end_time is not None)
            self.unexplained.append(Unexplained(execution, is_open))

    async def _list(self, spans: Spans) -> None:
        """List until what is seen of the clocks asks for no more: the first list tells what the service's says."""
        witnesses, off = list[AnsweredAttempt](), 0.0
        for number in range(_ROUNDS):
            wanted = self._spans(spans)
            if witnesses and not self._at_end:
                wanted.append(self._shown(witnesses, off))
            is_more = any([await self._listing.add(*span) for span in wanted])
            if number and not is_more:
                if off or self._calibration.seen or not witnesses or self._at_end:
                    break
                off = ANY_TIME  # none is listed where it should be
            witnesses = await self._witnesses(spans)
            self._calibration = self._of.calibration(
                self._listed(), witnesses, self._listing.covered, settled_before=self._settled_before
            )

    async def _witnesses(self, spans: Spans) -> list[AnsweredAttempt]:
        """Give answered attempts near the run's last and near those that may explain something."""
        info, since = self._of.run.info, min((after for after, _ in self._spans(spans)), default=inf) - ANY_TIME
        found = await self._of.witnesses([(info.name, info.rows)], rows=info.rows)
        found += await self._of.witnesses(
            (attempt.run, attempt.number)
            for attempt in await self._of.open_attempts()
            if attempt.ended_before is None or attempt.ended_before >= since
        )
        return sorted(found, key=lambda each: each.ended_before)[-_WITNESSES:]

    def _spans(self, spans: Spans) -> list[tuple[float, float]]:
        """Give the spans, as start times are shown."""
        offset, ahead = self._client.clock_offset or 0.0, self._calibration.ahead
        return [(after + ahead, before + ahead) for after, before in spans(offset, self.early)]

    def _shown(self, witnesses: Sequence[AnsweredAttempt], off: float) -> tuple[float, float]:
        """Give the span in which witnesses should be listed, if their start times are `off` at most."""
        around, ahead = off + self.early + CLOCK_TOLERANCE + 1, self._calibration.ahead
        first = min(witness.sent_after for witness in witnesses) + ahead - around
        return first, max(witness.ended_before for witness in witnesses) + ahead + around

    def _listed(self) -> list[ListedExecution]:
        return [
            ListedExecution(
                each.execution_id,
                self._of.id,
                each.job if each.application_id == self._of.id else None,
                each.start_time.timestamp(),
            )
            for each in self._listing.found.values()
        ]
