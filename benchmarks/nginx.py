"""nginx on a free loopback port, as the other end of a benchmark."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_CONFIGURATION = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
worker_processes 1;
events {{ worker_connections 2048; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 1000000;
    default_type application/json;
    {servers}
}}
"""


_NULL_SERVER = """
    server {{
        listen 127.0.0.1:{port} {tls} backlog=2048;
        {certificate}
        location / {{ return 200 '{{"executionId":"$request_id"}}'; }}
    }}
"""


class Server(NamedTuple):
    """A server under test; over TLS, `ca_bundle` is the file that its certificate is verified with."""

    url: str
    ca_bundle: Path | None = None


@contextlib.contextmanager
def null_server(*, tls: bool = False) -> Iterator[Server]:
    """Run nginx with one worker that answers every request at once with an execution id."""
    with tempfile.TemporaryDirectory(prefix="m2async-certificate-") as folder:
        certificate = _make_certificate(Path(folder)) if tls else None
        settings = f"ssl_certificate {certificate}; ssl_certificate_key {folder}/key.pem;" if certificate else ""
        with nginx(_NULL_SERVER, tls="ssl" if tls else "", certificate=settings) as port:
            yield Server(f"http{'s' if tls else ''}://127.0.0.1:{port}", certificate)


@contextlib.contextmanager
def nginx(servers: str, **settings: object) -> Iterator[int]:
    """Run nginx with one worker on a free port.

    `servers` is the configuration of its servers, a format with `{port}`, `{folder}` and the other settings.
    """
    program = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/local/bin:/usr/bin:/opt/homebrew/bin")
    if program is None:
        raise SystemExit("nginx is needed: install the package nginx (Debian: nginx-light)")
    with tempfile.TemporaryDirectory(prefix="m2async-nginx-") as folder:
        port = free_port()
        configuration = Path(folder, "nginx.conf")
        own = servers.format(folder=folder, port=port, **settings)
        configuration.write_text(_CONFIGURATION.format(folder=folder, servers=own))
        process = subprocess.Popen(
            [program, "-p", folder, "-e", f"{folder}/error.log", "-c", str(configuration)], stderr=subprocess.DEVNULL
        )
        try:
            _wait_until_it_answers(port, process)
            yield port
        finally:
            process.terminate()
            process.wait(10)


def _make_certificate(folder: Path) -> Path:
    """Make a key and a certificate for the address of loopback that only its own file verifies."""
    program = shutil.which("openssl")
    if program is None:
        raise SystemExit("openssl is needed for --tls")
    certificate = folder / "certificate.pem"
    command = (
        f"{program} req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
        " -addext subjectAltName=IP:127.0.0.1,DNS:localhost -keyout"
    ).split()
    subprocess.run([*command, folder / "key.pem", "-out", certificate], check=True, capture_output=True)
    return certificate


def free_port() -> int:
    """Find a port of 127.0.0.1 that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_it_answers(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"nginx ended at once, with exit code {process.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    raise SystemExit("nginx does not answer")
