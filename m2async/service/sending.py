"""How far the request of one attempt is: what who sends it and who wants it sent tell each other."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar

from m2async.errors import NotSentError


class Sending:
    """One attempt; `may_begin` is asked when the first byte is about to go."""

    __slots__ = ("_may_begin", "_sent", "was_held_back")

    def __init__(self, may_begin: Callable[[], bool]) -> None:
        self.was_held_back: bool = False
        self._may_begin = may_begin
        self._sent: int | None = None  # requests of it that may have had an effect

    @property
    def has_begun(self) -> bool | None:
        """Whether something was sent that may have had an effect; None before a client that tells of it is called."""
        return None if self._sent is None else self._sent > 0

    def is_prepared(self) -> None:
        """Take note that it will be told when the first byte goes."""
        self._sent = self._sent or 0

    def begins(self) -> None:
        """Take note that the first byte goes now. Where it must not any more, or not yet: raises NotSentError."""
        if not self._may_begin():
            self.was_held_back = True
            raise NotSentError("it was held back before its first byte")
        self._sent = (self._sent or 0) + 1

    def was_refused(self) -> None:
        """Take note that what was sent last surely had no effect, and that it is prepared anew."""
        self._sent = (self._sent or 1) - 1


SENDING: ContextVar[Sending | None] = ContextVar("sending", default=None)
"""The attempt that the code which runs here is part of."""
