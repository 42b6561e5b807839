"""`m2async rate`, `pause`, `unpause` and `stop`: what a run in progress is told; and the submission's side of it."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable

import anyio

from m2async.cli.ledgers import with_ledger
from m2async.cli.output import BAD_INPUT, fail, say
from m2async.ledger import Ledger, LedgerError, Orders, RunView
from m2async.pacing import TokenBucket
from m2async.submitting import Submitter

LOOK_EVERY = 0.5
"""Seconds between two looks of a submission at what it is told."""


def rate(url: str | None, run_name: str, rate: float, burst: float) -> None:
    """Tell a run in progress another pace."""
    try:
        TokenBucket(rate, burst)
    except ValueError as exc:
        fail(str(exc), BAD_INPUT)
    _tell(url, run_name, lambda view: view.set_pace(rate, burst), f"give --rate to `m2async resume {run_name}`")
    say(f"run {run_name}: {rate:g} calls a second, bursts of {burst:g}, from now on")


def pause(url: str | None, run_name: str) -> None:
    """Tell a run in progress to send nothing more for now."""
    _tell(url, run_name, lambda view: view.set_paused(True), "nothing is sent")
    say(f"run {run_name}: nothing more is sent; `m2async unpause {run_name}` lets it go on")


def unpause(url: str | None, run_name: str) -> None:
    """Tell a run in progress to go on."""
    _tell(url, run_name, lambda view: view.set_paused(False), f"`m2async resume {run_name}` goes on with it")
    say(f"run {run_name}: goes on")


def stop(url: str | None, run_name: str) -> None:
    """Tell a run in progress to end, as at the first Ctrl-C."""
    _tell(url, run_name, lambda view: view.stop(), "nothing is sent")
    say(f"run {run_name}: ends once the calls under way are answered; `m2async resume {run_name}` goes on with it")


def _tell(url: str | None, run_name: str, tell: Callable[[RunView], Awaitable[None]], otherwise: str) -> None:
    """Write it down; whoever submits the run finds it there."""

    async def write(ledger: Ledger) -> bool:
        view = await ledger.run(run_name)
        if not await view.in_use():
            return False
        await tell(view)
        return True

    if not with_ledger(url, write):
        fail(f"run {run_name} is not in progress: {otherwise}", BAD_INPUT)


async def follow_orders(run: RunView, submitter: Submitter, stop: Callable[[str], object]) -> None:
    """Do what a run in progress is told, until cancelled; `stop` ends it for a reason."""
    with contextlib.suppress(LedgerError):  # of which the submitter hears by itself
        known = Orders()
        while True:
            await anyio.sleep(LOOK_EVERY)
            told = await run.orders()
            if (
                told.rate is not None
                and told.burst is not None
                and (told.rate, told.burst) != (known.rate, known.burst)
            ):
                submitter.set_rate(told.rate, told.burst)
                say(f"m2async: {told.rate:g} calls a second, bursts of {told.burst:g}, from now on")
            if told.paused != known.paused:
                (submitter.pause if told.paused else submitter.unpause)()
                say(f"m2async: {'paused: nothing more is sent for now' if told.paused else 'goes on'}")
            if told.stopped and not known.stopped:
                stop("told to stop from another terminal")
            known = told
