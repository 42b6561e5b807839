-- The pace of a run in progress.

-- name: pace
SELECT rate, burst, set_at FROM paces WHERE run = ?;

-- name: set_pace
INSERT OR REPLACE INTO paces (run, rate, burst, set_at) VALUES (?, ?, ?, ?);
