-- Made in each connection that writes: a view through which a batch of intents and answers, of many rows, is written
-- by a single statement. Outside a transaction that is one step from the lock to the synced commit, in which
-- the interpreter's lock is let go of, and fought for again with a busy event loop, once.
--
-- Each column is a JSON array of arrays, one for each row. A write changes only a row that stands where the write
-- says; where one does not, nothing of the batch is written, and the error says "misfit".

CREATE TEMP VIEW attempts (
    first_intents, -- [id, sent_at]
    further_intents, -- [id, attempt, state that it must be in, sent_at]
    ended, -- [id, attempt, next state, next state with an earlier attempt in doubt, doubts more, ended_at,
    --        execution_id, request_id, code, message, event]
    ended_otherwise -- those of them that did not start the job: they go into the history
) AS SELECT NULL, NULL, NULL, NULL;

CREATE TEMP TRIGGER write_attempts INSTEAD OF INSERT ON attempts
BEGIN
    INSERT OR IGNORE INTO progress (id, state, attempts, sent_at)
    SELECT json_extract(value, '$[0]'), 1, 1, json_extract(value, '$[1]')
    FROM json_each(new.first_intents);

    SELECT raise(ABORT, 'misfit') WHERE changes() <> json_array_length(new.first_intents);

    UPDATE progress
    SET state = 1, attempts = given.attempt, sent_at = given.sent_at, ended_at = NULL
    FROM (
        SELECT
            json_extract(value, '$[0]') AS id,
            json_extract(value, '$[1]') AS attempt,
            json_extract(value, '$[2]') AS state,
            json_extract(value, '$[3]') AS sent_at
        FROM json_each(new.further_intents)
    ) AS given
    WHERE progress.id = given.id AND progress.state = given.state AND progress.attempts = given.attempt - 1;

    SELECT raise(ABORT, 'misfit') WHERE changes() <> json_array_length(new.further_intents);

    -- Where an earlier doubt decides the state, its error stays.
    UPDATE progress
    SET
        state = iif(progress.doubts, given.state_in_doubt, given.state),
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
            json_extract(value, '$[9]') AS message
        FROM json_each(new.ended)
    ) AS given
    WHERE progress.id = given.id AND progress.state = 1 AND progress.attempts = given.attempt;

    SELECT raise(ABORT, 'misfit') WHERE changes() <> json_array_length(new.ended);

    INSERT INTO history (id, attempt, event, sent_at, ended_at, code, message, request_id, open)
    SELECT
        progress.id,
        progress.attempts,
        json_extract(value, '$[10]'),
        progress.sent_at,
        json_extract(value, '$[5]'),
        json_extract(value, '$[8]'),
        json_extract(value, '$[9]'),
        json_extract(value, '$[7]'),
        json_extract(value, '$[4]')
    FROM json_each(new.ended_otherwise)
    INNER JOIN progress ON progress.id = json_extract(value, '$[0]');
END;
