-- What a run in progress is told from another terminal.

-- name: orders
SELECT rate, burst, paused, stopped FROM orders WHERE run = ?;

-- name: order_pace
INSERT INTO orders (run, rate, burst) VALUES (:run, :rate, :burst)
ON CONFLICT (run) DO UPDATE SET rate = excluded.rate, burst = excluded.burst;

-- name: order_pause
INSERT INTO orders (run, paused) VALUES (:run, :paused) ON CONFLICT (run) DO UPDATE SET paused = excluded.paused;

-- name: order_stop
INSERT INTO orders (run, stopped) VALUES (:run, 1) ON CONFLICT (run) DO UPDATE SET stopped = 1;

-- name: forget_orders
DELETE FROM orders WHERE run = ?;
