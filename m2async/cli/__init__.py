"""The command: parses the options, calls the library, and shows what came of it."""

import signal
import sys
from types import FrameType

_STOPPED = 3  # the exit code of a command that had to stop


def main() -> None:
    """Run the command; needs the packages of the extra `cli`."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    try:
        from m2async.cli.app import app
    except ModuleNotFoundError as exc:
        if exc.name not in {"typer", "rich"}:
            raise
        sys.exit(f"m2async: the command needs the package {exc.name}: pip install 'm2async[cli]'")
    try:
        app(prog_name="m2async")
    except Exception as exc:  # noqa: BLE001 - what nobody expected is a fault of ours
        from m2async.cli.fault import tell_fault

        tell_fault(exc)
        sys.exit(_STOPPED)


def _leave(number: int, frame: FrameType | None) -> None:
    """End a command that has nothing under way, with the exit code that shells give to the signal."""
    sys.exit(128 + number)
