"""What became of attempts whose answer was lost: list what the service started, match, decide.

The matching itself is `adopt.py`'s. This brings it what it needs, in the order that it needs it in: first the
executions, then the open attempts and what is claimed, so that no execution stands without its attempt; and it sees
to what the matching takes for granted, namely that clocks agree, and that the list shows what was started, when it was
and as it was sent (`calibration.py`). Where that cannot be seen, nothing is called not started.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Collection, Mapping, Sequence, Set
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from m2async.certainty.adopt import (
    Adopted,
    Ambiguous,
    Attempt,
    Decision,
    ListedExecution,
    NotStarted,
    StartedTogether,
    decide,
    listing_window,
    listing_windows,
)
from m2async.certainty.application import ApplicationOfRun, RowId, TellsClock, attempt_of
from m2async.certainty.calibration import ANY_TIME, Calibration, calibrate
from m2async.certainty.explained import as_foreign, foreign_among, not_explained
from m2async.certainty.spans import SpansOfTime
from m2async.certainty.start_times import StartTimes, as_window, closer_window, likely_window, seen_outside
from m2async.clock import ClockOffset
from m2async.ledger import AnsweredAttempt, ForeignExecution, OpenAttempt
from m2async.service import BatchJobExecution


class ListsExecutions(TellsClock, Protocol):
    """What a reconciler needs of a client; M2Client is one."""

    def list_batch_job_executions(
        self,
        application_id: str,
        /,
        *,
        started_after: datetime | None = None,
        started_before: datetime | None = None,
    ) -> AsyncIterator[BatchJobExecution]:
        """Iterate over an application's executions within a window of time."""


_ROUNDS = 4
_LATELY = 600.0
"""Seconds of which answered executions are listed to learn how far start times are off."""

_SOON = 30.0
"""Seconds in which a further attempt is sent and answered after one whose answer was lost, while a run goes on."""

_VAGUE = 120.0
"""Seconds that the times of an attempt's beginning and end are apart where it is hardly known when it was."""


class Reconciled(NamedTuple):
    """What was found out about rows in doubt, by their numbers.

    The ids of those that were started together are the numbers of their rows, each with that of its attempt in doubt.
    `foreign` are executions of their jobs that somebody else started and of which the run's ledger did not know yet.
    `may_change` says that attempts were under way or too young when it was decided, or that none was sent and answered
    after one that ended lately: once they are answered or listed, they may make others clear. So may another look where
    it became clear only in the midst of this one what has to be listed.
    """

    decisions: dict[int, Decision]
    foreign: list[ForeignExecution]
    may_change: bool


async def reconcile(
    client: ListsExecutions, of: ApplicationOfRun, *, settled_before: float, wanted: Collection[int]
) -> Reconciled:
    """Decide the rows of a run that are in doubt at an application.

    Arguments:
        client: lists the executions.
        of: the application and the run; where it is not known whether the run was sent there before it was opened, what
            was sent then may be listed elsewhere, and is left open.
        settled_before: attempts that ended later than this, by the local clock in seconds of the epoch, are too young
            to be decided: the service's list may lag behind, and its starts too.
        wanted: the numbers of the rows to decide; others just compete for executions.

    Jobs that somebody else is seen to start are Ambiguous from then on, for as long as the run goes on: who started an
    execution of theirs is no longer to be told. The run keeps note of that.

    Raises the CallError of a list that cannot be had; nothing is decided then.
    """
    view = _View(client, of, settled_before, wanted)
    attempts, claimed, decisions = await view.decide()
    rash, hasty = view.rash(attempts, decisions), view.hasty(attempts, decisions)
    too_late = set[RowId]()  # clear only now: what they need was not listed
    if rash or hasty:
        view.anywhere, view.until_now = bool(rash), hasty
        attempts, claimed, decisions = await view.decide()
        too_late = view.hasty(attempts, decisions) - hasty
        if not view.anywhere:
            too_late |= view.rash(attempts, decisions)
        decisions |= {row: _left_open(decisions[row]) for row in too_late}
    known = await of.run.foreign()
    unexplained = view.unexplained(attempts, claimed | {execution.execution_id for execution in known})
    foreign = await of.run.note_foreign(as_foreign(unexplained))
    shared = {execution.job for execution in (*known, *foreign) if execution.application_id == of.id}
    out_of_time = of.out_of_time.by_job()
    for row, ids in view.started_later(attempts, claimed, decisions).items():
        decisions[row] = _left_open(decisions[row], ids)
    for attempt in attempts:
        decision = decisions.get(attempt.id)
        # Where executions that were answered are not listed, its own may be missing as well.
        is_unseen = view.calibration.missing and isinstance(decision, NotStarted | StartedTogether)
        is_elsewhere = not of.knows_place and bool(view.former & {attempt.id, *_with(decision)})
        if decision is not None and (is_unseen or is_elsewhere or attempt.job in shared or attempt.job in out_of_time):
            decisions[attempt.id] = _left_open(decision, out_of_time.get(attempt.job, ()))
    return Reconciled(
        {row[1]: view.by_attempt(decision) for row, decision in decisions.items() if row in view.rows},
        foreign,
        view.is_unsettled
        or bool(too_late)
        or any(attempt.in_doubt and attempt.job in out_of_time for attempt in attempts),
    )


