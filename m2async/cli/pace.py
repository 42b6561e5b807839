"""How fast jobs are started, and what is done where it is not known whether one was: the options that say so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from m2async.certainty import Certainty, OnUnknown
from m2async.cli.output import BAD_INPUT, fail
from m2async.errors import InvalidRequestError
from m2async.pacing import RetryPolicy, TokenBucket
from m2async.service import check_identifier


class Pace(NamedTuple):
    """How fast to start them, and what to do when it is not known whether one was started."""

    rate: float | None
    burst: float | None
    adaptive: bool
    application_buckets: dict[str, TokenBucket]
    concurrency: int
    on_unknown: OnUnknown
    settle: float
    certainty: str | None
    hold: float
    start_anyway: bool
    max_retry_after: float = 60.0

    def check(self) -> None:
        """Refuse what makes no sense together."""
        if self.certainty not in {None, "exact"} and self.on_unknown != "adopt":
            fail(f"--certainty {self.certainty} needs --on-unknown adopt, not {self.on_unknown}", BAD_INPUT)
        if self.adaptive and self.rate is not None:
            fail("give --adaptive or --rate, not both", BAD_INPUT)
        if not self.max_retry_after >= 0:
            fail(f"--max-retry-after must not be negative, not {self.max_retry_after:g}", BAD_INPUT)
        check_rate("--", self.rate, self.burst)

    def settings(self) -> dict[str, Any]:
        """Give the arguments of a submitter: without a rate, it finds the quota."""
        retry = RetryPolicy(hold=self.hold, max_retry_after=self.max_retry_after)
        settings = {**self._asdict(), "adaptive": self.rate is None, "retry": retry}
        del settings["hold"], settings["max_retry_after"]
        return settings


def check_rate(prefix: str, rate: float | None, burst: float | None) -> None:
    """Refuse a rate and a burst that make no sense; `prefix` is what the names of their options begin with."""
    if rate is None and burst is not None:
        fail(f"{prefix}burst needs {prefix}rate", BAD_INPUT)
    if rate is not None:
        try:
            TokenBucket(rate, 1 if burst is None else burst)
        except ValueError as exc:
            fail(f"{prefix}{exc}", BAD_INPUT)


def chosen_certainty(given: str | None, *, exact: bool) -> str | None:
    """Read `--certainty`, and `--exact` as its short form."""
    if given is None:
        return "exact" if exact else None
    try:
        certainty = Certainty.of(given)
    except ValueError as exc:
        fail(f"--{exc}", BAD_INPUT)
    if exact and not certainty.is_exact:
        fail(f"give --exact or --certainty {given}, not both", BAD_INPUT)
    return given


def parse_rates(texts: Sequence[str]) -> dict[str, TokenBucket]:
    """Read `--application-rate APP=R,B` options."""
    buckets: dict[str, TokenBucket] = {}
    for text in texts:
        application, _, figures = text.partition("=")
        rate, _, burst = figures.partition(",")
        try:
            check_identifier("application", application)
            buckets[application] = TokenBucket(float(rate), float(burst or 1))
        except (ValueError, InvalidRequestError) as exc:
            fail(f"--application-rate {text}: must be APP=RATE or APP=RATE,BURST: {exc}", BAD_INPUT)
    return buckets
