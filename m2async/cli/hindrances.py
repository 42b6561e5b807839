"""What `submit` and `resume` say of that which keeps jobs waiting, while it lasts."""

from __future__ import annotations

from collections.abc import Mapping

import anyio

from m2async.cli.output import say
from m2async.cli.progress import Progress
from m2async.cli.waiting import WaitingNames
from m2async.errors import AccessDeniedException, CallError
from m2async.submitting import LOOK_EVERY, Submitter, why_refused
from m2async.texts import seconds


class Hindrances:
    """Looks at a submitter again and again, and says what is new: names that wait, applications, refused lists."""

    def __init__(self, submitter: Submitter, progress: Progress) -> None:
        self.refused: Mapping[str, CallError] = dict(submitter.refused_lists)  # whose warning was said at the opening
        self._submitter = submitter
        self._progress = progress
        self._names = WaitingNames()
        self._held: set[str] = set()
        self._has_said_what_is_cut = False

    async def watch(self) -> None:
        """Look until cancelled."""
        while True:
            await anyio.sleep(LOOK_EVERY)
            self.look()
            self._look_at_applications()

    def look(self) -> None:
        """Say which names wait, and which lists are refused, or are so no more."""
        self._look_at_lists()
        self._look_at_waits()
        self._progress.show_waiting(self._names.look(self._submitter.waiting))

    def summary(self) -> None:
        """Say for how long names waited."""
        self._names.summary()

    def _look_at_lists(self) -> None:
        before, self.refused = self.refused, dict(self._submitter.refused_lists)
        for application in self.refused.keys() - before.keys():
            why = why_refused(self.refused[application])
            say(f"m2async: the executions of application {application} cannot be listed: {why}")
        for application in before.keys() - self.refused.keys():
            say(f"m2async: the executions of application {application} can be listed now")

    def _look_at_waits(self) -> None:
        cut = self._submitter.cut_retry_after
        if cut is not None and not self._has_said_what_is_cut:
            self._has_said_what_is_cut = True
            asked, heeded = map(seconds, cut)
            say(f"m2async: the service asks to wait {asked} (Retry-After); it is waited {heeded} (--max-retry-after)")

    def _look_at_applications(self) -> None:
        held = self._submitter.held
        for application in held.keys() - self._held:
            error, _ = held[application]
            awaited = "access to it" if isinstance(error, AccessDeniedException) else "it to run"
            say(f"m2async: the jobs of application {application} wait for {awaited}: {error.message}")
        self._held = set(held)
