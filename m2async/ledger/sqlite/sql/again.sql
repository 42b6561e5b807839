-- A manifest that is given again: its rows wait in a place of their own, and are compared with those of runs.
--
-- :first and :end are the ids that the given rows lie between, :base and :last those of the run that they are compared
-- with. A row may have been started where progress says so, or where it was restarted.

-- name: kin
-- The runs that the given rows were in last, each with how many of them. Each row is looked for at the end of a stretch
-- of the index, so the number of runs does not count; what no run counts as its own is passed over.
SELECT found.id >> 32 AS run, sum(found.rows) AS rows
FROM (
    SELECT
        given.rows,
        max(
            coalesce((
                SELECT jobs.id
                FROM jobs
                CROSS JOIN runs ON runs.id = jobs.run
                WHERE
                    jobs.request = given.request AND jobs.named = given.named AND jobs.id NOT BETWEEN :first AND :end
                    AND jobs.id & 0xFFFFFFFF <= runs.rows AND runs.id NOT IN (SELECT value FROM json_each(:unlike))
                    AND NOT EXISTS (SELECT 1 FROM gone WHERE gone.id = jobs.id)
                ORDER BY jobs.id DESC
                LIMIT 1
            ), 0),
            coalesce((
                SELECT jobs.id
                FROM jobs
                CROSS JOIN runs ON runs.id = jobs.run
                WHERE
                    given.named <> 0
                    AND jobs.request = given.request AND jobs.named = 0 AND jobs.id NOT BETWEEN :first AND :end
                    AND jobs.id & 0xFFFFFFFF <= runs.rows AND runs.id NOT IN (SELECT value FROM json_each(:unlike))
                    AND NOT EXISTS (SELECT 1 FROM gone WHERE gone.id = jobs.id)
                ORDER BY jobs.id DESC
                LIMIT 1
            ), 0),
            coalesce((
                SELECT max(jobs.id)
                FROM jobs
                CROSS JOIN runs ON runs.id = jobs.run
                WHERE
                    given.named = 0
                    AND jobs.request = given.request AND jobs.named <> 0 AND jobs.id NOT BETWEEN :first AND :end
                    AND jobs.id & 0xFFFFFFFF <= runs.rows AND runs.id NOT IN (SELECT value FROM json_each(:unlike))
                    AND NOT EXISTS (SELECT 1 FROM gone WHERE gone.id = jobs.id)
            ), 0)
        ) AS id
    FROM (
        SELECT request, named, count(*) AS rows
        FROM jobs
        WHERE id BETWEEN :first AND :end
        GROUP BY request, named
    ) AS given
) AS found
WHERE found.id > 0
GROUP BY 1
ORDER BY rows DESC, run DESC;

-- name: planned_runs
SELECT count(*), coalesce(max(id), 0), coalesce(sum(rows), 0) FROM runs WHERE planned;

-- name: make_pairs
CREATE TEMP TABLE IF NOT EXISTS pairs (
    given INTEGER PRIMARY KEY,
    planned INTEGER NOT NULL UNIQUE,
    same INTEGER NOT NULL
);

-- name: make_differing
-- change: as in changes.py; given or planned is NULL where there is no such row.
CREATE TEMP TABLE IF NOT EXISTS differing (
    change INTEGER NOT NULL,
    given INTEGER,
    planned INTEGER,
    may_have_started INTEGER NOT NULL,
    elsewhere INTEGER NOT NULL DEFAULT 0
);

-- name: forget_pairs
DELETE FROM temp.pairs;

-- name: forget_differing
DELETE FROM temp.differing;

-- name: pair_by_key
INSERT INTO temp.pairs (given, planned, same)
SELECT given.id, planned.id, given.request = planned.request
FROM jobs AS given
CROSS JOIN jobs AS planned ON planned.run = :run AND planned.key = given.key
WHERE
    given.id BETWEEN :first AND :end AND given.named <> 0
    AND planned.id <= :last AND planned.named <> 0;

-- name: has_numbered
SELECT
    EXISTS (SELECT 1 FROM jobs WHERE id BETWEEN :first AND :end AND named = 0)
    OR EXISTS (SELECT 1 FROM jobs WHERE id BETWEEN :base AND :last AND named = 0);

