-- Whether a program has asked where the log of this database stands since a time, has its answer,
-- and has asked nothing else on that connection after it. $1 the program's name, $2 the time as
-- text.
select exists (
    select from pg_stat_activity
    where datname = current_database() and application_name = $1 and state = 'idle'
        and query like '-- Reads the current end of the log%' and query_start > $2::timestamptz
)
