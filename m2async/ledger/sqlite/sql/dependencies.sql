-- Which rows come after which; written in the transaction that a run is planned with.

-- name: add_dependency
INSERT INTO dependencies (id, after)
SELECT later.id, earlier.id
FROM jobs AS later, jobs AS earlier
WHERE later.run = :run AND later.key = :key AND earlier.run = :run AND earlier.key = :after;

-- name: dependencies
SELECT later.key, earlier.key
FROM dependencies
CROSS JOIN jobs AS later ON later.id = dependencies.id
CROSS JOIN jobs AS earlier ON earlier.id = dependencies.after
WHERE dependencies.id BETWEEN ? AND ?
ORDER BY dependencies.id, dependencies.after;
