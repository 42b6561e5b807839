-- Runs: making, planning and opening them.

-- name: make_run
INSERT OR IGNORE INTO runs (name, created_at) VALUES (?, ?);

-- name: run
SELECT id, name, manifest, digest, planned, rows, created_at FROM runs WHERE name = ?;

-- name: all_runs
SELECT id, name, manifest, digest, planned, rows, created_at FROM runs ORDER BY id;

-- name: latest_time
-- The latest time of the run's open attempts and of the rows that were attempted last; NULL if no attempt is open.
SELECT iif(sum(open), max(at), NULL)
FROM (
    SELECT max(sent_at) AS at, count(*) AS open
    FROM progress
    WHERE state IN (1, 4) AND state = 1 AND id BETWEEN :first AND :last
    UNION ALL
    SELECT max(max(coalesce(sent_at, 0), ended_at)), count(*)
    FROM history
    WHERE open = 1 AND id BETWEEN :first AND :last
    UNION ALL
    SELECT max(at), 0
    FROM (
        SELECT max(sent_at, coalesce(ended_at, 0)) AS at
        FROM progress
        WHERE id BETWEEN :first AND :last
        ORDER BY id DESC
        LIMIT 1000
    )
);

-- name: crashed_attempts
INSERT INTO history (id, attempt, event, sent_at, ended_at, code, message, open)
SELECT id, attempts, :event, sent_at, :at, :code, :message, 1
FROM progress
WHERE state IN (1, 4) AND state = 1 AND id BETWEEN :first AND :last;

-- name: crashed_rows
UPDATE progress
SET state = 4, doubts = doubts + 1, ended_at = :at, code = :code, message = :message
WHERE state IN (1, 4) AND state = 1 AND id BETWEEN :first AND :last;

-- name: remove_run
DELETE FROM runs WHERE id = ? AND planned = 0 AND rows = 0;

-- name: clear_plan
DELETE FROM jobs WHERE id BETWEEN ? AND ?;

-- name: plan_row
INSERT INTO jobs (id, run, key, application_id, job, params, secret) VALUES (?, ?, ?, ?, ?, ?, ?);

-- name: planned
UPDATE runs SET planned = 1, rows = ?, manifest = ?, digest = ? WHERE id = ?;

-- name: id_of_key
SELECT id FROM jobs WHERE run = ? AND key = ?;

-- name: planned_rows
-- A row that was restarted was planned with the job that it had first.
SELECT
    key, application_id,
    coalesce((SELECT job FROM restarts WHERE restarts.id = jobs.id ORDER BY entry LIMIT 1), job), params, secret
FROM jobs
WHERE id BETWEEN ? AND ?
ORDER BY id;

-- name: planned_row
SELECT
    id, application_id,
    coalesce((SELECT job FROM restarts WHERE restarts.id = jobs.id ORDER BY entry LIMIT 1), job), params, secret
FROM jobs
WHERE run = ? AND key = ?;

-- name: planned_key
SELECT key FROM jobs WHERE id = ?;
