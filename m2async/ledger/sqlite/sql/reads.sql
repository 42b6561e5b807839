-- Reading back. Rows come as the columns of LedgerRow, its request as its four columns. A row of a group has no
-- execution of its own, but the group's as candidates.

-- name: page
-- Bit n of :states asks for the rows of state n.
SELECT
    jobs.id, jobs.key, jobs.application_id, jobs.job, jobs.params, jobs.secret,
    progress.state, progress.attempts, progress.doubts, progress.sent_at, progress.ended_at,
    iif(progress.together IS NULL, progress.execution_id, NULL),
    progress.request_id, progress.adopted, progress.code, progress.message,
    iif(
        progress.state = 2 AND progress.together IS NOT NULL,
        (
            SELECT json_group_array(execution_id)
            FROM (
                SELECT one.execution_id
                FROM progress AS one
                WHERE one.together = progress.together AND one.execution_id IS NOT NULL
                ORDER BY one.execution_id
            )
        ),
        progress.candidates
    ),
    progress.note
FROM jobs
LEFT JOIN progress ON progress.id = jobs.id
WHERE
    jobs.id > :after AND jobs.id <= :last AND (:states >> coalesce(progress.state, 0)) & 1
    AND NOT EXISTS (
        SELECT 1 FROM withdrawn WHERE withdrawn.id = jobs.id AND coalesce(progress.state, 0) IN (0, 3)
    )
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
    progress.state, progress.attempts, progress.doubts, progress.sent_at, progress.ended_at,
    iif(progress.together IS NULL, progress.execution_id, NULL),
    progress.request_id, progress.adopted, progress.code, progress.message,
    iif(
        progress.state = 2 AND progress.together IS NOT NULL,
        (
            SELECT json_group_array(execution_id)
            FROM (
                SELECT one.execution_id
                FROM progress AS one
                WHERE one.together = progress.together AND one.execution_id IS NOT NULL
                ORDER BY one.execution_id
            )
        ),
        progress.candidates
    ),
    progress.note
FROM jobs
LEFT JOIN progress ON progress.id = jobs.id
WHERE
    jobs.run = :run AND jobs.key = :key AND jobs.id <= :last
    AND NOT EXISTS (
        SELECT 1 FROM withdrawn WHERE withdrawn.id = jobs.id AND coalesce(progress.state, 0) IN (0, 3)
    );

-- name: counts
SELECT state, count(*) FROM progress WHERE id BETWEEN ? AND ? GROUP BY state;

-- name: gone
-- The rows that are none any more, by state.
SELECT coalesce(progress.state, 0), count(*)
FROM withdrawn
LEFT JOIN progress ON progress.id = withdrawn.id
WHERE withdrawn.id BETWEEN ? AND ? AND coalesce(progress.state, 0) IN (0, 3)
GROUP BY 1;

-- name: history
SELECT attempt, event, sent_at, ended_at, code, message, request_id, iif(event = 16, NULL, execution_id), note, open
FROM history
WHERE id = ?
ORDER BY entry;

-- name: open_attempts
SELECT
    runs.id AS run, runs.name, attempts.id, jobs.key, attempts.attempt, attempts.state,
    jobs.job, attempts.sent_at, attempts.clock, attempts.ended_at, attempts.ended_clock, attempts.not_after,
    attempts.ended_by_service, destinations.endpoint_url, destinations.region_name, destinations.account_id
FROM (
    SELECT
        history.id, history.attempt, progress.state, history.sent_at, history.clock,
        history.ended_at, history.ended_clock, history.not_after, history.ended_by_service
    FROM history
    INNER JOIN progress ON progress.id = history.id
    WHERE history.open = 1
    UNION ALL
    SELECT id, attempts, state, sent_at, clock, NULL, NULL, not_after, NULL
    FROM progress
    WHERE state IN (1, 4) AND state = 1
) AS attempts
CROSS JOIN jobs ON jobs.id = attempts.id
CROSS JOIN runs ON runs.id = jobs.run
LEFT JOIN destinations ON entry = (SELECT max(last.entry) FROM destinations AS last WHERE last.run = runs.id)
WHERE jobs.application_id = ?
ORDER BY attempts.id, attempts.attempt;

-- name: answered_near
-- Answered attempts of rows near the given ones, the nearest in the manifest; never those of a restart.
-- Those before and those behind are read apart, each no further than to as many as are wanted.
SELECT progress.execution_id, jobs.job, progress.sent_at, progress.ended_at, progress.clock
FROM (
    SELECT id
    FROM (
        SELECT progress.id
        FROM progress
        CROSS JOIN jobs ON jobs.id = progress.id
        WHERE
            progress.id BETWEEN :first AND :near
            AND +progress.state = 2 AND progress.adopted = 0
            AND jobs.application_id = :application_id
            AND NOT EXISTS (SELECT 1 FROM restarts WHERE restarts.id = progress.id)
        ORDER BY progress.id DESC
        LIMIT :limit
    )
    UNION ALL
    SELECT id
    FROM (
        SELECT progress.id
        FROM progress
        CROSS JOIN jobs ON jobs.id = progress.id
        WHERE
            progress.id > :near AND progress.id <= :last
            AND +progress.state = 2 AND progress.adopted = 0
            AND jobs.application_id = :application_id
            AND NOT EXISTS (SELECT 1 FROM restarts WHERE restarts.id = progress.id)
        ORDER BY progress.id
        LIMIT :limit
    )
) AS near
INNER JOIN progress ON progress.id = near.id
INNER JOIN jobs ON jobs.id = near.id
ORDER BY abs(near.id - :near)
LIMIT :limit;

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
