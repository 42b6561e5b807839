-- Rows added to a run that has no manifest, as a JSON array of arrays: the caller compares how many rows were added
-- with how many were given.

-- name: add
-- [id, run, key, application_id, job, params, secret, request, named]
INSERT OR IGNORE INTO jobs (id, run, key, application_id, job, params, secret, request, named)
SELECT
    json_extract(value, '$[0]'),
    json_extract(value, '$[1]'),
    json_extract(value, '$[2]'),
    json_extract(value, '$[3]'),
    json_extract(value, '$[4]'),
    json_extract(value, '$[5]'),
    json_extract(value, '$[6]'),
    json_extract(value, '$[7]'),
    json_extract(value, '$[8]')
FROM json_each(?);

-- name: count_added
UPDATE runs SET rows = ? WHERE id = ?;

-- name: attempts
-- See attempts.sql.
INSERT INTO attempts (first_intents, further_intents, ended, ended_otherwise, is_commit) VALUES (?, ?, ?, ?, ?);

-- name: tag_commit
-- See commits.py; attempts.sql does the same for what it commits.
UPDATE commits
SET count = count + 1, number = CAST(printf('%016x', count + 1) AS BLOB), own = randomblob(8), before = own;
