-- Reading back. Rows come as the columns of LedgerRow, its request as its four columns.

-- name: page
-- Bit n of :states asks for the rows of state n.
SELECT
    jobs.id, jobs.key, jobs.application_id, jobs.job, jobs.params, jobs.secret,
    progress.state, progress.attempts, progress.doubts, progress.sent_at, progress.ended_at, progress.execution_id,
    progress.request_id, progress.adopted, progress.code, progress.message, progress.candidates, progress.note
FROM jobs
LEFT JOIN progress ON progress.id = jobs.id
WHERE jobs.id > :after AND jobs.id <= :last AND (:states >> coalesce(progress.state, 0)) & 1
ORDER BY jobs.id
LIMIT :limit;

-- name: page_of_open
-- The same, where only INTENT and UNKNOWN are asked for.
SELECT
    jobs.id, jobs.key, jobs.application_id, jobs.job, jobs.params, jobs.secret,
    progress.state, progress.attempts, progress.doubts, progress.sent_at, progress.ended_at, progress.execution_id,
    progress.request_id, progress.adopted, progress.code, progress.message, progress.candidates, progress.note
FROM progress
INNER JOIN jobs ON jobs.id = progress.id
WHERE
    progress.state IN (1, 4)
    AND progress.id > :after AND progress.id <= :last AND (:states >> progress.state) & 1
ORDER BY progress.id
LIMIT :limit;

-- name: row
SELECT
    jobs.id, jobs.key, jobs.application_id, jobs.job, jobs.params, jobs.secret,
    progress.state, progress.attempts, progress.doubts, progress.sent_at, progress.ended_at, progress.execution_id,
    progress.request_id, progress.adopted, progress.code, progress.message, progress.candidates, progress.note
FROM jobs
LEFT JOIN progress ON progress.id = jobs.id
WHERE jobs.run = :run AND jobs.key = :key AND jobs.id <= :last;

-- name: counts
SELECT state, count(*) FROM progress WHERE id BETWEEN ? AND ? GROUP BY state;

-- name: history
SELECT attempt, event, sent_at, ended_at, code, message, request_id, execution_id, note, open
FROM history
WHERE id = ?
ORDER BY entry;

-- name: open_attempts
SELECT
    runs.id AS run, runs.name, attempts.id, jobs.key, attempts.attempt, attempts.state,
    jobs.job, attempts.sent_at, attempts.ended_at
FROM (
    SELECT history.id, history.attempt, progress.state, history.sent_at, history.ended_at
    FROM history
    INNER JOIN progress ON progress.id = history.id
    WHERE history.open = 1
    UNION ALL
    SELECT id, attempts, state, sent_at, NULL
    FROM progress
    WHERE state IN (1, 4) AND state = 1
) AS attempts
CROSS JOIN jobs ON jobs.id = attempts.id
CROSS JOIN runs ON runs.id = jobs.run
WHERE jobs.application_id = ?
ORDER BY attempts.id, attempts.attempt;

-- name: claimed
SELECT DISTINCT given.value
FROM json_each(:given) AS given
CROSS JOIN progress ON progress.execution_id = given.value
INNER JOIN jobs ON jobs.id = progress.id
WHERE jobs.application_id = :application_id
UNION
SELECT given.value
FROM json_each(:given) AS given
CROSS JOIN restarts ON restarts.execution_id = given.value
INNER JOIN jobs ON jobs.id = restarts.id
WHERE jobs.application_id = :application_id;
