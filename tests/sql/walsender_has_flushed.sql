-- Whether a walsender's client has flushed all WAL.
select exists (select from pg_stat_replication s where s.flush_lsn >= pg_current_wal_lsn())
