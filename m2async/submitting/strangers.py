"""Answers that are not the service's, such as a login page's: after a few in a row, the rest would meet the same."""

from __future__ import annotations

from m2async.errors import CallError, M2ServiceException, ThrottlingException, UnreadableAnswerError

_FEW = 5


class StrangersAnswers:
    """Counts the jobs that met them, from one answer of the service's to the next: a job's own trouble is its own."""

    def __init__(self) -> None:
        self._met_by: set[str] = set()

    def are_all(self, key: str, error: CallError | None) -> bool:
        """Take note of a job's answer, None for a start; tells whether nothing else has answered for too long."""
        if error is not None and error.not_the_service is not None:
            if not isinstance(error, ThrottlingException):  # a wait that is asked for is waited, whoever asks
                self._met_by.add(key)
        elif error is None or isinstance(error, M2ServiceException | UnreadableAnswerError):
            self._met_by.clear()
        return len(self._met_by) >= _FEW
