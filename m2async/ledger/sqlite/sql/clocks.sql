-- The clocks that the times of attempts were read off.

-- name: new_clock
INSERT INTO clocks (id, opened_at, at, boot, base, wall, least, most, since)
VALUES (:id, :opened_at, :at, :boot, :base, :wall, :least, :most, :since);

-- name: last_clock
SELECT max(id) FROM clocks WHERE id BETWEEN :first AND :last;

-- name: clocks
SELECT id, opened_at, at, boot, base, wall, least, most, since FROM clocks ORDER BY at - base, id;
