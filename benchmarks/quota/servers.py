"""Servers with a quota: nginx's `limit_req`, the local endpoint, and a relay before them."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.nginx import free_port, nginx
from benchmarks.rounds import environment

_QUOTA = """
    limit_req_zone $binary_remote_addr zone=quota:1m rate={rate}r/s;
    limit_req_status 429;
    limit_req_log_level info;
    upstream service {{ server 127.0.0.1:{service}; keepalive 256; }}
    server {{
        listen 127.0.0.1:{service};
        location / {{ return 200 '{{"executionId":"$request_id"}}'; }}
    }}
    server {{
        listen 127.0.0.1:{port} backlog=2048;
        error_page 429 @throttled;
        location / {{
            limit_req zone=quota burst={burst} nodelay;
            proxy_pass http://service;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
        location @throttled {{
            add_header x-amzn-ErrorType ThrottlingException always;
            return 429 '{{"message":"Rate exceeded"}}';
        }}
    }}
"""


class Answer(NamedTuple):
    """What the relay saw: when an answer passed it, and its status."""

    at: float
    status: int


class Relay:
    """A relay that runs, and afterwards what it saw."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.answers: Sequence[Answer] = ()


@contextlib.contextmanager
def quota_server(rate: int, burst: int) -> Iterator[int]:
    """Run nginx with a quota of `rate` a second; gives its port."""
    with nginx(_QUOTA, rate=rate, burst=burst, service=free_port()) as port:
        yield port


@contextlib.contextmanager
def local_endpoint(rate: float, burst: float, *faults: str) -> Iterator[int]:
    """Run the local endpoint in a process of its own; gives its port."""
    settings = [argument for fault in faults for argument in ("--fault", fault)]
    command = [sys.executable, "-c", "from m2async.cli import main; main()", "local"]
    with _process([*command, "--rate", str(rate), "--burst", str(burst), *settings]) as first_line:
        yield int(first_line.rpartition(":")[2])


@contextlib.contextmanager
def relay(to: int, latency: float) -> Iterator[Relay]:
    """Run a relay to a port; `latency` seconds are added to each exchange."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "answers")
        with _process([sys.executable, "-m", "benchmarks.quota.relay", str(to), str(latency), str(log)]) as port:
            running = Relay(f"http://127.0.0.1:{int(port)}")
            yield running
        lines = (line.split() for line in log.read_text().splitlines())
        running.answers = [Answer(float(at), int(status)) for at, status in lines]


@contextlib.contextmanager
def _process(command: Sequence[str]) -> Iterator[str]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment())
    try:
        assert process.stdout is not None
        yield process.stdout.readline()
    finally:
        process.terminate()
        process.communicate(timeout=20)
