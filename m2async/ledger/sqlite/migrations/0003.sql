-- Schema version 3: which rows start only after others.

CREATE TABLE dependencies (
    id INTEGER NOT NULL, -- the row
    after INTEGER NOT NULL, -- the row that it comes after
    PRIMARY KEY (id, after)
) WITHOUT ROWID;
