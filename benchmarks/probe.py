"""`m2async probe` against hidden quotas: what it finds, and how far off that is.

    python -m benchmarks.probe [--quick] [--server local|nginx] [--rate R ...] [--burst B ...]

The servers are the local endpoint and nginx with `limit_req`, each a process of its own and fresh for each quota. The
probe is the command, and is told nothing but the URL. nginx's `burst=B` lets B + 1 calls pass at once, so that is the
burst to be found there. Ends with an error unless every rate is found within 5 % and every burst within 10 %, in at
most 60 s.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from benchmarks.quota.servers import local_endpoint, quota_server
from benchmarks.rounds import environment

RATES = (5, 20, 100, 300, 1000)
BURSTS = (1, 10, 50, 200, 500)
QUICK = ((5, 10), (100, 1), (1000, 200))
_BURST = 0.10 + 1e-9  # 11 for 10 is within 10 %
SERVERS = {"local": (local_endpoint, 0), "nginx": (quota_server, 1)}
"""How each is run, and how many calls it lets pass at once besides its burst."""


class Found(NamedTuple):
    """A hidden quota, and what the probe says of it."""

    server: str
    rate: int
    burst: int
    said: dict[str, Any]
    seconds: float

    @property
    def rate_error(self) -> float:
        return self._error("rate", self.rate)

    @property
    def burst_error(self) -> float:
        return self._error("burst", self.burst)

    @property
    def is_good(self) -> bool:
        return abs(self.rate_error) <= 0.05 and abs(self.burst_error) <= _BURST and self.said["seconds"] <= 60

    def _error(self, name: str, hidden: int) -> float:
        found = self.said[name]
        return float("inf") if found is None else found / hidden - 1

    def __str__(self) -> str:
        rate, burst = (self.said[name] or float("nan") for name in ("rate", "burst"))
        return (
            f"{self.server:<7}{self.rate:>6}{rate:>9.4g}{self.rate_error:>+8.1%}{self.burst:>7}{burst:>6g}"
            f"{self.burst_error:>+8.1%}{self.said['calls']:>8,}{self.said['throttled']:>10,}{self.seconds:>8.1f}"
            f"{'' if self.is_good else '  MISSED'}"
        )


HEAD = (
    f"{'server':<7}{'rate':>6}{'found':>9}{'error':>8}{'burst':>7}{'found':>6}{'error':>8}{'calls':>8}{'throttled':>10}"
    f"{'seconds':>8}"
)


def find(server: str, rate: int, burst: int) -> Found:
    """Run a server with a quota, and the probe against it."""
    serve, more = SERVERS[server]
    with serve(rate, burst) as port:
        began = time.monotonic()
        command = [sys.executable, "-c", "from m2async.cli import main; main()", "probe", "--output", "json"]
        url = f"http://127.0.0.1:{port}"
        done = subprocess.run(
            [*command, "--endpoint-url", url], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment()
        )
        return Found(server, rate, burst + more, json.loads(done.stdout), time.monotonic() - began)


def _quotas(arguments: argparse.Namespace) -> Iterator[tuple[str, int, int]]:
    for server in arguments.server:
        if arguments.quick:
            yield from ((server, rate, burst) for rate, burst in QUICK)
        else:
            yield from ((server, rate, burst) for rate in arguments.rate for burst in arguments.burst)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three quotas only")
    parser.add_argument("--server", nargs="+", choices=SERVERS, default=list(SERVERS))
    parser.add_argument("--rate", nargs="+", type=int, default=RATES)
    parser.add_argument("--burst", nargs="+", type=int, default=BURSTS)
    print(HEAD, flush=True)
    found = []
    for quota in _quotas(parser.parse_args()):
        found.append(find(*quota))
        print(found[-1], flush=True)
    for what, good in (
        ("rates within 5 %", [abs(one.rate_error) <= 0.05 for one in found]),
        ("bursts within 10 %", [abs(one.burst_error) <= _BURST for one in found]),
        ("in at most 60 s", [one.said["seconds"] <= 60 for one in found]),
    ):
        print(f"{what}: {sum(good)} of {len(good)}")
    if not all(one.is_good for one in found):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
