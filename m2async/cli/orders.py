"""`m2async rate`, `pause`, `unpause` and `stop`: what a run is told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from m2async.cli.hints import hint
from m2async.cli.ledgers import with_ledger
from m2async.cli.output import BAD_INPUT, fail, say
from m2async.ledger import Ledger, Orders, RunView
from m2async.pacing import TokenBucket
from m2async.submitting import LOOK_EVERY


def rate(url: str | None, run_name: str, rate: float, burst: float) -> None:
    """Tell a run in progress another pace."""
    try:
        TokenBucket(rate, burst)
    except ValueError as exc:
        fail(str(exc), BAD_INPUT)
    in_progress, _ = _tell(url, run_name, lambda view: view.set_pace(rate, burst), also_later=False)
    if not in_progress:
        go_on = hint("resume", run_name, "--rate", f"{rate:g}", ledger=url)
        fail(f"run {run_name} is not in progress; to go on with it at this rate: {go_on}", BAD_INPUT)
    say(f"run {run_name}: {rate:g} calls a second, bursts of {burst:g}, from now on")


def pause(url: str | None, run_name: str) -> None:
    """Tell a run to send nothing, now and whenever it is gone on with, until that is taken back."""
    in_progress, _ = _tell(url, run_name, lambda view: view.set_paused(True))
    now = (
        f"within {LOOK_EVERY:g} s nothing more is sent"
        if in_progress
        else "it is not in progress, and sends nothing when it is again"
    )
    say(f"run {run_name}: {now}; to let it go on: {hint('unpause', run_name, ledger=url)}")


def unpause(url: str | None, run_name: str) -> None:
    """Take back a pause, and a stop."""
    in_progress, before = _tell(url, run_name, lambda view: view.set_paused(False))
    go_on = f"to go on with it: {hint('resume', run_name, ledger=url)}"
    if not (in_progress or before.paused or before.stopped):
        fail(f"run {run_name} is not in progress; {go_on}", BAD_INPUT)
    say(f"run {run_name}: " + ("goes on" if in_progress else go_on))


def stop(url: str | None, run_name: str) -> None:
    """Tell a run in progress to end, as at the first Ctrl-C, and let nobody send it until that is taken back."""
    in_progress, _ = _tell(url, run_name, lambda view: view.stop())
    now = "ends once the calls under way are answered" if in_progress else "is not in progress"
    say(f"run {run_name}: {now}; nothing of it is sent until {hint('unpause', run_name, ledger=url)}")


def _tell(
    url: str | None, run_name: str, tell: Callable[[RunView], Awaitable[None]], *, also_later: bool = True
) -> tuple[bool, Orders]:
    """Write it down, for whoever submits the run, now or later; gives whether somebody does, and what was told before.

    What is not `also_later` is written for a run in progress only.
    """

    async def write(ledger: Ledger) -> tuple[bool, Orders]:
        view = await ledger.run(run_name)
        before, in_progress = await view.orders(), await view.in_use()
        if in_progress or also_later:
            await tell(view)
        return in_progress, before

    return with_ledger(url, write)
