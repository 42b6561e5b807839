"""Answers that are not the service's, such as a login page's: after a few in a row, the rest would meet the same."""

from __future__ import annotations

from m2async.errors import CallError, M2ServiceException, ThrottlingException, UnreadableAnswerError

_FEW = 5


class StrangersAnswers:
    """Counts them, from one answer of the service's to the next."""

    def __init__(self) -> None:
        self._in_a_row = 0

    def are_all(self, error: CallError | None) -> bool:
        """Take note of an answer, None for a start; tells whether nothing else has answered for too long."""
        if error is not None and error.not_the_service is not None:
            # A wait that is asked for is waited, whoever asks.
            self._in_a_row += not isinstance(error, ThrottlingException)
        elif error is None or isinstance(error, M2ServiceException | UnreadableAnswerError):
            self._in_a_row = 0
        return self._in_a_row >= _FEW
