"""The command: parses the options, calls the library, and shows what came of it."""

import signal
import sys
from types import FrameType


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
    app(prog_name="m2async")


def _leave(number: int, frame: FrameType | None) -> None:
    """End a command that has nothing under way, with the exit code that shells give to the signal."""
    sys.exit(128 + number)