def _with(decision: Decision | None) -> Sequence[Any]:
    """Give the rows that are decided together with one: what holds for one of them must hold for all."""
    return decision.ids if isinstance(decision, StartedTogether) else ()


async def learn_start_times(client: ListsExecutions, of: ApplicationOfRun) -> None:
    """Learn from rows that were answered lately how far start times are off, before anything is in doubt.

    Raises the CallError of a list that cannot be had.
    """
    await _View(client, of, -math.inf, ()).learn()


def _executions_of(decision: Decision) -> Sequence[str]:
    return decision.execution_ids if isinstance(decision, Adopted | StartedTogether) else ()


def _left_open(decision: Decision, others: Sequence[str] = ()) -> Ambiguous:
    match decision:
        case Ambiguous() if decision.candidates:
            return decision
        case NotStarted() | Ambiguous():
            return Ambiguous(others, surely_started=False)
        case Adopted() | StartedTogether():
            return Ambiguous(decision.execution_ids, surely_started=False)


class _View:
    """What is seen of an application's executions, and how far that can be trusted."""

    def __init__(
        self, client: ListsExecutions, of: ApplicationOfRun, settled_before: float, wanted: Collection[int]
    ) -> None:
        self._client = client
        self._of = of
        self._settled_before = settled_before
        self._seen: dict[str, ListedExecution] = {}
        self._covered = SpansOfTime()
        self._attempt_of: dict[RowId, int] = {}  # the last attempt in doubt of each row
        self._start_times = StartTimes((), {})
        self._closer: dict[Attempt[RowId], Attempt[RowId]] = {}  # with windows that are narrower
        self._likely: dict[Attempt[RowId], Attempt[RowId]] = {}  # of others, as if they had started as soon as most do
        self.former: set[RowId] = set()  # whose attempts were sent before the run was opened
        self.is_unsettled: bool = False  # whether attempts are under way or too young, or witnesses are to come
        self.anywhere: bool = False  # whether start times may be off by as much as they like
        self.until_now: Set[RowId] = frozenset()  # of which all is listed that started since
        self.rows: frozenset[RowId] = frozenset((of.run.info.id, number) for number in wanted)
        self.calibration: Calibration = calibrate((), (), of.margins, (), settled_before=-math.inf)

    @property
    def listed(self) -> list[ListedExecution]:
        """The executions, their start times by the clock of the service's answers."""
        return [self.calibration.corrected(execution) for execution in self._seen.values()]

    async def decide(self) -> tuple[list[Attempt[RowId]], set[str], dict[RowId, Decision]]:
        """List what may matter and decide the rows; gives with that all open attempts, and what is claimed.

        The first list tells what the service's clock says, and what is in it how far its times can be relied on.
        """
        attempts = await self._attempts()
        for _ in range(_ROUNDS):
            rests = [rest for span in self._spans(attempts) if (rest := self._covered.rest_of(*span))]
            if not rests:
                break
            for rest in rests:
                await self._list(*rest)
            await self._calibrate(attempts)
            attempts = await self._attempts()
        # Attempts and claims are younger than the list, as the matching needs it.
        claimed = await self._of.ledger.claimed(self._of.id, self._seen.keys() | self._of.out_of_time.ids)
        return attempts, claimed, self._decide(attempts, claimed)

    async def learn(self) -> None:
        """List the executions that were answered lately, and take note of their start times."""
        recent = await self._of.recently_answered()
        if not recent:
            return
        newest = max(each.ended_before for each in recent)
        recent = [each for each in recent if each.ended_before > newest - _LATELY]
        around = self._of.margins.uncertainty + self._of.margins.resolution
        first = min(each.sent_after for each in recent) - around
        last = newest + around
        await self._list(first, last)
        self._note_start_times(recent)

    def _note_start_times(self, witnesses: Sequence[AnsweredAttempt]) -> None:
        self._start_times = StartTimes(witnesses, {each.execution_id: each.start_time for each in self._seen.values()})
        self._of.precision.learn(self._start_times)

    def _decide(self, attempts: Sequence[Attempt[RowId]], claimed: set[str]) -> dict[RowId, Decision]:
        """Decide the rows, those of each kind of job apart: of each it is known how it is listed."""
        decisions: dict[RowId, Decision] = {}
        margins = self.calibration.margins
        for kind in {type(attempt.job) for attempt in attempts}:
            of_kind = [attempt for attempt in attempts if type(attempt.job) is kind]
            listed = self._listed_for(kind, attempts, claimed)
            found = decide(of_kind, listed, claimed=claimed, margins=margins)
            if kind in self.calibration.kinds:
                self._look_closer(of_kind, listed, claimed, found)
            are_known = self.calibration.tells_times
            if self.anywhere or not are_known:
                rash = self.rash(of_kind, found) if self.anywhere else set[RowId]()
                adopted = {row for row, decision in found.items() if _executions_of(decision) and row not in rash}
                # Where little is known of start times, what seems to be one's may be another's.
                of_others = {id_ for row in adopted if are_known for id_ in _executions_of(found[row])}
                anywhere = decide(
                    of_kind, listed, claimed=claimed | of_others, margins=replace(margins, uncertainty=ANY_TIME)
                )
                unsure = rash if are_known else rash | adopted
                found |= {row: _left_open(anywhere[row]) for row in unsure if anywhere[row] != found[row]}
            decisions |= found
        return decisions

    def _listed_for(
        self, kind: type, attempts: Sequence[Attempt[RowId]], claimed: Set[str]
    ) -> Sequence[ListedExecution]:
        """Give the executions; a job that nobody attempted may be one of a kind of which none was listed as sent."""
        if kind in self.calibration.kinds:
            return self.listed
        known = {attempt.job for attempt in attempts}
        return [
            execution if execution.job in known or execution.execution_id in claimed else replace(execution, job=None)
            for execution in self.listed
        ]

    def _look_closer(
        self,
        attempts: Sequence[Attempt[RowId]],
        listed: Sequence[ListedExecution],
        claimed: set[str],
        found: dict[RowId, Decision],
    ) -> None:
        """Decide by narrower windows what is ambiguous, unless something contradicts them."""
        if self._of.precision.is_refuted or not any(attempt in self._closer for attempt in attempts):
            return
        margins = self.calibration.margins
        pairs = [(as_window(attempt, margins), self._closer.get(attempt)) for attempt in attempts]
        unclaimed = [each for each in listed if each.execution_id not in claimed]
        outside = seen_outside(pairs, unclaimed)
        if outside:
            self._of.precision.refute()
            for row, decision in found.items():
                if isinstance(decision, Adopted | StartedTogether) and not outside.isdisjoint(decision.execution_ids):
                    found[row] = _left_open(decision)
            return
        closer = [narrow or wide for wide, narrow in pairs]
        exact = replace(margins, uncertainty=0.0, resolution=0.0, late=0.0)
        decided = decide(closer, listed, claimed=claimed, margins=exact)
        otherwise = [
            row
            for row, decision in found.items()
            if isinstance(decision, Adopted | NotStarted) and decided[row] != decision
        ]
        if otherwise:
            self._of.precision.refute()
            found |= {row: _left_open(found[row]) for row in otherwise}
            return
        # Seen within the wide window of one that has a narrow one, and neither in such a narrow one nor where one
        # without would have started as soon as others do: it may be either's.
        likely = [self._likely[attempt] for attempt in attempts if attempt in self._likely]
        unsure = seen_outside([*(pair for pair in pairs if pair[1]), *((each, None) for each in likely)], unclaimed)
        ambiguous = {row: decision for row, decision in found.items() if isinstance(decision, Ambiguous)}
        for row, decision in ambiguous.items():
            closely = decided[row]
            told_by = decision.candidates if isinstance(closely, NotStarted) else _executions_of(closely)
            if unsure.isdisjoint(told_by) and ambiguous.keys() >= set(_with(closely)):
                found[row] = closely

    def rash(self, attempts: Sequence[Attempt[RowId]], decisions: Mapping[RowId, Decision]) -> set[RowId]:
        """Give the rows whose decision takes for granted that start times are right, or is made by a vague time.

        Where that is not known, an execution that nothing explains may be theirs, whatever its time is said to be.
        """
        unsure = {attempt.id for attempt in attempts if not self.calibration.holds_for(attempt)}
        vague = {
            attempt.id
            for attempt in attempts
            if not self.calibration.is_sound and attempt.ended_at and attempt.ended_at - attempt.sent_at > _VAGUE
        }
        return {
            row
            for row, decision in decisions.items()
            if (isinstance(decision, NotStarted) and row in unsure)
            or (isinstance(decision, Adopted | StartedTogether) and vague & {row, *_with(decision)})
        }

    def hasty(self, attempts: Sequence[Attempt[RowId]], decisions: Mapping[RowId, Decision]) -> set[RowId]:
        """Give the rows that are said not to be started, and whose executions may have left a queue since.

        Such a start is listed with that time, further off than what was looked at.
        """
        old = self._now - self.calibration.margins.vicinity
        return {
            attempt.id
            for attempt in attempts
            if attempt.ended_at is not None
            and attempt.ended_at < old
            and isinstance(decisions.get(attempt.id), NotStarted)
        }

    @property
    def _now(self) -> float:
        """The latest time of the service at which this look began."""
        offset = self._of.client.clock_offset
        ahead = 0.0 if offset is None else ClockOffset.of(offset).most
        return self._settled_before + self._of.margins.late + ahead

    def by_attempt(self, decision: Decision) -> Decision:
        """Give a decision with rows as they are written: by their numbers and attempts."""
        if not isinstance(decision, StartedTogether):
            return decision
        rows: Sequence[Any] = decision.ids
        return replace(decision, ids=tuple((row[1], self._attempt_of[row]) for row in rows))

    def unexplained(self, attempts: Sequence[Attempt[RowId]], explained: Set[str]) -> list[ListedExecution]:
        """Give the executions of jobs in doubt that no attempt can have started, but for those that are explained.

        One that an attempt may have started if its time is late is not given: it is taken note of.
        """
        attempted = {attempt.job for attempt in attempts}
        listed = [each for each in self.listed if each.job in attempted and each.execution_id not in explained]
        at_any_time = [self._at_any_time(attempt) for attempt in attempts]
        foreign = foreign_among(listed, at_any_time, self.calibration, or_later=True)
        explained = explained | {each.execution_id for each in foreign}
        self._of.out_of_time.look(listed, attempts, self.calibration, explained=explained, last=dict(self._attempt_of))
        return foreign

    def started_later(
        self, attempts: Sequence[Attempt[RowId]], claimed: set[str], decisions: Mapping[RowId, Decision]
    ) -> Mapping[RowId, Sequence[str]]:
        """Give what the rows that are said not to be started may have started since, by their numbers.

        A call under way explains that as well, but may be answered with the id of another.
        """
        decided = {row: ids for row, decision in decisions.items() if (ids := _executions_of(decision))}
        known = claimed.union(*decided.values())
        ended = [each for each in attempts if each.ended_at is not None and each.id not in decided]
        not_started = [each for each in ended if isinstance(decisions.get(each.id), NotStarted)]
        margins, unclaimed = self.calibration.margins, frozenset(self._seen.keys() - claimed)
        found: dict[RowId, Sequence[str]] = {}
        for kind in {type(attempt.job) for attempt in not_started}:
            listed = [each for each in self._listed_for(kind, attempts, claimed) if each.execution_id not in known]
            found |= self._of.started_later.look(
                not_explained(listed, ended, margins),
                [attempt for attempt in not_started if type(attempt.job) is kind],
                margins,
                unclaimed=unclaimed,
                last=self._attempt_of,
                now=self._now,
                is_complete=not self.calibration.missing,
            )
        return found

    def _at_any_time(self, attempt: Attempt[RowId]) -> Attempt[RowId]:
        """Give an attempt as one that may have started any time, where that is how it is looked for."""
        if attempt.ended_at is None or not (self.anywhere and attempt.in_doubt) or self.calibration.holds_for(attempt):
            return attempt
        return replace(attempt, sent_at=attempt.sent_at - ANY_TIME, ended_at=attempt.ended_at + ANY_TIME)

    def _spans(self, attempts: Sequence[Attempt[RowId]]) -> list[tuple[float, float]]:
        """Give the spans of start times to list, for what is hasty up to now."""
        margins = self.calibration.margins
        if self.anywhere:
            margins = replace(margins, uncertainty=ANY_TIME)
        ahead = self.calibration.ahead
        shifted = [
            replace(each, sent_at=each.sent_at + ahead, ended_at=each.ended_at and each.ended_at + ahead)
            for each in (self._until_now(attempt) for attempt in attempts)
        ]
        windows = listing_windows(shifted, margins).get(self._of.id, [])
        return [(each.started_after.timestamp(), each.started_before.timestamp()) for each in windows]

    def _until_now(self, attempt: Attempt[RowId]) -> Attempt[RowId]:
        """Give an attempt as one that may have started until now, where that is to be listed."""
        return replace(attempt, ended_at=self._now) if attempt.id in self.until_now else attempt

    async def _list(self, first: float, last: float) -> None:
        window = listing_window(first, last)
        async for execution in self._client.list_batch_job_executions(
            self._of.id, started_after=window.started_after, started_before=window.started_before
        ):
            # One that says to be another application's, in this one's list, may be anybody's.
            job = execution.job if execution.application_id == self._of.id else None
            self._seen[execution.execution_id] = ListedExecution(
                execution.execution_id, self._of.id, job, execution.start_time.timestamp()
            )
        self._covered.add(first, last)

    async def _calibrate(self, attempts: Sequence[Attempt[RowId]]) -> None:
        name = self._of.run.info.name
        witnesses = await self._of.witnesses((name, attempt.id[1]) for attempt in attempts if attempt.in_doubt)
        known = {each.execution_id for each in witnesses}
        recent = [each for each in await self._of.recently_answered() if each.execution_id not in known]
        witnesses += [each for each in recent if each.execution_id in self._seen]
        self._note_start_times(witnesses)
        self.calibration = self._of.calibration(
            list(self._seen.values()), witnesses, list(self._covered), settled_before=self._settled_before
        )
        self._of.precision.calibrated(self.calibration, self._of.margins)

    async def _attempts(self) -> list[Attempt[RowId]]:
        """Open attempts by the service's clock: those that are not wanted, or too young, just compete."""

        def is_settled(attempt: OpenAttempt) -> bool:
            return attempt.ended_by is not None and attempt.ended_by <= self._settled_before

        def is_in_doubt(attempt: OpenAttempt) -> bool:
            return is_settled(attempt) and (attempt.run_id, attempt.number) in self.rows

        opened = await self._of.open_attempts()
        self.is_unsettled = not all(is_settled(attempt) for attempt in opened)
        self._of.precision.keep(opened)
        self._attempt_of = {(attempt.run_id, attempt.number): attempt.attempt for attempt in opened}
        attempts = [attempt_of(attempt, in_doubt=is_in_doubt(attempt)) for attempt in opened]
        self._closer, self._likely = {}, {}
        precision, start_times = self._of.precision, self._start_times
        for attempt, of in zip(attempts, opened, strict=True):
            bounds = precision.of_attempt(of, start_times)
            self.is_unsettled |= bounds is None and self._is_to_be_witnessed(of)
            closer = closer_window(attempt, of, bounds, self.calibration)
            likely = likely_window(attempt, of, precision.likely_of(of, start_times), self.calibration)
            if closer is not None:
                self._closer[attempt] = closer
            elif likely is not None:
                self._likely[attempt] = likely
        self.former = {(attempt.run_id, attempt.number) for attempt in opened if attempt.is_former}
        return attempts

    def _is_to_be_witnessed(self, attempt: OpenAttempt) -> bool:
        """Whether it may soon be known how far the start time of an attempt is off, as is known of earlier ones."""
        ended_lately = attempt.ended_by is not None and attempt.ended_by > self._settled_before - _SOON
        return self._of.precision.bounds is not None and attempt.uptimes is not None and ended_lately
