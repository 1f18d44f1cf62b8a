-- Whether there is a database of this name.
select exists (select from pg_database where datname = $1)
