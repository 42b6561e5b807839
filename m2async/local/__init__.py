"""The local endpoint: the batch part of the service's API on loopback, with a quota, and faults on demand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from m2async.local.definitions import DEFAULT_APPLICATION_ID, load_definitions
from m2async.local.faults import parse_fault

if TYPE_CHECKING:
    from m2async.local.endpoint import LocalEndpoint

__all__ = ["DEFAULT_APPLICATION_ID", "LocalEndpoint", "load_definitions", "parse_fault"]


def __getattr__(name: str) -> Any:
    """Import the server only when it is asked for: it brings aiohttp and botocore with it."""
    if name == "LocalEndpoint":
        from m2async.local.endpoint import LocalEndpoint

        return LocalEndpoint
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
