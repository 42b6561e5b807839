"""`m2async rate`: another pace for a run in progress, through the ledger; and the submission's side of it."""

from __future__ import annotations

import contextlib

import anyio

from m2async.cli.ledgers import with_ledger
from m2async.cli.output import BAD_INPUT, fail, say
from m2async.ledger import Ledger, LedgerError, RunView
from m2async.pacing import TokenBucket
from m2async.submitter import Submitter

LOOK_EVERY = 0.5
"""Seconds between two looks of a submission at the pace that it is to keep."""


def rate(url: str | None, run_name: str, rate: float, burst: float) -> None:
    """Write the pace down; whoever submits the run finds it there."""
    try:
        TokenBucket(rate, burst)
    except ValueError as exc:
        fail(str(exc), BAD_INPUT)

    async def write(ledger: Ledger) -> bool:
        view = await ledger.run(run_name)
        if not await view.in_use():
            return False
        await view.set_pace(rate, burst)
        return True

    if not with_ledger(url, write):
        fail(f"run {run_name} is not in progress: give --rate to the command that goes on with it", BAD_INPUT)
    say(f"run {run_name}: {rate:g} calls a second, bursts of {burst:g}, from now on")


async def follow_pace(run: RunView, submitter: Submitter) -> None:
    """Keep the pace that a run in progress is told, until cancelled."""
    with contextlib.suppress(LedgerError):  # of which the submitter hears by itself
        pace = await run.pace()
        while True:
            await anyio.sleep(LOOK_EVERY)
            told = await run.pace()
            if told is not None and told != pace:
                submitter.set_rate(told.rate, told.burst)
                say(f"m2async: {told.rate:g} calls a second, bursts of {told.burst:g}, from now on")
            pace = told
