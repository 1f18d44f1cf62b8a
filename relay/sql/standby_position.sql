-- Whether a standby has flushed the WAL up to a position. $1 WAL position; null: the current one,
-- $2 the names of the standbys that count; empty: every physical standby.
-- One row: the position, whether a standby has flushed it, and whether the user may know
-- (pg_read_all_stats).
-- Other walsenders are no standbys: a logical subscriber has a logical slot, a base backup does not
-- stream, and pg_receivewal keeps WAL that no server replays.
with wal as materialized (select coalesce($1::pg_lsn, pg_current_wal_insert_lsn()) as lsn)
select
    wal.lsn::text as lsn,
    exists (
        select from pg_stat_replication s
        where s.flush_lsn >= wal.lsn and s.state = 'streaming'
            and case
                when cardinality($2::text[]) > 0 then s.application_name = any ($2)
                else s.application_name <> 'pg_receivewal'
            end
            and not exists (
                select from pg_replication_slots r where r.active_pid = s.pid and r.slot_type = 'logical'
            )
    ) as is_flushed,
    pg_has_role('pg_read_all_stats', 'usage') as may_know
from wal
