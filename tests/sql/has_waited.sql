-- Whether a session of this database has waited for a lock for so many milliseconds.
-- $1 milliseconds.
select exists (
    select from pg_locks l join pg_stat_activity a using (pid)
    where a.datname = current_database() and not l.granted and l.waitstart < clock_timestamp() - $1 * interval '1 millisecond'
)
