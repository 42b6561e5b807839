"""The ledger in an SQLite file: one thread writes, one reads, and the event loop waits for neither."""

from m2async.ledger.sqlite.ledger import SqliteLedger

__all__ = ["SqliteLedger"]
