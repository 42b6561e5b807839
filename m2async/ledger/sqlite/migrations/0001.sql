-- Schema version 1. Times are microseconds of the epoch, JSON is text.
-- A row's id is run * 2^32 + number, so that a run's rows lie together, in the order of the manifest.

CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    manifest TEXT,
    digest TEXT,
    planned INTEGER NOT NULL DEFAULT 0, -- 1 once every row of the manifest is in jobs
    rows INTEGER NOT NULL DEFAULT 0, -- how many rows of jobs count: none of an unfinished plan
    created_at INTEGER NOT NULL
);

-- What is to be started; written once. Kept apart from progress, so that a job's writes touch few pages.
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY,
    run INTEGER NOT NULL,
    key TEXT NOT NULL,
    application_id TEXT NOT NULL,
    job TEXT NOT NULL, -- BatchJobIdentifier
    params TEXT, -- JobParams
    secret TEXT -- AuthSecretsManagerArn
);

CREATE UNIQUE INDEX jobs_by_key ON jobs (run, key);

-- What became of the rows that were attempted; a row that is not here is PENDING.
CREATE TABLE progress (
    id INTEGER PRIMARY KEY,
    state INTEGER NOT NULL, -- RowState
    attempts INTEGER NOT NULL,
    doubts INTEGER NOT NULL DEFAULT 0, -- attempts in doubt: open rows of history
    sent_at INTEGER NOT NULL,
    ended_at INTEGER,
    execution_id TEXT,
    request_id TEXT,
    adopted INTEGER NOT NULL DEFAULT 0, -- 1 if the execution id was inferred
    code TEXT,
    message TEXT,
    candidates TEXT, -- array of execution ids
    note TEXT
);

CREATE INDEX progress_open ON progress (id) WHERE state IN (1, 4); -- INTENT, UNKNOWN

-- What happened besides: attempts that started nothing or are in doubt, and decisions.
CREATE TABLE history (
    entry INTEGER PRIMARY KEY,
    id INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    event INTEGER NOT NULL, -- RowEvent
    sent_at INTEGER,
    ended_at INTEGER NOT NULL,
    code TEXT,
    message TEXT,
    request_id TEXT,
    execution_id TEXT,
    note TEXT,
    open INTEGER NOT NULL -- 1 while the attempt is in doubt
);

CREATE INDEX history_of_row ON history (id);

CREATE INDEX history_open ON history (id) WHERE open = 1;
