-- Counts the sessions of this database that began after a time: a session reports its counters when
-- it ends. $1 the time. Always one row.
select count(*) as sessions from pg_stat_activity
where datname = current_database() and backend_type = 'client backend' and backend_start >= $1::text::timestamptz
