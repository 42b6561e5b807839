-- Reading back, through the views of views.sql.

-- name: page
-- Bit n of :states asks for the rows of state n.
SELECT *
FROM ledger_rows
WHERE id > :after AND id <= :last AND (:states >> coalesce(state, 0)) & 1
ORDER BY id
LIMIT :limit;

-- name: page_of_open
-- The same, where only INTENT and UNKNOWN are asked for.
SELECT *
FROM ledger_rows
WHERE id IN (
    SELECT id
    FROM progress
    WHERE state IN (1, 4) AND id > :after AND id <= :last AND (:states >> state) & 1
    ORDER BY id
    LIMIT :limit
)
ORDER BY id;

-- name: row
SELECT *
FROM ledger_rows
WHERE id = (SELECT id FROM jobs WHERE run = :run AND key = :key AND id <= :last);

-- name: counts
SELECT state, count(*) FROM progress WHERE id BETWEEN ? AND ? GROUP BY state;

-- name: gone
-- The rows that are none any more, by state.
SELECT state, count(*) FROM gone WHERE id BETWEEN ? AND ? GROUP BY state;

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
