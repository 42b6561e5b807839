-- Schema version 6: what makes sure what became of an attempt.

-- The times of an attempt.

-- The clocks that they are read off, and how far those were from the service's: a new one for each opening of a run,
-- and wherever more, or something else, came to be known.
CREATE TABLE clocks (
    id INTEGER PRIMARY KEY, -- run * 2^32 + number
    opened_at INTEGER NOT NULL, -- when the run was opened, by this clock
    at INTEGER NOT NULL, -- when it was written down
    boot TEXT NOT NULL, -- of the machine, or else of the opening: what no two clocks share that cannot be compared
    base INTEGER NOT NULL, -- what this clock showed at that boot
    wall INTEGER NOT NULL, -- how far the machine's clock was ahead of it
    least INTEGER, -- how far the service's clock was ahead of it, at least; NULL if that was not known
    most INTEGER, -- and at most
    since INTEGER -- from when on that may hold, where it was otherwise before
);

ALTER TABLE progress ADD COLUMN clock INTEGER; -- of sent_at; NULL in rows of before

ALTER TABLE history ADD COLUMN clock INTEGER; -- of sent_at

ALTER TABLE history ADD COLUMN ended_clock INTEGER; -- of ended_at

-- No request of the attempt bears a later date, by the clock that requests are dated with; NULL where nothing was said.
ALTER TABLE progress ADD COLUMN not_after INTEGER;

ALTER TABLE history ADD COLUMN not_after INTEGER;

-- Rows that were started, where only which execution is whose cannot be told: the entry of the history that made the
-- group. Each holds one of its executions, so that it is nobody else's.
ALTER TABLE progress ADD COLUMN together INTEGER;

CREATE INDEX progress_together ON progress (together) WHERE together IS NOT NULL;

ALTER TABLE history ADD COLUMN ended_by_service INTEGER; -- 1 where the service ended it: nothing starts late then

-- The place, and what others started there.

-- Where a run is sent: the last entry of a run is where it belongs.
CREATE TABLE destinations (
    entry INTEGER PRIMARY KEY,
    run INTEGER NOT NULL,
    endpoint_url TEXT NOT NULL,
    region_name TEXT NOT NULL,
    account_id TEXT,
    at INTEGER NOT NULL,
    note TEXT -- why it is another than before
);

CREATE INDEX destinations_of_run ON destinations (run, entry);

-- Executions of a run's jobs that somebody else was seen to start.
CREATE TABLE foreign_executions (
    run INTEGER NOT NULL,
    execution_id TEXT NOT NULL,
    application_id TEXT NOT NULL,
    job TEXT NOT NULL, -- BatchJobIdentifier
    started_at INTEGER NOT NULL, -- by the service's clock
    PRIMARY KEY (run, execution_id)
) WITHOUT ROWID;

-- Those that began before then do not stop the run: somebody knows of them.
CREATE TABLE accepted (
    run INTEGER PRIMARY KEY,
    until INTEGER NOT NULL -- by the service's clock
);

-- What people want of a run.

-- An operator's stop or pause stays until it is taken back.
ALTER TABLE orders ADD COLUMN told_at INTEGER; -- when it was paused or stopped

-- Decisions that another process wants written; forgotten when the run is opened for writing.
CREATE TABLE asked (
    entry INTEGER PRIMARY KEY AUTOINCREMENT, -- never used again, as who asked may still look for the answer
    run INTEGER NOT NULL,
    deed TEXT NOT NULL,
    answer TEXT -- NULL until somebody takes it on, empty until it is carried out
);

CREATE INDEX asked_of_run ON asked (run);

-- Manifests that are given again.

-- What says which rows are the same (likeness in ledger/requests.py); NULL in rows of before, until they are compared.
ALTER TABLE jobs ADD COLUMN request INTEGER; -- that it was planned with

ALTER TABLE jobs ADD COLUMN named INTEGER; -- 0 where the manifest gave no key

CREATE INDEX jobs_by_request ON jobs (request, named);

-- Rows that the manifest has no more, or with another request: they are sent no more. One that surely did not start is
-- no row of the run any more.
CREATE TABLE withdrawn (
    id INTEGER PRIMARY KEY
);

-- The file.

-- The tag of the last commit (see commits.py, which finds it in the raw pages: name to before stand there one behind the
-- other).
CREATE TABLE commits (
    id INTEGER PRIMARY KEY, -- 1
    count INTEGER NOT NULL,
    name BLOB NOT NULL,
    ledger BLOB NOT NULL, -- random; of copies as well
    number BLOB NOT NULL, -- count, in 16 hexadecimal digits
    own BLOB NOT NULL, -- random
    before BLOB NOT NULL -- what was the own of the commit before
);

INSERT INTO commits (id, count, name, ledger, number, own, before)
VALUES (
    1,
    0,
    x'fffe6d3261732d746167ff',
    randomblob(8),
    CAST('0000000000000000' AS BLOB),
    randomblob(8),
    zeroblob(8)
);
