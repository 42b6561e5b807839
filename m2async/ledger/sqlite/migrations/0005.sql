-- Schema version 5: a run in progress is told from another terminal to pause or to stop, not only its pace.

DROP TABLE paces;

CREATE TABLE orders (
    run INTEGER PRIMARY KEY,
    rate REAL, -- calls a second; NULL if none was told
    burst REAL,
    paused INTEGER NOT NULL DEFAULT 0,
    stopped INTEGER NOT NULL DEFAULT 0
);
