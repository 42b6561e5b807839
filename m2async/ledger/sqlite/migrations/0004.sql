-- Schema version 4: the pace that a run in progress is told to keep, from another terminal.

CREATE TABLE paces (
    run INTEGER PRIMARY KEY,
    rate REAL NOT NULL, -- calls a second
    burst REAL NOT NULL,
    set_at INTEGER NOT NULL
);
