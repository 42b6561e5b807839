"""The commands that messages tell to run next: they name the same ledger and service, and can be pasted."""

from __future__ import annotations

from collections.abc import Mapping

from m2async.cli.screen import whole
from m2async.cli.service import Service
from m2async.errors import M2AsyncError
from m2async.ledger import RunStoppedError
from m2async.submitting import UnexplainedExecutionsError
from m2async.texts import quoted

_CALL_THE_SERVICE = frozenset({"submit", "resume", "restart", "reconcile", "track", "cancel"})


def command(verb: str, run: str, *options: str, ledger: str | None, service: Service | None = None) -> str:
    """Write out a command on a run, with the ledger and, where it calls it, the service that this one was given."""
    named = {"--ledger": ledger}
    if service is not None and verb in _CALL_THE_SERVICE:
        named |= {
            "--endpoint-url": service.endpoint_url, "--region": service.region, "--profile": service.profile
        }  # fmt: skip
    given = [*options, *(word for name, value in named.items() if value is not None for word in (name, value))]
    words = [*given, "--", run] if run.startswith("-") and run != "-" else [run, *given]
    return " ".join(map(quoted, ("m2async", verb, *words)))


def hint(verb: str, run: str, *options: str, ledger: str | None, service: Service | None = None) -> str:
    """Write out a command for a message, in which it stays in one piece."""
    return whole(command(verb, run, *options, ledger=ledger, service=service))


def start_anew_hint(
    manifest: str,
    application: str | None,
    params: Mapping[str, str],
    *,
    named: bool,
    rehearsal: bool,
    ledger: str | None,
    service: Service,
) -> str:
    """Write out the command that starts all rows of a manifest once more; in a `named` run that needs another name."""
    options = [] if application is None else ["-a", application]
    options += [word for name, value in params.items() for word in ("--param", f"{name}={value}")]
    options += ["--local"] if rehearsal else []
    options += ["--run", "ANOTHER"] if named else ["--again"]
    return hint("submit", manifest, *options, ledger=ledger, service=service)


def advised(error: M2AsyncError, *, ledger: str | None, service: Service | None = None) -> str:
    """Give an error's message, and the command that does away with its reason, if there is one."""
    if isinstance(error, RunStoppedError):
        return f"{error}: {hint('unpause', error.run, ledger=ledger)}"
    if isinstance(error, UnexplainedExecutionsError) and error.in_doubt:
        return f"{error}: {hint('reconcile', error.run, ledger=ledger, service=service)}"
    return str(error)
