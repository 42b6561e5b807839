"""The ledger in SQLite, in a file or in memory.

Where to read on:

- `ledger.py`: the ledger and its runs; `storage.py`: where they are kept.
- `file.py`, `anchor.py`, `wal.py`: the file, whatever it is called, and whether all of it is there.
- `group_commit.py`: how the writes of many callers come together; `writes.py`, `plan.py`: how they are made durable.
- `reads.py`, `decisions.py`, `tracking.py`, `dependencies.py`, `activity.py`: single questions and writes.
- `sql/` and `migrations/`: the statements, and what leads to the schema.
"""

from m2async.ledger.sqlite.ledger import SqliteLedger
from m2async.ledger.sqlite.storage import FileStorage, MemoryStorage

__all__ = ["FileStorage", "MemoryStorage", "SqliteLedger"]
