-- Jobs without keys: the nth of a request within one pass is the nth row of that request without a key.

-- name: without_likeness
-- Rows of before. What was restarted was planned with the job that it had first; a key that is the row's number counts
-- as none.
SELECT
    id, key, application_id,
    coalesce((SELECT job FROM restarts WHERE restarts.id = jobs.id ORDER BY entry LIMIT 1), job), params, secret,
    key = CAST(id & 0xFFFFFFFF AS TEXT)
FROM jobs
WHERE request IS NULL
LIMIT 10000;

-- name: set_likeness
UPDATE jobs SET request = ?, named = ? WHERE id = ?;

-- name: make_counted
-- The row that was given last, for each request of each pass.
CREATE TEMP TABLE IF NOT EXISTS counted (
    pass INTEGER NOT NULL,
    request INTEGER NOT NULL,
    last INTEGER NOT NULL,
    PRIMARY KEY (pass, request)
) WITHOUT ROWID;

-- name: find
-- [pass, request, base, last id of the run], one for each job; gives the next rows of each request of each pass, as many
-- as there are jobs, or as there are rows.
WITH RECURSIVE
asked (pass, request, base, end, jobs) AS MATERIALIZED (
    SELECT
        json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
        json_extract(value, '$[3]'), count(*)
    FROM json_each(?)
    GROUP BY 1, 2
),
found (pass, request, end, jobs, id) AS (
    SELECT
        asked.pass, asked.request, asked.end, asked.jobs,
        (
            SELECT jobs.id
            FROM jobs
            WHERE
                jobs.request = asked.request AND jobs.named = 0 AND jobs.id <= asked.end
                AND jobs.id > coalesce(
                    (SELECT last FROM temp.counted WHERE pass = asked.pass AND request = asked.request), asked.base
                )
                AND NOT EXISTS (SELECT 1 FROM gone WHERE gone.id = jobs.id)
            ORDER BY jobs.id
            LIMIT 1
        )
    FROM asked
    UNION ALL
    SELECT
        found.pass, found.request, found.end, found.jobs - 1,
        (
            SELECT jobs.id
            FROM jobs
            WHERE
                jobs.request = found.request AND jobs.named = 0 AND jobs.id <= found.end
                AND jobs.id > found.id
                AND NOT EXISTS (SELECT 1 FROM gone WHERE gone.id = jobs.id)
            ORDER BY jobs.id
            LIMIT 1
        )
    FROM found
    WHERE found.jobs > 1 AND found.id IS NOT NULL
)
SELECT found.pass, found.request, ledger_rows.*
FROM found
CROSS JOIN ledger_rows
WHERE ledger_rows.id = found.id
ORDER BY found.id;

-- name: count
-- [pass, request, id]
INSERT INTO temp.counted (pass, request, last)
SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), max(json_extract(value, '$[2]'))
FROM json_each(?)
GROUP BY 1, 2
ON CONFLICT (pass, request) DO UPDATE SET last = excluded.last;

-- name: forget
DELETE FROM temp.counted WHERE pass IN (SELECT value FROM json_each(?));

-- name: has_key
SELECT EXISTS (SELECT 1 FROM jobs WHERE run = ? AND key = ?);
