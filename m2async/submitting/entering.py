"""Opening the run that a submitter sends: that it belongs where calls go, and nobody else started its jobs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from os import PathLike
from typing import NamedTuple, cast

from m2async.certainty import Decision, Doubts, ListsExecutions, OnUnknown, as_foreign
from m2async.clock import steady_time
from m2async.events import Events
from m2async.ledger import Ledger, RowState, Run, destination_of, open_ledger
from m2async.submitting.intake import Submission
from m2async.submitting.listing import ListsPages, RefusedLists
from m2async.submitting.patient_lists import PatientLists
from m2async.submitting.unexplained import look_for_others, look_for_unexplained, unexplained_error


class EnteredRun(NamedTuple):
    """An open run and its ledger, what a user should know before anything is sent, and which lists are refused."""

    ledger: Ledger
    run: Run
    warnings: Sequence[str]
    refused: RefusedLists

    def doubts(
        self,
        client: object,
        decided: Callable[[Sequence[tuple[Submission, Decision]]], Awaitable[None]],
        events: Events,
        *,
        settle: float,
    ) -> Doubts[Submission]:
        """Give what looks for the run's jobs whose answer is lost."""
        lists = PatientLists(cast("ListsExecutions", client), patience=settle)
        return Doubts(
            lists, self.ledger, self.run, settle=settle, decided=decided,
            listed=self.refused.note, foreign=events.foreign_execution, knows_place=destination_of(client) is not None,
        )  # fmt: skip

    async def look_for_others(self, client: object, events: Events, *, settle: float) -> list[str]:
        """Look for what others started meanwhile of the run's jobs; a client that cannot list is not asked.

        Gives in words why not all was looked at.
        """
        if not hasattr(client, "get_batch_job_executions_page"):
            return []
        pages, now = cast("ListsPages", client), steady_time()
        return await look_for_others(pages, self.ledger, self.run, self.refused, events, settle=settle, now=now)


async def enter_run(
    stack: AsyncExitStack,
    client: object,
    ledger: str | PathLike[str] | Ledger,
    run: str | Run,
    events: Events,
    *,
    settle: float,
    start_anyway: bool,
    on_unknown: OnUnknown,
) -> EnteredRun:
    """Open a run for sending, and what of it was not open yet; a client that cannot tell or list is not asked.

    Raises LedgerError, SentElsewhereError among them, and UnexplainedExecutionsError unless `start_anyway`.
    """
    opened = ledger if isinstance(ledger, Ledger) else await stack.enter_async_context(open_ledger(ledger))
    if not isinstance(run, Run):
        run = await stack.enter_async_context(await opened.open_run(run))
    warnings, refused = list[str](), RefusedLists(events)
    if (destination := destination_of(client)) is not None and (note := await run.belong_to(destination)):
        warnings.append(f"run {run.info.name!r}: {note}")
    elif destination is None and (unknown := (await run.counts())[RowState.UNKNOWN]):
        warnings.append(
            f"run {run.info.name!r}: the client has no endpoint_url and region_name, so it is not known whether it "
            f"goes where the run was sent before: {unknown:,} jobs in doubt stay unknown"
        )
    if hasattr(client, "get_batch_job_executions_page"):
        pages = cast("ListsPages", client)
        warnings += await _look(pages, opened, run, refused, settle=settle, start_anyway=start_anyway)
        if refused and on_unknown == "adopt":
            warnings.append(
                "a job whose answer is lost stays unknown as long as the executions of its application cannot be listed"
            )
    for warning in warnings:
        events.opened_with(warning)
    return EnteredRun(opened, run, warnings, refused)


async def _look(
    client: ListsPages, ledger: Ledger, run: Run, refused: RefusedLists, *, settle: float, start_anyway: bool
) -> list[str]:
    """Look for executions that nothing explains; on somebody's word they stop the run neither now nor later.

    Somebody else started them: so it is noted with the run, as jobs of theirs in doubt are not decided by themselves.
    """
    look = await look_for_unexplained(client, ledger, run, settle=settle, now=steady_time())
    for application_id, error in look.refused.items():
        refused.note(application_id, error)
    if not look.stopping:
        return list(look.warnings)
    unexplained = unexplained_error(
        run.info.name, look.stopping, sent_before=await run.last_sent() is not None, in_doubt=look.in_doubt
    )
    if not start_anyway:
        raise unexplained
    await run.note_foreign(as_foreign(look.stopping))
    await run.accept(look.until)
    return [*look.warnings, f"{unexplained.what}; the run is started anyway"]