-- name: pair_by_request
-- The nth given row of a request with the nth planned one, where either has no key: first those that may have started.
INSERT INTO temp.pairs (given, planned, same)
WITH
given AS MATERIALIZED (
    SELECT id, request, row_number() OVER (PARTITION BY request ORDER BY id) AS nth
    FROM jobs
    WHERE
        id BETWEEN :first AND :end AND id NOT IN (SELECT given FROM temp.pairs)
        AND (named = 0 OR :to_numbered)
),
planned AS MATERIALIZED (
    SELECT
        jobs.id,
        jobs.request,
        row_number() OVER (
            PARTITION BY jobs.request
            ORDER BY
                coalesce(progress.state, 0) IN (1, 2, 4) DESC,
                EXISTS (SELECT 1 FROM withdrawn WHERE withdrawn.id = jobs.id),
                jobs.id
        ) AS nth
    FROM jobs
    LEFT JOIN progress ON progress.id = jobs.id
    WHERE
        jobs.id BETWEEN :base AND :last AND jobs.id NOT IN (SELECT planned FROM temp.pairs)
        AND (jobs.named = 0) = :to_numbered
)
SELECT given.id, planned.id, 1
FROM given
INNER JOIN planned ON planned.request = given.request AND planned.nth = given.nth;

-- name: find_differing
-- What was withdrawn before is no difference, unless it is given again and surely did not start.
INSERT INTO temp.differing (change, given, planned, may_have_started)
WITH
ordered (id, after) AS MATERIALIZED (
    SELECT row.planned, before.planned
    FROM dependencies
    INNER JOIN temp.pairs AS row ON row.given = dependencies.id
    LEFT JOIN temp.pairs AS before ON before.given = dependencies.after
    WHERE dependencies.id BETWEEN :first AND :end
),
ordered_before (id, after) AS MATERIALIZED (SELECT id, after FROM dependencies WHERE id BETWEEN :base AND :last),
reordered (id) AS MATERIALIZED (
    SELECT id FROM (SELECT id, after FROM ordered EXCEPT SELECT id, after FROM ordered_before)
    UNION
    SELECT id FROM (SELECT id, after FROM ordered_before EXCEPT SELECT id, after FROM ordered)
),
found (change, given, planned) AS (
    SELECT 0, id, NULL FROM jobs WHERE id BETWEEN :first AND :end AND id NOT IN (SELECT given FROM temp.pairs)
    UNION ALL
    SELECT 1, NULL, id FROM jobs WHERE id BETWEEN :base AND :last AND id NOT IN (SELECT planned FROM temp.pairs)
    UNION ALL
    SELECT iif(same, 0, 2), given, planned
    FROM temp.pairs
    WHERE NOT same OR planned IN (SELECT id FROM withdrawn)
    UNION ALL
    SELECT 3, given, planned
    FROM temp.pairs
    WHERE same AND planned IN (SELECT id FROM reordered) AND planned NOT IN (SELECT id FROM withdrawn)
),
judged (change, given, planned, may_have_started, gone) AS (
    SELECT
        change,
        given,
        planned,
        EXISTS (SELECT 1 FROM progress WHERE id = planned AND (state IN (1, 2, 4) OR doubts > 0))
        OR EXISTS (SELECT 1 FROM restarts WHERE id = planned),
        EXISTS (SELECT 1 FROM withdrawn WHERE id = planned)
    FROM found
)
SELECT change, given, planned, may_have_started
FROM judged
WHERE NOT gone OR (change <> 1 AND NOT may_have_started);

-- name: find_elsewhere
-- Which of the rows that would be started as they are given now are another run's: it started them, or may have, or would
-- once it is gone on with.
UPDATE temp.differing
SET elsewhere = 1
WHERE
    change IN (0, 2) AND NOT may_have_started
    AND EXISTS (
        SELECT 1
        FROM (
            SELECT other.id, other.run, given.run AS given_in
            FROM jobs AS given
            CROSS JOIN jobs AS other ON other.request = given.request AND other.named = given.named
            WHERE given.id = differing.given
            UNION ALL
            SELECT other.id, other.run, given.run
            FROM jobs AS given
            CROSS JOIN jobs AS other ON other.request = given.request AND other.named = 0
            WHERE given.id = differing.given AND given.named <> 0
            UNION ALL
            SELECT other.id, other.run, given.run
            FROM jobs AS given
            CROSS JOIN jobs AS other ON other.request = given.request AND other.named <> 0
            WHERE given.id = differing.given AND given.named = 0
        ) AS other
        CROSS JOIN runs ON runs.id = other.run
        WHERE
            other.run NOT IN (other.given_in, :run)
            AND other.id & 0xFFFFFFFF <= runs.rows AND runs.id NOT IN (SELECT value FROM json_each(:unlike))
            AND NOT EXISTS (
                SELECT 1
                FROM gone
                WHERE
                    gone.id = other.id AND NOT gone.doubts
                    AND NOT EXISTS (SELECT 1 FROM restarts WHERE restarts.id = gone.id)
            )
    );

