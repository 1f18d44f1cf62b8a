-- How many advisory locks are held in this database, by whichever session.
select count(*) from pg_locks
where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())
