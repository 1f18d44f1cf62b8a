-- How many transactions the database has committed; one that asks every time is among them.
select xact_commit from pg_stat_database where datname = current_database()
