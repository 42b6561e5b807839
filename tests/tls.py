"""Certificates for tests: an authority of their own, a server that it vouches for, and clients that trust it or not."""

from __future__ import annotations

import ssl
from functools import cache
from pathlib import Path

import trustme


@cache
def _authority() -> trustme.CA:
    return trustme.CA()


@cache
def server_context() -> ssl.SSLContext:
    """The settings of a server at 127.0.0.1 and localhost."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _authority().issue_cert("127.0.0.1", "localhost").configure_cert(context)
    return context


@cache
def client_context() -> ssl.SSLContext:
    """The settings of a client that trusts the server."""
    context = ssl.create_default_context()
    _authority().configure_trust(context)
    return context


def doubting_client_context() -> ssl.SSLContext:
    """The settings of a client that does not know the authority."""
    return ssl.create_default_context()


def write_authority(folder: Path) -> str:
    """Write the authority's certificate as a CA bundle; gives its path."""
    path = folder / "authority.pem"
    _authority().cert_pem.write_to_path(path)
    return str(path)
