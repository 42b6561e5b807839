-- Where a run is sent, and what others may have started there.

-- name: standing_of_run
-- Whether anything was, or may have been, started by the run; and how many of its rows have attempts in doubt.
SELECT
    EXISTS (SELECT 1 FROM progress WHERE id BETWEEN :first AND :last AND state IN (1, 2, 4))
    OR EXISTS (SELECT 1 FROM restarts WHERE id BETWEEN :first AND :last),
    (
        SELECT count(*)
        FROM (
            SELECT id FROM progress WHERE state IN (1, 4) AND state = 1 AND id BETWEEN :first AND :last
            UNION
            SELECT id FROM history WHERE open = 1 AND id BETWEEN :first AND :last
        )
    );

-- name: add_destination
INSERT INTO destinations (run, endpoint_url, region_name, account_id, at, note) VALUES (?, ?, ?, ?, ?, ?);

-- name: forget_destinations
DELETE FROM destinations WHERE run = ?;

-- name: applications
-- Bit n of :states asks for the rows of state n.
SELECT DISTINCT jobs.application_id AS named
FROM jobs
LEFT JOIN progress ON progress.id = jobs.id
WHERE jobs.id BETWEEN :first AND :last AND (:states >> coalesce(progress.state, 0)) & 1
ORDER BY named;

-- name: named_jobs
-- What is given and found of a restart is the execution that it restarts, whatever the steps. Bit n of :states asks for
-- the rows of state n.
SELECT DISTINCT
    iif(
        jobs.job GLOB '{"restartBatchJobIdentifier"*',
        jobs.job ->> '$.restartBatchJobIdentifier.executionId',
        jobs.job
    ) AS identifier
FROM jobs
LEFT JOIN progress ON progress.id = jobs.id
WHERE
    jobs.id BETWEEN :first AND :last
    AND jobs.application_id = :application_id
    AND identifier IN (SELECT value FROM json_each(:given))
    AND (:states >> coalesce(progress.state, 0)) & 1;

-- name: last_sent
-- By each clock. Not when an attempt ended: where a crash or a decision ended it, that is a time of later than the
-- ledger's last send.
SELECT clock, max(at)
FROM (
    SELECT clock, max(sent_at) AS at FROM progress WHERE id BETWEEN :first AND :last GROUP BY clock
    UNION ALL
    SELECT clock, max(sent_at)
    FROM history
    WHERE sent_at IS NOT NULL AND id BETWEEN :first AND :last
    GROUP BY clock
)
GROUP BY clock;

-- name: accept
INSERT INTO accepted (run, until) VALUES (?, ?) ON CONFLICT (run) DO UPDATE SET until = max(until, excluded.until);

-- name: accepted
SELECT until FROM accepted WHERE run = ?;

-- name: forget_accepted
DELETE FROM accepted WHERE run = ?;

-- name: claimed_once
SELECT progress.execution_id
FROM progress
INNER JOIN jobs ON jobs.id = progress.id
WHERE progress.execution_id IN (SELECT value FROM json_each(:given)) AND jobs.application_id = :application_id
UNION
SELECT restarts.execution_id
FROM restarts
INNER JOIN jobs ON jobs.id = restarts.id
WHERE restarts.execution_id IN (SELECT value FROM json_each(:given)) AND jobs.application_id = :application_id;

-- name: is_new
SELECT NOT EXISTS (SELECT 1 FROM runs);
