-- How a run went: what was answered when, and after how long. Times are microseconds of the epoch.
-- An answer that started a job is in progress, as long as it holds: as 7, claimed, if its execution, or that of its group,
-- was found later. The history has every other answer (events of states.py: 3 refused, 4 rejected, 5 unknown, 6 crash).

-- name: span
SELECT min(sent_at), max(max(sent_at, coalesce(ended_at, 0)))
FROM (
    SELECT sent_at, ended_at FROM progress WHERE id BETWEEN :first AND :last
    UNION ALL
    SELECT sent_at, ended_at FROM history WHERE sent_at IS NOT NULL AND id BETWEEN :first AND :last
);

-- name: activity
SELECT at / :width AS stretch, event, code, count(*)
FROM (
    SELECT
        ended_at AS at,
        iif(
            together IS NOT NULL
            OR (id, execution_id) IN (
                SELECT id, execution_id FROM history WHERE event = 7 AND id BETWEEN :first AND :last
            ), 7, 2
        ) AS event,
        NULL AS code
    FROM progress
    WHERE id BETWEEN :first AND :last AND state = 2
    UNION ALL
    SELECT ended_at, event, code FROM history WHERE event BETWEEN 3 AND 6 AND id BETWEEN :first AND :last
)
GROUP BY 1, 2, 3
ORDER BY 1, 2, 3;

-- name: latencies
SELECT (ended_at - sent_at + 50) / 100 AS tenths_of_ms, count(*)
FROM (
    SELECT sent_at, ended_at
    FROM progress
    WHERE
        id BETWEEN :first AND :last AND state = 2
        AND together IS NULL
        AND (id, execution_id) NOT IN (
            SELECT id, execution_id FROM history WHERE event = 7 AND id BETWEEN :first AND :last
        )
    UNION ALL
    SELECT sent_at, ended_at FROM history WHERE event BETWEEN 3 AND 5 AND id BETWEEN :first AND :last
)
GROUP BY 1
ORDER BY 1;
