"""What a submitter can be told, and what goes together."""

from __future__ import annotations

from m2async.certainty import Certainty, OnUnknown


def checked_on_unknown(given: OnUnknown | None, *, has_ledger: bool) -> OnUnknown:
    """Give what is done with jobs that may have been started; raises ValueError for what cannot be done."""
    on_unknown: OnUnknown = given or ("adopt" if has_ledger else "hold")
    if on_unknown not in {"adopt", "hold", "resend"}:
        raise ValueError(f"on_unknown must be 'adopt', 'hold' or 'resend', not {on_unknown!r}")
    if on_unknown == "adopt" and not has_ledger:
        raise ValueError("on_unknown='adopt' goes with a ledger, which is not given")
    return on_unknown


def checked_certainty(given: str | float | None, on_unknown: OnUnknown, *, exact: bool) -> Certainty:
    """Give what is aimed at; raises ValueError for what cannot be aimed at.

    Where nothing is looked for, nothing waits, unless one job of a name is to go at once.
    """
    certainty = Certainty.of(("exact" if exact else "careful") if given is None else given)
    if exact and not certainty.is_exact:
        raise ValueError(f"give exact or certainty={given!r}, not both")
    if on_unknown == "adopt" or certainty.is_exact:
        return certainty
    if given is not None:
        raise ValueError(f"certainty={given!r} goes with on_unknown='adopt', not with {on_unknown!r}")
    return Certainty.of("fast")


def check_numbers(concurrency: int, settle: float) -> None:
    """Raise ValueError for numbers that make no sense."""
    if concurrency < 1:
        raise ValueError(f"concurrency must be at least 1, not {concurrency}")
    if settle < 0:
        raise ValueError(f"settle must not be negative, not {settle}")
