-- Runs: making, planning and opening them.

-- name: make_run
INSERT OR IGNORE INTO runs (name, created_at) VALUES (?, ?);

-- name: run
SELECT * FROM run_infos WHERE name = ?;

-- name: last_of_digest
SELECT name FROM runs WHERE digest = ? AND planned ORDER BY id DESC;

-- name: all_runs
SELECT * FROM run_infos ORDER BY id;

-- name: note_foreign
INSERT OR IGNORE INTO foreign_executions (run, execution_id, application_id, job, started_at) VALUES (?, ?, ?, ?, ?);

-- name: foreign
SELECT execution_id, application_id, job, started_at FROM foreign_executions WHERE run = ? ORDER BY started_at;

-- name: latest_time
-- The latest time of the run's open attempts and of the rows that were attempted last; NULL if there is no open attempt
-- whose clock nobody compared with the service's.
SELECT iif(sum(open), max(at), NULL)
FROM (
    SELECT max(sent_at) AS at, sum(clocks.least IS NULL) AS open
    FROM progress
    LEFT JOIN clocks ON clocks.id = progress.clock
    WHERE state IN (1, 4) AND state = 1 AND progress.id BETWEEN :first AND :last
    UNION ALL
    SELECT max(max(coalesce(sent_at, 0), ended_at)), sum(clocks.least IS NULL)
    FROM history
    LEFT JOIN clocks ON clocks.id = history.clock
    WHERE open = 1 AND history.id BETWEEN :first AND :last
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
INSERT INTO history (id, attempt, event, sent_at, clock, not_after, ended_at, ended_clock, code, message, open)
SELECT id, attempts, :event, sent_at, clock, not_after, :at, :clock, :code, :message, 1
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

-- name: clear_order
DELETE FROM dependencies WHERE id BETWEEN ? AND ?;

-- name: plan_row
INSERT INTO jobs (id, run, key, application_id, job, params, secret, request, named)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: planned
UPDATE runs SET planned = 1, rows = ?, manifest = ?, digest = ? WHERE id = ?;

-- name: id_of_key
SELECT id FROM jobs WHERE run = ? AND key = ?;

-- name: planned_row
SELECT
    id, application_id,
    coalesce((SELECT job FROM restarts WHERE restarts.id = jobs.id ORDER BY entry LIMIT 1), job), params, secret
FROM jobs
WHERE run = ? AND key = ?;
