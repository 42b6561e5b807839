-- Writes of single rows: what was found out or decided about an attempt after it ended.

-- name: index_executions
-- Made only where executions are looked up, because keeping it makes a row's result several times as dear.
CREATE INDEX IF NOT EXISTS progress_by_execution ON progress (execution_id) WHERE execution_id IS NOT NULL;

-- name: holder_of_execution
SELECT runs.name, jobs.key
FROM (
    SELECT id FROM progress WHERE execution_id = :execution_id
    UNION ALL
    SELECT id FROM restarts WHERE execution_id = :execution_id
) AS holders
INNER JOIN jobs ON jobs.id = holders.id
INNER JOIN runs ON runs.id = jobs.run
LIMIT 1;

-- name: settle_attempt
UPDATE history SET open = 0
WHERE id = :id AND attempt = :attempt AND open = 1
AND EXISTS (SELECT 1 FROM progress WHERE progress.id = :id AND progress.state = 4);

-- name: claim
UPDATE progress
SET
    state = 2,
    doubts = doubts - 1,
    ended_at = :at,
    execution_id = :execution_id,
    request_id = NULL,
    adopted = :inferred,
    code = NULL,
    message = NULL,
    candidates = NULL,
    note = :note
WHERE id = :id AND state = 4;

-- name: not_started
UPDATE progress
SET state = 0, doubts = 0, candidates = NULL, note = :note
WHERE id = :id AND state = 4 AND attempts = :attempt;

-- name: settle_row
UPDATE history SET open = 0 WHERE id = :id AND open = 1;

-- name: retry
UPDATE progress SET state = 0, note = :note WHERE id = :id AND state = 3 AND attempts = :attempt;

-- name: give_up
UPDATE progress SET state = 3, note = :note WHERE id = :id AND state = 0 AND attempts = :attempt;

-- name: candidates
UPDATE progress SET candidates = :candidates WHERE id = :id AND doubts > 0;

-- name: decision
INSERT INTO history (id, attempt, event, ended_at, execution_id, note, open)
VALUES (:id, :attempt, :event, :at, :execution_id, :note, 0);

-- name: standing
SELECT state, attempts, doubts FROM progress WHERE id = ?;
