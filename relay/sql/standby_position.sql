-- Whether a standby has flushed the WAL up to a position. $1 WAL position; null: the current one.
-- One row: the position, whether a standby has flushed it, and whether the user may know
-- (pg_read_all_stats).
with wal as materialized (select coalesce($1::pg_lsn, pg_current_wal_insert_lsn()) as lsn)
select
    wal.lsn::text as lsn,
    exists (select from pg_stat_replication s where s.flush_lsn >= wal.lsn) as is_flushed,
    pg_has_role('pg_read_all_stats', 'usage') as may_know
from wal
