-- Writes of rows. Each takes a JSON array of arrays, one for each row, and changes only rows that stand where
-- the write says: the caller compares how many rows were changed with how many were given.

-- name: first_intent
-- [id, sent_at]
INSERT OR IGNORE INTO progress (id, state, attempts, sent_at)
SELECT json_extract(value, '$[0]'), 1, 1, json_extract(value, '$[1]')
FROM json_each(?);

-- name: further_intent
-- [id, attempt, state that it must be in, sent_at]
UPDATE progress
SET state = 1, attempts = given.attempt, sent_at = given.sent_at, ended_at = NULL
FROM (
    SELECT
        json_extract(value, '$[0]') AS id,
        json_extract(value, '$[1]') AS attempt,
        json_extract(value, '$[2]') AS state,
        json_extract(value, '$[3]') AS sent_at
    FROM json_each(?)
) AS given
WHERE progress.id = given.id AND progress.state = given.state AND progress.attempts = given.attempt - 1;

-- name: ended
-- [id, attempt, next state, next state with an earlier attempt in doubt, doubts more, ended_at,
--  execution_id, request_id, code, message, event]
-- Where an earlier doubt decides the state, its error stays.
UPDATE progress
SET
    state = iif(progress.doubts, given.state_in_doubt, given.state),
    doubts = progress.doubts + given.doubts,
    ended_at = given.ended_at,
    execution_id = given.execution_id,
    request_id = given.request_id,
    code = iif(progress.doubts AND given.state_in_doubt <> given.state, progress.code, given.code),
    message = iif(progress.doubts AND given.state_in_doubt <> given.state, progress.message, given.message)
FROM (
    SELECT
        json_extract(value, '$[0]') AS id,
        json_extract(value, '$[1]') AS attempt,
        json_extract(value, '$[2]') AS state,
        json_extract(value, '$[3]') AS state_in_doubt,
        json_extract(value, '$[4]') AS doubts,
        json_extract(value, '$[5]') AS ended_at,
        json_extract(value, '$[6]') AS execution_id,
        json_extract(value, '$[7]') AS request_id,
        json_extract(value, '$[8]') AS code,
        json_extract(value, '$[9]') AS message
    FROM json_each(?)
) AS given
WHERE progress.id = given.id AND progress.state = 1 AND progress.attempts = given.attempt;

-- name: history_of_ended
-- The same arrays, after `ended`.
INSERT INTO history (id, attempt, event, sent_at, ended_at, code, message, request_id, open)
SELECT
    progress.id,
    progress.attempts,
    json_extract(value, '$[10]'),
    progress.sent_at,
    json_extract(value, '$[5]'),
    json_extract(value, '$[8]'),
    json_extract(value, '$[9]'),
    json_extract(value, '$[7]'),
    json_extract(value, '$[4]')
FROM json_each(?)
CROSS JOIN progress ON progress.id = json_extract(value, '$[0]');

-- name: add
-- [id, run, key, application_id, job, params, secret]
INSERT OR IGNORE INTO jobs (id, run, key, application_id, job, params, secret)
SELECT
    json_extract(value, '$[0]'),
    json_extract(value, '$[1]'),
    json_extract(value, '$[2]'),
    json_extract(value, '$[3]'),
    json_extract(value, '$[4]'),
    json_extract(value, '$[5]'),
    json_extract(value, '$[6]')
FROM json_each(?);

-- name: count_added
UPDATE runs SET rows = ? WHERE id = ?;
