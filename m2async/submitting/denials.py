"""Which applications deny access, so that one alone stops nothing, and all of them the submitter."""

from __future__ import annotations

from collections.abc import Iterable

from m2async.errors import AccessDeniedException, CallError


class Denials:
    """The applications that jobs are for, and those of them that deny access."""

    def __init__(self) -> None:
        self._asked: set[str] = set()
        self._denied: set[str] = set()
        self._may_be_others = False

    def expect(self, application_ids: Iterable[str]) -> None:
        """Take note of applications that jobs are for."""
        self._asked.update(application_ids)

    def expect_others(self) -> None:
        """Take note that jobs may come for any application, one by one: whoever brings one is told what came of it."""
        self._may_be_others = True

    def answered(self, application_id: str, error: CallError | None = None) -> None:
        """Take note of what an application answered."""
        if isinstance(error, AccessDeniedException):
            self._denied.add(application_id)
        else:
            self._denied.discard(application_id)

    @property
    def are_everywhere(self) -> bool:
        """Whether each application denies access that jobs are for, as far as is known."""
        return not self._may_be_others and self._asked <= self._denied
