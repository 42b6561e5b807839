"""Faults that the local endpoint injects into StartBatchJob calls, by name and share."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from enum import StrEnum

from m2async.errors import ConfigurationError


class Fault(StrEnum):
    """What goes wrong with a call."""

    INTERNAL_ERROR = "500"
    """InternalServerException; nothing is started."""
    THROTTLE = "throttle"
    """ThrottlingException; nothing is started."""
    DROP_BEFORE_ACCEPT = "drop-before-accept"
    """The connection is aborted; nothing is started."""
    ACCEPT_THEN_500 = "accept-then-500"
    """The job is started and the answer is InternalServerException."""
    ACCEPT_THEN_DROP = "accept-then-drop"
    """The job is started and the connection is aborted."""
    ACCEPT_THEN_HANG = "accept-then-hang"
    """The job is started and no answer ever comes."""
    LATENCY = "latency"
    """The job is started at once and answered 0.1 to 1 second later."""


_NAMES = ", ".join(Fault)


def parse_fault(text: str) -> tuple[str, float]:
    """Read `NAME=SHARE`, such as `accept-then-drop=0.05`.

    Raises ConfigurationError, with the known names, unless the name is one of Fault's and the share is a number from
    0 to 1.
    """
    name, equals, share = text.partition("=")
    if not equals:
        raise ConfigurationError(f"fault {text!r}: must be NAME=SHARE; the names are {_NAMES}")
    try:
        parsed = float(share)
    except ValueError:
        raise ConfigurationError(f"fault {text!r}: the share must be a number from 0 to 1") from None
    _check_fault(name, parsed)
    return name, parsed


class Faults:
    """Draws a fault or none for each call; the same seed and shares give the same faults in the same order.

    Raises ConfigurationError for an unknown name, a share outside of 0 to 1, and shares that sum up to more than 1.
    """

    def __init__(self, shares: Mapping[str, float], seed: object) -> None:
        for name, share in shares.items():
            _check_fault(name, share)
        total = math.fsum(shares.values())
        if total > 1 + 1e-9:  # but for the rounding of decimal fractions
            raise ConfigurationError(f"faults: their shares sum up to {total:g}, which is more than 1")
        self._shares = [(fault, shares[fault]) for fault in Fault if fault in shares]
        self._draws = random.Random(f"{seed}/faults")
        self._delays = random.Random(f"{seed}/delays")

    def draw(self) -> Fault | None:
        """Pick what happens to the next call: at most one fault."""
        drawn = self._draws.random()
        for fault, share in self._shares:
            drawn -= share
            if drawn < 0:
                return fault
        return None

    def delay(self) -> float:
        """Pick how late the next answer is that has the fault `latency`, in seconds."""
        return self._delays.uniform(0.1, 1.0)


def _check_fault(name: str, share: float) -> None:
    if name not in list(Fault):
        raise ConfigurationError(f"fault {name!r} is not known; the names are {_NAMES}")
    if not 0 <= share <= 1:
        raise ConfigurationError(f"fault {name!r}: the share must be a number from 0 to 1, not {share:g}")
