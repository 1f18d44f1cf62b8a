-- Ends the sessions of this database that apply events of a projection.
select pg_terminate_backend(pid, 10000) from pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid()
    and (state = 'idle in transaction' or query like '%projection%' or query like '%balance_%')
