"""How much of a quota is used, and how many calls are throttled, against real servers.

    python -m benchmarks.quota [--case known|unknown|steps|shared|latency|failures ...] [--seconds S] [--only NAME ...]

Servers are nginx with `limit_req` and the local endpoint. A relay before them notes every answer, those to calls that
an SDK repeats by itself included, and adds the latency. Each contender has a process of its own and a fresh server.
aiobotocore's retry modes are given no rate, as they take none.

used: answers with status 200, as a share of the burst and what the rate allowed in the time; after 5 s: of what the
rate alone allowed from then on, so that it can be more than 1 while a burst is used up; throttled: of all answers.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

import uvloop

from benchmarks.quota.senders import SENDERS, Task
from benchmarks.quota.servers import Answer, local_endpoint, quota_server, relay
from benchmarks.rounds import environment

Steps = Sequence[tuple[float, float]]


class Case(NamedTuple):
    """A quota, and how it is met; `steps` are the shares of the time after which another rate holds."""

    name: str
    rate: float
    burst: int
    seconds: float
    known: bool = False
    latency: float = 0.0
    workers: int = 64
    steps: Steps = ()
    senders: int = 1
    local: bool = False
    faults: Sequence[str] = ()


CASES = {
    "known": [
        Case("known 200/s, burst 200", 200, 200, 15, known=True),
        Case("known 20/s, burst 1", 20, 1, 15, known=True),
        Case("known 20/s, burst 1, local endpoint", 20, 1, 15, known=True, local=True),
        Case("known 1,000/s, burst 50", 1000, 50, 15, known=True),
    ],
    "unknown": [Case(f"unknown {rate}/s", rate, rate, 60) for rate in (50, 200, 1000)],
    "steps": [Case("200 -> 50 -> 300/s", 200, 200, 60, steps=((1 / 3, 50), (2 / 3, 300)), local=True)],
    "shared": [Case("two processes on 200/s", 200, 200, 60, senders=2)],
    "latency": [
        Case(f"{kind} 200/s, {latency * 1000:,.0f} ms", 200, 200, 60, kind == "known", latency, workers)
        for kind in ("known", "unknown")
        for latency, workers in ((0.02, 64), (0.2, 80), (2.0, 800))
    ],
    "failures": [Case("30 % of answers are 500, 200/s", 200, 200, 30, known=True, local=True, faults=("500=0.3",))],
}


def play(case: Case, sender: str) -> str:
    """Run one contender on a case; gives its line of the table."""
    with contextlib.ExitStack() as stack:
        if case.local:
            port = stack.enter_context(local_endpoint(case.rate, case.burst, *case.faults))
        else:
            port = stack.enter_context(quota_server(round(case.rate), case.burst))
        with contextlib.ExitStack() as relays:
            own = [relays.enter_context(relay(port, case.latency)) for _ in range(case.senders)]
            running = [_start(sender, case, one.url) for one in own]
            _change_quota(case, port)
            told = [_told(process, case) for process in running]
        answers = [one.answers for one in own]
    return _line(case, sender, answers, told)


def _start(sender: str, case: Case, url: str) -> subprocess.Popen[str]:
    settings = ["--url", url, "--seconds", str(case.seconds + 2 * case.latency), "--workers", str(case.workers)]
    if case.known:
        settings += ["--rate", str(case.rate), "--burst", str(case.burst)]
    command = [sys.executable, "-m", "benchmarks.quota", "--sender", sender, *settings]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment())


def _told(process: subprocess.Popen[str], case: Case) -> dict[str, float]:
    """What a contender prints at its end; one that does not end is killed: what the relay saw counts all the same."""
    try:
        return cast("dict[str, float]", json.loads(process.communicate(timeout=case.seconds + 30)[0]))
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return {}


def _change_quota(case: Case, port: int) -> None:
    began = time.monotonic()
    for share, rate in case.steps:
        time.sleep(max(0.0, began + share * case.seconds - time.monotonic()))
        body = json.dumps({"rate": rate, "burst": case.burst}).encode()
        urllib.request.urlopen(f"http://127.0.0.1:{port}/_local/quota", body, timeout=10).close()


def _line(case: Case, sender: str, by_process: Sequence[Sequence[Answer]], told: Sequence[dict[str, float]]) -> str:
    answers = sorted(answer for one in by_process for answer in one)
    began = answers[0].at
    answers = [answer for answer in answers if answer.at < began + case.seconds]
    used = _started(answers) / (case.burst + _allowed(case, 0, case.seconds))
    after = _started(answers, began + 5) / _allowed(case, 5, case.seconds)
    throttled = sum(answer.status == 429 for answer in answers) / len(answers)
    notes = []
    if case.senders > 1:
        shares = [_started(one) for one in by_process]
        notes.append("shares " + ", ".join(f"{share / sum(shares):.0%}" for share in shares))
    if case.steps:
        notes.append("of the new quota, from 5 s after each step: " + ", ".join(_after_steps(case, answers, began)))
    if case.faults:
        notes.append(f"{sum(answer.status == 500 for answer in answers) / len(answers):.0%} failed")
    if found := [f"{rate:.4g}" for one in told if (rate := one.get("found_rate"))]:
        notes.append(f"found {', '.join(found)}/s")
    if again := [f"{one['sent_again']:,.0f} sent again" for one in told if one.get("sent_again")]:
        notes += again
    return f"{case.name:<38}{sender:<22}{used:>8.1%}{after:>10.1%}{throttled:>11.2%}  {'; '.join(notes)}".rstrip()


def _started(answers: Sequence[Answer], since: float = 0.0) -> int:
    return sum(answer.status == 200 and answer.at >= since for answer in answers)


def _allowed(case: Case, begin: float, end: float) -> float:
    total, rate, since = 0.0, case.rate, 0.0
    for at, following in [*((share * case.seconds, rate) for share, rate in case.steps), (case.seconds, 0.0)]:
        total += rate * max(0.0, min(at, end) - max(since, begin))
        rate, since = following, at
    return total


def _after_steps(case: Case, answers: Sequence[Answer], began: float) -> Iterator[str]:
    ends = [*(share * case.seconds for share, _ in case.steps[1:]), case.seconds]
    for (share, rate), end in zip(case.steps, ends, strict=True):
        first = share * case.seconds + 5
        started = sum(a.status == 200 and first <= a.at - began < end - 1 for a in answers)
        yield f"{started / (rate * (end - 1 - first)):.0%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--seconds", type=float, help="instead of each case's own time")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only contenders whose names begin like this")
    parser.add_argument("--sender", choices=SENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--rate", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--burst", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.sender:
        task = Task(arguments.url, arguments.seconds, arguments.workers, arguments.rate, arguments.burst)
        uvloop.run(SENDERS[arguments.sender](task))
        return
    print(f"{'case':<38}{'sender':<22}{'used':>8}{'after 5 s':>10}{'throttled':>11}", flush=True)
    for name in arguments.case:
        for case in CASES[name]:
            chosen = case._replace(seconds=arguments.seconds or case.seconds)
            for sender in SENDERS:
                if not arguments.only or sender.startswith(tuple(arguments.only)):
                    print(play(chosen, sender), flush=True)


if __name__ == "__main__":
    main()
