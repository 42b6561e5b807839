-- Writes of single rows: what was found out or decided about an attempt after it ended.
--
-- An attempt's entry in the history is open = 1 while it is in doubt, and -1 where what was decided of it since
-- something was sent last can be taken back.

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

-- name: attempt_in_doubt
SELECT 1
FROM history
INNER JOIN progress ON progress.id = history.id
WHERE history.id = :id AND history.attempt = :attempt AND history.open = 1 AND progress.state = 4;

-- name: last_in_doubt
SELECT max(attempt) FROM history WHERE id = :id AND open = 1;

-- name: settle_attempt
UPDATE history SET open = -1 WHERE id = :id AND attempt = :attempt AND open = 1;

-- name: settle_row
UPDATE history SET open = -1 WHERE id = :id AND open = 1;

-- name: forget_settled
UPDATE history SET open = 0 WHERE id = :id AND open = -1;

-- name: unsettle
UPDATE history SET open = 1 WHERE id = :id AND open = -1;

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

-- name: alone_in_doubt
SELECT 1
FROM history
INNER JOIN progress ON progress.id = history.id
WHERE
    history.id = :id AND history.attempt = :attempt AND history.open = 1
    AND progress.state = 4 AND progress.doubts = 1 AND progress.together IS NULL;

-- name: group
UPDATE progress
SET
    state = 2,
    doubts = 0,
    ended_at = :at,
    execution_id = :execution_id,
    request_id = NULL,
    adopted = 1,
    code = NULL,
    message = NULL,
    candidates = NULL,
    note = :note,
    together = :together
WHERE id = :id AND state = 4;

-- name: group_of
SELECT together, execution_id FROM progress WHERE id = :id AND state = 2 AND together IS NOT NULL;

-- name: of_group
-- Its rows: all of them can be told anew as long as none was restarted.
SELECT progress.id, progress.attempts, progress.execution_id
FROM progress
WHERE
    progress.together = :together
    AND NOT EXISTS (
        SELECT 1
        FROM progress AS one
        INNER JOIN restarts ON restarts.id = one.id
        WHERE one.together = :together
    )
ORDER BY progress.id;

-- name: exchange
-- Two rows of a group hold each the other's execution.
UPDATE progress
SET execution_id = iif(id = :id, :its, :others)
WHERE id IN (:id, :other);

-- name: exchange_seen
UPDATE executions SET id = -id WHERE id IN (:id, :other);

-- name: exchanged_seen
UPDATE executions SET id = iif(id = -:id, :other, :id) WHERE id IN (-:id, -:other);

-- name: leave_group
UPDATE progress
SET together = NULL, adopted = :inferred, note = :note
WHERE id = :id;

-- name: not_started
UPDATE progress
SET state = 0, doubts = 0, candidates = NULL, note = :note
WHERE id = :id AND state = 4 AND attempts = :attempt;

-- name: confirm
UPDATE progress
SET doubts = 0, candidates = NULL, note = :note
WHERE id = :id AND state = 2 AND attempts = :attempt AND doubts > 0;

-- name: decided
-- Where a row stands, and whether that is what was decided of a doubt (events of states.py: 7 claimed, 8 not started,
-- 16 grouped), with nothing sent since; to be tried again (9), given up (10) or confirmed (13) changes nothing about
-- that.
SELECT
    progress.state, progress.doubts, iif(progress.together IS NULL, progress.execution_id, NULL),
    coalesce(
        iif(
            progress.state = 2,
            last.event = 16 OR (last.event = 7 AND last.execution_id = progress.execution_id),
            progress.state IN (0, 3) AND last.event = 8
        ), 0
    )
FROM progress
LEFT JOIN history AS last ON last.entry = (
    SELECT max(entry) FROM history WHERE history.id = progress.id AND event NOT IN (9, 10, 13)
)
WHERE progress.id = :id AND progress.attempts = :attempt;

-- name: take_back
UPDATE progress
SET
    state = 4,
    doubts = progress.doubts + taken_back.attempts,
    execution_id = NULL,
    request_id = NULL,
    adopted = 0,
    together = NULL,
    candidates = coalesce(:candidates, progress.candidates),
    code = taken_back.code,
    message = taken_back.message,
    note = :note
FROM (
    SELECT count(*) AS attempts, code, message, max(entry) FROM history WHERE id = :id AND open = -1
) AS taken_back
WHERE progress.id = :id AND progress.attempts = :attempt;

-- name: retry
UPDATE progress SET state = 0, note = :note WHERE id = :id AND state = 3 AND attempts = :attempt;

-- name: give_up
UPDATE progress SET state = 3, note = :note WHERE id = :id AND state = 0 AND attempts = :attempt AND attempts > 0;

-- name: candidates
UPDATE progress SET candidates = :candidates WHERE id = :id AND doubts > 0;

-- name: decision
INSERT INTO history (id, attempt, event, ended_at, execution_id, note, open)
VALUES (:id, :attempt, :event, :at, :execution_id, :note, 0);

-- name: standing
SELECT state, attempts, doubts FROM progress WHERE id = ?;
