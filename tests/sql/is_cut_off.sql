-- Whether the standby gets nothing.
select not exists (select from pg_stat_wal_receiver)
