-- Lets nobody connect to a database that is about to be copied, and ends whoever is; `the_database`
-- stands for its name.
select pg_terminate_backend(pid, 10000) from pg_stat_activity where datname = 'the_database'
