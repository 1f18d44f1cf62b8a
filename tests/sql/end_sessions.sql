-- Ends every session of a database: it can be copied or dropped then. `the_database` stands for its
-- name.
select pg_terminate_backend(pid, 10000) from pg_stat_activity where datname in ('the_database', 'the_database_copy')
