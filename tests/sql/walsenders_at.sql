-- Counts the walsenders whose clients have flushed the WAL up to a position. $1 the position.
select count(*) from pg_stat_replication s where s.flush_lsn >= $1::pg_lsn
