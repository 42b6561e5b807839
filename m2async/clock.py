"""The time that attempts are written down with, and how far it may be from the service's."""

from __future__ import annotations

from time import monotonic, time

CLOCK_TOLERANCE = 2.0
"""Seconds that two clocks which are right may differ; a known difference counts besides."""

_BEGAN = time() - monotonic()


def steady_time() -> float:
    """Seconds of the epoch, as the system's clock said when the program began, and as they went by since.

    Nobody can set it while the program runs.
    """
    return _BEGAN + monotonic()
