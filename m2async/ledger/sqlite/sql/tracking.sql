-- Executions after their start: what the service says of them, and by which rules they are judged.

-- name: observe
-- [row, execution_id, status, return_code, started_at, ended_at, seen_at, ended, gone]
-- Trackers in several processes may write in any order: what has ended stays so. What is gone has not ended for sure.
INSERT INTO executions (id, execution_id, status, return_code, started_at, ended_at, seen_at, ended, gone)
SELECT
    progress.id,
    progress.execution_id,
    json_extract(value, '$[2]'),
    json_extract(value, '$[3]'),
    json_extract(value, '$[4]'),
    json_extract(value, '$[5]'),
    json_extract(value, '$[6]'),
    json_extract(value, '$[7]'),
    json_extract(value, '$[8]')
FROM json_each(?)
INNER JOIN progress ON progress.id = json_extract(value, '$[0]') AND progress.execution_id = json_extract(value, '$[1]')
WHERE progress.state = 2
ON CONFLICT (id) DO UPDATE SET
    execution_id = excluded.execution_id,
    status = excluded.status,
    return_code = excluded.return_code,
    started_at = excluded.started_at,
    ended_at = excluded.ended_at,
    seen_at = excluded.seen_at,
    ended = excluded.ended,
    gone = excluded.gone
WHERE
    executions.execution_id <> excluded.execution_id
    OR executions.ended <= executions.gone
    OR excluded.ended > excluded.gone;

-- name: executions
-- What is the group's, of a row of one: its executions, and how they stand.
SELECT
    progress.id, jobs.key, jobs.application_id, jobs.job, progress.attempts, progress.adopted, progress.sent_at,
    progress.execution_id, executions.status, executions.return_code, executions.started_at, executions.ended_at,
    coalesce(executions.ended, 0), coalesce(executions.gone, 0),
    coalesce(rules.max_rc, (SELECT max_rc FROM rules WHERE id = :base)),
    progress.together,
    (SELECT execution_ids FROM grouped WHERE grouped.id = progress.id),
    (SELECT ends FROM grouped WHERE grouped.id = progress.id)
FROM progress
CROSS JOIN jobs ON jobs.id = progress.id
LEFT JOIN executions ON executions.id = progress.id AND executions.execution_id = progress.execution_id
LEFT JOIN rules ON rules.id = progress.id
WHERE
    progress.id BETWEEN :first AND :last AND progress.state = 2
    AND (:together IS NULL OR progress.together = :together)
    AND coalesce(executions.ended > executions.gone, 0) < :until
ORDER BY progress.id;

-- name: execution_counts
SELECT
    executions.status, executions.return_code, coalesce(executions.ended, 0) AS ended,
    coalesce(executions.gone, 0) AS gone,
    coalesce(rules.max_rc, (SELECT max_rc FROM rules WHERE id = :base)) AS max_rc, count(*),
    (SELECT ends FROM grouped WHERE grouped.id = progress.id) AS ends
FROM progress
LEFT JOIN executions ON executions.id = progress.id AND executions.execution_id = progress.execution_id
LEFT JOIN rules ON rules.id = progress.id
WHERE progress.id BETWEEN :base AND :last AND progress.state = 2
GROUP BY 1, 2, 3, 4, 5, ends
ORDER BY 1, 2, 3, 4, 5, ends;

-- name: of_group
SELECT min(id), max(id) FROM progress WHERE together = ?;

-- name: set_rule
INSERT INTO rules (id, max_rc) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET max_rc = excluded.max_rc;

-- name: note_restart
INSERT INTO restarts (id, attempt, execution_id, status, return_code, job)
SELECT progress.id, progress.attempts, progress.execution_id, executions.status, executions.return_code, jobs.job
FROM progress
INNER JOIN jobs ON jobs.id = progress.id
LEFT JOIN executions ON executions.id = progress.id AND executions.execution_id = progress.execution_id
WHERE
    progress.id = :id AND progress.state = 2 AND progress.attempts = :attempt AND progress.doubts = 0
    AND NOT EXISTS (SELECT 1 FROM withdrawn WHERE withdrawn.id = progress.id);

-- name: restart_history
INSERT INTO history (id, attempt, event, ended_at, execution_id, note, open)
SELECT id, attempts, :event, :at, execution_id, :note, 0 FROM progress WHERE id = :id;

-- name: restart_job
UPDATE jobs SET job = :job WHERE id = :id;

-- name: restart
UPDATE progress
SET state = 0, ended_at = :at, execution_id = NULL, request_id = NULL, adopted = 0, note = :note
WHERE id = :id;

-- name: forget_execution
DELETE FROM executions WHERE id = :id;
