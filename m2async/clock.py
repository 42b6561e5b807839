"""The time that attempts are written down with: nobody can set it while the program runs."""

from __future__ import annotations

from time import monotonic, time

_BEGAN = time() - monotonic()


def steady_time() -> float:
    """Seconds of the epoch, as the system's clock said when the program began, and as they went by since."""
    return _BEGAN + monotonic()
