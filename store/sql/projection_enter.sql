-- Lets the rest of a transaction use the tables of a version of a projection without their schema,
-- and ends it if its client does not answer for the duration of a lease.
-- $1 schema, $2 duration in milliseconds.
select
    set_config('search_path', concat_ws(', ', $1, nullif(current_setting('search_path'), '')), true),
    set_config('idle_in_transaction_session_timeout', $2::text, true)
