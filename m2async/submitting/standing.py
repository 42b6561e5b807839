"""What a submitter tells of itself while it works."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from m2async.errors import CallError, M2AsyncError
from m2async.pacing import RetryPolicy
from m2async.submitting.circuits import Circuits
from m2async.submitting.end import End
from m2async.submitting.entering import EnteredRun
from m2async.submitting.lanes import Lanes, WaitingName
from m2async.submitting.resends import Resends
from m2async.submitting.tokens import Tokens


class WatchedSubmitter:
    """The part of a submitter that answers whoever watches it; it changes nothing."""

    _tokens: Tokens
    _circuits: Circuits
    _lanes: Lanes
    _policy: RetryPolicy
    _resends: Resends
    _end: End
    _entered: EnteredRun | None

    @property
    def rate(self) -> float | None:
        """The calls a second that are sent at most at present; None for no limit."""
        return self._tokens.rate

    @property
    def found_rate(self) -> float | None:
        """The quota that throttling showed, in calls a second; None if there was none, or not enough."""
        return self._tokens.found_rate

    @property
    def held(self) -> Mapping[str, tuple[CallError, int]]:
        """The applications that are not called at present: what they answer, and how many jobs wait for each."""
        return self._circuits.held

    @property
    def waiting(self) -> Sequence[WaitingName]:
        """The names whose jobs wait for others of the same name, or did, so that a lost answer can be resolved."""
        return self._lanes.waiting

    @property
    def cut_retry_after(self) -> tuple[float, float] | None:
        """The first `Retry-After` that was not heeded whole, and what was of it, in seconds; None if all were."""
        cut = self._resends.cut
        return None if cut is None else (cut, self._policy.heeded(cut))

    @property
    def refused_lists(self) -> Mapping[str, CallError]:
        """The applications whose executions could not be listed when that was last tried, and what it answered."""
        return {} if self._entered is None else self._entered.refused

    @property
    def stopped_by(self) -> M2AsyncError | None:
        """What made it send nothing more, or None while it goes on."""
        return self._end.cause
