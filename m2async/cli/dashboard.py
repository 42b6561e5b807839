"""`m2async dashboard`: serve the runs of a ledger on loopback, until a signal."""

from __future__ import annotations

from datetime import datetime

from m2async.cli.ledgers import ledger_address, say_ledger
from m2async.cli.output import emit, say
from m2async.cli.running import Signals, run
from m2async.cli.service import Service
from m2async.dashboard import serve
from m2async.ledger import open_ledger


def dashboard(url: str | None, port: int, service: Service) -> None:
    """Serve it, and print its URL on the first line."""

    async def serving(_: Signals) -> None:
        async with (
            open_ledger(ledger_address(url)) as ledger,
            (served := serve(ledger, service.client, _report, port=port)) as address,
        ):
            emit(address)
            say_ledger(ledger, is_new=await ledger.is_new())
            say("Anyone with this URL can act on your runs. Ctrl-C ends the dashboard.")
            await served.fails()

    run(serving)


def _report(run_name: str, what: str) -> None:
    say(f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S} run {run_name}: {what}")
