"""The keys of a manifest's rows: each must be sound, and no two may be equal."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet

from m2async.manifest.rows import RowError, RowProblem, quoted_hint, shown
from m2async.service import KEY_RULE, is_key

_NO_ROOM = "its keys cannot be compared, for which they go into a temporary file (in TMPDIR, if that is set)"


class NoRoomForKeysError(Exception):
    """The keys cannot be written where they are compared."""


class Keys:
    """Takes the key of each row; this one does not look whether it came before. Close it in the end.

    `numbers` says that it wants the key of every row, also where that is the row's number and cannot come twice;
    `taken` counts the sound ones.
    """

    numbers = False
    taken: int = 0

    def take(self, key: object, line: int) -> str:
        """Give back the key if it is sound and new; raise RowError otherwise."""
        if not isinstance(key, str):
            raise RowError(RowProblem("key", f"{shown(key)}: must be a text{quoted_hint(key)}"))
        if not is_key(key):
            raise RowError(RowProblem("key", f"{shown(key)}: {KEY_RULE}"))
        self.taken += 1
        return key

    def close(self) -> None:
        """Give back what it holds besides memory."""


class UniqueKeys(Keys):
    """Keeps the keys, each with the line of its row.

    They are in a table of SQLite's, which takes little memory: what is more goes into a temporary file that nobody
    else can open, and that is gone with the table, also after a crash. Where that cannot be written, its methods raise
    NoRoomForKeysError, and the reading is over.
    """

    def __init__(self) -> None:
        # Rows are read by one thread at a time, but not by the same one always.
        self._table = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._table.execute("CREATE TABLE keys (key TEXT PRIMARY KEY, line INTEGER NOT NULL) WITHOUT ROWID")
        self._table.execute("BEGIN")  # which is never committed: a commit for each key would take half as long again
        self._execute = self._table.cursor().execute

    def take(self, key: object, line: int) -> str:
        key = super().take(key, line)
        if self._ask("INSERT OR IGNORE INTO keys (key, line) VALUES (?, ?)", (key, line)).rowcount:
            return key
        before = self.lines_of([key])[key]
        if before == line:
            reason = f"{shown(key)}: this job makes it twice: put every swept name into the key"
        else:
            reason = f"{shown(key)}: is the key of line {before} already; keys must differ"
        raise RowError(RowProblem("key", reason))

    def lines_of(self, keys: Collection[str]) -> Mapping[str, int]:
        """Tell the first line of each of these keys that was taken."""
        found = (self._ask("SELECT key, line FROM keys WHERE key = ?", (key,)).fetchone() for key in keys)
        return dict(each for each in found if each)

    def _ask(self, statement: str, values: tuple[object, ...]) -> sqlite3.Cursor:
        try:
            return self._execute(statement, values)
        except sqlite3.Error as exc:  # the table is empty then: nothing more may be taken
            raise NoRoomForKeysError(f"{_NO_ROOM}: {exc}") from exc

    def close(self) -> None:
        self._table.close()


class LinesOfKeys(Keys):
    """Tells on which lines some keys stand."""

    numbers = True

    def __init__(self, wanted: AbstractSet[str]) -> None:
        self.lines: dict[str, int] = {}
        self._wanted = wanted

    def take(self, key: object, line: int) -> str:
        key = super().take(key, line)
        if key in self._wanted:
            self.lines.setdefault(key, line)
        return key
