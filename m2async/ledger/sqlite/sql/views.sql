-- Made in each connection: what several statements ask for. They stand in no file, so they are no part of the schema, and
-- see an older one as its tables are shown.

-- Rows that were withdrawn and are PENDING or REJECTED: they surely did not start, and are rows of the run no more.
CREATE TEMP VIEW gone (id, state, doubts) AS
SELECT withdrawn.id, coalesce(progress.state, 0), coalesce(progress.doubts, 0)
FROM withdrawn
LEFT JOIN progress ON progress.id = withdrawn.id
WHERE coalesce(progress.state, 0) IN (0, 3);

-- What the rows of a group share: their executions, and how those stand.
CREATE TEMP VIEW grouped (id, execution_ids, ends) AS
SELECT
    progress.id,
    (
        SELECT json_group_array(execution_id)
        FROM (
            SELECT one.execution_id
            FROM progress AS one
            WHERE one.together = progress.together AND one.execution_id IS NOT NULL
            ORDER BY one.execution_id
        )
    ),
    (
        SELECT '[' || group_concat(DISTINCT json_array(
            one.state, seen.status, seen.return_code, coalesce(seen.ended, 0), coalesce(seen.gone, 0)
        )) || ']'
        FROM progress AS one
        LEFT JOIN executions AS seen ON seen.id = one.id AND seen.execution_id = one.execution_id
        WHERE one.together = progress.together
    )
FROM progress
WHERE progress.together IS NOT NULL;

-- The columns of LedgerRow, its request as its four columns. A row of a group has no execution of its own, but the
-- group's as candidates.
CREATE TEMP VIEW ledger_rows (
    id, key, application_id, job, params, secret, state, attempts, doubts, sent_at, ended_at, execution_id, request_id,
    adopted, code, message, candidates, note
) AS
SELECT
    jobs.id, jobs.key, jobs.application_id, jobs.job, jobs.params, jobs.secret,
    progress.state, progress.attempts, progress.doubts, progress.sent_at, progress.ended_at,
    iif(progress.together IS NULL, progress.execution_id, NULL),
    progress.request_id, progress.adopted, progress.code, progress.message,
    iif(
        progress.state = 2 AND progress.together IS NOT NULL,
        (SELECT execution_ids FROM grouped WHERE grouped.id = progress.id),
        progress.candidates
    ),
    progress.note
FROM jobs
LEFT JOIN progress ON progress.id = jobs.id
WHERE NOT EXISTS (SELECT 1 FROM gone WHERE gone.id = jobs.id);

-- The columns of RunInfo.
CREATE TEMP VIEW run_infos (
    id, name, manifest, digest, planned, rows, created_at, endpoint_url, region_name, account_id, gone
) AS
SELECT
    runs.id, runs.name, runs.manifest, runs.digest, runs.planned, runs.rows, runs.created_at,
    destinations.endpoint_url, destinations.region_name, destinations.account_id,
    (SELECT count(*) FROM gone WHERE gone.id BETWEEN runs.id << 32 AND (runs.id << 32) + runs.rows)
FROM runs
LEFT JOIN destinations ON entry = (SELECT max(last.entry) FROM destinations AS last WHERE last.run = runs.id);
