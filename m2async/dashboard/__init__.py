"""The dashboard: the runs of a ledger on a page, served on loopback to whoever has its token."""

from m2async.dashboard.server import serve

__all__ = ["serve"]
