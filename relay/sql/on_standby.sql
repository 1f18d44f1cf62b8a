-- Whether a standby has on its disk what was written up to a place in the log, $1; null: what is written now.
-- One row: the place, whether a standby has it, and whether we may know (pg_read_all_stats).
with place as materialized (select coalesce($1::pg_lsn, pg_current_wal_insert_lsn()) as lsn)
select
    place.lsn::text as lsn,
    exists (select from pg_stat_replication s where s.flush_lsn >= place.lsn) as is_there,
    pg_has_role('pg_read_all_stats', 'usage') as may_know
from place
