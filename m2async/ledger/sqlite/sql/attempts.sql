-- Made in each connection that writes: a view through which a batch of intents and answers, of many rows, is written
-- by a single statement. Outside a transaction that is one step from the lock to the synced commit, in which
-- the interpreter's lock is let go of, and fought for again with a busy event loop, once.
--
-- Each column but the last is a JSON array of arrays, one for each row. A write changes only a row that stands where the
-- write says; where one does not, nothing of the batch is written, and the error says "misfit".

CREATE TEMP VIEW attempts (
    first_intents, -- [id, sent_at, clock, not_after]
    further_intents, -- [id, attempt, state that it must be in, sent_at, clock, not_after]
    ended, -- [id, attempt, next state, next state with an earlier attempt in doubt, doubts more, ended_at,
    --        execution_id, request_id, code, message, event, clock, attempts that count, ended by the service]
    ended_otherwise, -- those of them that go into the history: they were sent, and did not start the job
    is_commit -- 1 if the statement is a commit by itself, which is tagged (see commits.py)
) AS SELECT NULL, NULL, NULL, NULL, NULL;

CREATE TEMP TRIGGER write_attempts INSTEAD OF INSERT ON attempts
BEGIN
    -- The first may have been withdrawn before.
    INSERT INTO progress (id, state, attempts, sent_at, clock, not_after)
    SELECT
        json_extract(value, '$[0]'),
        1,
        1,
        json_extract(value, '$[1]'),
        json_extract(value, '$[2]'),
        json_extract(value, '$[3]')
    FROM json_each(new.first_intents)
    WHERE TRUE
    ON CONFLICT (id) DO UPDATE SET
        state = 1,
        attempts = 1,
        sent_at = excluded.sent_at,
        clock = excluded.clock,
        not_after = excluded.not_after,
        ended_at = NULL
    WHERE progress.state = 0 AND progress.attempts = 0;

    SELECT raise(ABORT, 'misfit') WHERE changes() <> json_array_length(new.first_intents);

    UPDATE progress
    SET
        state = 1,
        attempts = given.attempt,
        sent_at = given.sent_at,
        clock = given.clock,
        not_after = given.not_after,
        ended_at = NULL
    FROM (
        SELECT
            json_extract(value, '$[0]') AS id,
            json_extract(value, '$[1]') AS attempt,
            json_extract(value, '$[2]') AS state,
            json_extract(value, '$[3]') AS sent_at,
            json_extract(value, '$[4]') AS clock,
            json_extract(value, '$[5]') AS not_after
        FROM json_each(new.further_intents)
    ) AS given
    WHERE
        progress.id = given.id AND progress.state = given.state AND progress.attempts = given.attempt - 1
        AND NOT EXISTS (SELECT 1 FROM withdrawn WHERE withdrawn.id = given.id);

    SELECT raise(ABORT, 'misfit') WHERE changes() <> json_array_length(new.further_intents);

    -- Where an earlier doubt decides the state, its error stays.
    UPDATE progress
    SET
        state = iif(progress.doubts, given.state_in_doubt, given.state),
        attempts = given.counted,
        doubts = progress.doubts + given.doubts,
        ended_at = given.ended_at,
        execution_id = given.execution_id,
        request_id = given.request_id,
        code = iif(progress.doubts AND given.state_in_doubt <> given.state, progress.code, given.code),
        message = iif(progress.doubts AND given.state_in_doubt <> given.state, progress.message, given.message)
    FROM (
        SELECT
            json_extract(value, '$[0]') AS id,
            json_extract(value, '$[1]') AS attempt,
            json_extract(value, '$[2]') AS state,
            json_extract(value, '$[3]') AS state_in_doubt,
            json_extract(value, '$[4]') AS doubts,
            json_extract(value, '$[5]') AS ended_at,
            json_extract(value, '$[6]') AS execution_id,
            json_extract(value, '$[7]') AS request_id,
            json_extract(value, '$[8]') AS code,
            json_extract(value, '$[9]') AS message,
            json_extract(value, '$[12]') AS counted
        FROM json_each(new.ended)
    ) AS given
    WHERE progress.id = given.id AND progress.state = 1 AND progress.attempts = given.attempt;

    SELECT raise(ABORT, 'misfit') WHERE changes() <> json_array_length(new.ended);

    INSERT INTO history (
        id, attempt, event, sent_at, clock, not_after, ended_at, ended_clock, code, message, request_id, open,
        ended_by_service
    )
    SELECT
        progress.id,
        progress.attempts,
        json_extract(value, '$[10]'),
        progress.sent_at,
        progress.clock,
        progress.not_after,
        json_extract(value, '$[5]'),
        json_extract(value, '$[11]'),
        json_extract(value, '$[8]'),
        json_extract(value, '$[9]'),
        json_extract(value, '$[7]'),
        json_extract(value, '$[4]'),
        json_extract(value, '$[13]')
    FROM json_each(new.ended_otherwise)
    INNER JOIN progress ON progress.id = json_extract(value, '$[0]');

    UPDATE commits
    SET count = count + 1, number = CAST(printf('%016x', count + 1) AS BLOB), own = randomblob(8), before = own
    WHERE new.is_commit;
END;
