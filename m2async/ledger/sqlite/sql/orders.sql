-- What a run is told from another terminal, and what is asked of whoever has it open for writing.

-- name: orders
SELECT rate, burst, paused, stopped, told_at FROM orders WHERE run = ?;

-- name: order_pace
INSERT INTO orders (run, rate, burst) VALUES (:run, :rate, :burst)
ON CONFLICT (run) DO UPDATE SET rate = excluded.rate, burst = excluded.burst;

-- name: order_pause
-- To go on takes back a stop as well; what stands already has been told since then.
INSERT INTO orders (run, paused, told_at) VALUES (:run, :paused, :at)
ON CONFLICT (run) DO UPDATE SET
    paused = excluded.paused,
    stopped = iif(excluded.paused, orders.stopped, 0),
    told_at = iif(excluded.paused AND (orders.paused OR orders.stopped), orders.told_at, excluded.told_at);

-- name: order_stop
INSERT INTO orders (run, stopped, told_at) VALUES (:run, 1, :at)
ON CONFLICT (run) DO UPDATE SET stopped = 1, told_at = iif(orders.stopped, orders.told_at, excluded.told_at);

-- name: forget_pace
UPDATE orders SET rate = NULL, burst = NULL WHERE run = ?;

-- name: forget_orders
DELETE FROM orders WHERE run = ?;

-- name: ask
INSERT INTO asked (run, deed) VALUES (?, ?);

-- name: answer_to
SELECT coalesce(answer, '') FROM asked WHERE entry = ?;

-- name: withdraw
DELETE FROM asked WHERE entry = ? RETURNING answer IS NULL;

-- name: asked
SELECT entry, deed FROM asked WHERE run = ? AND answer IS NULL ORDER BY entry;

-- name: take_on
UPDATE asked SET answer = '' WHERE entry = ? AND answer IS NULL;

-- name: answer
UPDATE asked SET answer = :text WHERE entry = :entry;

-- name: forget_asked
-- But what was carried out: whoever asked may not have read the answer yet.
DELETE FROM asked WHERE run = ? AND coalesce(answer, '') = '';
