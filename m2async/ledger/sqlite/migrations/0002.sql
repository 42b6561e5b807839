-- Schema version 2: what the service says of the executions that were started.

-- Written by whoever tracks the run, also while another process submits it: so nothing here is read to submit.
CREATE TABLE executions (
    id INTEGER PRIMARY KEY, -- the row
    execution_id TEXT NOT NULL,
    status TEXT, -- as the service words it; NULL if the execution was never seen
    return_code TEXT,
    started_at INTEGER,
    ended_at INTEGER,
    seen_at INTEGER NOT NULL,
    ended INTEGER NOT NULL, -- 1 once it can no longer change
    gone INTEGER NOT NULL -- 1 once the service does not know it any more
);

-- The greatest return code of a success: of a row, or with the id run * 2^32 of a whole run.
CREATE TABLE rules (
    id INTEGER PRIMARY KEY,
    max_rc INTEGER NOT NULL
);

-- Executions that were restarted: what they were, while jobs has what was started in their place.
CREATE TABLE restarts (
    entry INTEGER PRIMARY KEY,
    id INTEGER NOT NULL, -- the row
    attempt INTEGER NOT NULL, -- its last before the restart
    execution_id TEXT NOT NULL,
    status TEXT,
    return_code TEXT,
    job TEXT NOT NULL -- BatchJobIdentifier before the restart
);

CREATE INDEX restarts_of_row ON restarts (id);

CREATE INDEX restarts_by_execution ON restarts (execution_id);