-- name: count_differing
SELECT change, may_have_started, elsewhere, named = 0, count(*)
FROM temp.differing
INNER JOIN jobs ON jobs.id = coalesce(given, planned)
GROUP BY 1, 2, 3, 4
ORDER BY 1, 2, 3, 4;

-- name: keys_of_differing
SELECT jobs.key
FROM temp.differing
INNER JOIN jobs ON jobs.id = coalesce(given, planned)
WHERE change = :change AND may_have_started = :may_have_started AND elsewhere = :elsewhere AND (named = 0) = :numbered
ORDER BY jobs.id
LIMIT :limit;

-- name: given_as
SELECT pairs.given - :first, pairs.planned & 0xFFFFFFFF
FROM json_each(:numbers) AS number
CROSS JOIN temp.pairs ON pairs.given = :first + number.value
WHERE NOT EXISTS (SELECT 1 FROM gone WHERE gone.id = pairs.planned);

-- Making the run's rows those that are given: in one transaction.

-- name: number_added
-- With those of another run, which are withdrawn at once: so what comes after them is held, and not started too early.
INSERT INTO temp.pairs (given, planned, same)
SELECT given, :last + row_number() OVER (ORDER BY given), 1
FROM temp.differing
WHERE change = 0 AND planned IS NULL;

-- name: clash
-- A key that an added row would have beside another row.
WITH added (key, id) AS (
    SELECT iif(named, key, CAST(pairs.planned & 0xFFFFFFFF AS TEXT)), pairs.planned
    FROM temp.pairs
    CROSS JOIN jobs ON jobs.id = pairs.given
    WHERE pairs.planned > :last
)
SELECT key, min(id) & 0xFFFFFFFF, max(id) & 0xFFFFFFFF
FROM (
    SELECT key, id FROM added
    UNION ALL
    SELECT added.key, jobs.id FROM added CROSS JOIN jobs ON jobs.run = :run AND jobs.key = added.key
)
GROUP BY key
HAVING count(*) > 1
LIMIT 1;

-- name: add_given
-- A row without a key is called by its number in the run.
INSERT INTO jobs (id, run, key, application_id, job, params, secret, request, named)
SELECT
    pairs.planned, :run, iif(named, key, CAST(pairs.planned & 0xFFFFFFFF AS TEXT)), application_id, job, params,
    secret, request, named
FROM temp.pairs
CROSS JOIN jobs ON jobs.id = pairs.given
WHERE pairs.planned > :last
ORDER BY pairs.planned;

-- name: change_rows
UPDATE jobs
SET
    application_id = now.application_id,
    job = now.job,
    params = now.params,
    secret = now.secret,
    request = now.request,
    named = now.named
FROM (
    SELECT differing.planned, given.*
    FROM temp.differing
    CROSS JOIN jobs AS given ON given.id = differing.given
    WHERE change = 2 AND NOT may_have_started AND NOT elsewhere
) AS now
WHERE jobs.id = now.planned;

-- name: note_changed
INSERT INTO history (id, attempt, event, ended_at, note, open)
SELECT id, attempts, :event, :at, :note, 0
FROM progress
WHERE id IN (SELECT planned FROM temp.differing WHERE change = 2 AND NOT may_have_started AND NOT elsewhere);

-- name: settle_changed
UPDATE history
SET open = 0
WHERE
    open = -1
    AND id IN (SELECT planned FROM temp.differing WHERE change = 2 AND NOT may_have_started AND NOT elsewhere);

-- name: let_changed_start
UPDATE progress
SET state = 0, note = :note
WHERE id IN (SELECT planned FROM temp.differing WHERE change = 2 AND NOT may_have_started AND NOT elsewhere);

-- name: restore
DELETE FROM withdrawn
WHERE id IN (
    SELECT planned FROM temp.pairs WHERE same
    UNION
    SELECT planned FROM temp.differing WHERE change = 2 AND NOT may_have_started AND NOT elsewhere
);

-- name: withdraw
INSERT OR IGNORE INTO withdrawn (id)
SELECT coalesce(differing.planned, pairs.planned)
FROM temp.differing
LEFT JOIN temp.pairs ON pairs.given = differing.given
WHERE change = 1 OR (change = 2 AND may_have_started) OR elsewhere;

-- name: forget_order
DELETE FROM dependencies WHERE id BETWEEN :base AND :last;

-- name: order_given
INSERT INTO dependencies (id, after)
SELECT row.planned, before.planned
FROM dependencies
INNER JOIN temp.pairs AS row ON row.given = dependencies.id
INNER JOIN temp.pairs AS before ON before.given = dependencies.after
WHERE dependencies.id BETWEEN :first AND :end;
